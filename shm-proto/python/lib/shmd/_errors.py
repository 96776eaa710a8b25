"""The exceptions of shmd. Every message names the object, the numbers and the cause."""


class Error(Exception):
    """Anything that goes wrong in shmd, except wrong use of its objects (ValueError, TypeError, BufferError, RuntimeError)."""

    published: int = 0
    """Of a batch or an array that failed: how many of its messages were published before."""


class TimedOutError(Error, TimeoutError):
    """A wait timed out. A message that was to be published is not published."""


class WouldBlockError(Error, BlockingIOError):
    """try_publish() would have to wait. The message is not published."""


class ClosedError(Error):
    """The channel is closed, and this reader has read everything in it."""


class DisconnectedError(Error, ConnectionError):
    """The daemon and the writer are gone. This reader has read everything that was published."""


class EvictedError(Error):
    """This reader held up a lossless channel for too long, or an administrator detached it. Attach again to go on."""


class OverwrittenError(Error):
    """What was read of a message was overwritten while it was read. Receive again to go on."""

    lost: int = 0
    """How many messages this reader will never see, as far as that is known."""


class WithdrawnError(Error):
    """What was read is not a message: its writer had lost its role. Receive again to get the message with this number."""

    seq: int = 0
    """The number that the message would have had."""


class TooLargeError(Error, ValueError):
    """The message is larger than the channel's max_message."""


class NoSpaceError(Error):
    """The message needs more capacity than the channel has, and the channel cannot grow now."""


class UnacknowledgedError(Error, TimeoutError):
    """The message *is* published, but not every reader has read it yet."""

    seq: int = 0
    """The number of the message, or of the last one of a batch."""
    behind: int = 0
    """How many readers have not read it."""
    readers: int = 0
    """How many readers are attached."""


class RevokedError(Error):
    """The daemon took the writer role back. The message is not published."""


class SupersededError(Error):
    """The writer role ended while the message was published: readers may receive it or not."""

    seq: int = 0
    """The number of the message, or of the first one of a batch."""


class NoDaemonError(Error, ConnectionError):
    """No daemon answers."""


class RefusedError(Error):
    """The daemon refused a request."""

    kind: str = "unknown"
    """Why, for programs: no_such_channel, not_permitted, writer_taken, too_many, out_of_range, no_space, busy, try_later, ..."""
    channels: tuple[str, ...] = ()
    """The daemon's channels, where naming one would help."""
    retry_after: float | None = None
    """The request may succeed after so many seconds, and not before."""


class HandoffChannelError(Error):
    """The channel hands messages over one at a time and is not a ring."""


class BadNameError(Error, ValueError):
    """Text that cannot be a channel's name."""


class LayoutError(Error):
    """The daemon is from another release, whose segments this package does not understand."""


class CorruptError(Error):
    """The segment is not as the layout requires."""


class ProtocolError(Error):
    """What the daemon sent cannot be used."""


class SystemCallError(Error, OSError):
    """A system call failed; errno says why."""


class ForkedError(Error, RuntimeError):
    """A reader or writer is used in a child that os.fork() made; it belongs to the parent."""
