"""Waiting for acknowledgements of readers that stand still."""

import time

import pytest
from conftest import PATIENCE, Daemon

import shmd

STILL = '[[channel]]\nname = "main"\nevict_after = "200ms"\nack_timeout = "100s"\n'


def test_a_reader_that_stands_still_is_evicted_by_a_publish_that_waits_for_it(daemon: Daemon) -> None:
    daemon.start(STILL)
    with shmd.Reader() as reader, shmd.Writer() as writer:
        assert writer.publish_acked(b"one", timeout=PATIENCE) == 0
        assert shmd.stat("main")["evicted"] == 1
        with pytest.raises(shmd.EvictedError):
            reader.recv(PATIENCE)


def test_with_ack_every_publish_evicts_such_a_reader(daemon: Daemon) -> None:
    daemon.start(STILL + "ack = true\n")
    for n, publish in enumerate((publish_copy, publish_in_place, publish_batch)):
        reader = attached(n)
        with shmd.Writer() as writer:
            publish(writer)
        assert shmd.stat("main")["evicted"] == n + 1
        reader.close()


def publish_copy(writer: shmd.Writer) -> None:
    assert writer.publish(b"x", timeout=PATIENCE) == 0


def publish_in_place(writer: shmd.Writer) -> None:
    with writer.reserve(1, timeout=PATIENCE) as view:
        view[:] = b"x"


def publish_batch(writer: shmd.Writer) -> None:
    with writer.batch(timeout=PATIENCE) as batch:
        batch.push(b"x")
    assert batch.published == 1


def attached(evicted: int) -> shmd.Reader:
    """A reader of a user of whom a reader was evicted before, who is refused for a moment."""
    while True:
        try:
            return shmd.Reader()
        except shmd.RefusedError as error:
            assert evicted and error.retry_after is not None
            time.sleep(error.retry_after)


def test_a_reader_stays_that_the_program_only_asks_for(daemon: Daemon) -> None:
    daemon.start(STILL)
    with shmd.Reader() as reader, shmd.Writer() as writer:
        writer.publish(b"one")
        with pytest.raises(shmd.UnacknowledgedError):
            writer.wait_until_read(0.5)
        assert bytes(reader.recv(0)) == b"one" and shmd.stat("main")["evicted"] == 0
