//! What cannot take the daemon's place is refused with the reason, and everything goes on.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use shm_proto::{ErrorKind, Reader, ReaderError, Request, RequestError, Start};
use shm_test_support::program;

use super::{Daemon, PATIENCE, put_file};
use crate::wait_for;

/// A daemon with a source, and what it has published so far.
struct Fed {
    daemon: Daemon,
    lines: u64,
}

impl Fed {
    fn start(name: &str) -> Self {
        let daemon = Daemon::copied(name, "source = \"stdin\"\nmax = \"1MiB\"");
        Self { daemon, lines: 0 }
    }

    fn put(&self, text: &str, mode: u32) {
        let path = self.daemon.copy();
        let (_, written) = (fs::remove_file(&path), self.daemon.path("written"));
        fs::write(&written, text).unwrap();
        fs::set_permissions(&written, fs::Permissions::from_mode(mode)).unwrap();
        put_file(&written, &path);
    }

    /// That a reexec is refused for this reason, and the source goes on.
    #[track_caller]
    fn refused(&mut self, kind: ErrorKind, why: &[&str]) {
        self.daemon.feed(b"half");
        match self.daemon.reexec() {
            Err(RequestError::Refused(refusal)) => {
                assert_eq!(refusal.kind, kind, "{refusal:?}");
                for why in why {
                    assert!(refusal.message.contains(why), "{refusal:?}");
                }
            }
            other => panic!("{other:?}: {}", self.daemon.log()),
        }
        self.daemon.feed(b" a line\n");
        self.lines += 1;
        let (daemon, lines) = (&self.daemon, self.lines);
        wait_for(|| daemon.stat().messages == lines, || daemon.log());
    }
}

fn script(text: &str) -> String {
    format!("#!/bin/sh\n{text}\n")
}

#[test]
fn a_file_that_is_no_shmd_of_this_layout_is_not_executed() {
    let mut fed = Fed::start("reexec-refused");
    fs::remove_file(fed.daemon.copy()).unwrap();
    fed.refused(ErrorKind::BadVersion, &["is not executed", "No such file"]);
    fed.put("not a program", 0o644);
    // Root may execute no file without any bit for that.
    fed.refused(ErrorKind::BadVersion, &["Permission denied"]);
    fed.put(&script("exit 0"), 0o755);
    fed.refused(ErrorKind::BadVersion, &["does not answer like shmd"]);
    fed.put(&script("echo no >&2; exit 3"), 0o755);
    fed.refused(ErrorKind::BadVersion, &["exit status: 3: no"]);
    fed.put(&script("kill -9 $$"), 0o755);
    fed.refused(ErrorKind::BadVersion, &["signal: 9"]);
    // Reads what is the source's, if it is given it.
    fed.put(&script("cat"), 0o755);
    fed.refused(ErrorKind::BadVersion, &["does not answer like shmd"]);
    fed.put(&script("exec yes"), 0o755);
    fed.refused(ErrorKind::BadVersion, &["more than 16384 bytes"]);
    let known = |layout: u32, handover: u32| {
        let own = "{\"daemon\":\"shmd\",\"version\":\"9.9.9\",\"features\":0,\"protocol\":1,";
        script(&format!("echo '{own}\"layout\":{layout},\"handover\":{handover}}}'"))
    };
    fed.put(&known(99, 1), 0o755);
    fed.refused(ErrorKind::BadVersion, &["it is shmd 9.9.9 with layout 99"]);
    fed.put(&known(shm_proto::internal::ring::layout::LAYOUT_VERSION, 99), 0o755);
    fed.refused(ErrorKind::BadVersion, &["handover format 99"]);
    fs::remove_file(fed.daemon.copy()).unwrap();
    fed.daemon.put_copy();
    fed.daemon.must_reexec();
    assert_eq!(fed.daemon.stat().messages, fed.lines);
    assert!(fed.daemon.log().contains("event=reexec-failed by="), "{}", fed.daemon.log());
    assert_eq!(fed.daemon.stop(), Some(0), "{}", fed.daemon.log());
}

#[test]
fn a_program_that_says_the_right_thing_and_cannot_be_executed_then_leaves_the_old_one() {
    let mut fed = Fed::start("reexec-vanishes");
    let (layout, at) = (shm_proto::internal::ring::layout::LAYOUT_VERSION, fed.daemon.copy());
    let own = format!(
        "{{\"daemon\":\"shmd\",\"version\":\"9.9.9\",\"features\":0,\"protocol\":1,\"layout\":{layout},\"handover\":1}}"
    );
    fed.put(&script(&format!("rm {}; echo '{own}'", at.display())), 0o755);
    fed.refused(ErrorKind::Internal, &["the program before goes on", "ENOENT"]);
    fed.daemon.put_copy();
    fed.daemon.must_reexec();
    assert_eq!(fed.daemon.stat().messages, fed.lines);
    assert_eq!(fed.daemon.stop(), Some(0), "{}", fed.daemon.log());
}

#[test]
fn files_that_say_something_else_than_what_runs_are_refused() {
    let mut fed = Fed::start("reexec-files");
    let good = fed.daemon.config.clone();
    let write = |fed: &Fed, text: &str| fs::write(fed.daemon.path("shmd.toml"), text).unwrap();
    write(&fed, "mistake = 1\n");
    fed.refused(ErrorKind::BadConfig, &["nothing was changed", "shmd.toml:1"]);
    write(&fed, &good.replace("1MiB", "2MiB"));
    fed.refused(
        ErrorKind::BadConfig,
        &["channel main: max is \"1MiB\", and \"2MiB\" in the configuration", "restart shmd"],
    );
    write(&fed, &format!("{good}[[channel]]\nname = \"other\"\n"));
    fed.refused(ErrorKind::BadConfig, &["run shmctl reload first"]);
    // What a reload takes over the next program takes over as well.
    write(&fed, &format!("{good}max_readers = 3\n"));
    fed.daemon.must_reexec();
    assert_eq!((fed.daemon.stat().max_readers, fed.daemon.stat().messages), (3, fed.lines));
    assert_eq!(fed.daemon.stop(), Some(0), "{}", fed.daemon.log());
}

#[test]
fn a_program_that_would_find_no_place_for_its_log_is_not_executed() {
    let mut daemon = Daemon::with_source("reexec-log", "source = \"stdin\"\nmax = \"1MiB\"");
    daemon.put_copy();
    // The directory of the log, by a name that can be taken away.
    let logs = daemon.path("logs");
    symlink(".", &logs).unwrap();
    daemon.run_copy(&["--log-file", logs.join("log").to_str().unwrap()]);
    let mut fed = Fed { daemon, lines: 0 };
    fs::remove_file(&logs).unwrap();
    fed.refused(ErrorKind::BadVersion, &["log file ", "logs/log: No such file"]);
    symlink(".", &logs).unwrap();
    fed.daemon.must_reexec();
    assert_eq!(fed.daemon.stat().messages, fed.lines);
    assert_eq!(fed.daemon.stop(), Some(0), "{}", fed.daemon.log());
}

#[test]
fn one_at_a_time_and_a_stop_meanwhile_ends_the_look_at_the_program() {
    let mut fed = Fed::start("reexec-busy");
    let begun: PathBuf = fed.daemon.path("begun");
    fed.put(&script(&format!("touch {}; exec sleep 1000", begun.display())), 0o755);
    let daemon = &fed.daemon;
    std::thread::scope(|scope| {
        let first = scope.spawn(|| daemon.reexec());
        wait_for(|| begun.exists(), || daemon.log());
        for request in [Request::Reexec, Request::Reload] {
            let refused = daemon.refused(&request);
            assert!(refused.contains("reexec") && refused.contains("under way"), "{refused}");
        }
        daemon.signal(Signal::SIGTERM);
        let refused = first.join().unwrap().unwrap_err().to_string();
        assert!(refused.contains("stopping on SIGTERM"), "{refused}");
    });
    assert_eq!(fed.daemon.wait(), Some(0), "{}", fed.daemon.log());
    fed.daemon.assert_gone();
}

#[test]
fn a_daemon_that_is_going_to_end_after_its_input_is_not_replaced() {
    let mut daemon = Daemon::with_source("reexec-draining", "source = \"stdin\"\nwait_readers = 1");
    daemon.put_copy();
    daemon.run_copy(&["--exit-on-eof"]);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    daemon.feed(b"unread\n");
    let stdin = daemon.child.as_mut().unwrap().stdin.take();
    let mut fed = Fed { daemon, lines: 1 };
    // The new program takes its time to say what it understands.
    let [begun, ready] = ["begun", "ready"].map(|name| fed.daemon.path(name));
    let wait = format!("touch {}; until test -e {}; do sleep 0.01; done", begun.display(), ready.display());
    fed.put(&script(&format!("{wait}; exec {} \"$@\"", program("shmd").display())), 0o755);
    let daemon = &fed.daemon;
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| daemon.reexec());
        wait_for(|| begun.exists(), || daemon.log());
        drop(stdin);
        daemon.await_log(|log| log.contains("event=source-end"));
        fs::write(&ready, "").unwrap();
        let refused = asked.join().unwrap().unwrap_err().to_string();
        assert!(refused.contains("nothing was changed: the input has ended"), "{refused}");
    });
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!(bytes, b"unread");
    assert!(matches!(reader.recv_into(&mut bytes, Some(PATIENCE)), Err(ReaderError::Closed { .. })));
    assert_eq!(fed.daemon.wait(), Some(0), "{}", fed.daemon.log());
    fed.daemon.assert_gone();
}
