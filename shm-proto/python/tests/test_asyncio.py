"""Receiving in a task, beside others."""

import asyncio
import os
import socket

import pytest
from conftest import PATIENCE, Daemon

import shmd


def test_a_stream_beside_other_tasks(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\n')
    count = 3000

    async def publish() -> None:
        with shmd.Writer() as writer:
            for n in range(count):
                while True:
                    try:
                        writer.try_publish(b"%d" % n)
                        break
                    except shmd.WouldBlockError:
                        await asyncio.sleep(0.001)
                if n % 100 == 0:
                    await asyncio.sleep(0.001)

    async def receive() -> list[int]:
        received = []
        async for message in reader:
            received.append(int(bytes(message)))
            if len(received) == count:
                break
        return received

    async def tick(while_running: "asyncio.Task[list[int]]") -> int:
        ticks = 0
        while not while_running.done():
            await asyncio.sleep(0)
            ticks += 1
        return ticks

    async def main() -> None:
        receiving = asyncio.create_task(receive())
        ticking = asyncio.create_task(tick(receiving))
        await publish()
        assert await asyncio.wait_for(receiving, PATIENCE) == list(range(count))
        assert await ticking > 10

    with shmd.Reader() as reader:
        asyncio.run(main())


def test_other_tasks_run_while_messages_are_there(daemon: Daemon) -> None:
    daemon.start()

    async def main() -> None:
        done = False

        async def other() -> None:
            nonlocal done
            await asyncio.sleep(0)
            done = True

        task = asyncio.create_task(other())
        n = 0
        async for message in reader:
            n += 1
            if done:
                break
        assert n < 1000
        await task

    with shmd.Reader() as reader, shmd.Writer() as writer:
        with writer.batch() as batch:
            for _ in range(1000):
                batch.push(b"x")
        asyncio.run(main())


def test_cancelling_loses_nothing(daemon: Daemon) -> None:
    daemon.start()

    async def main() -> None:
        with pytest.raises(shmd.TimedOutError):
            await reader.arecv(timeout=0.01)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.arecv(), 0.01)
        task = asyncio.create_task(reader.arecv())
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="another task waits"):
            await reader.arecv()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        writer.publish(b"a")
        writer.publish(b"b")
        assert bytes(await reader.arecv(PATIENCE)) == b"a"
        assert bytes(await reader.arecv(PATIENCE)) == b"b"

    with shmd.Reader() as reader, shmd.Writer() as writer:
        asyncio.run(main())


def test_the_end_and_errors(daemon: Daemon) -> None:
    daemon.start()

    async def main() -> None:
        view = memoryview(await reader.arecv())
        with pytest.raises(BufferError):
            await reader.arecv()
        view.release()
        stopping = asyncio.get_running_loop().run_in_executor(None, daemon.stop)
        async for _ in reader:
            pytest.fail("there is no message")
        await stopping

    with shmd.Reader() as reader:
        with shmd.Writer() as writer:
            writer.publish(b"a")
        asyncio.run(main())


@pytest.mark.parametrize("way", ["close", "with"])
def test_closing_ends_the_wait_of_a_task_and_frees_the_descriptors_number(daemon: Daemon, way: str) -> None:
    daemon.start()

    async def main() -> None:
        loop, is_readable = asyncio.get_running_loop(), asyncio.Event()
        reader = shmd.Reader()
        number = reader.fileno()
        ours, theirs = socket.socketpair()
        task = asyncio.create_task(reader.arecv())
        await asyncio.sleep(0)
        if way == "close":
            reader.close()
        else:
            with reader:
                pass
        assert reader.closed
        # The kernel gives another descriptor the number.
        os.dup2(ours.fileno(), number)
        loop.add_reader(number, is_readable.set)
        with pytest.raises(ValueError, match="the reader of channel main is closed"):
            await asyncio.wait_for(task, PATIENCE)
        theirs.send(b"x")
        await asyncio.wait_for(is_readable.wait(), PATIENCE)
        assert loop.remove_reader(number)
        os.close(number)
        ours.close()
        theirs.close()

    asyncio.run(main())


def test_another_thread_ends_the_wait_of_a_task(daemon: Daemon) -> None:
    daemon.start()

    async def main() -> None:
        reader = shmd.Reader()
        task = asyncio.create_task(reader.arecv())
        await asyncio.sleep(0)
        await asyncio.get_running_loop().run_in_executor(None, reader.close)
        with pytest.raises(ValueError, match="closed"):
            await asyncio.wait_for(task, PATIENCE)

    asyncio.run(main())
