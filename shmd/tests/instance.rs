//! One daemon for each runtime directory, with the real program.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
        let mut command = Command::new(env!("CARGO_BIN_EXE_shmd"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SHMD_") {
                command.env_remove(name);
            }
        }
        command.arg("--config").arg(self.dir.join("shmd.toml")).arg("--runtime-dir").arg(self.run_dir());
        command.args(["--prefix", &self.prefix]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A daemon that has written its lock file.
    fn start(&self) -> Running {
        let mut daemon = Running(Some(self.shmd().spawn().unwrap()));
        let patience = Instant::now() + Duration::from_secs(60);
        let wanted = format!("{} ", daemon.pid());
        while !read(&self.run_dir().join("shmd.lock")).starts_with(&wanted) {
            if daemon.0.as_mut().is_some_and(|child| child.try_wait().unwrap().is_some()) || Instant::now() > patience {
                panic!("no daemon: {:?}", daemon.stop(Signal::SIGKILL));
            }
            sleep(Duration::from_millis(5));
        }
        daemon
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        let _ = fs::remove_file(format!("/dev/shm/{}.main", self.prefix));
    }
}

/// A daemon, killed at the latest when the test ends.
struct Running(Option<Child>);

impl Running {
    fn pid(&self) -> u32 {
        self.0.as_ref().map_or(0, Child::id)
    }

    fn stop(&mut self, signal: Signal) -> Output {
        let child = self.0.take().unwrap();
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal);
        child.wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn the_second_daemon_is_told_who_holds_the_directory_and_ends_with_1() {
    let test = Test::new("second");
    let mut first = test.start();
    let second = test.shmd().output().unwrap();
    assert_eq!(second.status.code(), Some(1), "{second:?}");
    let message = String::from_utf8(second.stderr).unwrap();
    let dir = test.run_dir();
    let (pid, dir) = (first.pid(), dir.display());
    let wanted = format!("shmd: another shmd (pid {pid}, runtime dir {dir}) holds {dir}/shmd.lock");
    assert!(message.contains(&wanted), "{message}");
    let output = first.stop(Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_daemon_told_to_stop_ends_with_0_and_removes_the_directory_it_made() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let test = Test::new(signal.as_str());
        let output = test.start().stop(signal);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(!test.run_dir().exists(), "{output:?}");
    }
}

#[test]
fn a_killed_daemons_directory_is_taken_over() {
    let test = Test::new("killed");
    test.start().stop(Signal::SIGKILL);
    assert!(test.run_dir().join("shmd.lock").exists());
    let output = test.start().stop(Signal::SIGTERM);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!test.run_dir().join("shmd.lock").exists());
}

#[test]
fn a_directory_open_to_others_is_refused_with_77() {
    let test = Test::new("open");
    fs::create_dir(test.run_dir()).unwrap();
    fs::set_permissions(test.run_dir(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let output = test.shmd().output().unwrap();
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("chmod go-w"), "{output:?}");
}
