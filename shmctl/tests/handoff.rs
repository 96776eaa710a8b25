//! `shmctl read --handoff` and `shmctl write --handoff` against programs in C, and against each other.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Compiles C; nothing where there is no compiler.
fn compile(source: &Path, to: &Path) -> Option<()> {
    match Command::new("gcc").args(["-O2", "-pthread"]).arg(source).arg("-o").arg(to).status() {
        Ok(status) => {
            assert!(status.success(), "gcc does not compile {}", source.display());
            Some(())
        }
        Err(e) => {
            println!("skipped: gcc cannot be started ({e})");
            None
        }
    }
}

/// Three names, and a directory for what is compiled; removed at the end.
struct Place {
    dir: PathBuf,
    names: [String; 3],
}

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let unique = format!("shmctl-handoff-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let names = [format!("/{unique}"), format!("/{unique}.avail"), format!("/{unique}.done")];
        let dir = std::env::temp_dir().join(unique);
        fs::create_dir_all(&dir).unwrap();
        Self { dir, names }
    }

    fn peer(&self) -> Option<PathBuf> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shm-proto/tests/c/peer.c");
        let to = self.dir.join("peer");
        compile(&source, &to).map(|()| to)
    }

    fn c(&self, program: &Path, role: &str, rest: &[&str]) -> Child {
        spawn(Command::new(program).arg(role).args(&self.names).args(rest))
    }

    fn shmctl(&self, command: &str, rest: &[&str]) -> Child {
        let [segment, avail, done] = &self.names;
        let mut shmctl = Command::new(env!("CARGO_BIN_EXE_shmctl"));
        shmctl.arg(command).args(["--handoff", "--segment", segment, "--avail", avail, "--done", done]).args(rest);
        spawn(&mut shmctl)
    }

    fn paths(&self) -> [String; 3] {
        let [segment, avail, done] = &self.names;
        [format!("/dev/shm{segment}"), format!("/dev/shm/sem.{}", &avail[1..]), format!("/dev/shm/sem.{}", &done[1..])]
    }

    /// Waits until a writer has made everything: the semaphores come last.
    fn await_objects(&self) {
        while !self.paths().iter().all(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0)) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for path in self.paths() {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn feed(child: &mut Child, bytes: &[u8]) {
    child.stdin.take().unwrap().write_all(bytes).unwrap();
}

/// The output of a program that has to end well.
fn good(child: Child) -> String {
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&stdout).into_owned(), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{status}\n{out}\n{err}");
    out
}

#[test]
fn a_writer_and_a_reader_need_no_daemon_and_leave_nothing() {
    let place = Place::new();
    let reader = place.shmctl("read", &[]);
    let mut writer = place.shmctl("write", &[]);
    feed(&mut writer, b"one\n\nthree");
    good(writer);
    assert_eq!(good(reader), "one\n\nthree\n", "it ends when the writer has removed the objects");
    assert!(place.paths().iter().all(|path| !Path::new(path).exists()));
}

#[test]
fn a_program_in_c_gets_strings_and_a_large_message() {
    let place = Place::new();
    let Some(peer) = place.peer() else { return };
    let mut writer = place.shmctl("write", &["--framing", "nul", "--keep-delimiter"]);
    place.await_objects();
    let reader = place.c(&peer, "read", &["2", "0"]);
    let mut input = b"ab\0".to_vec();
    input.extend([b'x'; 50_000]);
    feed(&mut writer, &input);
    good(writer);
    assert_eq!(good(reader), "open\n3 bad\n50001 bad\n", "whole, though not the pattern that the peer knows");
}

#[test]
fn a_program_in_c_that_is_started_later_is_read() {
    let place = Place::new();
    let Some(peer) = place.peer() else { return };
    let reader = place.shmctl("read", &["-n", "3", "--format", "json"]);
    let writer = place.c(&peer, "write", &["1", "0", "9000"]);
    assert_eq!(good(writer), "open\nacknowledged\nacknowledged\nacknowledged\n");
    let lines = good(reader);
    assert!(lines.starts_with("{\"seq\":0,\"lost\":0,\"len\":1,") && lines.contains("\"len\":9000"), "{lines}");
}

#[test]
fn a_reader_without_a_writer_times_out_and_a_writer_without_a_reader_ends_at_a_signal_and_cleans_up() {
    let place = Place::new();
    let late = place.shmctl("read", &["--timeout", "50ms"]).wait_with_output().unwrap();
    assert_eq!(late.status.code(), Some(75), "{late:?}");
    let mut writer = place.shmctl("write", &[]);
    feed(&mut writer, b"nobody\n");
    place.await_objects();
    kill(Pid::from_raw(writer.id() as i32), Signal::SIGINT).unwrap();
    let stopped = writer.wait_with_output().unwrap();
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(place.paths().iter().all(|path| !Path::new(path).exists()));
}

#[test]
fn a_message_that_nobody_acknowledges_ends_the_writer_or_is_dropped_as_it_is_told() {
    let place = Place::new();
    let mut late = place.shmctl("write", &["--timeout", "50ms"]);
    feed(&mut late, b"nobody\n");
    let late = late.wait_with_output().unwrap();
    assert_eq!(late.status.code(), Some(75), "{late:?}");
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(said.contains("an acknowledgement in /shmctl-handoff-") && said.contains("50ms"), "{said}");
    let mut drops = place.shmctl("write", &["--on-full", "drop", "--ack-timeout", "20ms"]);
    feed(&mut drops, b"one\ntwo\n");
    let drops = drops.wait_with_output().unwrap();
    assert_eq!(drops.status.code(), Some(0), "{drops:?}");
    assert!(String::from_utf8_lossy(&drops.stderr).contains("2 messages were dropped"), "{drops:?}");
    assert!(place.paths().iter().all(|path| !Path::new(path).exists()));
}

#[test]
fn a_writer_that_gives_up_says_how_many_were_acknowledged() {
    let place = Place::new();
    let reader = place.shmctl("read", &["-n", "1"]);
    let mut writer = place.shmctl("write", &["--timeout", "500ms"]);
    feed(&mut writer, b"one\ntwo\n");
    assert_eq!(good(reader), "one\n");
    let writer = writer.wait_with_output().unwrap();
    assert_eq!(writer.status.code(), Some(75), "{writer:?}");
    let said = String::from_utf8_lossy(&writer.stderr).into_owned();
    assert!(said.contains("1 message was acknowledged before"), "{said}");
}

#[test]
fn signals_end_a_reader_and_a_writer_that_have_nothing_to_do() {
    let place = Place::new();
    let mut writer = place.shmctl("write", &[]);
    writer.stdin.as_mut().unwrap().write_all(b"first\n").unwrap();
    let mut reader = place.shmctl("read", &["-n", "2"]);
    let mut line = String::new();
    BufReader::new(reader.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    for (signal, child) in [(Signal::SIGTERM, reader), (Signal::SIGINT, writer)] {
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        good(child);
    }
    assert!(place.paths().iter().all(|path| !Path::new(path).exists()));
}

#[test]
fn a_reader_says_that_its_writer_was_killed_and_goes_on_with_the_next_one() {
    let place = Place::new();
    let mut writer = place.shmctl("write", &[]);
    writer.stdin.as_mut().unwrap().write_all(b"first\n").unwrap();
    let mut reader = place.shmctl("read", &["-n", "2"]);
    let mut line = String::new();
    let mut out = BufReader::new(reader.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    // It has to have been seen alive: the first look is when nothing came for a moment.
    std::thread::sleep(std::time::Duration::from_secs(2));
    writer.kill().unwrap();
    writer.wait().unwrap();
    let mut said = String::new();
    let mut err = BufReader::new(reader.stderr.take().unwrap());
    err.read_line(&mut said).unwrap();
    assert!(said.contains(&format!("the writer of {} is gone", place.names[0])), "{said}");
    let mut next = place.shmctl("write", &[]);
    feed(&mut next, b"second\n");
    good(next);
    line.clear();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "second\n");
    assert!(reader.wait().unwrap().success());
    said.clear();
    err.read_line(&mut said).unwrap();
    assert!(!said.contains("is gone"), "{said}");
}

#[test]
fn half_of_the_names_and_names_without_a_slash_are_usage_errors() {
    for rest in [
        &["--handoff"][..],
        &["--segment", "/s"],
        &["--handoff", "--segment", "s", "--avail", "/a", "--done", "/b"],
        &["--handoff", "--segment", "/s", "--avail", "/a", "--done", "/b", "--from", "oldest"],
    ] {
        let out = Command::new(env!("CARGO_BIN_EXE_shmctl")).arg("read").args(rest).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{rest:?}: {out:?}");
    }
}
