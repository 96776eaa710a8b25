"""A million messages, and not more memory."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy
import pytest
from conftest import PATIENCE, Daemon

import shmd

ROUNDS, MESSAGES = 10, 100_000


def resident_kib() -> int:
    """Memory of this process's own; the channel's does not count."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0])


def one_by_one(reader: shmd.Reader) -> None:
    for n, message in enumerate(reader):
        if n % 3 == 0:
            bytes(message)
        elif n % 3 == 1:
            memoryview(message).release()
        if n + 1 == MESSAGES:
            return


def in_bulk(reader: shmd.Reader) -> None:
    count = 0
    while count < MESSAGES:
        count += len(reader.recv_many(MESSAGES - count, PATIENCE)) if count % 2 else len(
            reader.read_array("u8", min(1001, MESSAGES - count), PATIENCE)
        )


@pytest.mark.parametrize("receive", [one_by_one, in_bulk])
def test_a_million_messages_leave_nothing(daemon: Daemon, receive: Callable[[shmd.Reader], None]) -> None:
    daemon.start('[[channel]]\nname = "main"\ncapacity = "4MiB"\nmax = "4MiB"\n')
    items = numpy.arange(MESSAGES, dtype="u8")
    with shmd.Reader() as reader, shmd.Writer() as writer:
        figures = []
        for _ in range(ROUNDS):
            assert writer.publish_array(items, PATIENCE) == MESSAGES
            receive(reader)
            gc.collect()
            figures.append((resident_kib(), len(gc.get_objects()), sys.getallocatedblocks()))
        (kib, objects, blocks), last = figures[2], figures[-1]
        # A byte for each message would be 700 KiB, and a block for each one 700,000.
        assert last[0] - kib < 600, figures
        assert last[1] - objects < 1000 and last[2] - blocks < 2000, figures
        assert reader.lost == 0


def test_objects_are_freed(daemon: Daemon) -> None:
    daemon.start()
    with shmd.Reader() as reader, shmd.Writer() as writer:
        before = sys.getrefcount(reader), sys.getrefcount(writer)
        for _ in range(100):
            with writer.reserve(8) as view:
                view[:] = bytes(8)
            with writer.batch() as batch:
                batch.push(bytes(8))
            for _ in range(2):
                message = reader.recv()
                memoryview(message).release()
            del message, view, batch
        assert (sys.getrefcount(reader), sys.getrefcount(writer)) == before
