//! What goes in comes out: small and large messages, clean ends of everything, gaps, and messages of others in the stream.

use std::time::Duration;

use nix::sys::signal::Signal;
use shm_test_support::{Setup, wait_for, wait_until};

use crate::helpers::{FAR, Host, SOURCE, Server, Sink, Source, ends, skip_without_server};

/// More than the server takes in one message, by default 1 MiB.
const LARGE: usize = 2_500_000;

#[test]
fn a_channel_arrives_on_another_host() {
    let Some((server, here, there)) = ends("a_channel_arrives_on_another_host") else { return };
    let out = here.out_with_stream(&server.url(), &[]);
    let source = Source::start(here.daemon.endpoint(), 20_000, LARGE, Duration::ZERO);
    let mut inward = there.inward(&server.url(), &[]);
    let sink = Sink::start(there.daemon.endpoint(), 0, LARGE);
    sink.until(20_000);
    inward.until_err_has("made consumer");
    for relay in [out, inward] {
        let mut relay = relay;
        relay.signal(Signal::SIGTERM);
        let run = relay.wait().ok();
        assert!(run.err.contains("20000 messages, 0 lost"), "{run:?}");
    }
    assert_eq!(source.finish(), 20_000);
    sink.finish(20_000);
}

#[test]
fn publish_times_travel_with_the_messages_and_do_not_disturb_a_channel_without() {
    if skip_without_server("publish_times") {
        return;
    }
    let (server, there) = (Server::start(), Host::start(FAR));
    let here = Host::start(&format!("{SOURCE}timestamps = true\n"));
    let _out = here.out_with_stream(&server.url(), &["--batch-age", "50ms"]);
    let _source = Source::start(here.daemon.endpoint(), 3000, LARGE, Duration::ZERO);
    let _inward = there.inward(&server.url(), &[]);
    Sink::start(there.daemon.endpoint(), 0, LARGE).finish(3000);
}

#[test]
fn relays_that_end_and_start_again_go_on_where_they_were() {
    let Some((server, here, there)) = ends("relays_that_end_and_start_again") else { return };
    let source = Source::start(here.daemon.endpoint(), u64::MAX, 3000, Duration::from_millis(1));
    let sink = Sink::start(there.daemon.endpoint(), 0, 3000);
    for round in 0..4 {
        let (mut out, mut inward) = (here.out_with_stream(&server.url(), &[]), there.inward(&server.url(), &[]));
        // It has taken over by then what ends it: the sink may still receive what the relay before it has published.
        there.daemon.until_stat("the relay has the writer role", |stat| stat.writer.is_some());
        sink.until(sink.got() + 2000);
        for relay in if round % 2 == 0 { [&mut out, &mut inward] } else { [&mut inward, &mut out] } {
            relay.signal(Signal::SIGTERM);
            wait_until("the relay ends", || !relay.is_running());
        }
        out.wait().ok();
        inward.wait().ok();
    }
    let (_out, _inward) = (here.out_with_stream(&server.url(), &[]), there.inward(&server.url(), &[]));
    sink.finish(source.finish());
}

/// Both of its lives: when the daemon is stopped, the created channel goes, and the relay creates another one.
#[test]
fn the_far_channel_is_created_if_that_is_wanted() {
    if skip_without_server("the_far_channel_is_created") {
        return;
    }
    let (server, here) = (Server::start(), Host::start(SOURCE));
    let mut there = Host::start("max_created = 2\n[[channel]]\nname = \"other\"\n");
    let _out = here.out_with_stream(&server.url(), &[]);
    let create = ["--create-channel", "--set", "wait_readers=1", "--set", "max=16MiB"];
    let mut inward = there.inward(&server.url(), &create);
    inward.until_err_has("created channel cam");
    let source = Source::start(here.daemon.endpoint(), 3000, LARGE, Duration::ZERO);
    Sink::start(there.daemon.endpoint(), 0, LARGE).finish(3000);
    source.finish();
    there.daemon.stop(Signal::SIGTERM);
    there.launch();
    wait_until("the channel is created again", || inward.err_so_far().matches("created channel cam").count() == 2);
    let run = there.run(&["in", "new", "--from", &server.url(), "--stream", "CAM", "--create-channel", "--set", "x=y"]);
    run.wait().fails(2, &["x"]);
}

/// A daemon that is stopped takes its channel with it. The next one has another, and both relays go over to it.
#[test]
fn relays_outlive_the_channels() {
    let Some((server, mut here, mut there)) = ends("relays_outlive_the_channels") else { return };
    let (_out, _inward) = (here.out_with_stream(&server.url(), &[]), there.inward(&server.url(), &[]));
    for round in 0..3 {
        let source = Source::start(here.daemon.endpoint(), 3000, 0, Duration::ZERO);
        let sink = Sink::start(there.daemon.endpoint(), 0, 0);
        sink.finish(3000);
        source.finish();
        let restart = |host: &mut Host| {
            host.daemon.stop(Signal::SIGTERM);
            host.launch();
        };
        // Whichever goes first.
        if round == 1 {
            restart(&mut there);
            restart(&mut here);
        } else {
            restart(&mut here);
            restart(&mut there);
        }
    }
}

/// Nobody holds a channel that overwrites. The next channel waits for both readers.
#[test]
fn a_channel_that_no_longer_overwrites_is_held_again() {
    if skip_without_server("a_channel_that_no_longer_overwrites") {
        return;
    }
    let (server, there) = (Server::start(), Host::start(FAR));
    let mut here = Host::start("[[channel]]\nname = \"cam\"\non_full = \"overwrite\"\n");
    let mut out = here.out_with_stream(&server.url(), &[]);
    out.until_err_has("the channel overwrites its oldest messages");
    here.daemon.until_stat("only the reader that reads ahead is left", |stat| {
        stat.readers.len() == 1 && stat.readers[0].status.starts_with("reads ahead")
    });
    here.daemon.stop(Signal::SIGTERM);
    here.daemon.launch(Setup::new(SOURCE));
    let _inward = there.inward(&server.url(), &[]);
    let _source = Source::start(here.daemon.endpoint(), 1000, 0, Duration::ZERO);
    Sink::start(there.daemon.endpoint(), 0, 0).finish(1000);
}

/// Without `wait_readers` the channel goes on while the relay is dead. What it has forgotten is counted on both sides.
#[test]
fn what_the_channel_has_forgotten_is_counted() {
    if skip_without_server("what_the_channel_has_forgotten") {
        return;
    }
    let (server, there) = (Server::start(), Host::start("[[channel]]\nname = \"cam\"\nmax = \"16MiB\"\n"));
    let here = Host::start("[[channel]]\nname = \"cam\"\ncapacity = \"64KiB\"\nmax = \"64KiB\"\n");
    let mut out = here.out_with_stream(&server.url(), &[]);
    out.until_err_has("wait_readers = 2 keeps them");
    let mut inward = there.inward(&server.url(), &[]);
    let source = Source::start(here.daemon.endpoint(), 100, 0, Duration::ZERO);
    let sink = Sink::start(there.daemon.endpoint(), 0, 0);
    sink.finish(100);
    source.finish();
    out.kill();
    {
        let mut writer = here.daemon.writer();
        for n in 100..5000 {
            writer.publish(&crate::helpers::content(n, 0)).unwrap();
        }
    }
    let mut out = here.out_with_stream(&server.url(), &[]);
    out.until_err_has("messages are lost: the stream has those before 100,");
    inward.until_err_has(" are missing in the stream");
    let number = |text: &str, behind: &str| -> u64 {
        let line = text.lines().rev().find(|line| line.contains(behind)).unwrap();
        line.split_once(behind).unwrap().0.rsplit([' ', ']']).next().unwrap().parse().unwrap()
    };
    let lost = number(&out.err_so_far(), " messages are lost");
    assert_eq!(number(&inward.err_so_far(), " messages before"), lost);
    assert!(lost > 3000, "only {lost} messages are lost");
    wait_until("the rest arrives", || there.daemon.stat().messages == 5000 - lost);
}

#[test]
fn messages_of_others_are_passed_over_and_counted() {
    let Some((server, here, there)) = ends("messages_of_others") else { return };
    let metrics = there.daemon.place.path("relay.prom");
    let mut out = here.out_with_stream(&server.url(), &[]);
    let mut inward = {
        server.publish("CAM.hello", b"from somebody");
        there.inward(&server.url(), &["--metrics", metrics.to_str().unwrap()])
    };
    let source = Source::start(here.daemon.endpoint(), u64::MAX, 3000, Duration::from_millis(1));
    let sink = Sink::start(there.daemon.endpoint(), 0, 3000);
    sink.until(1000);
    // A count that cannot be, the version of another release, and nothing at all; also in the middle of large messages.
    let count = [&[1u8, 0, 0, 0][..], &[0xff; 60]].concat();
    for n in 0..30 {
        server.publish("CAM.hello", [&count[..], b"\x02later", b""][n % 3]);
        sink.until(sink.got() + 100);
    }
    sink.finish(source.finish());
    inward.until_err_has("is not a relay's");
    out.until_err_has("looking where the stream ends");
    wait_for("the metrics count them", || {
        let text = std::fs::read_to_string(&metrics).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with("shmd_relay_foreign_messages_total{"))?;
        line.ends_with(" 31").then_some(())
    });
    assert!(inward.is_running() && out.is_running());
}
