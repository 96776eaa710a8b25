//! What the system does not let the daemon do: remove an object.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::geteuid;

use super::Daemon;

/// A file that even root cannot remove; it can again when this is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: PathBuf) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(&path).output();
        made.is_ok_and(|made| made.status.success()).then_some(Self(path))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
fn a_segment_that_cannot_be_removed_is_logged_and_named_and_the_exit_code_is_1() {
    let mut daemon = Daemon::start("immutable", "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"other\"\n");
    let Some(_immutable) = Immutable::make(daemon.object("main")) else {
        println!("skipped: chattr is not here, or this is not root");
        return;
    };
    assert_eq!(daemon.stop(), Some(1), "{}", daemon.log());
    let (log, object) = (daemon.log(), daemon.object("main").display().to_string());
    assert!(log.contains(&format!("event=unlink-failed object={object} ")), "{log}");
    assert!(
        log.contains(&format!("shmd: stopped, but these could not be removed: {object} (unlink shared memory /")),
        "{log}"
    );
    // Everything else is gone.
    assert!(!daemon.object("other").exists() && !daemon.run_dir().exists(), "{log}");
}

#[test]
fn objects_of_a_handoff_that_cannot_be_removed_make_the_exit_code_1() {
    let mut daemon = Daemon::start("immutable-handoff", "[[channel]]\nname = \"main\"\nmode = \"handoff\"\n");
    let Some(_immutable) = Immutable::make(daemon.object("main")) else {
        println!("skipped: chattr is not here, or this is not root");
        return;
    };
    assert_eq!(daemon.stop(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("event=unlink-failed channel=main object="), "{}", daemon.log());
    assert!(!daemon.object("main.feed").exists() && !daemon.run_dir().exists());
}

#[test]
fn a_fifo_that_cannot_be_removed_is_logged_and_named_and_the_exit_code_is_1() {
    if geteuid().is_root() {
        println!("skipped: root may remove files in every directory");
        return;
    }
    let mut daemon = Daemon::configured("read-only-dir", "");
    let dir = daemon.dir.join("inputs");
    fs::create_dir(&dir).unwrap();
    let fifo = dir.join("in").display().to_string();
    daemon.config = format!("[[channel]]\nname = \"main\"\nsource = \"fifo:{fifo}\"\n");
    daemon.run(&[]);
    daemon.await_ready();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
    let code = daemon.stop();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(code, Some(1), "{}", daemon.log());
    assert!(daemon.log().contains(&format!("event=unlink-failed object={fifo} ")), "{}", daemon.log());
    assert!(daemon.log().contains(&format!("could not be removed: {fifo} (")), "{}", daemon.log());
    assert!(!daemon.object("main").exists() && !daemon.run_dir().exists());
}
