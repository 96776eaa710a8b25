"""Shared-memory messaging on one Linux host: read and write the channels of the daemon shmd.

    import shmd

    with shmd.Writer("cam") as w:          # one program at a time
        w.publish(b"hello")                # any object with a buffer: bytes, numpy arrays, ...

    with shmd.Reader("cam") as r:          # any number of programs
        for m in r:                        # or r.recv(timeout=1.0), r.try_recv(), async for m in r
            print(m.seq, m.lost, bytes(m))

A message is read where it lies: ``memoryview(m)`` and ``numpy.frombuffer(m, dtype)`` copy nothing and are read-only. The reader
cannot go on while such a view is alive: receiving then raises BufferError. ``bytes(m)`` is a copy that was valid; on a channel with
``on_full = "overwrite"``, where a message may be overwritten while it is read, that is the way to read it.

A reader or writer is for one thread at a time, and for the process that made it. After os.fork(), the child opens its own.
"""

from ._errors import (
    BadNameError,
    ClosedError,
    CorruptError,
    DisconnectedError,
    Error,
    EvictedError,
    ForkedError,
    HandoffChannelError,
    LayoutError,
    NoDaemonError,
    NoSpaceError,
    OverwrittenError,
    ProtocolError,
    RefusedError,
    RevokedError,
    SupersededError,
    SystemCallError,
    TimedOutError,
    TooLargeError,
    UnacknowledgedError,
    WithdrawnError,
    WouldBlockError,
)
from ._reader import Reader
from ._shmd import Batch, Message, Slot, Writer, __version__, channels, resize, schema, stat
from ._types import ChannelStat, ChannelSummary, Content, Resized

__all__ = [
    "BadNameError",
    "Batch",
    "ChannelStat",
    "ChannelSummary",
    "ClosedError",
    "Content",
    "CorruptError",
    "DisconnectedError",
    "Error",
    "EvictedError",
    "ForkedError",
    "HandoffChannelError",
    "LayoutError",
    "Message",
    "NoDaemonError",
    "NoSpaceError",
    "OverwrittenError",
    "ProtocolError",
    "Reader",
    "RefusedError",
    "Resized",
    "RevokedError",
    "Slot",
    "SupersededError",
    "SystemCallError",
    "TimedOutError",
    "TooLargeError",
    "UnacknowledgedError",
    "WithdrawnError",
    "WouldBlockError",
    "Writer",
    "__version__",
    "channels",
    "resize",
    "schema",
    "stat",
]
