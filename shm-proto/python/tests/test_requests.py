"""What the daemon is asked."""

import time
import typing

import pytest
from conftest import Daemon, wait_until

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
        assert reader.set_status("busy") and not reader.set_status("idle")
        wait_until("the status is shown", lambda: shmd.stat("timed")["readers"][0].get("status") == "busy")
        stat = shmd.stat("timed")
        assert stat["timestamps"] and stat["readers"][0]["latency"]["messages"] == 1
        assert set(stat["readers"][0]["latency"]) == set(_types.Latency.__annotations__)
        assert set(stat["readers"][0]) <= set(typing.get_type_hints(_types.ReaderStat))
        assert stat["readers"][0]["oldest_unread_ns"] > 0
    with shmd.Reader("plain") as reader, shmd.Writer("plain") as writer:
        writer.publish(b"hello")
        message = reader.recv(timeout=60)
        assert message.time is None and message.published_ns is None


def test_content(daemon: Daemon) -> None:
    declared = 'content = "protobuf"\nschema = "telemetry.Frame"\nschema_encoding = "proto3"\nschema_text = "message Frame {}"\n'
    daemon.start(f'[[channel]]\nname = "frames"\n{declared}[[channel]]\nname = "plain"\n')
    with (
        shmd.Reader("frames", content="protobuf", schema="telemetry.Frame") as reader,
        shmd.Writer("frames", content="protobuf") as writer,
    ):
        writer.publish(b"hello")
        assert bytes(reader.recv(timeout=60)) == b"hello"
        assert reader.content is not None and reader.content == writer.content
        assert reader.content["encoding"] == "protobuf"
        assert reader.content["schema"]["name"] == "telemetry.Frame"
        assert set(reader.content["schema"]) == set(typing.get_type_hints(_types.Schema))
    for kind in (shmd.Reader, shmd.Writer):
        with pytest.raises(shmd.RefusedError, match="protobuf:telemetry.Frame, and the program expects json") as error:
            kind("frames", content="json")
        assert error.value.kind == "other_content"
    with pytest.raises(shmd.RefusedError, match="declares no content"):
        shmd.Reader("plain", content="json", schema="a")
    with shmd.Reader("plain") as reader:
        assert reader.content is None
    assert shmd.schema("frames") == b"message Frame {}"
    assert shmd.schema("plain") is None
    stat, listed = shmd.stat("frames"), shmd.channels()
    assert stat["content"] == listed[0]["content"] and "content" not in listed[1]
    assert set(stat) <= set(typing.get_type_hints(shmd.ChannelStat))
    with pytest.raises(ValueError, match="without content"):
        shmd.Reader("frames", schema="telemetry.Frame")
    with pytest.raises(ValueError, match="js on"):
        shmd.Writer("frames", content="js on")


def test_channels_and_resize(daemon: Daemon) -> None:
    daemon.start('[[channel]]\nname = "a"\n[[channel]]\nname = "b"\n')
    listed = shmd.channels()
    assert [channel["channel"] for channel in listed] == ["a", "b"]
    assert all(set(channel) == set(_types._ChannelSummary.__annotations__) for channel in listed)
    resized = shmd.resize(2 << 20, "b")
    assert resized == {"channel": "b", "old": 1 << 20, "asked": 2 << 20, "new": 2 << 20, "pending": False}
    assert set(resized) == set(shmd.Resized.__annotations__)
    assert shmd.stat("b", runtime_dir=daemon.run_dir)["capacity"] == 2 << 20
    with pytest.raises(ValueError, match="timeout"):
        shmd.channels(timeout=-1)
