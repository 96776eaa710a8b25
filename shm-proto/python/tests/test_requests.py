"""What the daemon is asked."""

import time
import typing

import pytest
from conftest import Daemon

import shmd
from shmd import _types


def test_stat_has_the_keys_of_its_types(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "ring"\n[[channel]]\nname = "handoff"\nmode = "handoff"\n')
    with shmd.Reader("ring"), shmd.Writer("ring") as writer:
        writer.publish(b"hello")
        ring = shmd.stat("ring")
        assert isinstance(ring, dict)
        assert set(ring) == set(_types._ChannelStat.__annotations__)
        assert set(ring["readers"][0]) == set(_types._ReaderStat.__annotations__)
        assert ring["writer"] is not None and set(ring["writer"]) == set(_types.WriterStat.__annotations__)
        assert set(ring["last_minute"]) == set(_types.Rate.__annotations__)
    both = shmd.stat()
    assert [channel["channel"] for channel in both] == ["ring", "handoff"]
    for channel in both:
        assert set(channel) <= set(typing.get_type_hints(shmd.ChannelStat))


def test_publish_times(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "timed"\ntimestamps = true\n[[channel]]\nname = "plain"\n')
    with shmd.Reader("timed") as reader, shmd.Writer("timed") as writer:
        begun, since = time.monotonic_ns(), time.time()
        writer.publish(b"hello")
        writer.publish(b"unread")
        message = reader.recv(timeout=60)
        assert message.published_ns is not None and begun <= message.published_ns <= time.monotonic_ns()
        # The clock may be set, but hardly by an hour.
        assert message.time is not None and since - 3600 < message.time < time.time() + 3600
        message.finish()
        stat = shmd.stat("timed")
        assert stat["timestamps"] and stat["readers"][0]["latency"]["messages"] == 1
        assert set(stat["readers"][0]["latency"]) == set(_types.Latency.__annotations__)
        assert set(stat["readers"][0]) <= set(typing.get_type_hints(_types.ReaderStat))
        assert stat["readers"][0]["oldest_unread_ns"] > 0
    with shmd.Reader("plain") as reader, shmd.Writer("plain") as writer:
        writer.publish(b"hello")
        message = reader.recv(timeout=60)
        assert message.time is None and message.published_ns is None


def test_channels_and_resize(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "a"\n[[channel]]\nname = "b"\n')
    listed = shmd.channels()
    assert [channel["channel"] for channel in listed] == ["a", "b"]
    assert all(set(channel) == set(shmd.ChannelSummary.__annotations__) for channel in listed)
    resized = shmd.resize(2 << 20, "b")
    assert resized == {"channel": "b", "old": 1 << 20, "asked": 2 << 20, "new": 2 << 20, "pending": False}
    assert set(resized) == set(shmd.Resized.__annotations__)
    assert shmd.stat("b", runtime_dir=daemon.run_dir)["capacity"] == 2 << 20
    with pytest.raises(ValueError, match="timeout"):
        shmd.channels(timeout=-1)
