"""The class Reader: receiving, with asyncio, too."""

import asyncio
from types import TracebackType
from typing import Self

from . import _shmd
from ._errors import ClosedError
from ._shmd import Message

_RUN = 64
"""After so many messages without a wait, the other tasks run."""

_LOOK_S = 1.0
"""How often a task that waits looks whether a process is left that could publish: after the daemon's death, nothing tells."""


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class Reader(_shmd.Reader):
    """Receives a channel's messages, each exactly once and in order.

    Without a channel, reads the daemon's only one. With ``start="new"``, begins with the next message that is published; with
    ``start="oldest"``, with the oldest one that is still there. The daemon is the one whose directory is runtime_dir; without
    that, $SHMD_RUNTIME_DIR, the user's own daemon or the system's. If the daemon dies, the reader waits up to patience seconds
    for one to come in its place (default: $SHMD_PATIENCE, or 30 s). With content, and schema if that matters, the channel has to
    declare this content (``content="protobuf", schema="telemetry.Frame"``); otherwise RefusedError has both names.

    ``wait`` trades latency for processor time: "adaptive" looks for 3 us before each sleep, and for up to 50 us if the last waits
    were short; "sleep" sleeps at once; "spin=TIME" looks for up to a time of 1us to 1s, such as "spin=50us", for a reader with a
    processor of its own. Where no wait is expected, in tasks and in try_recv(), a reader does not spin.

    Iteration, with ``for`` or ``async for``, ends when the channel is closed.

    A message can be read until the reader goes on to the next one, is closed, or finishes it (``m.finish()``, ``with m:``, or
    the last reference to it is gone). Only then may the writer use its space again, and only then is it acknowledged.
    """

    _awaited = False
    """A task waits for a message."""
    _watch: tuple[asyncio.AbstractEventLoop, int, asyncio.Future[None]] | None = None
    """The loop that watches the descriptor for this task, and what wakes the task."""
    _run = 0
    """Messages that a task has received without a wait."""

    def close(self) -> None:
        """Ends the attachment. A task that waits for a message ends with ValueError."""
        self._leave_loop()
        super().close()
        self._wake_task()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave_loop()
        super().__exit__(kind, value, traceback)
        self._wake_task()

    def _leave_loop(self) -> None:
        """A loop must not watch a descriptor that is closed: it would not notice that another one has got the number."""
        watch = self._watch
        if watch is not None and watch[0] is _running_loop():
            loop, fd, future = watch
            self._watch = None
            loop.remove_reader(fd)
            _wake(future)

    def _wake_task(self) -> None:
        """Only a loop's own thread may change it: the task takes the descriptor out, soon. In a child, nothing was closed."""
        watch = self._watch
        if watch is not None and self.closed and not watch[0].is_closed():
            loop, _, future = watch
            loop.call_soon_threadsafe(_wake, future)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        try:
            return await self.arecv()
        except ClosedError:
            raise StopAsyncIteration from None

    async def arecv(self, timeout: float | None = None) -> Message:
        """The next message. The task waits for up to timeout seconds; other tasks go on.

        A task that is cancelled while it waits has received nothing. One task at a time may wait.
        """
        self._run += 1
        if self._run >= _RUN:
            self._run = 0
            await asyncio.sleep(0)
        message = self.try_recv()
        if message is None:
            self._run = 0
            message = await self._arrival(timeout)
        return message

    async def _arrival(self, timeout: float | None) -> Message:
        if self._awaited:
            raise RuntimeError(f"another task waits for a message of channel {self.channel}; open a reader for each task")
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        fd = self.fileno()
        self._awaited = True
        try:
            while True:
                # Arms the descriptor if there is no message.
                message = self.try_recv()
                if message is not None:
                    return message
                now = loop.time()
                if end is not None and now >= end:
                    # Has the exception.
                    return self.recv(0)
                future = loop.create_future()
                loop.add_reader(fd, _wake, future)
                self._watch = loop, fd, future
                timer = loop.call_at(now + _LOOK_S if end is None else min(now + _LOOK_S, end), _wake, future)
                try:
                    await future
                finally:
                    timer.cancel()
                    if self._watch is not None:
                        self._watch = None
                        loop.remove_reader(fd)
        finally:
            self._awaited = False
