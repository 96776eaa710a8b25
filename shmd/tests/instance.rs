//! One daemon for each runtime directory, with the real program.

#[allow(dead_code)]
#[path = "../../shmctl/tests/processes/common/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "../../shmctl/tests/processes/common/wait.rs"]
mod wait;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;

use process::{Proc, Run, clean};
use wait::wait_until;

/// A directory of one test's own with an empty configuration in it.
struct Test {
    dir: PathBuf,
    prefix: String,
}

impl Test {
    fn new(name: &str) -> Self {
        let prefix = format!("shmd-instance-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(&prefix);
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        fs::write(dir.join("shmd.toml"), "").unwrap();
        Test { dir, prefix }
    }

    fn shmd(&self) -> Command {
        let mut command = clean(env!("CARGO_BIN_EXE_shmd"));
        command.arg("--config").arg(self.dir.join("shmd.toml")).arg("--runtime-dir").arg(self.run_dir());
        command.args(["--prefix", &self.prefix]);
        command
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
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

impl Drop for Test {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(format!("/dev/shm/{}.main", self.prefix));
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

/// A command run as user and group `nobody`; `None`, with a note, when this is not root.
fn as_nobody(program: &str, arguments: &[&str]) -> Option<Command> {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can become another user");
        return None;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]).args(arguments);
    Some(command)
}

#[test]
fn another_user_can_neither_open_the_lock_file_nor_stop_a_restart_by_waiting_for_it() {
    let test = Test::new("stranger");
    fs::set_permissions(&test.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let lock = test.run_dir().join("shmd.lock");
    let path = lock.to_str().unwrap();
    // As an earlier version made it.
    fs::create_dir(test.run_dir()).unwrap();
    fs::write(&lock, "1 1\n").unwrap();
    fs::set_permissions(&lock, PermissionsExt::from_mode(0o644)).unwrap();
    let Some(wait) = as_nobody("flock", &["--no-fork", path, "sleep", "1000"]) else { return };
    let stranger = Proc::spawn_as_is(wait);
    let found = fs::metadata(&lock).unwrap();
    wait_until("flock to lock", || shm_proto::internal::os::process::is_locked(found.dev(), found.ino()));
    let daemon = test.start();
    assert_eq!(fs::metadata(&lock).unwrap().mode() & 0o7777, 0o600);
    let read = as_nobody("cat", &[path]).unwrap().status().unwrap();
    assert!(!read.success(), "another user can read it");
    // The stranger waits for the file that it has, and gets nothing from it when the daemon is killed.
    stopped(daemon, Signal::SIGKILL);
    stopped(test.start(), Signal::SIGTERM).ok();
    stopped(stranger, Signal::SIGKILL);
}

#[test]
fn a_lock_file_of_another_user_is_refused_with_the_way_out() {
    let test = Test::new("foreign-lock");
    let lock = test.run_dir().join("shmd.lock");
    fs::create_dir(test.run_dir()).unwrap();
    fs::write(&lock, "").unwrap();
    if as_nobody("true", &[]).is_none() {
        return;
    }
    std::os::unix::fs::chown(&lock, Some(65534), Some(65534)).unwrap();
    Run::of(test.shmd()).fails(77, &["its shmd.lock belongs to nobody, this daemon runs as root; remove "]);
}
