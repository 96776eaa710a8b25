"""Streams to and from shmctl, one by one and in bulk: every message, in order, once."""

import subprocess
import threading
from typing import Any

import numpy
import pytest
from conftest import PATIENCE, Daemon, output, wait_until

import shmd

SMALL = '[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\n'


def lines(count: int) -> list[bytes]:
    return [b"line %d " % n + b"x" * (n % 90) for n in range(count)]


def test_reader_receives_every_line_of_shmctl(daemon: Daemon) -> None:
    daemon.start(SMALL)
    sent = lines(30_000)
    with shmd.Reader("main") as reader:
        writer = daemon.shmctl("write", stdin=subprocess.PIPE)
        feeder = threading.Thread(daemon=True, target=output, args=(writer, b"\n".join(sent) + b"\n"))
        feeder.start()
        received = []
        for n, message in enumerate(reader):
            assert (message.seq, message.lost, len(message)) == (n, 0, len(sent[n]))
            received.append(bytes(message))
            if n + 1 == len(sent):
                break
        feeder.join()
        assert received == sent
        assert (reader.received, reader.lost) == (len(sent) - 1, 0), "the last message is not finished"
        message.finish()
        assert reader.received == len(sent)


def test_iteration_ends_when_the_channel_is_closed(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for text in (b"a", b"b", b"c"):
            writer.publish(text)
        writer.close()
        stopper = threading.Timer(0.05, daemon.stop)
        stopper.start()
        assert [bytes(message) for message in reader] == [b"a", b"b", b"c"]
        stopper.join()
        with pytest.raises(shmd.ClosedError, match="main"):
            reader.recv()


def test_shmctl_reads_what_is_published(daemon: Daemon) -> None:
    daemon.start(SMALL)
    sent = lines(20_000)
    reader = daemon.shmctl("read", "-n", str(len(sent)))
    wait_until("shmctl is attached", lambda: len(shmd.stat("main")["readers"]) == 1)
    printed = []
    thread = threading.Thread(daemon=True, target=lambda: printed.append(output(reader)))
    thread.start()
    with shmd.Writer("main") as writer:
        for n, text in enumerate(sent):
            assert writer.publish(text, timeout=PATIENCE) == n
        thread.join()
    assert printed == [b"\n".join(sent) + b"\n"]


def test_any_object_with_a_buffer_can_be_published(daemon: Daemon) -> None:
    daemon.start()
    numbers = numpy.arange(6, dtype="<i4").reshape(2, 3)
    objects: list[Any] = [b"bytes", bytearray(b"array"), memoryview(b"view")[1:3], b"", numbers]
    with shmd.Reader(start="oldest") as reader, shmd.Writer() as writer:
        for thing in objects:
            writer.publish(thing)
        with pytest.raises(TypeError):
            writer.publish("text")  # type: ignore[arg-type]
        with pytest.raises((BufferError, ValueError)):
            writer.publish(numbers[:, ::2])
        assert [bytes(reader.recv(0)) for _ in objects] == [b"bytes", b"array", b"ie", b"", numbers.tobytes()]
        assert reader.try_recv() is None


def test_bulk_calls_receive_what_batches_publish(daemon: Daemon) -> None:
    daemon.start(SMALL)
    items = numpy.zeros(50_000, dtype=[("n", "<u8"), ("x", "<f8", 7)])
    items["n"] = numpy.arange(len(items))
    items["x"] = items["n"][:, None] / 3

    def publish() -> None:
        with shmd.Writer() as writer:
            assert writer.publish_array(items[:40_000], timeout=PATIENCE) == 40_000
            for begin in range(40_000, len(items), 100):
                with writer.batch(timeout=PATIENCE) as batch:
                    for item in items[begin : begin + 100]:
                        batch.push(item)
                    assert len(batch) == 100
                assert (batch.published, batch.seq) == (100, begin + 99)

    with shmd.Reader() as reader:
        thread = threading.Thread(daemon=True, target=publish)
        thread.start()
        parts = []
        count = 0
        while count < 30_000:
            parts.append(reader.read_array(items.dtype, 1000, timeout=PATIENCE))
            assert 0 < len(parts[-1]) <= 1000
            count += len(parts[-1])
        while count < len(items):
            copies = reader.recv_many(100, timeout=PATIENCE)
            assert 0 < len(copies) <= 100
            parts.append(numpy.frombuffer(b"".join(copies), dtype=items.dtype))
            count += len(copies)
        thread.join()
        assert (numpy.concatenate(parts) == items).all()
        assert reader.recv_many(10, timeout=0) == [] and len(reader.read_array("u1", 10, timeout=0)) == 0
        assert (reader.received, reader.lost) == (len(items), 0)


def test_read_array_keeps_a_message_that_is_no_item(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for text in (b"12345678", b"abcdefgh", b"short", b"87654321"):
            writer.publish(text)
        assert reader.read_array("S8", 10).tolist() == [b"12345678", b"abcdefgh"]
        with pytest.raises(ValueError, match="message 2 has 5 bytes"):
            reader.read_array("S8", 10)
        assert bytes(reader.recv()) == b"short"
        assert reader.read_array("S8", 1).tolist() == [b"87654321"]
        with pytest.raises(ValueError, match="object"):
            reader.read_array(object, 1)


def test_growth_and_shrinking_lose_nothing(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmin = "64KiB"\nmax = "4MiB"\n')
    count = 40_000

    def publish() -> None:
        with shmd.Writer() as writer:
            for n in range(count):
                writer.publish(n.to_bytes(8, "little") * (1 + n % 16), timeout=PATIENCE)
                if n % 1000 == 0:
                    writer.maintain()
            writer.wait_until_read(PATIENCE)

    def resize() -> None:
        for size in (1 << 20, 64 << 10, 4 << 20, 128 << 10):
            assert shmd.resize(size)["new"] == size

    with shmd.Reader() as reader:
        threads = [threading.Thread(daemon=True, target=publish), threading.Thread(target=resize)]
        for thread in threads:
            thread.start()
        for n in range(count):
            message = reader.recv(PATIENCE)
            with message, memoryview(message) as view:
                assert view == n.to_bytes(8, "little") * (1 + n % 16)
        while any(thread.is_alive() for thread in threads):
            assert reader.recv_many(1, timeout=0.01) == []
        assert reader.lost == 0


def test_overwriting_is_counted(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\non_full = "overwrite"\n')
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for n in range(5000):
            writer.publish(b"%064d" % n)
        seen = lost = 0
        while (message := reader.try_recv()) is not None:
            lost += message.lost
            assert int(bytes(message)) == message.seq == seen + lost
            seen += 1
        assert seen + lost == 5000 and lost == reader.lost > 0


def test_a_full_channel_drops_or_blocks(daemon: Daemon) -> None:
    channel = '[[channel]]\nname = "{0}"\ncapacity = "64KiB"\nmax = "64KiB"\non_full = "{0}"\n'
    daemon.start(channel.format("drop") + channel.format("block"))
    with shmd.Reader("drop") as reader, shmd.Writer("drop") as writer:
        results = [writer.publish(bytes(1000)) for _ in range(100)]
        dropped = results.count(None)
        assert 0 < dropped < 100 and writer.dropped == dropped
        with writer.reserve(1000) as view:
            view[:] = bytes(1000)
        with writer.reserve(1000) as view, pytest.raises(ValueError):
            view[:] = b"short"
        assert len(reader.recv_many(200, timeout=0)) == 100 - dropped
    with shmd.Reader("block") as reader, shmd.Writer("block") as writer:
        with pytest.raises(shmd.WouldBlockError, match="is full"):
            for _ in range(100):
                writer.try_publish(bytes(1000))
        with pytest.raises(shmd.TimedOutError, match="space in channel block"):
            writer.publish(bytes(1000), timeout=0.01)
        with pytest.raises(shmd.TimedOutError), writer.reserve(1000, timeout=0.01):
            pass
        with pytest.raises(shmd.TooLargeError, match="limit"):
            writer.publish(bytes(writer.max_message + 1))
        assert reader.recv_many(1000)
        writer.publish(bytes(1000), timeout=0)


def test_acknowledgement(daemon: Daemon) -> None:
    acked = '[[channel]]\nname = "acked"\nack = true\nack_timeout = "200ms"\n'
    daemon.start('[[channel]]\nname = "main"\n' + acked)
    with shmd.Reader("main") as reader, shmd.Writer("main") as writer:
        with pytest.raises(shmd.UnacknowledgedError) as caught:
            writer.publish_acked(b"a", timeout=0.12)
        assert (caught.value.seq, caught.value.behind, caught.value.readers) == (0, 1, 1)
        message = reader.recv()
        thread = threading.Thread(daemon=True, target=writer.wait_until_read, args=(PATIENCE,))
        thread.start()
        message.finish()
        while thread.is_alive():
            assert reader.try_recv() is None

        def read_two() -> None:
            reader.recv().finish()
            reader.recv().finish()

        follower = threading.Thread(daemon=True, target=read_two)
        follower.start()
        assert writer.publish_acked(b"b", timeout=PATIENCE) == 1
        assert writer.publish_acked(b"c") == 2
        follower.join()
    with shmd.Reader("acked") as reader, shmd.Writer("acked") as writer:
        with pytest.raises(shmd.UnacknowledgedError, match="is published, but 1 of 1"):
            writer.publish(b"a")
        with pytest.raises(shmd.UnacknowledgedError), writer.reserve(1) as view:
            view[:] = b"b"
        with pytest.raises(shmd.UnacknowledgedError), writer.batch() as batch:
            batch.push(b"c")
        assert reader.recv_many(10) == [b"a", b"b", b"c"]
