//! A network that stands still: a proxy on loopback is stopped, and nobody is told.

use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::WriterError;
use shm_proto::internal::control::stat::ReaderState;
use shm_test_support::{wait_for, wait_until};

use crate::helpers::{FAR, Host, Proxy, SOURCE, Server, Sink, Source, content, ends, skip_without_server};

/// Options with which a link stands still soon.
const SOON: [&str; 4] = ["--stalled-after", "300ms", "--in-flight", "256KiB"];

#[test]
fn with_wait_the_channel_holds_what_the_link_does_not_take() {
    if skip_without_server("with_wait") {
        return;
    }
    let (server, there) = (Server::start(), Host::start(FAR));
    let here = Host::start(&format!("{SOURCE}stalled_after = \"500ms\"\n"));
    let proxy = Proxy::to(server.port());
    let metrics = here.daemon.place.path("relay.prom");
    let more = [&SOON[..], &["--metrics", metrics.to_str().unwrap()]].concat();
    let out = here.out_with_stream(&proxy.url(), &more);
    let _inward = there.inward(&server.url(), &[]);
    let source = Source::start(here.daemon.endpoint(), u64::MAX, 3000, Duration::ZERO);
    let sink = Sink::start(there.daemon.endpoint(), 0, 3000);
    for round in 1..=2 {
        sink.until(sink.got() + 20_000);
        // The last round's metrics would say what is waited for.
        wait_for("the metrics no longer say that the link stands still", || {
            let text = std::fs::read_to_string(&metrics).unwrap_or_default();
            text.contains("state=\"stalled, waiting\"} 0").then_some(())
        });
        proxy.stop();
        wait_until("the relay says that the link stands still", || {
            out.err_so_far().matches(": stalled, waiting").count() >= round
        });
        // The channel is full now, and nothing is lost.
        here.daemon.until_stat("the writer waits for a reader that stands still", |stat| {
            stat.readers.len() == 2 && stat.readers.iter().any(|reader| reader.state == ReaderState::Stalled)
        });
        here.daemon.until_stat("both readers say so", |stat| {
            stat.readers.iter().all(|reader| reader.status.ends_with(" for stream CAM: stalled, waiting"))
        });
        wait_for("the metrics say so", || {
            let text = std::fs::read_to_string(&metrics).unwrap_or_default();
            text.contains("state=\"stalled, waiting\"} 1").then_some(())
        });
        proxy.go_on();
    }
    sink.finish(source.finish());
}

#[test]
fn a_spool_takes_what_the_channel_cannot_hold_and_outlives_the_relay() {
    let Some((server, here, there)) = ends("a_spool") else { return };
    let proxy = Proxy::to(server.port());
    let dir = here.daemon.place.path("spool");
    let policy = format!("spool:{}:256MiB", dir.display());
    let more = [&SOON[..], &["--when-stalled", &policy]].concat();
    let mut out = here.out_with_stream(&proxy.url(), &more);
    let _inward = there.inward(&server.url(), &[]);
    // On a busy machine the link stands still now and then, and what is published meanwhile fills the spool.
    let source = Source::start_up_to(here.daemon.endpoint(), 6000, LARGE);
    let sink = Sink::start(there.daemon.endpoint(), 0, LARGE);
    sink.until(5000);
    proxy.stop();
    source.allow(6000 + MORE);
    wait_until("more messages are published than the channel and memory hold", || source.sent() == 6000 + MORE);
    out.until_err_has("stalled, spooling");
    here.daemon.until_stat("the reader that holds says what is in the spool", |stat| {
        let spools = |status: &str| status.contains("stalled, spooling, ") && status.ends_with("iB in the spool");
        stat.readers.iter().any(|reader| spools(&reader.status))
    });
    out.kill();
    let mut out = here.out(&proxy.url(), &more);
    out.until_err_has("the spool");
    out.kill();
    proxy.go_on();
    let mut out = here.out(&proxy.url(), &more);
    sink.finish(source.finish());
    let spooled =
        || std::fs::read_dir(&dir).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some()).count();
    wait_until("the spool is empty", || spooled() == 0);
    out.signal(Signal::SIGTERM);
    out.wait().ok();
}

/// More than the server takes in one message.
const LARGE: usize = 1_100_000;
/// With the large ones 33 MB.
const MORE: u64 = 30_000;

/// Envelopes are as large as the server takes them, although these policies can do without a server.
#[test]
fn with_drop_and_spool_envelopes_fit_a_server_that_takes_less_than_usual() {
    if skip_without_server("envelopes_fit") {
        return;
    }
    let (server, there) = (Server::with("max_payload: 65536\n"), Host::start(FAR));
    let here = Host::start(SOURCE);
    let spool = format!("spool:{}:64MiB", here.daemon.place.path("spool").display());
    let _inward = {
        let mut out = here.out_with_stream(&server.url(), &["--when-stalled", "drop", "--stalled-after", "60s"]);
        let _source = Source::start(here.daemon.endpoint(), 1000, LARGE, Duration::ZERO);
        let inward = there.inward(&server.url(), &[]);
        Sink::start(there.daemon.endpoint(), 0, LARGE).finish(1000);
        assert!(out.is_running());
        out.signal(Signal::SIGTERM);
        out.wait().ok();
        inward
    };
    let mut out = here.out_with_stream(&server.url(), &["--when-stalled", &spool, "--stalled-after", "60s"]);
    let mut writer = here.daemon.writer();
    let sink = Sink::start(there.daemon.endpoint(), 0, LARGE);
    for n in 1000..2000 {
        writer.publish_within(&content(n, LARGE), Duration::from_secs(60)).unwrap();
    }
    sink.finish(2000);
    assert!(out.is_running());
}

#[test]
fn envelopes_fit_a_stream_that_takes_less_than_the_server() {
    let Some((server, here, there)) = ends("envelopes_fit_a_stream") else { return };
    server.make_stream("\"max_msg_size\":65536");
    let _out = here.out_with_stream(&server.url(), &[]);
    let _source = Source::start(here.daemon.endpoint(), 1000, LARGE, Duration::ZERO);
    let _inward = there.inward(&server.url(), &[]);
    Sink::start(there.daemon.endpoint(), 0, LARGE).finish(1000);
}

/// What was read for the server before cannot be sent, and the next relay reads it again.
#[test]
fn a_server_that_takes_less_than_before_ends_the_relay_and_the_next_relay_goes_on() {
    let Some((mut server, here, there)) = ends("a_server_that_takes_less_than_before") else { return };
    let out = here.out_with_stream(&server.url(), &[]);
    server.kill();
    let _source = Source::start(here.daemon.endpoint(), 501, 200_000, Duration::ZERO);
    here.daemon.until_stat("the relay has read everything", |stat| {
        stat.messages == 501 && stat.readers.iter().any(|reader| reader.lag_messages == 0)
    });
    server.configure("max_payload: 65536");
    server.launch();
    out.wait().fails(1, &["max_payload", "--max-msg-size", "start the relay again"]);
    let _out = here.out_with_stream(&server.url(), &[]);
    let _inward = there.inward(&server.url(), &[]);
    Sink::start(there.daemon.endpoint(), 0, 200_000).finish(501);
}

#[test]
fn a_spool_that_is_full_makes_the_channel_wait() {
    let Some((server, here, there)) = ends("a_spool_that_is_full") else { return };
    let proxy = Proxy::to(server.port());
    let dir = here.daemon.place.path("spool");
    let policy = format!("spool:{}:2MiB", dir.display());
    let mut out = here.out_with_stream(&proxy.url(), &[&SOON[..], &["--when-stalled", &policy]].concat());
    let _inward = there.inward(&server.url(), &[]);
    proxy.stop();
    // Some 70 bytes each, so 14 MB: more than memory, spool and channel hold.
    let source = Source::start(here.daemon.endpoint(), 200_000, 0, Duration::ZERO);
    out.until_err_has("stalled, spooling");
    here.daemon
        .until_stat("the channel is full", |stat| stat.used + (64 << 10) > stat.capacity && stat.capacity == 4 << 20);
    assert!(source.sent() < 200_000);
    proxy.go_on();
    Sink::start(there.daemon.endpoint(), 0, 0).finish(200_000);
}

#[test]
fn with_drop_new_messages_are_dropped_and_counted() {
    let Some((server, here, there)) = ends("with_drop") else { return };
    let proxy = Proxy::to(server.port());
    let mut out = here.out_with_stream(&proxy.url(), &[&SOON[..], &["--when-stalled", "drop"]].concat());
    let mut inward = there.inward(&server.url(), &[]);
    proxy.stop();
    let source = Source::start(here.daemon.endpoint(), 300_000, 3000, Duration::ZERO);
    out.until_err_has("stalled, dropping");
    // Nobody holds the channel up.
    wait_until("everything is published", || source.sent() == 300_000);
    proxy.go_on();
    // Whatever was not dropped arrives, in order.
    let mut reader = there.daemon.reader(shm_proto::Start::Oldest);
    source.finish();
    let mut writer = here.daemon.writer();
    let (mut bytes, mut last, mut received) = (Vec::new(), None, 0u64);
    let mut next = 300_000;
    wait_until("a message arrives that was published when the link worked again", || {
        assert!(out.is_running(), "{}", out.err_so_far());
        // Another message now and then, until one of them arrives: then the link works.
        match writer.publish_within(&content(next, 3000), Duration::from_millis(200)) {
            Ok(_) | Err(WriterError::Unacknowledged { .. }) => next += 1,
            Err(WriterError::TimedOut { .. }) => {}
            Err(error) => panic!("message {next}: {error}"),
        }
        while reader.recv_into(&mut bytes, Some(Duration::from_millis(200))).is_ok() {
            let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            assert!(last.is_none_or(|last| number > last), "{number} came after {last:?}");
            assert!(bytes == content(number, 3000), "message {number} has other bytes");
            last = Some(number);
            received += 1;
        }
        last.is_some_and(|last| last >= 300_000)
    });
    inward.until_err_has("are missing in the stream");
    out.signal(Signal::SIGTERM);
    let run = out.wait().ok();
    assert!(run.err.contains(" dropped"), "{run:?}");
    assert!(received < 300_000, "nothing was dropped");
}

/// A channel that is made smaller does not wait for the server.
#[test]
fn a_relay_in_hears_the_daemon_while_the_server_is_away() {
    if skip_without_server("a_relay_in_hears_the_daemon") {
        return;
    }
    let (mut server, there) = (Server::start(), Host::start(FAR));
    server.make_stream("\"retention\":\"limits\"");
    let mut inward = there.inward(&server.url(), &[]);
    inward.until_err_has("CAM -> cam: relaying");
    server.kill();
    inward.until_err_has("; trying again");
    let now = there.daemon.stat().capacity;
    there.daemon.resize(now / 2).unwrap();
    there.daemon.until_stat("the writer has left the memory", |stat| stat.capacity == now / 2);
}

#[test]
fn a_relay_in_says_that_it_cannot_publish() {
    if skip_without_server("a_relay_in_says_that_it_cannot_publish") {
        return;
    }
    let (server, there) = (Server::start(), Host::start(FAR));
    server.make_stream("\"retention\":\"limits\"");
    let metrics = there.daemon.place.path("relay.prom");
    let another = there.daemon.writer();
    let mut inward = there.inward(&server.url(), &["--metrics", metrics.to_str().unwrap()]);
    let until = |state: &str| {
        wait_for(&format!("the metrics say {state}"), || {
            let text = std::fs::read_to_string(&metrics).unwrap_or_default();
            text.contains(&format!("state=\"{state}\"}} 1")).then_some(())
        });
    };
    inward.until_err_has("stalled, waiting: cannot publish to the channel: ");
    until("stalled, waiting");
    drop(another);
    until("relaying");
}

#[test]
fn a_relay_out_says_that_it_has_no_channel() {
    let Some((server, mut here, there)) = ends("a_relay_out_says_that_it_has_no_channel") else { return };
    let metrics = here.daemon.place.path("relay.prom");
    let mut out = here.out_with_stream(&server.url(), &["--metrics", metrics.to_str().unwrap()]);
    let _inward = there.inward(&server.url(), &[]);
    out.until_err_has("cam -> CAM: relaying");
    here.daemon.stop(Signal::SIGTERM);
    out.until_err_has("cam -> CAM: no channel: the relay waits for the daemon or the channel");
    let has = |state: &str| std::fs::read_to_string(&metrics).unwrap().contains(&format!("state=\"{state}\"}} 1"));
    wait_until("the metrics show it", || has("no channel"));
    here.launch();
    wait_until("the metrics show that it is over", || has("relaying"));
    let _source = Source::start(here.daemon.endpoint(), 10, 0, Duration::ZERO);
    Sink::start(there.daemon.endpoint(), 0, 0).finish(10);
}
