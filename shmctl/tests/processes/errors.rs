//! What `shmctl` says when something is wrong, and the code it ends with.

use std::io::{BufRead, BufReader};

use nix::sys::signal::Signal;

use shm_test_support::{Daemon, Place, Proc, Run, Setup, clean, program, wait_for};

const TWO: &str = "[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n";

#[test]
fn without_a_daemon_every_command_ends_with_69_and_says_where_it_looked() {
    let place = Place::new();
    let socket = place.run_dir().join("shmd.sock");
    for args in [
        &["read"][..],
        &["write"],
        &["stat"],
        &["stat", "--watch"],
        &["list"],
        &["resize", "--bytes", "1MiB"],
        &["evict", "--reader", "1"],
    ] {
        let mut command = clean(program("shmctl"));
        command.arg("--runtime-dir").arg(place.run_dir()).args(args);
        Run::of(command).fails(69, &["no daemon at", socket.to_str().unwrap(), "start shmd", "--runtime-dir"]);
    }
}

#[test]
fn a_socket_that_a_dead_daemon_left_behind_is_no_daemon() {
    let mut daemon = Daemon::start("");
    daemon.kill();
    daemon.cli(&["list"]).fails(69, &["no daemon at", "nobody listens on the socket, it was left behind"]);
}

#[test]
fn a_channel_that_is_not_there_ends_with_1_and_the_names_of_those_that_are() {
    let daemon = Daemon::start(TWO);
    let args: [&[&str]; 5] =
        [&["read", "cma"], &["list", "-c", "cma"], &["resize", "cma", "1MiB"], &["evict", "cma", "1"], &["log", "cma"]];
    for args in args {
        daemon.cli(args).fails(1, &["no channel named cma; channels: cam, imu; did you mean cam?"]);
    }
    for args in [
        &["read", "--channel", "lidar"][..],
        &["write", "--channel", "lidar"],
        &["stat", "--channel", "lidar"],
        &["list", "--channel", "lidar"],
        &["list", "--channel", "lidar", "--json"],
        &["resize", "--channel", "lidar", "--bytes", "1MiB"],
        &["evict", "--channel", "lidar", "--reader", "1"],
    ] {
        daemon.cli(args).fails(1, &["no channel named lidar", "cam", "imu"]);
    }
}

#[test]
fn the_channel_may_be_an_argument() {
    let daemon = Daemon::start(TWO);
    daemon.cli_with_input(&["write", "cam"], b"hello\n").quiet();
    daemon.cli(&["read", "cam", "--from", "oldest", "-n", "1"]).prints("hello\n");
    for args in [&["stat", "cam"][..], &["list", "cam"], &["log", "cam"]] {
        let text = daemon.cli(args).quiet().text();
        assert!(text.contains("cam") && !text.contains("imu"), "{args:?}: {text}");
    }
    daemon.cli(&["resize", "cam", "4MiB"]).prints("cam: 1MiB -> 4MiB\n");
    daemon.cli(&["resize", "-c", "cam", "2MiB"]).prints("cam: 4MiB -> 2MiB\n");
    daemon.cli(&["resize", "cam", "--bytes", "1MiB"]).prints("cam: 2MiB -> 1MiB\n");
    let reader = daemon.spawn(&["read", "cam"]);
    let number = wait_for("the reader is attached", || {
        let json = daemon.cli(&["stat", "cam", "--json"]).quiet().text();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json[0]["readers"][0]["reader"].as_u64()
    });
    daemon.cli(&["evict", "cam", &number.to_string()]).prints(&format!("cam: reader {number} evicted\n"));
    reader.wait().fails(1, &["evicted"]);
    // The argument wins over the environment, and nothing wins over what is said twice in different ways.
    let mut usual = daemon.shmctl(&["read", "cam", "--from", "oldest", "-n", "1"]);
    Run::of(usual.env("SHMD_CHANNEL", "imu")).prints("hello\n");
    daemon.cli(&["stat", "cam", "-c", "imu"]).refused(2, &["cam and --channel imu differ"]);
    daemon.cli(&["resize", "cam"]).refused(2, &["\"cam\" is not a size", "shmctl resize [CHANNEL] 4MiB"]);
    daemon.cli(&["evict", "cam", "--reader", "1", "-c", "imu"]).refused(2, &["differ"]);
}

#[test]
fn a_name_is_needed_where_there_are_several_channels() {
    let daemon = Daemon::start(TWO);
    for args in [&["read"][..], &["write"], &["resize", "--bytes", "1MiB"]] {
        daemon.cli(args).fails(1, &["several channels", "--channel", "cam", "imu"]);
    }
    daemon.cli_with_input(&["write", "--channel", "imu"], b"hello\n").quiet();
    let run = daemon.cli(&["read", "--channel", "imu", "--from", "oldest", "-n", "1"]).quiet();
    assert_eq!(run.text(), "hello\n");
    let mut by_variable = daemon.shmctl(&["read", "--from", "oldest", "-n", "1"]);
    by_variable.env("SHMD_CHANNEL", "imu");
    assert_eq!(Run::of(by_variable).quiet().text(), "hello\n");
    // These two show all channels.
    for command in ["stat", "list"] {
        let text = daemon.cli(&[command]).quiet().text();
        assert!(text.contains("cam") && text.contains("imu"), "{text}");
    }
}

#[test]
fn the_second_writer_ends_with_75_and_is_told_who_writes() {
    let daemon = Daemon::start("");
    let mut first = daemon.spawn_piped(&["write"]);
    let stat = daemon.until_stat("there is a writer", |stat| stat.writer.is_some());
    assert_eq!(stat.writer.unwrap().pid, first.pid());
    let pid = format!("pid {}", first.pid());
    daemon.cli(&["write"]).fails(75, &["channel main", "writer role", "program shmctl", &pid]);
    first.feed(b"still here\n");
    daemon.until_stat("the first goes on", |stat| stat.messages == 1);
    first.end_input();
    first.wait().quiet();
    daemon.write_lines("now I\n");
}

#[test]
fn a_program_cannot_have_the_writer_role_of_a_channel_that_the_daemon_feeds() {
    let (input, _open) = std::io::pipe().unwrap();
    let daemon = Setup::new("").stdin(input).start();
    daemon.cli(&["write"]).fails(75, &["channel main", "daemon's own source stdin"]);
    assert_eq!(daemon.stat().writer.unwrap().pid, daemon.pid());
}

#[test]
fn a_read_that_waits_too_long_ends_with_75() {
    let daemon = Daemon::start("");
    daemon.write_lines("one\n");
    let run = daemon
        .cli(&["read", "--from", "oldest", "--timeout", "150ms"])
        .fails(75, &["timed out", "150ms", "1 message was received"]);
    assert_eq!(run.text(), "one\n", "what had come before is written");
    let place = Place::new();
    let mut nobody = clean(program("shmctl"));
    nobody.arg("--runtime-dir").arg(place.run_dir()).args(["read", "--follow", "--timeout", "150ms"]);
    Run::of(nobody).fails(75, &["timed out"]);
}

#[test]
fn a_size_out_of_bounds_ends_with_1_and_the_bounds() {
    let daemon = Daemon::start("[[channel]]\nmin = \"64KiB\"\nmax = \"8MiB\"\n");
    for size in ["32KiB", "16MiB"] {
        daemon.cli(&["resize", "--bytes", size]).fails(1, &["channel main", size, "64KiB", "8MiB"]);
    }
    assert_eq!(daemon.stat().capacity, 1 << 20);
}

#[test]
fn wrong_usage_ends_with_2_and_the_accepted_form() {
    let daemon = Daemon::start("");
    for (args, shown) in [
        (&["resize", "--bytes", "1TiB"][..], "64KiB"),
        (&["resize"], "--bytes"),
        (&["read", "--form", "hex"], "--form"),
        (&["read", "--format", "xml"], "json"),
        (&["read", "--from", "yesterday"], "oldest"),
        (&["read", "--timeout", "soon"], "500ms"),
        (&["read", "-n", "few"], "few"),
        (&["write", "--framing", "words"], "chunk=64KiB"),
        (&["list", "--channel", "a/b"], "a/b"),
        (&["stat", "--watch", "a/b"], "is not a time"),
        (&["stat", "--watch", "a/b"], "is not a channel name"),
        (&["stat", "--watch", "1ms"], "too short"),
        (&["read", "--folow"], "--follow"),
        (&["read", "--from", "oldst"], "oldest"),
        (&["staat"], "stat"),
        (&["evict", "--reader", "x"], "x"),
        (&["fly"], "fly"),
        (&[], "Usage"),
    ] {
        let run = daemon.cli(args).fails(2, &[shown]);
        assert!(run.out.is_empty(), "{run:?}");
    }
}

#[test]
fn a_wrong_value_in_the_environment_ends_with_2_as_one_on_the_command_line_does() {
    let daemon = Daemon::start("");
    for (variable, value, shown) in
        [("SHMD_CHANNEL", "a/b", "A-Z"), ("SHMD_PATIENCE", "soon", "SHMD_PATIENCE: \"soon\" is not a duration")]
    {
        let mut stat = daemon.shmctl(&["stat"]);
        Run::of(stat.env(variable, value)).refused(2, &[shown]);
    }
    let mut stat = daemon.shmctl(&["stat"]);
    Run::of(stat.env("SHMD_PATIENCE", "5s").env("SHMD_CHANNEL", "")).quiet();
    let mut list = daemon.shmctl(&["list", "--runtime-dir"]);
    Run::of(list.arg(daemon.place.run_dir()).env("SHMD_RUNTIME_DIR", "").env("SHMD_PATIENCE", "")).quiet();
}

#[test]
fn what_stands_behind_watch_may_be_the_channel() {
    let daemon = Daemon::start(TWO);
    for args in [&["stat", "--watch", "cam"][..], &["stat", "-w", "cam"], &["stat", "cam", "--watch", "0.05"]] {
        let mut watch = daemon.spawn(args);
        watch.until_out_has("cam  ring");
        watch.signal(Signal::SIGINT);
        let text = watch.wait().quiet().text();
        assert!(!text.contains("imu"), "{args:?}: {text}");
    }
    daemon.cli(&["stat", "--watch", "cam", "imu"]).refused(2, &["imu and cam"]);
    daemon.cli(&["stat", "--watch", "cam", "-c", "imu"]).refused(2, &["cam and --channel imu differ"]);
    daemon
        .cli(&["stat", "--watch", "can"])
        .fails(1, &["no channel named can", "no time for --watch", "did you mean cam?"]);
}

#[test]
fn a_channel_beside_handoff_objects_is_refused() {
    let daemon = Daemon::start(TWO);
    let objects = ["--handoff", "--segment", "/x", "--avail", "/y", "--done", "/z"];
    for args in [&["write", "cam"][..], &["write", "-c", "cam"], &["read", "-c", "cam"]] {
        daemon.cli(&[args, &objects].concat()).refused(2, &["--handoff", "leave cam out"]);
    }
    daemon.cli(&[&["read", "cam"][..], &objects].concat()).refused(2, &["--handoff"]);
}

#[test]
fn a_writer_that_loses_its_role_says_what_may_not_have_been_acknowledged() {
    let mut daemon = Daemon::start("[[channel]]\nmode = \"handoff\"\n");
    let mut writer = daemon.spawn_piped(&["write"]);
    writer.feed(b"one\ntwo\nthree\n");
    daemon.until_stat("on offer", |stat| stat.handoff.as_ref().is_some_and(|handoff| handoff.on_offer == Some(3)));
    daemon.cli(&["read", "-n", "1"]).ok();
    daemon.until_stat("the second is on offer", |stat| stat.messages == 1);
    daemon.stop(Signal::SIGTERM);
    writer.wait().fails(1, &["is published, but", "was taken back", "may not have been acknowledged"]);
}

#[test]
fn a_message_over_the_limit_ends_write_with_1_and_is_not_cut_to_fit() {
    let daemon = Daemon::start("[[channel]]\nmax_message = \"1000\"\n");
    let input = format!("short\n{}\nnever\n", "x".repeat(1001));
    daemon
        .cli_with_input(&["write"], input.as_bytes())
        .fails(1, &["message 2", "1000", "1 message was published before"]);
    daemon.cli_with_input(&["write", "--framing", "chunk=2KiB"], &[0; 4096]).fails(1, &["2KiB", "1000"]);
    let length = [1001u32.to_le_bytes().as_slice(), &[0; 1001]].concat();
    daemon.cli_with_input(&["write", "--framing", "length"], &length).fails(1, &["message 1", "1001", "1000"]);
    assert_eq!(daemon.stat().messages, 1);
}

#[test]
fn a_record_cut_short_ends_write_with_1() {
    let daemon = Daemon::start("");
    let input = [3u32.to_le_bytes().as_slice(), b"abc", &10u32.to_le_bytes(), b"half"].concat();
    daemon.cli_with_input(&["write", "--framing", "length"], &input).fails(1, &["message 2", "4", "10"]);
    assert_eq!(daemon.stat().messages, 1);
}

#[test]
fn a_reader_too_many_ends_with_75() {
    let daemon = Daemon::start("[[channel]]\nmax_readers = 1\n");
    let first = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    daemon.cli(&["read"]).fails(75, &["channel main", "1 readers", "max_readers"]);
    first.kill();
    daemon.until_readers(0);
    daemon.write_lines("one\n");
    daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet();
}

#[test]
fn a_reader_that_does_not_exist_cannot_be_evicted() {
    let daemon = Daemon::start("");
    daemon.cli(&["evict", "--reader", "7"]).fails(1, &["channel main", "no reader 7"]);
}

#[test]
fn an_evicted_reader_ends_with_1_and_is_told_by_whom() {
    let daemon = Daemon::start("");
    let reader = daemon.spawn(&["read"]);
    let number = daemon.until_readers(1).readers[0].reader.to_string();
    daemon.cli(&["evict", "--reader", &number]).quiet();
    reader.wait().fails(1, &["evicted from channel main", "administers"]);
    assert_eq!(daemon.stat().evicted, 1);
}

#[test]
fn bad_configuration_ends_the_daemon_with_78_file_and_line() {
    let place = Place::new();
    let file = place.path("shmd.toml");
    for (config, reason) in [
        ("[[channel]]\nname = \"a/b\"\n", "'/'"),
        ("[[channel]]\ncolour = 7\n", "colour"),
        ("[[channel]]\nmin = \"2MiB\"\nmax = \"1MiB\"\n", "2MiB"),
        ("[[channel]]\nname = \"a\"\n[[channel]]\nname = \"a\"\n", "\"a\""),
        ("[[channel]]\nmax = \"1000000GiB\"\n", "more than"),
    ] {
        let run = Setup::new(config).run_in(&place).fails(78, &[&format!("{}:", file.display()), reason]);
        assert!(run.err.contains(":2:") || run.err.contains(":3:") || run.err.contains(":4:"), "no line in {run:?}");
    }
    assert!(place.leftovers().is_empty());
}

#[test]
fn a_closed_output_ends_read_quietly_even_when_nothing_more_comes() {
    let daemon = Daemon::start("");
    let (out, theirs) = std::io::pipe().unwrap();
    let mut command = daemon.shmctl(&["read", "--from", "oldest"]);
    command.stdout(theirs);
    let read = Proc::spawn_as_is(command);
    daemon.write_lines("first\nsecond\n");
    let mut line = String::new();
    let mut out = BufReader::new(out);
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    // Nothing is published after this: the reader has to notice by itself.
    drop(out);
    read.wait().quiet();
}

#[test]
fn head_ends_a_flood_quietly() {
    let daemon = Daemon::start("");
    daemon.write_lines(&"a line\n".repeat(20_000));
    let mut shell = clean("sh");
    shell.arg("-c").arg("{ \"$0\" read --from oldest; echo \"code $?\" >&2; } | head -n 1").arg(program("shmctl"));
    shell.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    let run = Run::of(shell).ok();
    assert_eq!((run.text().as_str(), run.err.as_str()), ("a line\n", "code 0\n"));
}

#[test]
fn a_signal_ends_read_with_0_after_what_has_come_is_written() {
    let daemon = Daemon::start("");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut reader = daemon.spawn(&["read"]);
        daemon.until_readers(1);
        daemon.write_lines("one\n");
        reader.until_out_has("one\n");
        reader.signal(signal);
        assert_eq!(reader.wait().quiet().text(), "one\n");
        daemon.until_readers(0);
    }
}

#[test]
fn a_daemon_that_vanishes_ends_read_with_69_after_everything_is_written() {
    let mut daemon = Daemon::start("");
    let mut reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    daemon.write_lines("one\ntwo\n");
    reader.until_out_has("two\n");
    daemon.kill();
    let run = reader.wait().fails(69, &["the daemon of channel main is gone"]);
    assert_eq!(run.text(), "one\ntwo\n");
}

#[test]
fn an_output_that_takes_nothing_is_a_failure() {
    let daemon = Daemon::start("");
    daemon.write_lines("one\n");
    for args in [&["read", "--from", "oldest", "-n", "1"][..], &["stat"], &["list", "--json"]] {
        let mut command = daemon.shmctl(args);
        command.stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
        shm_test_support::Proc::spawn_as_is(command).wait().fails(1, &["standard output", "No space left"]);
    }
}
