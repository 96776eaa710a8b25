//! What a service manager and an init script see.

use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shm_proto::{Reader, Request, Start, Writer};

use super::{Daemon, PATIENCE, joined, wait_for};

const PLAIN: &str = "[[channel]]\nname = \"main\"\n";

/// The next message that has this in it.
fn hear(manager: &UnixDatagram, what: &str) -> String {
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "waiting for {what}, and only others come");
        let mut bytes = [0; 4096];
        let length = manager.recv(&mut bytes).unwrap_or_else(|e| panic!("waiting for {what}: {e}"));
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text.contains(what) {
            return text;
        }
    }
}

#[test]
fn the_service_manager_hears_of_readiness_status_reload_watchdog_and_end() {
    let mut daemon = Daemon::configured("notify", PLAIN);
    let path = daemon.dir.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = daemon.command(&[]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "100000");
    daemon.child = Some(command.spawn().unwrap());
    assert_eq!(hear(&manager, "READY=1"), "READY=1\nSTATUS=1 channel, 0 readers, 0 writers");
    // It was said when everything was there.
    let reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    hear(&manager, "STATUS=1 channel, 1 reader, 0 writers");
    drop(reader);
    hear(&manager, "STATUS=1 channel, 0 readers, 0 writers");
    for _ in 0..3 {
        assert_eq!(hear(&manager, "WATCHDOG"), "WATCHDOG=1");
    }
    daemon.signal(Signal::SIGHUP);
    hear(&manager, "RELOADING=1\nMONOTONIC_USEC=");
    hear(&manager, "READY=1");
    daemon.signal(Signal::SIGTERM);
    hear(&manager, "STOPPING=1");
    assert_eq!(daemon.wait(), Some(0), "{}", daemon.log());
}

#[test]
fn a_program_that_takes_the_place_of_another_says_that_it_lives_before_it_is_ready() {
    let mut daemon = Daemon::configured("notify-reexec", PLAIN);
    let path = daemon.dir.join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = daemon.command(&[]);
    // By itself it says so every five minutes.
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000000");
    daemon.child = Some(command.spawn().unwrap());
    hear(&manager, "READY=1");
    hear(&manager, "WATCHDOG=1");
    daemon.must_reexec();
    hear(&manager, "RELOADING=1");
    // The check of a large ring may take longer than the manager waits.
    assert_eq!(hear(&manager, "=1"), "WATCHDOG=1");
    hear(&manager, "READY=1");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

/// A daemon in the background is nobody's child: it is known by its pid file.
struct Background<'a> {
    daemon: &'a Daemon,
}

impl Background<'_> {
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.daemon.dir.join("pid")).ok()?;
        Some(Pid::from_raw(text.trim().parse().unwrap()))
    }

    fn stop(&self) {
        let pid = self.pid().unwrap();
        kill(pid, Signal::SIGTERM).unwrap();
        wait_for(|| kill(pid, None).is_err(), || format!("{pid} does not end"));
    }
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

impl Daemon {
    /// Starts it in the background; the parent's exit code and words.
    fn daemonize(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(&["--daemonize"]);
        for (flag, name) in [("--pid-file", "pid"), ("--log-file", "log")] {
            if !more.contains(&flag) {
                command.arg(flag).arg(self.dir.join(name));
            }
        }
        let mut child = command.args(more).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // To the end of the stream: the daemon must not keep it open.
        let mut stderr = child.stderr.take().unwrap();
        let said = joined(std::thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        }));
        (joined(std::thread::spawn(move || child.wait().unwrap().code())), said)
    }
}

#[test]
fn the_parent_returns_when_the_daemon_in_the_background_is_ready() {
    let daemon = Daemon::configured("background", PLAIN);
    let background = Background { daemon: &daemon };
    assert_eq!(daemon.daemonize(&["--umask", "022"]), (Some(0), String::new()), "{}", daemon.log());
    let pid = background.pid().unwrap();
    daemon.ask(&Request::Ping).unwrap();
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).unwrap().to_str(), Some("/dev/null"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Umask:\t0022\n"), "{status}");
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    writer.publish(b"x").unwrap();
    drop(writer);
    // The log was rotated.
    fs::rename(daemon.dir.join("log"), daemon.dir.join("log.1")).unwrap();
    kill(pid, Signal::SIGHUP).unwrap();
    daemon.await_log(|log| log.contains("event=reload"));
    background.stop();
    daemon.assert_gone();
    assert!(!daemon.dir.join("pid").exists());
}

#[test]
fn a_daemon_that_does_not_become_ready_gives_the_parent_its_exit_code_and_its_reason() {
    let mut daemon = Daemon::start("background-second", PLAIN);
    let (code, said) = daemon.daemonize(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another shmd (pid "), "{said}");
    assert!(!daemon.dir.join("pid").exists());
    assert_eq!(daemon.stop(), Some(0));

    let bad = Daemon::configured("background-bad", "[[channel]]\ncapacity = \"much\"\n");
    let (code, said) = bad.daemonize(&[]);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("shmd.toml:2"), "{said}");

    let taken = Daemon::configured("background-taken", PLAIN);
    fs::write(taken.object("main"), "somebody's").unwrap();
    let (code, said) = taken.daemonize(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("an object that is not shmd's has this name"), "{said}");
    assert!(taken.log().contains("event=failed"), "{}", taken.log());
    fs::remove_file(taken.object("main")).unwrap();
    for flag in ["--pid-file", "--log-file"] {
        let (code, said) = taken.daemonize(&[flag, "/nonexistent/file"]);
        assert_eq!(code, Some(1), "{flag}: {said}");
        assert!(said.contains("/nonexistent/file"), "{flag}: {said}");
    }
    taken.assert_gone();

    let fed = Daemon::configured("background-fed", "[[channel]]\nsource = \"stdin\"\n");
    let (code, said) = fed.daemonize(&[]);
    assert_eq!(code, Some(2), "{said}");
    let (code, said) = fed.daemonize(&["--chdir", "/nonexistent", "--set", "main.source=none"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/nonexistent"), "{said}");
}

#[test]
fn a_log_that_was_rotated_goes_on_in_a_new_file_although_the_configuration_has_a_mistake() {
    let mut daemon = Daemon::configured("log-rotated", PLAIN);
    let log = daemon.dir.join("log");
    daemon.run(&["--log-file", log.to_str().unwrap()]);
    daemon.await_ready();
    fs::rename(&log, daemon.dir.join("log.1")).unwrap();
    daemon.write_config("mistake = 1\n");
    daemon.signal(Signal::SIGHUP);
    let old = || fs::read_to_string(daemon.dir.join("log.1")).unwrap();
    wait_for(|| daemon.log().contains("event=reload-failed by=SIGHUP "), old);
    assert!(!old().contains("event=reload-failed"), "{}", old());
    daemon.write_config(PLAIN);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn in_the_journal_each_line_has_its_priority_from_the_first_to_the_last_word() {
    let mut daemon = Daemon::configured("journal", PLAIN);
    let start = |daemon: &Daemon, more: &[&str]| {
        let mut command = daemon.command(more);
        let file = fs::OpenOptions::new().append(true).open(daemon.dir.join("log")).unwrap();
        let found = file.metadata().unwrap();
        command.env("JOURNAL_STREAM", format!("{}:{}", found.dev(), found.ino())).stderr(file);
        command.spawn().unwrap()
    };
    daemon.child = Some(start(&daemon, &[]));
    daemon.await_log(|log| log.contains("<6>event=ready pid="));
    fs::write(daemon.dir.join("shmd.toml"), "mistake = 1\n").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.await_log(|log| log.contains("<3>event=reload-failed by=SIGHUP "));
    assert_eq!(daemon.stop(), Some(0));
    daemon.config = "mistake = 1\n".to_owned();
    daemon.child = Some(start(&daemon, &[]));
    assert_eq!(daemon.wait(), Some(78));
    assert!(daemon.log().lines().last().is_some_and(|line| line.starts_with("<3>shmd: ")), "{}", daemon.log());
    assert!(daemon.log().lines().all(|line| line.starts_with('<')), "{}", daemon.log());
}
