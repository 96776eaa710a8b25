//! Exit codes, messages and output of the real program, against a stand-in for the daemon.

mod stand_in;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use nix::sys::signal::Signal;
use shm_proto::internal::control::log::{Fields, LogEntry, LogEvent, Severity, Value};
use shm_proto::internal::control::stat::{Mode, Right, Summary, WriterName};
use shm_proto::internal::control::{Change, Reexecuted, Reloaded, Resized};
use shm_proto::{Done, ErrorKind, Request};
use shm_test_support::{Proc, Run, Schema, wait_for};
use stand_in::{Dir, ok, refuse};

const COMMANDS: [&str; 13] = [
    "read",
    "write",
    "stat",
    "top --once",
    "list",
    "resize --bytes 1MiB",
    "evict --reader 1",
    "create cam",
    "remove cam",
    "log",
    "log --follow",
    "reload",
    "reexec",
];

#[test]
fn without_a_daemon_every_command_ends_with_69_and_names_the_socket_and_the_way_out() {
    let dir = Dir::new();
    for command in COMMANDS {
        dir.run(command)
            .refused(69, &["no daemon at", dir.socket().to_str().unwrap(), "no such socket", "--runtime-dir"]);
    }
}

#[test]
fn a_socket_that_a_dead_daemon_left_is_no_daemon() {
    let dir = Dir::new();
    drop(UnixListener::bind(dir.socket()).unwrap());
    dir.run("list").refused(69, &["left behind"]);
}

#[test]
fn a_runtime_directory_on_the_command_line_comes_before_the_environments() {
    let dir = Dir::new();
    dir.run("list --runtime-dir /none/such").refused(69, &["/none/such/shmd.sock"]);
}

#[test]
fn wrong_usage_ends_with_2_before_any_daemon_is_looked_for() {
    let dir = Dir::new();
    for (words, text) in [
        ("", "Usage"),
        ("fly", "fly"),
        ("resize", "--bytes"),
        ("resize --bytes 1.5MiB", "64KiB"),
        ("evict", "--reader"),
        ("read --channel a/b", "A-Z"),
        ("read --timeout soon", "500ms"),
        ("read -t 5x", "such as 5"),
        ("write --framing line", "chunk=64KiB"),
        ("read --wait fast", "spin=50us"),
        ("read --wait spin=2s", "1us to 1s"),
        ("write --framing chunk=0", "at least 1 byte"),
        ("bench --sizes 4", "4 bytes"),
        ("top", "top --once"),
        ("top --json", "--once"),
        ("top --once --interval 1ms", "10ms"),
    ] {
        dir.run(words).refused(2, &[text]);
    }
}

#[test]
fn the_daemons_refusals_have_their_exit_codes_and_are_told_in_its_words() {
    for (kind, code) in [
        (ErrorKind::NotPermitted, 77),
        (ErrorKind::WriterTaken, 75),
        (ErrorKind::Busy, 75),
        (ErrorKind::OutOfRange, 1),
        (ErrorKind::NoSpace, 1),
    ] {
        let dir = Dir::new();
        dir.serve(move |_| refuse(kind, "because of 42"));
        for command in COMMANDS {
            dir.run(command).refused(code, &["shmctl: error: because of 42\n"]);
        }
    }
}

#[test]
fn a_channel_that_is_not_there_is_answered_with_those_that_are() {
    let dir = Dir::new();
    dir.serve(|_| refuse(ErrorKind::NoSuchChannel, "no channel named nope"));
    for command in ["read -c nope", "read --follow -c nope", "write -c nope", "stat -c nope", "list -c nope"] {
        dir.run(command).refused(1, &["nope", "cam, imu"]);
    }
}

#[test]
fn a_resize_tells_the_old_and_the_new_size() {
    let dir = Dir::new();
    dir.serve(|request| match request {
        Request::Resize { channel, bytes } => {
            let mut resized = Resized::new(channel.unwrap());
            (resized.old, resized.asked, resized.new) = (1 << 20, bytes, bytes);
            resized.pending = bytes < 1 << 20;
            ok(Done::Resize(resized))
        }
        _ => refuse(ErrorKind::BadRequest, "something else"),
    });
    dir.run("resize -c main --bytes 4MiB").prints("main: 1MiB -> 4MiB\n");
    let pending = dir.run("resize -c main --bytes 64KiB");
    assert!(pending.text().starts_with("main: 1MiB -> 64KiB, pending"), "{pending:?}");
    assert_eq!(pending.code, Some(0));
}

#[test]
fn the_operation_log_is_lines_for_people_and_objects_for_programs() {
    let dir = Dir::new();
    let mut entry = LogEntry::new(Severity::Warn, LogEvent::Overflow);
    (entry.seq, entry.time_ms) = (12, 1_700_000_000_123);
    entry.channel = Some("cam".parse().unwrap());
    entry.fields =
        Fields(vec![("dropped".into(), Value::Number(7)), ("reason".into(), Value::Text("it is full".into()))]);
    let sent = entry.clone();
    dir.serve(move |request| match request {
        Request::Log { last: Some(3), follow: false, .. } => ok(Done::Log(vec![sent.clone()])),
        other => refuse(ErrorKind::BadRequest, &format!("{other:?}")),
    });
    dir.run("log -n 3")
        .prints("2023-11-14T22:13:20.123Z     12 warn  event=overflow channel=cam dropped=7 reason=\"it is full\"\n");
    let json: LogEntry = serde_json::from_str(&dir.run("log -n 3 --json").text()).unwrap();
    assert_eq!(json, entry);
}

#[test]
fn a_configuration_that_the_daemon_refuses_is_exit_code_78() {
    let dir = Dir::new();
    dir.serve(|_| refuse(ErrorKind::BadConfig, "nothing was changed: shmd.toml:3: no"));
    dir.run("reload").refused(78, &["nothing was changed", "shmd.toml:3"]);
}

#[test]
fn a_reexec_shows_both_versions_and_says_why_there_was_none() {
    let dir = Dir::new();
    dir.serve(|request| match request {
        Request::Reexec => ok(Done::Reexec(Reexecuted::new("1.2.3".to_owned(), "1.3.0".to_owned(), 77))),
        other => refuse(ErrorKind::BadRequest, &format!("{other:?}")),
    });
    dir.run("reexec").prints("shmd 1.2.3 -> 1.3.0, pid 77\n");
    dir.run("reexec --json").prints("{\"old\":\"1.2.3\",\"new\":\"1.3.0\",\"pid\":77}\n");
    for (kind, code) in
        [(ErrorKind::BadVersion, 1), (ErrorKind::BadConfig, 78), (ErrorKind::Busy, 75), (ErrorKind::NotPermitted, 77)]
    {
        let refusing = Dir::new();
        refusing.serve(move |_| refuse(kind, "/usr/bin/shmd is not executed"));
        refusing.run("reexec").refused(code, &["is not executed"]);
    }
}

#[test]
fn a_reload_that_leaves_keys_as_they_were_is_exit_code_3() {
    let dir = Dir::new();
    dir.serve(|_| {
        let why = Some("it is fixed while the channel exists".to_owned());
        let (old, new) = ("1MiB".to_owned(), "2MiB".to_owned());
        let mut reloaded = Reloaded::default();
        reloaded.kept.push(Change::new(Some("cam".parse().unwrap()), "capacity", old, new, why));
        ok(Done::Reload(reloaded))
    });
    for (words, out) in [("reload", "cam: capacity: stays 1MiB, not 2MiB"), ("reload --json", "\"key\":\"capacity\"")] {
        let ran = dir.run(words);
        assert_eq!(ran.code, Some(3), "{ran:?}");
        assert!(ran.text().contains(out) && ran.err.contains("1 key was not changed"), "{ran:?}");
    }
}

#[test]
fn the_channel_can_come_from_the_environment() {
    let dir = Dir::new();
    dir.serve(|request| refuse(ErrorKind::Internal, &format!("{request:?}")));
    let mut command = dir.shmctl("evict --reader 7");
    command.env("SHMD_CHANNEL", "cam");
    Run::of(command).refused(1, &["cam", "reader: 7"]);
}

#[test]
fn a_list_is_a_table_for_people_and_an_array_for_programs() {
    let dir = Dir::new();
    dir.serve(|_| {
        let mut summary = Summary::new("cam".parse().unwrap(), Mode::Ring, WriterName::Nobody);
        (summary.capacity, summary.readers) = (65_536, 1);
        summary.allowed.push(Right::Read);
        ok(Done::List(vec![summary]))
    });
    dir.run("list")
        .prints("CHANNEL  MODE  CAPACITY  READERS  WRITER  ALLOWED\ncam      ring     64KiB        1  none    read\n");
    let json: serde_json::Value = serde_json::from_str(&dir.run("list --json").text()).unwrap();
    assert_eq!(json[0]["capacity"], 65_536);
}

#[test]
fn an_output_that_is_closed_is_a_quiet_end() {
    let dir = Dir::new();
    dir.serve(|_| ok(Done::Stat(Vec::new())));
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let mut command = dir.shmctl("stat --json --watch 600");
    command.stdout(theirs);
    let watch = Proc::spawn_as_is(command);
    ours.read_exact(&mut [0]).unwrap();
    // Long before the next line is due: nothing is written that could fail.
    drop(ours);
    watch.wait().prints("");
}

#[test]
fn sigint_ends_a_watch_and_a_waiting_follower_with_0() {
    let dir = Dir::new();
    dir.serve(|_| ok(Done::Stat(Vec::new())));
    let mut watch = dir.start("stat --json --watch 600");
    watch.until_out_has("[]\n");
    watch.signal(Signal::SIGINT);
    watch.wait().prints("[]\n");

    let empty = Dir::new();
    let mut follower = empty.start("read --follow");
    follower.until_err_has("shmctl: note");
    follower.signal(Signal::SIGTERM);
    follower.wait().ok();
}

#[test]
fn a_follower_that_hears_nothing_for_its_timeout_ends_with_75() {
    let dir = Dir::new();
    dir.run("read --follow --timeout 200ms").refused(75, &["waiting for it", "timed out after 200ms", "0 messages"]);
}

#[test]
fn nothing_is_read_when_nothing_is_asked_for() {
    Dir::new().run("read -n 0").prints("");
}

/// What becomes of a command whose first request has this answer.
fn answered(words: &str, answer: &str) -> Run {
    let dir = Dir::new();
    let listener = UnixListener::bind(dir.socket()).unwrap();
    let asks = dir.start(words);
    listener.set_nonblocking(true).unwrap();
    let (mut socket, _) = wait_for("it connects", || listener.accept().ok());
    socket.write_all(answer.as_bytes()).unwrap();
    asks.wait()
}

#[test]
fn a_daemon_that_answers_nonsense_or_another_version_is_told_apart_from_none() {
    for (answer, text) in
        [("{\"v\":2,\"ok\":{}}\n", "version 2"), ("hello\n", "hello"), ("{\"v\":1}\n", "not understood")]
    {
        answered("list", answer).refused(1, &["control protocol", text]);
    }
}

/// The finding of the doctor that mentions this, and the exit code.
fn finding(ran: &Run, mention: &str) -> (serde_json::Value, Option<i32>) {
    assert!(ran.err.is_empty(), "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.text()).unwrap();
    Schema::of("doctor").check(&report);
    let mut findings = report["findings"].as_array().unwrap().iter();
    let found = findings.find(|finding| finding["cause"].as_str().unwrap().contains(mention));
    (found.unwrap_or_else(|| panic!("{ran:?}")).clone(), ran.code)
}

#[test]
fn the_doctor_has_its_own_exit_codes_whatever_the_daemon_answers() {
    for (kind, check) in [
        (ErrorKind::NoSuchChannel, "access"),
        (ErrorKind::TooMany, "daemon"),
        (ErrorKind::Busy, "daemon"),
        (ErrorKind::NotPermitted, "daemon"),
        (ErrorKind::BadRequest, "daemon"),
    ] {
        let dir = Dir::new();
        dir.serve(move |_| refuse(kind, "this is the reason"));
        let (found, code) = finding(&dir.run("doctor cam --json"), "this is the reason");
        assert_eq!((&found["severity"], &found["check"]), (&"unknown".into(), &check.into()), "{found}");
        // Something else on this machine may be worse.
        assert!(code == Some(3) || code == Some(2), "{code:?}");
    }
    for (answer, severity, check) in [
        ("{\"v\":2,\"ok\":{}}\n", "critical", "version"),
        ("hello \u{1b}[31m\n", "unknown", "daemon"),
        ("{\"v\":1}\n", "unknown", "daemon"),
    ] {
        let ran = answered("doctor --json", answer);
        let (found, _) = finding(&ran, "control protocol");
        assert_eq!((&found["severity"], &found["check"]), (&severity.into(), &check.into()), "{found}");
        assert!(!ran.text().contains('\u{1b}'), "{ran:?}");
    }
}

#[test]
fn a_daemon_cannot_put_words_into_a_command_line_that_is_completed() {
    let complete = |dir: &Dir| {
        let mut command = dir.shmctl("complete -- shmctl stat");
        Run::of(command.arg(""))
    };
    let dir = Dir::new();
    dir.serve(|_| {
        let writer = WriterName::Program { pid: 7, program: "a\n$(x)\t\u{1b}[31m".to_owned(), user: "me".to_owned() };
        ok(Done::List(vec![Summary::new("cam".parse().unwrap(), Mode::Ring, writer)]))
    });
    let text = complete(&dir).quiet().text();
    assert!(text.starts_with("cam\tring, writer: ") && text.lines().count() == 1, "{text}");
    assert!(text.matches('\t').count() == 1 && !text.contains('\u{1b}'), "{text}");
    for (name, shown) in
        [("cam", "cam\tring, writer: none\n"), ("c$(x)", ""), ("c a", ""), ("c;x", ""), ("c\\na", ""), ("c\\ta", "")]
    {
        let line = format!(
            "{{\"v\":1,\"ok\":{{\"list\":[{{\"channel\":\"{name}\",\"mode\":\"ring\",\"capacity\":1,\"readers\":0,\
             \"writer\":\"none\",\"allowed\":[]}}]}}}}\n"
        );
        let ran = answered("complete -- shmctl stat c", &line);
        assert_eq!((ran.text().as_str(), ran.code), (shown, Some(0)), "{name}");
    }
}
