"""How fast Python receives, beside the Rust reader and other ways to send messages. Run it as shm-proto/python/bench/run.

Every figure is the best of some rounds, in nanoseconds per message, and all come from one run: compare them with each other. What is
received is there already, so that no figure contains a wait, except under "between two processes".
"""

import argparse
import ctypes
import functools
import itertools
import multiprocessing
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy

import shmd

FRAME = 1920 * 1080 * 3
FRAMES = 10
SMALL = 64


@contextmanager
def daemon(programs: Path) -> Iterator[None]:
    """A daemon of the program's own, with one channel that holds everything."""
    with tempfile.TemporaryDirectory(prefix="shmd-bench-") as directory:
        config = Path(directory, "shmd.toml")
        config.write_text(
            '[[channel]]\nname = "main"\ncapacity = "96MiB"\nmax = "96MiB"\nprefault = true\nalign = 64\n'
            '[[channel]]\nname = "small"\ncapacity = "2MiB"\nmax = "2MiB"\nprefault = true\n'
            '[[channel]]\nname = "stream"\ncapacity = "64MiB"\nmax = "64MiB"\nprefault = true\n'
        )
        command = [str(programs / "shmd"), "--config", str(config), "--log", "error"]
        os.environ |= {"SHMD_RUNTIME_DIR": f"{directory}/run", "SHMD_PREFIX": f"shmd-bench-{os.getpid()}"}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        try:
            while True:
                try:
                    shmd.channels()
                    break
                except shmd.NoDaemonError:
                    assert process.poll() is None, "the daemon has ended"
                    time.sleep(0.01)
            yield
        finally:
            process.terminate()
            process.wait()


def show(name: str, ns: float, bar: float | None = None) -> None:
    verdict = "" if bar is None else f"   bar {bar:g}: {'met' if ns <= bar else 'MISSED'}"
    print(f"  {name:<44} {ns:12,.1f} ns{verdict}", flush=True)


def iterate(reader: shmd.Reader, count: int) -> None:
    for _message in itertools.islice(reader, count):
        pass


def receive(reader: shmd.Reader, count: int) -> None:
    recv = reader.recv
    for _ in range(count):
        recv()


def copy(reader: shmd.Reader, count: int) -> None:
    recv = reader.recv
    for _ in range(count):
        bytes(recv())


def view(reader: shmd.Reader, count: int) -> None:
    recv = reader.recv
    for _ in range(count):
        memoryview(recv()).release()


def many(reader: shmd.Reader, count: int) -> None:
    while count > 0:
        count -= len(reader.recv_many(1000))


def array(reader: shmd.Reader, count: int) -> None:
    while count > 0:
        count -= len(reader.read_array("V64", 10_000))


def small(rounds: int, count: int) -> None:
    print(f"receiving {SMALL} B messages that are there")
    items = numpy.zeros(count, f"V{SMALL}")
    cases: list[tuple[str, Callable[[shmd.Reader, int], None], float | None]] = [
        ("for m in reader", iterate, 100),
        ("reader.recv()", receive, 100),
        ("bytes(reader.recv())", copy, None),
        ("memoryview(reader.recv())", view, None),
        ("reader.recv_many(1000)", many, None),
        ("reader.read_array(dtype, 10000)", array, 10),
    ]
    best = dict.fromkeys((name for name, _, _ in cases), float("inf"))
    with shmd.Reader("small") as reader, shmd.Writer("small") as writer:
        for _ in range(rounds):
            for name, read, _ in cases:
                writer.publish_array(items)
                begun = time.perf_counter_ns()
                read(reader, count)
                best[name] = min(best[name], (time.perf_counter_ns() - begun) / count)
    for name, _, bar in cases:
        show(name, best[name], bar)


def sum_with_numpy() -> float:
    newest = shmd.stat("main")["messages"]
    with shmd.Reader("main", start="oldest") as reader:
        while reader.seq < newest - FRAMES:
            reader.recv()
        begun = time.perf_counter_ns()
        for _ in range(FRAMES):
            words = numpy.frombuffer(reader.recv(), numpy.uint64)
            words.sum()
            del words
        return (time.perf_counter_ns() - begun) / FRAMES


def sum_with_rust(programs: Path) -> float:
    command = [str(programs / "examples" / "frames"), "main", str(FRAMES)]
    return float(subprocess.run(command, capture_output=True, check=True).stdout)


def frames(rounds: int, programs: Path) -> None:
    print("summing the words of 1080p frames that are there, in place")
    best = {"numpy": float("inf"), "Rust": float("inf")}
    frame = numpy.random.default_rng(1).integers(0, 256, FRAME, dtype=numpy.uint8)
    with shmd.Writer("main") as writer:
        for turn in range(rounds):
            for _ in range(FRAMES):
                writer.publish(frame)
            measures: dict[str, Callable[[], float]] = {
                "numpy": sum_with_numpy,
                "Rust": functools.partial(sum_with_rust, programs),
            }
            # The one that comes second finds more in the processor's cache.
            for name in sorted(measures, reverse=turn % 2 == 1):
                best[name] = min(best[name], measures[name]())
    show("numpy.frombuffer(m).sum()", best["numpy"])
    show("the Rust reader, words().fold()", best["Rust"])
    ratio = best["Rust"] / best["numpy"]
    print(f"  numpy reaches {ratio:.2f} of the Rust reader's speed   bar 0.9: {'met' if ratio >= 0.9 else 'MISSED'}")


# Between two processes: the other one sends, this one receives.


def send_shmd(ready: Connection, size: int, count: int) -> None:
    data = bytes(size)
    with shmd.Writer("stream") as writer:
        ready.send(None)
        for _ in range(count):
            writer.publish(data)
        writer.wait_until_read()


def receive_shmd(size: int, count: int) -> float:
    with shmd.Reader("stream") as reader, sender(send_shmd, size, count):
        return timed(reader.recv, count)


def send_pipe(pipe: Connection, size: int, count: int) -> None:
    data = bytes(size)
    pipe.send(None)
    for _ in range(count):
        pipe.send_bytes(data)


def receive_pipe(size: int, count: int) -> float:
    with sender(send_pipe, size, count) as pipe:
        return timed(pipe.recv_bytes, count)


def send_zmq(ready: Connection, size: int, count: int, address: str) -> None:
    import zmq

    data = bytes(size)
    socket: Any = zmq.Context.instance().socket(zmq.PUSH)
    socket.connect(address)
    ready.send(None)
    for _ in range(count):
        socket.send(data)
    socket.close(linger=-1)
    zmq.Context.instance().term()


def receive_zmq(size: int, count: int) -> float:
    import zmq

    with tempfile.TemporaryDirectory() as directory:
        address = f"ipc://{directory}/socket"
        socket: Any = zmq.Context.instance().socket(zmq.PULL)
        socket.bind(address)
        with sender(send_zmq, size, count, address):
            return timed(socket.recv, count)


def iceoryx2_service(name: str) -> Any:
    import iceoryx2 as iox2

    iox2.set_log_level(iox2.LogLevel.Error)
    node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)
    builder = node.service_builder(iox2.ServiceName.new(name)).publish_subscribe(iox2.Slice[ctypes.c_uint8])
    # As many as shmd's channel holds, and no loss.
    service = builder.subscriber_max_buffer_size(1024).enable_safe_overflow(False).open_or_create()
    return node, service


def send_iceoryx2(ready: Connection, size: int, count: int, name: str) -> None:
    data = bytes(size)
    node, service = iceoryx2_service(name)
    publisher = service.publisher_builder().initial_max_slice_len(size).create()
    ready.send(None)
    for _ in range(count):
        sample = publisher.loan_slice_uninit(size)
        ctypes.memmove(sample.payload_ptr, data, size)
        sample.assume_init().send()
    # The receiver says when it has everything.
    ready.recv()


def receive_iceoryx2(size: int, count: int) -> float:
    name = f"shmd-bench/{os.getpid()}/{size}"
    node, service = iceoryx2_service(name)
    subscriber = service.subscriber_builder().buffer_size(1024).create()
    with sender(send_iceoryx2, size, count, name) as ready:

        def receive() -> None:
            while subscriber.receive() is None:
                pass

        ns = timed(receive, count)
        ready.send(None)
        return ns


def timed(receive: Callable[[], object], count: int) -> float:
    receive()
    begun = time.perf_counter_ns()
    for _ in range(count - 1):
        receive()
    return (time.perf_counter_ns() - begun) / (count - 1)


@contextmanager
def sender(send: Callable[..., None], *args: object) -> Iterator[Connection]:
    """Another process that sends, and the connection to it."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=send, args=(theirs, *args))
    process.start()
    # If the sender fails, the receiver is not left waiting.
    theirs.close()
    signal.alarm(120)
    try:
        ours.recv()
        yield ours
        process.join(60)
    finally:
        signal.alarm(0)
        process.kill()


def streams(rounds: int, quick: bool) -> None:
    for size, count in ((SMALL, 20_000 if quick else 200_000), (FRAME, 50 if quick else 300)):
        print(f"between two processes: {size} B messages, one by one")
        cases = {
            "shmd": receive_shmd,
            "multiprocessing.Pipe": receive_pipe,
            "pyzmq, PUSH and PULL over ipc": receive_zmq,
            "iceoryx2, publish and subscribe, busy loop": receive_iceoryx2,
        }
        best = dict.fromkeys(cases, float("inf"))
        for _ in range(rounds):
            for name, measure in cases.items():
                try:
                    best[name] = min(best[name], measure(size, count))
                except ImportError as error:
                    print(f"  {name}: left out, {error}")
        for name, ns in best.items():
            if ns < float("inf"):
                show(name, ns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("programs", type=Path, help="the directory with shmd and examples/frames")
    parser.add_argument("--quick", action="store_true", help="one short round: for a test that the program works")
    options = parser.parse_args()
    rounds = 1 if options.quick else 5
    with daemon(options.programs):
        # As many as the processor's cache holds, as in a channel of the default capacity.
        small(10 * rounds, 10_000)
        frames(rounds, options.programs)
        streams(min(rounds, 3), options.quick)


if __name__ == "__main__":
    main()
