//! Beginning and end: of the daemon, of readers, of whoever holds the writer role.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use shm_proto::{ReaderError, Request, Start};

use crate::helpers;
use shm_test_support::{Daemon, PATIENCE, Place, Setup, program, shared_memory, skip_without_root};

#[test]
fn a_signal_ends_the_daemon_its_readers_are_told_and_nothing_is_left() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut daemon = Daemon::start("");
        let mut shmctl = daemon.spawn(&["read"]);
        let mut reader = daemon.reader(Start::New);
        let mut write = daemon.spawn_piped(&["write"]);
        daemon.until_readers(2);
        write.feed(b"last words\n");
        shmctl.until_out_has("last words\n");
        let log = daemon.stop(signal);
        assert!(log.contains("event=stop") && log.contains(signal.as_str()), "{log}");
        assert!(log.contains("event=unlink"), "{log}");
        assert_eq!(shmctl.wait().quiet().text(), "last words\n");
        assert_eq!(reader.recv(Some(PATIENCE)).unwrap().len(), "last words".len());
        match reader.recv(Some(PATIENCE)) {
            Err(ReaderError::Closed { channel }) => assert_eq!(channel, "main"),
            other => panic!("{other:?}"),
        }
        assert!(reader.farewell().is_some_and(|reason| reason.contains(signal.as_str())), "{:?}", reader.farewell());
        // The writer learns it too, without having anything to write.
        write.wait().fails(1, &["writer role of channel main was taken back", "stopping"]);
    }
}

#[test]
fn the_log_has_a_line_for_everything_that_happens_to_a_channel() {
    let mut daemon = Daemon::start("[[channel]]\nname = \"cam\"\n");
    let reader = daemon.spawn(&["read"]);
    let number = daemon.until_readers(1).readers[0].reader;
    // Before the role is lent for the first time, so that the daemon itself may carry the shrink out.
    daemon.resize(2 << 20).unwrap();
    daemon.resize(1 << 20).unwrap();
    daemon.write_lines("x\n");
    daemon.cli(&["evict", "--reader", &number.to_string()]).quiet();
    reader.wait();
    daemon.until_readers(0);
    let log = daemon.stop(Signal::SIGTERM);
    let mut rest = log.as_str();
    for event in ["create", "attach", "grow", "shrink", "lend", "return", "evict", "detach", "stop", "unlink"] {
        let wanted = format!("event={event} ");
        let at = rest.find(&wanted).unwrap_or_else(|| panic!("{wanted} is missing or out of order\n{log}"));
        rest = &rest[at..];
        let line = rest.lines().next().unwrap();
        assert!(event == "stop" || line.contains("cam"), "{line}");
    }
}

#[test]
fn the_second_daemon_is_told_who_holds_the_directory() {
    let daemon = Daemon::start("");
    let other = Place::new();
    fs::write(other.path("shmd.toml"), "").unwrap();
    let mut command = shm_test_support::clean(program("shmd"));
    command.arg("--config").arg(other.path("shmd.toml")).args(["--prefix", &other.prefix]);
    command.arg("--runtime-dir").arg(daemon.place.run_dir());
    let pid = format!("pid {}", daemon.pid());
    shm_test_support::Run::of(command).fails(1, &["another shmd", &pid, "--runtime-dir"]);
    assert!(other.leftovers().is_empty());
    daemon.stat();
}

#[test]
fn two_daemons_with_one_prefix_do_not_take_each_others_objects() {
    let daemon = Daemon::start("");
    daemon.write_lines("mine\n");
    let other = Place::new();
    fs::write(other.path("shmd.toml"), "").unwrap();
    let mut command = shm_test_support::clean(program("shmd"));
    command.arg("--config").arg(other.path("shmd.toml")).args(["--prefix", &daemon.place.prefix]);
    command.arg("--runtime-dir").arg(other.run_dir());
    let pid = format!("pid {}", daemon.pid());
    shm_test_support::Run::of(command).fails(1, &[&format!("{}.main", daemon.place.prefix), &pid, "--prefix"]);
    assert!(!other.run_dir().exists());
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "mine\n");
}

#[test]
fn what_a_killed_daemon_left_is_taken_over_at_the_next_start() {
    let mut daemon = Daemon::start("");
    daemon.write_lines("old\n");
    daemon.kill();
    assert_eq!(shared_memory(&daemon.place.prefix), [daemon.place.object("main")]);
    assert!(daemon.place.run_dir().join("shmd.sock").exists());
    daemon.launch(Setup::new(""));
    daemon.until_log("event=adopt");
    assert_eq!(daemon.stat().messages, 1);
    daemon.write_lines("new\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "2"]).quiet().text(), "old\nnew\n");
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn somebody_elses_object_of_the_same_name_is_refused_and_left_alone() {
    let place = Place::new();
    let object = place.object("main");
    fs::write(&object, "not a segment").unwrap();
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    let name = format!("{}.main", place.prefix);
    Setup::new("").run_in(&place).fails(1, &[&name, "not shmd's", "--prefix"]);
    assert_eq!(fs::read(&object).unwrap(), b"not a segment");
    assert!(!place.run_dir().exists());
    fs::remove_file(&object).unwrap();

    // A symbolic link is not followed, wherever it leads.
    let target = place.path("precious");
    fs::write(&target, "precious").unwrap();
    std::os::unix::fs::symlink(&target, &object).unwrap();
    Setup::new("").run_in(&place).fails(1, &[&name, "--prefix"]);
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn another_users_object_of_the_same_name_is_refused_with_the_owner() {
    if skip_without_root("another_users_object_of_the_same_name_is_refused_with_the_owner") {
        return;
    }
    let place = Place::new();
    let object = place.object("main");
    fs::write(&object, vec![0; 1 << 20]).unwrap();
    std::os::unix::fs::chown(&object, Some(61_200), Some(61_200)).unwrap();
    Setup::new("").run_in(&place).fails(1, &["61200", "--prefix"]);
    assert!(object.exists() && !place.run_dir().exists());
}

#[test]
fn a_following_reader_goes_on_after_a_restart_and_after_a_crash() {
    let mut daemon = Daemon::start("");
    let mut reader = daemon.spawn(&["read", "--follow"]);
    daemon.until_readers(1);
    daemon.write_lines("first life\n");
    reader.until_out_has("first life\n");
    daemon.stop(Signal::SIGTERM);
    reader.until_err_has("waiting");
    daemon.launch(Setup::new(""));
    daemon.write_lines("second life\n");
    reader.until_out_has("second life\n");
    daemon.kill();
    daemon.launch(Setup::new(""));
    daemon.write_lines("third life\n");
    reader.until_out_has("third life\n");
    reader.signal(Signal::SIGINT);
    assert_eq!(reader.wait().ok().text(), "first life\nsecond life\nthird life\n");
}

#[test]
fn a_following_reader_waits_for_a_daemon_that_is_not_there_yet() {
    let place = Place::new();
    let mut command = shm_test_support::clean(program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", place.run_dir()).args(["read", "--follow", "--from", "oldest", "-n", "1"]);
    let mut reader = shm_test_support::Proc::spawn(command);
    reader.until_err_has("waiting");
    let daemon = Setup::new("").start_in(place);
    daemon.write_lines("at last\n");
    assert_eq!(reader.wait().ok().text(), "at last\n");
}

#[test]
fn attached_readers_and_a_lent_writer_go_on_when_the_daemon_is_killed() {
    let mut daemon = Daemon::start("");
    let mut reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    daemon.kill();
    let mut bytes = Vec::new();
    // Many times what the ring holds, so that space is given back and taken without a daemon.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..50_000u64 {
                writer.publish_within(&[n.to_le_bytes(), [7; 8]].concat(), PATIENCE).unwrap();
            }
        });
        for n in 0..50_000u64 {
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes[..8], n.to_le_bytes());
        }
    });
    assert!(matches!(reader.recv(Some(PATIENCE)), Err(ReaderError::Disconnected { .. })));
}

#[test]
fn a_killed_reader_frees_its_space_and_the_blocked_writer_goes_on() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n");
    let mut stuck = daemon.spawn(&["read"]);
    let mut other = daemon.spawn(&["read"]);
    daemon.until_readers(2);
    stuck.freeze();
    let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
    let write = daemon.spawn_piped(&["write"]);
    let write = feed_all(write, &text);
    let stat = daemon.until_stat("the writer waits for the reader that stands", |stat| {
        let lag = |pid| stat.readers.iter().find(|reader| reader.pid == pid).unwrap().lag_messages;
        stat.used > 48 << 10 && lag(other.pid()) == 0 && lag(stuck.pid()) > 1000
    });
    assert!(stat.messages < 20_000);
    stuck.kill();
    other.until_out_has("line 19999\n");
    write.wait().quiet();
    let stat = daemon.until_stat("the dead reader is gone", |stat| stat.readers.len() == 1);
    assert_eq!((stat.messages, stat.evicted, stat.overwritten), (20_000, 0, 0));
    other.signal(Signal::SIGTERM);
    assert_eq!(other.wait().quiet().text(), text);
}

/// Feeds the text to a process from a thread, which ends with the process.
fn feed_all(mut proc: shm_test_support::Proc, text: &str) -> shm_test_support::Proc {
    let (mut stdin, text) = (proc.take_stdin(), text.to_owned());
    std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, text.as_bytes())));
    proc
}

#[test]
fn a_killed_lent_writer_frees_the_role_and_nothing_half_written_is_seen() {
    let daemon = Daemon::start("");
    let reader = daemon.spawn(&["read", "-n", "3"]);
    daemon.until_readers(1);
    let mut holder = helpers::start(&daemon, "hold", &["half"]);
    holder.until_err_has("holding");
    let pid = format!("pid {}", holder.pid());
    daemon.cli(&["write"]).fails(75, &["channel main", "writer role", "program processes-", &pid]);
    let stat = daemon.stat();
    assert_eq!((stat.messages, stat.writer.unwrap().pid), (1, holder.pid()));
    holder.kill();
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    daemon.write_lines("from the next\nand one more\n");
    assert_eq!(reader.wait().quiet().text(), "from the holder\nfrom the next\nand one more\n");
    assert_eq!(daemon.stat().messages, 3);
}

#[test]
fn a_stopped_writer_keeps_nobody_from_attaching() {
    let daemon = Daemon::start("");
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed(b"before\n");
    daemon.until_stat("it is published", |stat| stat.messages == 1);
    write.freeze();
    let mut old = daemon.spawn(&["read", "--from", "oldest"]);
    old.until_out_has("before\n");
    let mut new = daemon.spawn(&["read"]);
    daemon.until_readers(2);
    write.thaw();
    write.feed(b"after\n");
    old.until_out_has("after\n");
    new.until_out_has("after\n");
    assert_eq!(new.out_so_far(), "after\n");
}

#[test]
fn a_reader_that_comes_and_goes_all_the_time_disturbs_nobody() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"1MiB\"\nmax_readers = 4\n");
    let reader = daemon.spawn(&["read", "-n", "200000"]);
    daemon.until_readers(1);
    let text: String = (0..200_000).map(|n| format!("{n}\n")).collect();
    let write = feed_all(daemon.spawn_piped(&["write"]), &text);
    for n in 0..100 {
        let mut passing = daemon.reader(if n % 2 == 0 { Start::Oldest } else { Start::New });
        let mut last = None;
        while let Some(message) = passing.try_recv().unwrap() {
            assert!(last.is_none_or(|last| message.seq() == last + 1));
            last = Some(message.seq());
            message.finish().unwrap();
            if last.is_some_and(|seq| seq % 100 == 99) {
                break;
            }
        }
    }
    write.wait().quiet();
    assert!(reader.wait().quiet().text() == text);
    assert_eq!(daemon.stat().evicted, 0);
}

#[test]
fn two_runs_in_a_row_find_nothing_of_each_other() {
    let mut daemon = Daemon::start("");
    daemon.write_lines("one\n");
    daemon.stop(Signal::SIGINT);
    daemon.launch(Setup::new(""));
    assert_eq!(daemon.stat().messages, 0);
    let mut client = shm_proto::Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
    client.request(&Request::Ping).unwrap();
}
