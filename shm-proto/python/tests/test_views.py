"""How long the bytes of a message and of a slot can be used."""

import gc
import zlib
from collections.abc import Callable

import numpy
import numpy.typing
import pytest
from conftest import PATIENCE, Daemon

import shmd

FRAME = (1080, 1920, 3)
BIG = '[[channel]]\nname = "main"\ncapacity = "32MiB"\nmax = "32MiB"\nalign = 64\n'


def picture(n: int) -> numpy.typing.NDArray[numpy.uint8]:
    return numpy.random.default_rng(n).integers(0, 256, FRAME, dtype=numpy.uint8)


def test_frames_are_written_and_read_in_place(daemon: Daemon) -> None:
    daemon.start(BIG)
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for n in range(12):
            expected = picture(n)
            with writer.reserve(expected.nbytes) as view:
                frame = numpy.frombuffer(view, numpy.uint8).reshape(FRAME)
                frame[...] = expected
                del frame
            message = reader.recv(PATIENCE)
            assert len(message) == expected.nbytes
            seen = numpy.frombuffer(message, numpy.uint8).reshape(FRAME)
            assert seen.ctypes.data % 64 == 0 and not seen.flags.writeable
            assert zlib.crc32(seen) == zlib.crc32(expected)
            del seen


def test_views_are_read_only_and_copy_nothing(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        writer.publish(b"hello")
        message = reader.recv()
        with memoryview(message) as view:
            assert view.readonly and view.nbytes == 5 and bytes(view) == b"hello"
            with pytest.raises(TypeError):
                view[0] = 1
            with pytest.raises(ValueError):
                numpy.frombuffer(message, numpy.uint8).setflags(write=True)
            with pytest.raises(ValueError):
                numpy.frombuffer(message, numpy.uint8)[0] = 0
            first = numpy.frombuffer(message, numpy.uint8).ctypes.data
            assert numpy.frombuffer(view, numpy.uint8).ctypes.data == first


def test_nothing_moves_a_reader_while_there_is_a_view(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for text in (b"one", b"two", b"three"):
            writer.publish(text)
        message = reader.recv()
        view = memoryview(message)
        array = numpy.frombuffer(message, numpy.uint8)
        calls: list[Callable[[], object]] = [
            reader.try_recv,
            reader.recv,
            lambda: next(reader),
            lambda: reader.recv_many(1),
            lambda: reader.read_array("u1", 1),
            message.finish,
            reader.close,
        ]
        for call in calls:
            with pytest.raises(BufferError, match="views of the message"):
                call()
        assert bytes(view) == b"one" == array.tobytes() and not message.finished
        message.check()
        view.release()
        with pytest.raises(BufferError, match="a view of the message"):
            reader.recv()
        del array
        assert bytes(reader.recv()) == b"two"
        assert message.finished and (message.seq, len(message)) == (0, 3)
        uses: list[Callable[[], object]] = [lambda: memoryview(message), lambda: bytes(message), message.check]
        for use in uses:
            with pytest.raises(ValueError, match="message 0 is finished"):
                use()
        message.finish()


def test_a_view_keeps_its_reader(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Writer() as writer:
        reader = shmd.Reader()
        writer.publish(b"hello")
        view = memoryview(reader.recv())
        del reader
        gc.collect()
        assert bytes(view) == b"hello"
        assert len(shmd.stat("main")["readers"]) == 1
        del view
        gc.collect()
        assert shmd.stat("main")["readers"] == []


def test_an_exception_leaves_with_its_views(daemon: Daemon) -> None:
    daemon.start()

    def fail() -> None:
        with shmd.Reader(start="oldest") as reader, reader.recv() as message:
            view = memoryview(message)
            raise LookupError(bytes(view))

    with shmd.Writer() as writer:
        writer.publish(b"hello")
        with pytest.raises(LookupError, match="hello"):
            fail()


def test_a_dropped_message_gives_its_space_back(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for text in (b"one", b"two", b"three", b"four"):
            writer.publish(text)
        assert bytes(reader.recv()) == b"one"
        assert reader.received == 1, "nobody has the message any more"
        message = reader.recv()
        assert reader.received == 1
        del message
        assert reader.received == 2
        with reader.recv():
            assert reader.received == 2
        assert reader.received == 3
        closed = reader.recv()
        reader.close()
        reader.close()
        assert reader.closed and closed.finished
        uses: list[Callable[[], object]] = [reader.recv, reader.try_recv, reader.fileno, lambda: reader.lost]
        for use in uses:
            with pytest.raises(ValueError, match="reader of channel main is closed"):
                use()


def test_what_is_overwritten_is_not_believed(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\non_full = "overwrite"\n')

    def overwrite() -> None:
        for _ in range(200):
            writer.publish(bytes(1000))

    with shmd.Reader() as reader, shmd.Writer() as writer:
        # A copy that was valid stays valid.
        writer.publish(b"a")
        message = reader.recv()
        assert bytes(message) == b"a"
        overwrite()
        with pytest.raises(shmd.OverwrittenError, match="lost") as caught:
            bytes(message)
        assert caught.value.lost > 0 and message.finished
        # The next call reports what was read through a view.
        with memoryview(reader.recv()) as view:
            bytes(view)
            overwrite()
        with pytest.raises(shmd.OverwrittenError):
            reader.recv()
        # Or the check does, while the view is there.
        message = reader.recv()
        with memoryview(message) as view:
            message.check()
            overwrite()
            with pytest.raises(shmd.OverwrittenError, match="release its views"):
                message.check()
        # What nobody has looked at is only lost.
        message = reader.recv()
        overwrite()
        message = reader.recv()
        assert message.lost > 0
        with pytest.raises(shmd.OverwrittenError), message, memoryview(message):
            overwrite()


def test_a_slot_is_published_at_the_end_of_its_statement(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        slot = writer.reserve(10)
        assert slot.seq is None and len(slot) == 10
        with slot as view:
            assert not view.readonly and view.nbytes == 10
            view[:5] = b"hello"
            slot.truncate(5)
            assert reader.try_recv() is None
            calls: list[Callable[[], object]] = [
                lambda: writer.publish(b"x"),
                writer.maintain,
                lambda: writer.reserve(1).__enter__(),
            ]
            for call in calls:
                with pytest.raises(BufferError, match="a view of the slot"):
                    call()
        assert slot.seq == 0
        with pytest.raises(ValueError):
            view[0]
        with pytest.raises(RuntimeError, match="once"):
            slot.__enter__()
        with pytest.raises(ValueError, match="more than the 1"):
            writer.reserve(1).truncate(2)
        with pytest.raises(LookupError), writer.reserve(3) as view:
            view[:] = b"bad"
            raise LookupError
        with writer.batch() as batch:
            batch.push(b"world")
        with pytest.raises(LookupError), writer.batch() as batch:
            batch.push(b"bad")
            raise LookupError
        assert reader.recv_many(10) == [b"hello", b"world"]
        assert reader.try_recv() is None


def test_a_slot_whose_views_live_on_is_not_published(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        with pytest.raises(BufferError), writer.reserve(4) as view:
            array = numpy.frombuffer(view, numpy.uint8)
        array[:] = 1
        calls: list[Callable[[], object]] = [lambda: writer.publish(b"x"), writer.close]
        for call in calls:
            with pytest.raises(BufferError, match="a view of the slot"):
                call()
        assert reader.try_recv() is None
        del array, view
        writer.publish(b"x")
        assert bytes(reader.recv()) == b"x"
