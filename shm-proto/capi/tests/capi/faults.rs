//! Evictions, overwriting, daemons that stop or are killed.

use nix::sys::signal::Signal;
use shm_proto::internal::control::stat::ChannelStat;
use shm_test_support::{Daemon, Setup, heavy};

use crate::kit::{self, Peer, Program};

/// Lets a peer that holds messages go on.
fn go_on(peer: &mut Peer) {
    peer.proc.feed(b"\n");
}

#[track_caller]
fn evict_only(daemon: &Daemon) {
    let number = daemon.until_readers(1).readers[0].reader.to_string();
    daemon.cli(&["evict", "--reader", &number]).quiet();
}

#[test]
fn a_reader_that_is_evicted_learns_that_what_it_holds_is_invalid() {
    let Some(c) = kit::c() else { return };
    for (how, held) in [("one", "holds 1\n"), ("many", "holds 16\n")] {
        let daemon = Daemon::start("");
        // The first message is lent by itself if the writer does not hold the floor for the reader yet.
        let mut peer = c.start(&daemon, &["hold", how]).until("attached");
        daemon.until_readers(1);
        let lines: String = (0..40).map(|n| format!("{n}\n")).collect();
        let mut writer = daemon.writer();
        let mut batch = writer.batch();
        for line in lines.lines() {
            batch.push(line.as_bytes()).unwrap();
        }
        batch.commit().unwrap();
        peer.proc.until_out_has("holds ");
        assert!(how == "one" || peer.proc.out_so_far().contains(held), "{}", peer.proc.out_so_far());
        evict_only(&daemon);
        go_on(&mut peer);
        peer.proc.until_out_has("SHMD_ERR_EVICTED 0: evicted from channel main");
        go_on(&mut peer);
        peer.proc.until_out_has("then SHMD_ERR_EVICTED");
        peer.wait().quiet();
    }
}

#[test]
fn a_follower_goes_on_after_an_eviction() {
    let Some(c) = kit::c() else { return };
    let daemon = Daemon::start("");
    daemon.write_lines("a\nb\nc\n");
    let mut peer = c.start(&daemon, &["hold", "one", "follow"]).until("holds 1\n");
    evict_only(&daemon);
    go_on(&mut peer);
    peer.proc.until_out_has("SHMD_ERR_EVICTED 0:");
    go_on(&mut peer);
    // What it held was not received, and the bytes are still there.
    peer.proc.until_out_has("then SHMD_OK");
    peer.wait().quiet();
}

#[test]
fn a_message_that_was_overwritten_is_reported_and_losses_are_counted() {
    let Some(c) = kit::c() else { return };
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\non_full = \"overwrite\"\n");
    let mut writer = daemon.writer();
    writer.publish(&[1; 1000]).unwrap();
    let mut peer = c.start(&daemon, &["hold", "many"]).until("holds 1\n");
    for _ in 0..300 {
        writer.publish(&[2; 1000]).unwrap();
    }
    go_on(&mut peer);
    peer.proc.until_out_has("SHMD_ERR_OVERWRITTEN 0: overwritten while reading:");
    go_on(&mut peer);
    peer.proc.until_out_has("in all\n");
    let said = peer.wait().quiet().text();
    let lost: u64 = said.rsplit("lost ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    // Of 301 messages, the ring keeps some 60, and the reader has received one.
    assert!((200..300).contains(&lost) && said.contains(&format!("next {lost} lost {lost}\nthen SHMD_OK\n")), "{said}");
}

#[test]
fn a_stream_goes_on_while_the_daemon_is_killed_and_started_again() {
    let Some(c) = kit::c() else { return };
    let _turn = heavy();
    let config = "[[channel]]\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"1MiB\"\nevict_after = \"0\"\n";
    let mut daemon = Daemon::start(config);
    let readers = ["wait", "many", "poll", "follow"]
        .map(|way| c.start(&daemon, &["receive", "400000", "400", way]).until("attached"));
    daemon.until_readers(4);
    let mut from = c.start(&daemon, &["send", "400000", "400", "copy"]).until("attached");
    let mut kills = 0;
    while kills < 3 && from.proc.is_running() {
        let before = daemon.stat().messages;
        daemon.kill();
        daemon.launch(Setup::new(config));
        kills += 1;
        daemon.until_stat("the stream goes on", |stat| stat.messages > before + 1000 || stat.messages == 400_000);
    }
    from.wait().prints("attached\nsent\n");
    for reader in readers {
        reader.wait().prints("attached\nreceived\n");
    }
    assert!(kills > 0);
}

#[test]
fn a_reader_is_told_that_the_channel_is_closed_or_that_the_daemon_is_gone() {
    let Some(c) = kit::c() else { return };
    let mut daemon = Daemon::start("");
    daemon.write_lines("last\n");
    let printing = c.start(&daemon, &["print"]).until("last\n");
    daemon.stop(Signal::SIGTERM);
    let said = printing.wait().quiet().text();
    assert!(said.ends_with("last\nSHMD_ERR_CLOSED: channel main is closed\n"), "{said}");
}

#[test]
fn a_follower_waits_for_the_next_daemon_and_says_why() {
    let Some(c) = kit::c() else { return };
    let mut daemon = Daemon::start("");
    daemon.write_lines("before\n");
    let mut printing = c.start(&daemon, &["print", "follow"]).until("before\n");
    daemon.stop(Signal::SIGTERM);
    printing.proc.until_out_has("notice: channel main is closed; waiting for it\n");
    daemon.launch(Setup::new(""));
    daemon.write_lines("after\n");
    printing.proc.until_out_has("after\n");
}

#[test]
fn messages_of_a_handoff_are_received_and_acknowledged() {
    let Some(c) = kit::c() else { return };
    for args in [&["print"][..], &["print", "follow"]] {
        let daemon = Daemon::start("[[channel]]\nmode = \"handoff\"\n");
        let mut printing = c.start(&daemon, args).until("attached");
        // A follower attaches at its first receive.
        daemon.until_stat("a reader is attached", |stat| stat.readers.len() == 1);
        daemon.write_lines("one\ntwo\nthree\n");
        printing.proc.until_out_has("one\ntwo\nthree\n");
        daemon.until_stat("everything is acknowledged", |stat| {
            stat.messages == 3 && stat.handoff.as_ref().is_some_and(|handoff| handoff.on_offer.is_none())
        });
    }
}

#[test]
fn finishing_a_message_of_a_handoff_acknowledges_it() {
    let Some(c) = kit::c() else { return };
    for args in [&["hold", "one"][..], &["hold", "one", "follow"]] {
        let daemon = Daemon::start("[[channel]]\nmode = \"handoff\"\nack_timeout = \"100s\"\n");
        let mut peer = c.start(&daemon, args).until("attached");
        daemon.until_stat("a reader is attached", |stat| stat.readers.len() == 1);
        // It ends when the message is acknowledged.
        let mut writing = daemon.spawn_piped(&["write"]);
        writing.feed(b"one\n");
        writing.end_input();
        peer.proc.until_out_has("holds 1\n");
        let on_offer = |stat: &ChannelStat| stat.handoff.as_ref().is_some_and(|handoff| handoff.on_offer.is_some());
        assert!(writing.is_running(), "it is not acknowledged before it is finished");
        go_on(&mut peer);
        peer.proc.until_out_has("SHMD_OK 1: ");
        // The peer asks for nothing more yet.
        writing.wait().quiet();
        daemon.until_stat("it is acknowledged", |stat| !on_offer(stat));
    }
}

/// A message that this peer takes and does not process comes to another reader.
#[track_caller]
fn comes_to_another_reader(program: &Program, args: &[&str]) {
    let daemon = Daemon::start("[[channel]]\nmode = \"handoff\"\nack_timeout = \"200ms\"\n");
    let peer = program.start(&daemon, args).until("attached");
    // It ends when the message is acknowledged.
    let mut writing = daemon.spawn_piped(&["write"]);
    writing.feed(b"one\n");
    writing.end_input();
    let peer = peer.until("left");
    assert!(peer.wait().ok().text().ends_with("left\n"));
    let mut reading = daemon.spawn(&["read"]);
    reading.until_out_has("one\n");
    writing.wait().quiet();
}

#[test]
fn a_message_of_a_handoff_that_is_given_back_comes_to_another_reader() {
    if let Some(c) = kit::c() {
        comes_to_another_reader(c, &["leave", "back"]);
        comes_to_another_reader(c, &["leave", "back", "follow"]);
    }
    if let Some(cpp) = kit::cpp() {
        comes_to_another_reader(cpp, &["leave", "back"]);
    }
}

#[test]
fn a_message_of_a_handoff_that_never_fitted_comes_to_another_reader() {
    let Some(c) = kit::c() else { return };
    comes_to_another_reader(c, &["leave", "small"]);
    comes_to_another_reader(c, &["leave", "small", "follow"]);
}

#[test]
fn an_exception_gives_a_message_of_a_handoff_back() {
    let Some(cpp) = kit::cpp() else { return };
    comes_to_another_reader(cpp, &["leave", "one"]);
    comes_to_another_reader(cpp, &["leave", "many"]);
}

#[test]
fn a_poll_loop_on_a_handoff_is_woken_by_messages_and_by_the_daemon() {
    let Some(c) = kit::c() else { return };
    let config = "[[channel]]\nmode = \"handoff\"\n";
    for args in [&["poll"][..], &["poll", "follow"]] {
        let mut daemon = Daemon::start(config);
        let mut polling = c.start(&daemon, args).until("attached");
        daemon.until_stat("a reader is attached", |stat| stat.readers.len() == 1);
        for line in ["one\n", "two\n", "three\n"] {
            daemon.write_lines(line);
            polling.proc.until_out_has(line);
        }
        daemon.kill();
        daemon.launch(Setup::new(config));
        daemon.write_lines("after a crash\n");
        polling.proc.until_out_has("after a crash\n");
        daemon.until_stat("the reader has found that daemon", |stat| stat.readers.len() == 1);
        daemon.stop(Signal::SIGTERM);
        if args == ["poll"] {
            // It may notice first that the daemon has closed the channel, or that the objects are gone, which have its name in theirs.
            let said = polling.wait().quiet().text();
            assert!(said.contains("SHMD_ERR_CLOSED: channel ") && said.ends_with("main is closed\n"), "{said}");
            continue;
        }
        polling.proc.until_out_has("main is closed; waiting for it\n");
        daemon.launch(Setup::new(config));
        daemon.write_lines("of another daemon\n");
        polling.proc.until_out_has("of another daemon\n");
    }
}
