"""Batches and arrays: timeouts, closing, and what was published when they fail."""

import threading
import time

import numpy
import pytest
from conftest import PATIENCE, Daemon, wait_until

import shmd

SMALL = '[[channel]]\nname = "main"\ncapacity = "64KiB"\nmax = "64KiB"\nevict_after = "0"\n'
ITEMS = numpy.zeros((1000, 8000), dtype="u1")
"""Of these, the small channel holds no more than 8."""


def test_a_timeout_is_for_all_messages_of_an_array(daemon: Daemon) -> None:
    daemon.start(SMALL)
    received = 0
    stop = threading.Event()
    reader = shmd.Reader()

    def read_slowly() -> None:
        nonlocal received
        while not stop.wait(0.02):
            received += len(reader.recv_many(1, timeout=0))

    thread = threading.Thread(daemon=True, target=read_slowly)
    thread.start()
    try:
        # No message waits for as long as that.
        with shmd.Writer() as writer, pytest.raises(shmd.TimedOutError, match="space in channel main") as caught:
            writer.publish_array(ITEMS, timeout=0.5)
    finally:
        stop.set()
        thread.join(PATIENCE)
    received += len(reader.recv_many(1000, timeout=0))
    assert caught.value.published == received and 0 < received < 1000
    reader.close()


@pytest.mark.parametrize("way", ["array", "batch"])
def test_closing_ends_the_wait_of_a_batch(daemon: Daemon, way: str) -> None:
    daemon.start(SMALL)
    errors = []
    with shmd.Reader() as reader:
        writer = shmd.Writer()

        def publish() -> None:
            try:
                if way == "array":
                    writer.publish_array(ITEMS)
                with writer.batch() as batch:
                    for item in ITEMS:
                        batch.push(item)
            except ValueError as error:
                errors.append(str(error))

        thread = threading.Thread(daemon=True, target=publish)
        thread.start()
        wait_until("the channel is full", lambda: shmd.stat("main")["used"] > 30_000 or not thread.is_alive())
        time.sleep(0.1)
        writer.close()
        thread.join(PATIENCE)
        assert errors == ["the writer of channel main is closed"] and writer.closed
        wait_until("the role is free", lambda: shmd.stat("main")["writer"] is None)
        assert len(reader.recv_many(1000, timeout=0)) == shmd.stat("main")["messages"]


def test_a_batch_that_fails_says_what_was_published(daemon: Daemon) -> None:
    daemon.start(SMALL)
    with shmd.Reader() as reader, shmd.Writer() as writer:
        with pytest.raises(shmd.TooLargeError) as caught, writer.batch() as batch:
            for message in (b"one", b"two", bytes(writer.max_message + 1), b"four"):
                batch.push(message)
        assert caught.value.published == 2 and (batch.published, batch.seq) == (2, 1)
        assert reader.recv_many(10, timeout=0) == [b"one", b"two"]
        with pytest.raises(shmd.TimedOutError) as late, writer.batch(timeout=0.01) as batch:
            for item in ITEMS:
                batch.push(item)
        published = batch.published
        assert late.value.published == published > 0 and batch.seq == 1 + published
        assert len(reader.recv_many(1000, timeout=0)) == published
        # An exception of the statement itself publishes nothing.
        with pytest.raises(KeyError), writer.batch() as batch:
            batch.push(b"not published")
            raise KeyError
        assert batch.published == 0 and reader.try_recv() is None
