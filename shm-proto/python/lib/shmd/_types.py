"""What stat(), channels(), resize() and the content of a channel are. Newer daemons may add keys. Sizes are in bytes."""

from typing import Any, TypedDict


class Rate(TypedDict):
    """An average over some time."""

    messages_per_s: float
    bytes_per_s: float


class Latency(TypedDict):
    """How long messages took from publishing to receiving, since the reader attached."""

    messages: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    max_ns: int


class _Schema(TypedDict):
    name: str
    bytes: int


class Schema(_Schema, total=False):
    """The schema of a channel's messages; schema() returns its text. The language and the hash of the text may be missing."""

    encoding: str
    hash: str


class _Content(TypedDict):
    encoding: str


class Content(_Content, total=False):
    """What a channel's configuration declares about its messages: how they are encoded, and perhaps their schema."""

    schema: Schema


class CreatedBy(TypedDict):
    """The user who created a channel while the daemon ran, and the time in milliseconds since 1970."""

    user: str
    time_ms: int
    kept: bool


class _ReaderStat(TypedDict):
    reader: int
    pid: int
    program: str
    user: str
    state: str
    lag_messages: int
    lag_bytes: int
    received: int
    lost: int
    heartbeat_ms: int
    wait: str


class ReaderStat(_ReaderStat, total=False):
    """An attached reader. It may have a status, and in a channel with publish times the rest, too."""

    status: str
    oldest_unread_ns: int
    latency: Latency


class WriterStat(TypedDict):
    """The present writer."""

    pid: int
    program: str
    user: str
    role: str
    state: str
    heartbeat_ms: int


class _ChannelStat(TypedDict):
    channel: str
    segment: str
    mode: str
    on_full: str
    capacity: int
    min: int
    max: int
    reserved: int
    memory: int
    memory_total: int
    pending: int | None
    used: int
    retained: int
    max_message: int
    align: int
    timestamps: bool
    messages: int
    bytes: int
    messages_per_s: float
    bytes_per_s: float
    last_minute: Rate
    last_hour: Rate
    dropped: int
    overwritten: int
    resizes: int
    evicted: int
    max_readers: int
    stalled_after_ms: int
    source: str
    writer: WriterStat | None
    readers: list[ReaderStat]


class ChannelStat(_ChannelStat, total=False):
    """A channel, as ``shmctl stat --json`` shows it."""

    input: dict[str, Any]
    handoff: dict[str, Any]
    created: CreatedBy
    content: Content


class _ChannelSummary(TypedDict):
    channel: str
    mode: str
    capacity: int
    readers: int
    writer: str
    allowed: list[str]


class ChannelSummary(_ChannelSummary, total=False):
    """A channel, as ``shmctl list`` shows it."""

    created: CreatedBy
    content: Content


class Resized(TypedDict):
    """The result of a resize. A pending one takes effect when the readers have left the memory that is to be given back."""

    channel: str
    old: int
    asked: int
    new: int
    pending: bool
