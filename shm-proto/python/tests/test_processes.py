"""Other processes: fork, spawn."""

import gc
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection

import pytest
from conftest import PATIENCE, Daemon

import shmd


def in_child(use: "list[object]") -> str:
    """What a child that os.fork() makes says about objects of its parent's."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        # A child that waits for ever is ended, and has said too little.
        signal.alarm(round(PATIENCE))
        try:
            reader, writer, message, view = use
            assert isinstance(reader, shmd.Reader) and isinstance(writer, shmd.Writer)
            assert isinstance(message, shmd.Message) and isinstance(view, memoryview)
            assert bytes(view) == b"one", "the bytes are still there"
            view.release()
            calls: list[Callable[[], object]] = [
                reader.recv,
                reader.try_recv,
                lambda: next(reader),
                reader.fileno,
                lambda: bytes(message),
                lambda: writer.publish(b"bad"),
                writer.maintain,
                lambda: writer.reserve(1).__enter__(),
            ]
            for call in calls:
                try:
                    call()
                    os.write(writing, b"no error")
                except shmd.ForkedError as error:
                    assert "open another one in this process" in str(error)
            del calls, call
            reader.close()
            writer.close()
            use.clear()
            del reader, writer, message, view
            gc.collect()
            with shmd.Reader(start="oldest") as own:
                os.write(writing, bytes(own.recv(PATIENCE)))
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_leaves_its_parents_objects_alone(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        writer.publish(b"one")
        writer.publish(b"two")
        message = reader.recv()
        view = memoryview(message)
        assert in_child([reader, writer, message, view]) == "one"
        view.release()
        assert bytes(message) == b"one" and bytes(reader.recv()) == b"two"
        assert writer.publish(b"three") == 2 and bytes(reader.recv(PATIENCE)) == b"three"
        assert len(shmd.stat("main")["readers"]) == 1
        assert shmd.stat("main")["writer"] is not None


def echo(connection: Connection) -> None:
    """Sends back what it receives."""
    with shmd.Reader("there") as reader, shmd.Writer("back") as writer:
        connection.send("ready")
        for message in reader:
            writer.publish(message)
            if len(message) == 0:
                break
    connection.send(shmd.__version__)


def test_multiprocessing_spawn(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "there"\n[[channel]]\nname = "back"\n')
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    with shmd.Writer("there") as writer, shmd.Reader("back") as reader:
        process = context.Process(target=echo, args=(theirs,))
        process.start()
        assert ours.poll(PATIENCE) and ours.recv() == "ready"
        for n in range(500):
            writer.publish(b"%d" % n * 10)
            assert bytes(reader.recv(PATIENCE)) == b"%d" % n * 10
        writer.publish(b"")
        assert ours.poll(PATIENCE) and ours.recv() == shmd.__version__
        process.join(PATIENCE)
        assert process.exitcode == 0


def test_readers_and_writers_cannot_be_pickled(daemon: Daemon) -> None:
    daemon.start()
    import pickle

    with shmd.Reader() as reader, pytest.raises(TypeError):
        pickle.dumps(reader)


def test_the_interpreter_ends_with_everything_open(daemon: Daemon) -> None:
    daemon.start()
    program = "import shmd; w = shmd.Writer(); r = shmd.Reader(); w.publish(b'x'); m = r.recv(); v = memoryview(m)"
    ended = daemon.run([sys.executable, "-c", program])
    assert ended.communicate(timeout=PATIENCE) == (b"", b"") and ended.returncode == 0
    assert shmd.stat("main")["readers"] == [] and shmd.stat("main")["writer"] is None
