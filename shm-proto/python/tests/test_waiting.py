"""Waits: timeouts, signals, threads, descriptors."""

import os
import select
import signal
import subprocess
import sys
import sysconfig
import threading

import pytest
from conftest import PATIENCE, Daemon, output, wait_until

import shmd


def test_timeouts(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        for timeout in (0, 0.001, 0.2):
            with pytest.raises(shmd.TimedOutError, match="a message on channel main"):
                reader.recv(timeout)
        assert issubclass(shmd.TimedOutError, TimeoutError)
        for wrong in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                reader.recv(wrong)
        writer.publish(b"a")
        assert bytes(reader.recv(float("inf"))) == b"a"


WAITS = {
    "recv": "shmd.Reader().recv()",
    "iteration": "next(shmd.Reader())",
    "recv_many": "shmd.Reader().recv_many(10)",
    "spinning": "shmd.Reader(wait='spin=1s').recv()",
    "publish": "reader = shmd.Reader(); writer = shmd.Writer()\n    while True: writer.publish(bytes(30000))",
    "reserve": "reader = shmd.Reader(); writer = shmd.Writer()\n    while True:\n        with writer.reserve(30000): pass",
    "batch": "reader = shmd.Reader(); writer = shmd.Writer()\n    while True:\n        with writer.batch() as b: b.push(bytes(30000))",
    "acknowledgement": "reader = shmd.Reader(); shmd.Writer().publish_acked(b'x')",
}

PROGRAM = """
import os, shmd
try:
    {}
except KeyboardInterrupt:
    os._exit(42)
"""


@pytest.mark.parametrize("call", WAITS)
@pytest.mark.parametrize("late", [False, True], ids=["at once", "after a while"])
def test_an_interrupt_ends_every_wait(daemon: Daemon, call: str, late: bool) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\n')
    program = daemon.run([sys.executable, "-c", PROGRAM.format(WAITS[call])])

    def waits() -> bool:
        # Every thread that waits sleeps. `late`: on its descriptor, after the first slice.
        stat = shmd.stat("main")
        if not stat["readers"] or program.poll() is not None:
            return False
        if "writer" in WAITS[call] and (stat["writer"] is None or stat["used"] < 30000):
            return False
        return True

    if call == "acknowledgement":
        wait_until("the program waits", lambda: shmd.stat("main")["messages"] == 1)
    else:
        wait_until("the program waits", waits)
    if late:
        with pytest.raises(subprocess.TimeoutExpired):
            program.wait(0.3)
    # Again, if it comes before Python's handler does.
    program.send_signal(signal.SIGINT)
    assert program.wait(PATIENCE) == 42, program.communicate()


def test_ways_to_wait(daemon: Daemon) -> None:
    daemon.start()
    for wait in ("adaptive", "sleep", "spin=20us", "spin=1s"):
        with shmd.Reader(wait=wait) as reader, shmd.Writer() as writer:
            assert reader.wait == wait == shmd.stat("main")["readers"][0]["wait"]
            writer.publish(b"there")
            assert bytes(reader.recv(PATIENCE)) == b"there"
            with pytest.raises(shmd.TimedOutError):
                reader.recv(0.001)
            # After the first slice of the wait, which is 50 ms long.
            timer = threading.Timer(0.2, writer.publish, args=(b"late",))
            timer.start()
            assert bytes(reader.recv(PATIENCE)) == b"late"
            timer.join()
            assert reader.fileno() >= 0 and reader.try_recv() is None
            writer.publish(b"polled")
            assert select.select([reader], [], [], PATIENCE)[0] and bytes(reader.recv(0)) == b"polled"
    for wrong in ("spin", "spin=2s", "busy"):
        with pytest.raises(ValueError, match="wait.*spin=TIME"):
            shmd.Reader(wait=wrong)


def test_other_threads_run_while_one_waits(daemon: Daemon) -> None:
    daemon.start()
    received = []
    with shmd.Reader() as reader, shmd.Writer() as writer:
        thread = threading.Thread(daemon=True, target=lambda: received.append(bytes(reader.recv())))
        thread.start()

        def is_busy() -> bool:
            try:
                reader.try_recv()
            except RuntimeError as error:
                assert "in use by another thread" in str(error)
                return True
            return False

        wait_until("the thread waits", is_busy)
        assert not received
        writer.publish(b"hello")
        thread.join()
        assert received == [b"hello"]


def test_closing_ends_a_wait_of_another_thread(daemon: Daemon) -> None:
    daemon.start()
    reader = shmd.Reader()
    errors = []

    def wait() -> None:
        try:
            reader.recv()
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(daemon=True, target=wait)
    thread.start()
    reader.close()
    thread.join(PATIENCE)
    assert errors == ["the reader of channel main is closed"] and reader.closed
    assert shmd.stat("main")["readers"] == []


@pytest.mark.skipif(not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this interpreter has the GIL")
def test_the_package_leaves_the_gil_off() -> None:
    # Importing a module that does not declare that it needs no GIL would have turned it on.
    assert not getattr(sys, "_is_gil_enabled", lambda: True)()


def test_a_reader_may_move_between_threads(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        received = []
        for n in range(20):
            thread = threading.Thread(daemon=True, target=writer.publish, args=(b"%d" % n,))
            thread.start()
            thread.join()
            thread = threading.Thread(daemon=True, target=lambda: received.append(int(bytes(reader.recv()))))
            thread.start()
            thread.join()
        assert received == list(range(20))


def test_many_readers_in_threads(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\n')
    count, readers = 5000, [shmd.Reader() for _ in range(4)]
    sums = []

    def read(reader: shmd.Reader) -> None:
        sums.append(sum(int(bytes(reader.recv(PATIENCE))) for _ in range(count)))

    threads = [threading.Thread(daemon=True, target=read, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    with shmd.Writer() as writer:
        for n in range(count):
            writer.publish(b"%d" % n, timeout=PATIENCE)
    for thread in threads:
        thread.join()
    assert sums == [sum(range(count))] * 4
    for reader in readers:
        reader.close()


def is_readable(reader: shmd.Reader) -> bool:
    return bool(select.select([reader], [], [], 0)[0])


def test_the_descriptor_is_level_triggered(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        writer.publish(b"before")
        assert is_readable(reader)
        assert bytes(reader.recv()) == b"before"
        assert is_readable(reader), "it is not known yet that there is nothing"
        assert reader.try_recv() is None and not is_readable(reader)
        for text in (b"one", b"two", b"three"):
            writer.publish(text)
        for text in (b"one", b"two", b"three"):
            assert select.select([reader], [], [], PATIENCE)[0] and is_readable(reader)
            assert bytes(reader.recv()) == text
        assert reader.recv_many(1, timeout=0) == [] and not is_readable(reader)
        # A wait that sleeps in another way does not break it.
        with pytest.raises(shmd.TimedOutError):
            reader.recv(0.001)
        writer.publish(b"four")
        assert is_readable(reader)
        assert reader.recv_many(10) == [b"four"]
        assert reader.try_recv() is None and not is_readable(reader)
        daemon.stop()
        assert select.select([reader], [], [], PATIENCE)[0]
        with pytest.raises(shmd.ClosedError):
            reader.try_recv()


def test_a_writer_that_rests_handles_what_the_daemon_says(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "1MiB"\nmin = "64KiB"\nmax = "1MiB"\n')
    with shmd.Writer() as writer:
        writer.publish(bytes(100))
        resizing = daemon.shmctl("resize", "--bytes", "64KiB")
        assert select.select([writer], [], [], PATIENCE)[0]

        def is_smaller() -> bool:
            writer.maintain()
            return shmd.stat("main")["capacity"] == 64 << 10

        wait_until("the channel is smaller", is_smaller)
        output(resizing)


def test_descriptors_are_closed(daemon: Daemon) -> None:
    daemon.start()

    def use() -> None:
        with shmd.Reader() as reader, shmd.Writer() as writer:
            reader.fileno()
            writer.publish(b"x")
            bytes(reader.recv())

    use()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        use()
    assert len(os.listdir("/proc/self/fd")) == before
