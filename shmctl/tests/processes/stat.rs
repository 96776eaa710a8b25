//! What `stat` and `list` show is what is.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use shm_proto::internal::os::process::user_name;

use shm_test_support::Daemon;

#[track_caller]
fn json(daemon: &Daemon, args: &[&str]) -> Value {
    let text = daemon.cli(args).quiet().text();
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn stat_shows_capacity_use_totals_the_writer_and_each_reader() {
    let daemon = Daemon::start(
        "[[channel]]\nname = \"cam\"\ncapacity = \"128KiB\"\nmin = \"64KiB\"\nmax = \"4MiB\"\nmax_message = \"64KiB\"\n\
         align = 64\nmax_readers = 7\nevict_after = \"0\"\n",
    );
    let reader = daemon.spawn(&["read"]);
    let mut slow = daemon.spawn(&["read", "--wait", "spin=1ms"]);
    daemon.until_readers(2);
    slow.freeze();
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed("0123456789\n".repeat(100).as_bytes());
    daemon.until_stat("one reader has read, the other not", |stat| {
        let lag = |pid| stat.readers.iter().find(|reader| reader.pid == pid).map(|reader| reader.lag_messages);
        stat.messages == 100 && lag(reader.pid()) == Some(0)
    });
    let all = json(&daemon, &["stat", "--json"]);
    let stat = &all[0];
    assert_eq!(all.as_array().map(Vec::len), Some(1));
    let segment = format!("/{}.cam", daemon.place.prefix);
    for (key, wanted) in [
        ("channel", "cam".into()),
        ("segment", Value::from(segment.trim_start_matches('/'))),
        ("mode", "ring".into()),
        ("on_full", "block".into()),
        ("capacity", (128 << 10).into()),
        ("min", (64 << 10).into()),
        ("max", (4 << 20).into()),
        ("reserved", (128 << 10).into()),
        ("pending", Value::Null),
        ("max_message", (64 << 10).into()),
        ("align", 64.into()),
        ("messages", 100.into()),
        ("bytes", 1000.into()),
        ("dropped", 0.into()),
        ("overwritten", 0.into()),
        ("resizes", 0.into()),
        ("evicted", 0.into()),
        ("max_readers", 7.into()),
        ("source", "none".into()),
    ] {
        let shown = if key == "segment" {
            stat[key].as_str().unwrap().trim_start_matches('/').into()
        } else {
            stat[key].clone()
        };
        assert_eq!(shown, wanted, "{key}");
    }
    // A record takes a multiple of the alignment.
    assert_eq!((stat["used"].as_u64(), stat["retained"].as_u64()), (Some(6400), Some(6400)), "{stat}");
    let user = user_name(nix::unistd::geteuid().as_raw());
    let writer = &stat["writer"];
    assert_eq!(writer["pid"], write.pid());
    assert_eq!((writer["program"].as_str(), writer["role"].as_str()), (Some("shmctl"), Some("lent")));
    assert_eq!(writer["user"].as_str(), Some(user.as_str()));
    assert!(writer["heartbeat_ms"].is_u64());
    // A frozen reader has been woken, as far as anybody can tell.
    let states = ["reading", "sleeping"];
    for (pid, lag, received, wait) in [(reader.pid(), 0, 100, "adaptive"), (slow.pid(), 100, 0, "spin=1ms")] {
        let shown = stat["readers"].as_array().unwrap().iter().find(|reader| reader["pid"] == pid).unwrap();
        assert_eq!((shown["program"].as_str(), shown["user"].as_str()), (Some("shmctl"), Some(user.as_str())));
        assert_eq!(
            (shown["lag_messages"].as_u64(), shown["received"].as_u64()),
            (Some(lag), Some(received)),
            "{shown}"
        );
        assert_eq!((shown["lag_bytes"].as_u64(), shown["lost"].as_u64()), (Some(lag * 64), Some(0)), "{shown}");
        assert_eq!(shown["wait"], wait);
        assert!(shown["heartbeat_ms"].is_u64() && states.contains(&shown["state"].as_str().unwrap()), "{shown}");
    }

    let table = daemon.cli(&["stat"]).quiet().text();
    for part in [
        "cam  ring, on full: block\n",
        "capacity  128KiB (min 64KiB, max 4MiB)\n",
        "messages  100, ",
        "bytes     1000, ",
        "limits    messages to 64KiB, aligned to 64\n",
        "lost      0 dropped, 0 overwritten\n",
        "readers   2 of 7\n",
        &format!("writer    shmctl (pid {}, {user}), lent, active, seen ", write.pid()),
    ] {
        assert!(table.contains(part), "{part:?} is not in\n{table}");
    }
    for pid in [reader.pid(), slow.pid()] {
        let row = table.lines().find(|line| line.split_whitespace().nth(1) == Some(&pid.to_string()));
        assert!(row.is_some_and(|row| row.contains("shmctl")), "{pid} has no row in\n{table}");
    }
    slow.thaw();
    daemon.until_stat("everybody has read", |stat| stat.used == 0);
}

#[test]
fn rates_are_shown_while_messages_flow() {
    let daemon = Daemon::start("");
    let mut write = daemon.spawn_piped(&["write"]);
    let stat = shm_test_support::wait_for("a rate", || {
        write.feed(&b"0123456789\n".repeat(10));
        Some(daemon.stat()).filter(|stat| stat.messages_per_s > 0.0 && stat.bytes_per_s > 0.0)
    });
    let size = stat.bytes_per_s / stat.messages_per_s;
    assert!((size - 10.0).abs() < 0.01, "bytes a message by the rates: {size}");
}

#[test]
fn watch_prints_again_and_again_until_a_signal() {
    let daemon = Daemon::start("");
    let mut watch = daemon.spawn(&["stat", "--watch", "0.05"]);
    let mut lines = daemon.spawn(&["stat", "--json", "--watch", "0.05"]);
    daemon.write_lines("one\ntwo\n");
    shm_test_support::wait_until("both have printed the change and gone on", || {
        watch.out_so_far().matches("main  ring").count() > 3
            && watch.out_so_far().contains("messages  2,")
            && lines.out_so_far().lines().filter(|line| line.contains("\"messages\":2")).count() > 3
    });
    assert!(!watch.out_so_far().contains('\x1b'), "no terminal, no control codes");
    for proc in [&mut watch, &mut lines] {
        proc.signal(Signal::SIGINT);
    }
    watch.wait().quiet();
    for line in lines.wait().quiet().text().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

#[test]
fn watching_ends_with_69_when_the_daemon_does() {
    let mut daemon = Daemon::start("");
    let mut watch = daemon.spawn(&["stat", "--watch", "0.05"]);
    watch.until_out_has("main  ring");
    daemon.stop(Signal::SIGTERM);
    watch.wait().fails(69, &["no daemon"]);
}

#[test]
fn list_shows_every_channel_its_readers_its_writer_and_what_one_may_do() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\ncapacity = \"2MiB\"\n");
    let write = daemon.spawn_piped(&["write", "--channel", "cam"]);
    let _reader = daemon.spawn(&["read", "--channel", "cam"]);
    let list = shm_test_support::wait_for("writer and reader are listed", || {
        let list = json(&daemon, &["list", "--json"]);
        (list[0]["readers"] == 1 && list[0]["writer"] != "none").then_some(list)
    });
    assert_eq!(list.as_array().map(Vec::len), Some(2));
    let writer = list[0]["writer"].as_str().unwrap();
    assert!(writer.contains("shmctl") && writer.contains(&write.pid().to_string()), "{writer}");
    assert_eq!((list[1]["channel"].as_str(), list[1]["capacity"].as_u64()), (Some("imu"), Some(2 << 20)));
    assert_eq!(list[1]["allowed"], serde_json::json!(["read", "write", "admin"]));
    let table = daemon.cli(&["list"]).quiet().text();
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().nth(2).unwrap().starts_with("imu "), "{table}");
}

#[test]
fn a_writer_that_is_never_idle_was_seen_just_now() {
    let daemon = Daemon::start("");
    let mut write = daemon.spawn_piped(&["write"]);
    let begun = Instant::now();
    // It publishes all the time, and its own heartbeat is for pauses, and for what the daemon asks.
    let mut was_seen = false;
    for looks in 0.. {
        let written_for = begun.elapsed();
        if was_seen || (looks > 200 && written_for > Duration::from_secs(10)) {
            break;
        }
        write.feed(b"line\n");
        sleep(Duration::from_millis(10));
        if let Some(writer) = daemon.stat().writer {
            was_seen = Duration::from_millis(writer.heartbeat_ms) + Duration::from_secs(2) < written_for;
        }
    }
    assert!(was_seen, "{:?}", daemon.stat());
}

#[test]
fn heartbeats_of_idle_peers_stay_young_and_a_stopped_ones_age() {
    let daemon = Daemon::start("");
    let mut stopped = daemon.spawn(&["read"]);
    let _idle = daemon.spawn(&["read"]);
    let _write = daemon.spawn_piped(&["write"]);
    daemon.until_readers(2);
    stopped.freeze();
    let pid = stopped.pid();
    // An idle reader shows itself once a second, so that after more than that only the stopped one's beat is old.
    let stat = daemon.until_stat("the stopped reader's heartbeat is old", |stat| {
        stat.readers.iter().any(|reader| reader.pid == pid && reader.heartbeat_ms > 3000)
    });
    let idle = stat.readers.iter().find(|reader| reader.pid != pid).unwrap();
    let stopped_for = stat.readers.iter().find(|reader| reader.pid == pid).unwrap().heartbeat_ms;
    assert!(idle.heartbeat_ms < stopped_for, "{stat:?}");
    assert!(stat.writer.as_ref().is_some_and(|writer| writer.heartbeat_ms < stopped_for), "{stat:?}");
    stopped.thaw();
    daemon.let_pass(Duration::ZERO);
}
