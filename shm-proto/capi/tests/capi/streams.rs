//! Lossless streams between programs in C, C++ and Rust.

use std::time::Duration;

use shm_test_support::{Daemon, heavy, wait_for, wait_until};

use crate::kit::{self, Peer, Program, Recipe, has};

/// Small, so that the stream goes around it often and the writer has to wait.
const SMALL: &str = "[[channel]]\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n";
/// Largest message of a stream, in bytes.
const MOST: &str = "2000";

#[track_caller]
fn stream(writer: (&Program, &str), reader: (&Program, &str), count: &str) {
    let daemon = Daemon::start(SMALL);
    let to = reader.0.start(&daemon, &["receive", count, MOST, reader.1]);
    // A reader that follows attaches when it receives for the first time.
    daemon.until_readers(1);
    let from = writer.0.start(&daemon, &["send", count, MOST, writer.1]);
    from.wait().prints("attached\nsent\n");
    to.wait().prints("attached\nreceived\n");
}

#[test]
fn c_programs_exchange_a_stream_in_every_way() {
    let Some(c) = kit::c() else { return };
    let _turn = heavy();
    for (send, receive) in [
        ("copy", "wait"),
        ("place", "copy"),
        ("batch", "poll"),
        ("many", "many"),
        ("acked", "follow"),
        ("copy", "many"),
    ] {
        stream((c, send), (c, receive), "3000");
    }
}

#[test]
fn c_and_cpp_programs_exchange_a_stream_in_every_way() {
    let (Some(c), Some(cpp)) = (kit::c(), kit::cpp()) else { return };
    let _turn = heavy();
    for (send, receive) in [("copy", "follow"), ("place", "poll"), ("batch", "many"), ("many", "copy")] {
        stream((cpp, send), (c, receive), "2000");
        stream((c, send), (cpp, receive), "2000");
    }
    stream((cpp, "many"), (cpp, "wait"), "2000");
}

#[test]
fn programs_exchange_lines_with_shmctl() {
    let Some(c) = kit::c() else { return };
    let daemon = Daemon::start("");
    let lines: String = (0..500).map(|n| format!("line {n}\n")).collect();
    let mut from = c.start(&daemon, &["lines"]);
    from.proc.feed(lines.as_bytes());
    from.wait().quiet();
    daemon.cli(&["read", "--from", "oldest", "-n", "500"]).prints(&lines);
    daemon.write_lines("one more\n");
    let mut printing = c.start(&daemon, &["print"]).until("one more\n");
    assert_eq!(printing.proc.out_so_far(), format!("attached\n{lines}one more\n"));
    daemon.write_lines("and one\n");
    printing.proc.until_out_has("and one\n");
}

#[test]
fn a_stream_goes_on_while_the_channel_grows_and_shrinks() {
    let Some(c) = kit::c() else { return };
    let _turn = heavy();
    let daemon =
        Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"16MiB\"\nevict_after = \"0\"\n");
    let start = |args: [&str; 4]| c.start(&daemon, &args);
    let readers = ["wait", "many", "poll"].map(|way| start(["receive", "60000", MOST, way]).until("attached"));
    daemon.until_readers(3);
    let mut from: Peer = start(["send", "60000", MOST, "place"]);
    let (mut sizes, mut asked) = ([8u64 << 20, 64 << 10, 1 << 20, 16 << 20].into_iter().cycle(), 0);
    while from.proc.is_running() {
        // A shrink may have to wait, and another change is then refused.
        asked += u32::from(daemon.resize(sizes.next().unwrap()).is_ok());
        std::thread::sleep(Duration::from_millis(2));
    }
    from.wait().prints("attached\nsent\n");
    for reader in readers {
        reader.wait().prints("attached\nreceived\n");
    }
    assert!(asked >= 2 && daemon.stat().resizes >= 2, "{asked} changes: {:?}", daemon.stat());
}

#[track_caller]
fn sanitized(c: &'static str, cpp: &'static str, standard: &'static str) {
    let c = Recipe { compiler: c, sanitized: true, ..Recipe::C }.build();
    let cpp = Recipe { compiler: cpp, standard, sanitized: true, ..Recipe::CPP }.build();
    let (Some(c), Some(cpp)) = (c, cpp) else { return };
    let _turn = heavy();
    for (send, receive) in [("copy", "copy"), ("place", "many"), ("batch", "poll"), ("many", "wait")] {
        stream((&c, send), (&cpp, receive), "500");
        stream((&cpp, send), (&c, receive), "500");
    }
    for command in ["misuse", "fork"] {
        c.run(&Daemon::start(""), &[command]).quiet();
    }
    cpp.run(&Daemon::start(""), &["rules"]).quiet();
}

#[test]
fn sanitizers_find_nothing_with_gcc() {
    sanitized("gcc", "g++", "-std=c++20");
}

#[test]
fn sanitizers_find_nothing_with_clang() {
    sanitized("clang", "clang++", "-std=c++17");
}

#[test]
fn valgrind_finds_nothing() {
    let Some(c) = kit::c() else { return };
    if !has("valgrind", "valgrind_finds_nothing") {
        return;
    }
    let _turn = heavy();
    let valgrind =
        ["valgrind", "--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite"];
    wait_for("a run in which the daemon dismisses nobody", || {
        let daemon = Daemon::start("");
        let misuse = c.start_behind(&valgrind, &daemon, &["misuse"]).wait();
        daemon_was_patient(&daemon).then(|| misuse.ok())
    });
    for under_valgrind in ["send", "receive"] {
        wait_for("a run in which the daemon dismisses nobody", || {
            let daemon = Daemon::start(SMALL);
            let start = |args: [&str; 4]| {
                let before: &[&str] = if args[0] == under_valgrind { &valgrind } else { &[] };
                c.start_behind(before, &daemon, &args)
            };
            let mut to = start(["receive", "300", MOST, "many"]);
            wait_until("the reader is attached, or is not admitted", || {
                !to.proc.is_running() || daemon.stat().readers.len() == 1
            });
            let from = to.proc.is_running().then(|| start(["send", "300", MOST, "batch"]).wait());
            if !daemon_was_patient(&daemon) {
                return None;
            }
            from?.ok();
            Some(to.wait().ok())
        });
    }
}

/// Whether every client has asked within the second that the daemon gives it. On a busy machine, valgrind may be slower.
fn daemon_was_patient(daemon: &Daemon) -> bool {
    !daemon.log().contains("event=dismiss")
}
