//! One daemon for each runtime directory, with the real program.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::os::process::is_locked;
use shm_test_support::{NOBODY, Place, Proc, Run, may_change_user, wait_until};

/// A place for a daemon with an empty configuration.
struct Test(Place);

impl Test {
    fn new(name: &str) -> Self {
        Test(Place::named(name))
    }

    fn shmd(&self) -> Command {
        self.0.shmd("")
    }

    fn run_dir(&self) -> PathBuf {
        self.0.run_dir()
    }

    /// A daemon that is ready: killed before that, it could leave its objects half made.
    fn start(&self) -> Proc {
        let mut daemon = Proc::spawn(self.shmd());
        daemon.until_err_has("event=ready");
        let wanted = format!("{} ", daemon.pid());
        assert!(read(&self.run_dir().join("shmd.lock")).starts_with(&wanted));
        daemon
    }
}

/// Ends it, and waits for that.
fn stopped(mut daemon: Proc, signal: Signal) -> Run {
    daemon.signal(signal);
    daemon.wait()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn the_second_daemon_is_told_who_holds_the_directory_and_ends_with_1() {
    let test = Test::new("second");
    let first = test.start();
    let dir = test.run_dir();
    let (pid, dir) = (first.pid(), dir.display());
    let wanted = format!("shmd: another shmd (pid {pid}, runtime dir {dir}) holds {dir}/shmd.lock");
    Run::of(test.shmd()).fails(1, &[&wanted]);
    stopped(first, Signal::SIGTERM).ok();
}

#[test]
fn a_daemon_told_to_stop_ends_with_0_and_removes_the_directory_it_made() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let test = Test::new(signal.as_str());
        let run = stopped(test.start(), signal).ok();
        assert!(!test.run_dir().exists(), "{run:?}");
    }
}

#[test]
fn a_killed_daemons_directory_is_taken_over() {
    let test = Test::new("killed");
    stopped(test.start(), Signal::SIGKILL);
    assert!(test.run_dir().join("shmd.lock").exists());
    stopped(test.start(), Signal::SIGTERM).ok();
    assert!(!test.run_dir().join("shmd.lock").exists());
}

#[test]
fn a_directory_open_to_others_is_refused_with_77() {
    let test = Test::new("open");
    fs::create_dir(test.run_dir()).unwrap();
    fs::set_permissions(test.run_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    Run::of(test.shmd()).fails(77, &["chmod go-w"]);
}

#[test]
fn another_user_can_neither_open_the_lock_file_nor_stop_a_restart_by_waiting_for_it() {
    if !may_change_user() {
        return;
    }
    let test = Test::new("stranger");
    let lock = test.run_dir().join("shmd.lock");
    let path = lock.to_str().unwrap();
    // As an earlier version made it.
    fs::create_dir(test.run_dir()).unwrap();
    fs::write(&lock, "1 1\n").unwrap();
    fs::set_permissions(&lock, PermissionsExt::from_mode(0o644)).unwrap();
    let as_nobody = |program: &str, arguments: &[&str]| {
        let mut command = NOBODY.command(&test.0.dir, program.as_ref());
        command.args(arguments);
        command
    };
    let stranger = Proc::spawn_as_is(as_nobody("flock", &["--no-fork", path, "sleep", "1000"]));
    let found = FileId::at(&lock).unwrap();
    wait_until("flock to lock", || is_locked(found));
    let daemon = test.start();
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o7777, 0o600);
    let read = as_nobody("cat", &[path]).status().unwrap();
    assert!(!read.success(), "another user can read it");
    // The stranger waits for the file that it has, and gets nothing from it when the daemon is killed.
    stopped(daemon, Signal::SIGKILL);
    stopped(test.start(), Signal::SIGTERM).ok();
    stopped(stranger, Signal::SIGKILL);
}

#[test]
fn a_lock_file_of_another_user_is_refused_with_the_way_out() {
    if !may_change_user() {
        return;
    }
    let test = Test::new("foreign-lock");
    let lock = test.run_dir().join("shmd.lock");
    fs::create_dir(test.run_dir()).unwrap();
    fs::write(&lock, "").unwrap();
    std::os::unix::fs::chown(&lock, Some(NOBODY.uid), Some(NOBODY.gid)).unwrap();
    Run::of(test.shmd()).fails(77, &["its shmd.lock belongs to nobody, this daemon runs as root; remove "]);
}
