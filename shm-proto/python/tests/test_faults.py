"""The daemon dies, readers are evicted, requests are refused."""

import threading
import time

import pytest
from conftest import PATIENCE, Daemon, output, wait_until

import shmd


def test_attached_programs_survive_the_daemon(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\n')
    stop = threading.Event()
    published = 0

    def publish() -> None:
        nonlocal published
        with shmd.Writer() as writer:
            while not stop.is_set():
                if writer.publish(b"%d" % published, timeout=PATIENCE) is not None:
                    published += 1
            writer.wait_until_read(PATIENCE)

    with shmd.Reader(start="oldest") as reader:
        thread = threading.Thread(daemon=True, target=publish)
        thread.start()
        n = 0
        try:
            for kill in range(3):
                for _ in range(500):
                    assert int(bytes(reader.recv(PATIENCE))) == n
                    n += 1
                daemon.kill()
                for _ in range(500):
                    assert int(bytes(reader.recv(PATIENCE))) == n
                    n += 1
                daemon.start()
        finally:
            stop.set()
        while thread.is_alive() or n < published:
            message = reader.recv(PATIENCE) if n < published else reader.try_recv()
            if message is not None:
                assert int(bytes(message)) == n
                n += 1
        thread.join()
        assert n == published and reader.lost == 0


def test_a_daemon_that_does_not_come_back(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader(patience=0.1) as reader, shmd.Reader(patience=0.1) as other:
        writer = shmd.Writer(patience=0.1)
        writer.publish(b"last")
        other.fileno()
        daemon.kill()
        assert bytes(reader.recv(PATIENCE)) == b"last"
        writer.publish(b"after")
        writer.close()
        assert bytes(reader.recv(PATIENCE)) == b"after"
        with pytest.raises(shmd.DisconnectedError, match="main"):
            reader.recv(PATIENCE)
        assert other.recv_many(10) == [b"last", b"after"]
        with pytest.raises(shmd.DisconnectedError):
            next(other)
    with pytest.raises(shmd.NoDaemonError, match="start shmd"):
        shmd.Reader()
    with pytest.raises(ConnectionError):
        shmd.stat()


def test_eviction(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        writer.publish(b"hello")
        message = reader.recv()
        view = memoryview(message)
        number = shmd.stat("main")["readers"][0]["reader"]
        output(daemon.shmctl("evict", "--reader", str(number)))
        assert bytes(view) == b"hello"
        with pytest.raises(shmd.EvictedError):
            message.check()
        with pytest.raises(BufferError):
            reader.recv()
        view.release()
        with pytest.raises(shmd.EvictedError, match="attach again"):
            reader.recv()
        with pytest.raises(shmd.EvictedError):
            reader.recv()
        # A reader of which the user does not want any more is refused for a moment.
        wait_until("another reader may attach", lambda: attaches())


def attaches() -> bool:
    try:
        with shmd.Reader(start="oldest") as reader:
            return bytes(reader.recv(PATIENCE)) == b"hello"
    except shmd.RefusedError as error:
        assert error.kind == "try_later" and error.retry_after is not None
        time.sleep(error.retry_after)
        return False


def test_a_reader_that_holds_the_writer_up_is_evicted(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\nevict_after = "200ms"\n')
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for _ in range(100):
            writer.publish(bytes(1000), timeout=PATIENCE)
        with pytest.raises(shmd.EvictedError):
            while True:
                reader.recv(PATIENCE)
        assert shmd.stat("main")["evicted"] == 1


def test_refusals(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "a"\n[[channel]]\nname = "b"\n[[channel]]\nname = "c"\nmode = "handoff"\n')
    with pytest.raises(shmd.RefusedError) as caught:
        shmd.Reader()
    assert (caught.value.kind, caught.value.channels) == ("no_such_channel", ("a", "b", "c"))
    with pytest.raises(shmd.RefusedError, match="nowhere"):
        shmd.Writer("nowhere")
    with pytest.raises(shmd.HandoffChannelError, match="one at a time"):
        shmd.Reader("c")
    with pytest.raises(shmd.BadNameError):
        shmd.Reader("no/name")
    with pytest.raises(ValueError, match="start"):
        shmd.Reader("a", start="newest")  # type: ignore[arg-type]
    with shmd.Writer("a"):
        with pytest.raises(shmd.RefusedError) as caught:
            shmd.Writer("a")
        assert caught.value.kind == "writer_taken"
    with shmd.Writer("a"), pytest.raises(shmd.RefusedError, match="allowed") as caught:
        shmd.resize(1 << 40, "a")
    assert caught.value.kind == "out_of_range"
    with pytest.raises(shmd.SystemCallError) as failed:
        shmd.stat(runtime_dir="/" + "x" * 200)
    assert isinstance(failed.value, OSError)


def test_every_error_is_an_error_of_shmd() -> None:
    errors = [thing for name, thing in vars(shmd).items() if name.endswith("Error")]
    assert len(errors) == 22 and all(issubclass(error, shmd.Error) and error.__doc__ for error in errors)
