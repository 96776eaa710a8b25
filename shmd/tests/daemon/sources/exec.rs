use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::os::process::{is_alive, program, start_ticks};

use super::super::{Daemon, wait_for};
use super::next;

/// A daemon with a script of this text as its source.
fn scripted(name: &str, script: &str, keys: &str) -> Daemon {
    let mut daemon = Daemon::with_source(name, &format!("source = \"exec:DIR/script one 'two words'\"\n{keys}"));
    let path = daemon.path("script");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    daemon.run(&[]);
    daemon.await_ready();
    daemon
}

/// The child's number, as stat has it.
fn running(daemon: &Daemon) -> u32 {
    match daemon.until_state("running pid ").state {
        SourceState::Running { pid } => pid,
        // It may have ended by now.
        _ => running(daemon),
    }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap())
}

#[test]
fn a_childs_output_is_the_input_and_what_it_complains_about_is_in_the_log() {
    let script = "echo \"$1|$2\"; cat; printf 'first complaint\\nsecond \\033[2J' >&2; exec sleep 1000";
    let mut daemon = scripted("exec", script, "");
    let mut reader = daemon.reader();
    assert_eq!(next(&mut reader), "one|two words");
    daemon.await_log(|log| log.contains("event=child-says channel=main pid=") && log.contains("\"first complaint\""));
    let number = running(&daemon);
    // The shell has the script open.
    wait_for(|| program(number).as_deref() == Some("sleep"), || daemon.log());
    // And the loader has its libraries open for a moment.
    let open = || fs::read_dir(format!("/proc/{number}/fd")).unwrap().count();
    wait_for(|| open() == 3, || format!("{} descriptors, not 3: {}", open(), daemon.log()));
    let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap();
    assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
    let start = start_ticks(number).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!is_alive(number, start));
    assert!(daemon.log().contains("second \\u{1b}[2J") && !daemon.log().contains('\x1b'), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_child_that_ends_is_logged_and_started_again_with_longer_and_longer_waits() {
    let daemon = scripted("exec-restart", "echo run; printf unfinished; exit 3", "");
    let mut reader = daemon.reader();
    for _ in 0..3 {
        assert_eq!([next(&mut reader), next(&mut reader)], ["run", "unfinished"]);
    }
    daemon.await_log(|log| log.matches("event=child-exit").count() == 3);
    daemon.until_state("restarting in ");
    let input = daemon.input();
    assert!(input.errors >= 3 && input.last_error.unwrap().ends_with("exit status: 3"));
    assert!(daemon.log().contains("status=\"exit status: 3\""), "{}", daemon.log());
}

#[test]
fn a_child_that_leaves_one_behind_that_writes_all_the_time_is_seen_to_end_and_started_again() {
    // The reader is the slowest, so that the pipe is never empty.
    let keys = "framing = \"chunk=4KiB\"\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"";
    let mut daemon = scripted("exec-flood", "yes flood & sleep 0.3; exit 3", keys);
    let mut reader = daemon.reader();
    let ended = || daemon.log().contains("status=\"exit status: 3\"");
    wait_for(
        || {
            assert_eq!(next(&mut reader).len(), 4096);
            ended()
        },
        || daemon.log(),
    );
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_killed_child_is_logged_with_its_signal_and_its_last_record_cut_short_is_an_error() {
    let script = "printf '\\004\\000\\000\\000good\\011\\000\\000\\000bad'; exec sleep 1000";
    let daemon = scripted("exec-killed", script, "framing = \"length\"");
    let mut reader = daemon.reader();
    assert_eq!(next(&mut reader), "good");
    let first = running(&daemon);
    kill(pid(first), Signal::SIGSEGV).unwrap();
    assert_eq!(next(&mut reader), "good");
    assert_ne!(running(&daemon), first);
    let log = daemon.log();
    assert!(log.contains("the input ends after 3 of 9 bytes") && log.contains("signal: 11 (SIGSEGV)"), "{log}");
    assert_eq!(daemon.input().errors, 2);
}

#[test]
fn a_daemon_that_is_killed_takes_its_child_along() {
    let mut daemon = scripted("exec-orphan", "exec sleep 1000", "");
    let number = running(&daemon);
    let start = start_ticks(number).unwrap();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    wait_for(|| !is_alive(number, start), || daemon.log());
}

#[test]
fn a_child_that_does_not_want_to_end_is_killed_with_its_group_and_the_stop_does_not_wait_for_it() {
    let script = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo $!; while :; do sleep 1; done";
    let mut daemon = scripted("exec-stubborn", script, "");
    let mut reader = daemon.reader();
    let other: u32 = next(&mut reader).parse().unwrap();
    let both = [running(&daemon), other].map(|number| (number, start_ticks(number).unwrap()));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!daemon.log().contains("source-stuck"), "{}", daemon.log());
    for (number, start) in both {
        wait_for(|| !is_alive(number, start), || daemon.log());
    }
}

#[test]
fn a_child_that_fills_the_ring_is_ended_with_the_daemon() {
    let keys = "capacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"";
    let mut daemon = scripted("exec-full", "exec yes", keys);
    let _idle = daemon.reader();
    wait_for(|| daemon.stat().used > 60 << 10, || daemon.log());
    let number = running(&daemon);
    let start = start_ticks(number).unwrap();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert!(!is_alive(number, start) && !daemon.log().contains("source-stuck"), "{}", daemon.log());
}

#[test]
fn a_child_that_ends_while_the_ring_is_full_is_shown_as_ended_and_what_it_wrote_is_not_lost() {
    // Without a reader, nothing would wait.
    let keys = "capacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\nwait_readers = 1";
    let mut daemon =
        scripted("exec-done", "head -c 100000 /dev/zero | tr '\\0' 'x' | fold -w 99; exec sleep 1000", keys);
    let mut reader = daemon.reader();
    let number = running(&daemon);
    // It has written everything when it sleeps.
    wait_for(|| program(number).as_deref() == Some("sleep") && daemon.stat().used > 50 << 10, || daemon.log());
    kill(pid(number), Signal::SIGKILL).unwrap();
    daemon.until_state(&format!("pid {number} has ended, and its output waits for readers"));
    assert!(!daemon.log().contains("event=child-exit"), "{}", daemon.log());
    let whole = std::iter::repeat_with(|| next(&mut reader)).take(1010).filter(|line| line.len() == 99).count();
    assert_eq!(whole, 1010);
    daemon.await_log(|log| log.contains("event=child-exit") && log.contains("signal: 9 (SIGKILL)"));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_child_that_closes_its_output_and_stays_is_ended_and_started_again() {
    let mut daemon = scripted("exec-closed", "echo here; exec >/dev/null; exec sleep 1000", "");
    let mut reader = daemon.reader();
    assert_eq!([next(&mut reader), next(&mut reader)], ["here", "here"]);
    // How it ended depends on how soon the machine comes to it.
    assert!(daemon.log().contains("event=child-exit"), "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_program_that_is_not_there_is_an_error_that_stays_in_stat_until_it_is() {
    let mut daemon = Daemon::fed("exec-missing", "source = \"exec:DIR/later\"");
    let input = daemon.until_input(|input| input.errors >= 2);
    assert!(input.last_error.unwrap().contains("later: No such file or directory"));
    let path = daemon.path("later");
    fs::write(daemon.path("new"), "#!/bin/sh\necho at last\n").unwrap();
    fs::set_permissions(daemon.path("new"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(daemon.path("new"), path).unwrap();
    assert_eq!(next(&mut daemon.reader()), "at last");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_channel_that_is_taken_out_of_the_configuration_ends_its_child() {
    let mut daemon = scripted("exec-reload", "exec sleep 1000", "");
    let number = running(&daemon);
    let start = start_ticks(number).unwrap();
    "[[channel]]\nname = \"other\"\n".clone_into(&mut daemon.config);
    fs::write(daemon.path("shmd.toml"), &daemon.config).unwrap();
    daemon.ask(&shm_proto::internal::control::Request::Reload).unwrap();
    wait_for(|| !is_alive(number, start) && !daemon.object("main").exists(), || daemon.log());
    assert_eq!(daemon.stop(), Some(0));
}
