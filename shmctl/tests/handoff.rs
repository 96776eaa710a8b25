//! `shmctl read --handoff` and `shmctl write --handoff` against programs in C, and against each other.

#[allow(dead_code)]
#[path = "processes/common/process.rs"]
mod process;
#[allow(dead_code)]
#[path = "processes/common/wait.rs"]
mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;

use process::{Proc, clean};
use wait::wait_until;

/// For a writer whose reader comes, however slow the machine is: a message that is offered again is read twice.
const PATIENT: [&str; 2] = ["--ack-timeout", "60s"];

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

    fn c(&self, program: &Path, role: &str, rest: &[&str]) -> Proc {
        let mut command = clean(program);
        command.arg(role).args(&self.names).args(rest);
        Proc::spawn(command)
    }

    fn shmctl(&self, command: &str, rest: &[&str]) -> Proc {
        let [segment, avail, done] = &self.names;
        let mut shmctl = clean(env!("CARGO_BIN_EXE_shmctl"));
        shmctl.arg(command).args(["--handoff", "--segment", segment, "--avail", avail, "--done", done]).args(rest);
        shmctl.stdin(Stdio::piped());
        Proc::spawn(shmctl)
    }

    fn paths(&self) -> [String; 3] {
        let [segment, avail, done] = &self.names;
        [format!("/dev/shm{segment}"), format!("/dev/shm/sem.{}", &avail[1..]), format!("/dev/shm/sem.{}", &done[1..])]
    }

    /// Waits until a writer has made everything: the semaphores come last.
    fn await_objects(&self) {
        wait_until("the objects are there", || {
            self.paths().iter().all(|path| fs::metadata(path).is_ok_and(|found| found.len() > 0))
        });
    }

    /// Waits until a reader sleeps on `avail`: the file's second word says how many do.
    fn await_sleeper(&self) {
        let path = &self.paths()[1];
        wait_until("a reader sleeps", || fs::read(path).is_ok_and(|cell| cell.len() >= 8 && cell[4..8] != [0; 4]));
    }

    /// Whether nothing is left under the names.
    fn is_clean(&self) -> bool {
        self.paths().iter().all(|path| !Path::new(path).exists())
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

fn feed(proc: &mut Proc, bytes: &[u8]) {
    proc.feed(bytes);
    proc.end_input();
}

/// The output of a program that has to end well.
fn good(proc: Proc) -> String {
    proc.wait().ok().text()
}

#[test]
fn a_writer_and_a_reader_need_no_daemon_and_leave_nothing() {
    let place = Place::new();
    let reader = place.shmctl("read", &[]);
    let mut writer = place.shmctl("write", &PATIENT);
    feed(&mut writer, b"one\n\nthree");
    good(writer);
    assert_eq!(good(reader), "one\n\nthree\n", "it ends when the writer has removed the objects");
    assert!(place.is_clean());
}

#[test]
fn a_program_in_c_gets_strings_and_a_large_message() {
    let place = Place::new();
    let Some(peer) = place.peer() else { return };
    let mut writer = place.shmctl("write", &[&PATIENT[..], &["--framing", "nul", "--keep-delimiter"]].concat());
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
    place.shmctl("read", &["--timeout", "50ms"]).wait().fails(75, &[]);
    let mut writer = place.shmctl("write", &[]);
    feed(&mut writer, b"nobody\n");
    place.await_objects();
    writer.signal(Signal::SIGINT);
    let stopped = writer.wait().ok();
    assert!(stopped.err.contains("stopped by SIGINT: 0 messages were acknowledged (0 bytes)"), "{stopped:?}");
    assert!(place.is_clean());
}

#[test]
fn a_message_that_nobody_acknowledges_ends_the_writer_or_is_dropped_as_it_is_told() {
    let place = Place::new();
    let mut late = place.shmctl("write", &["--timeout", "50ms"]);
    feed(&mut late, b"nobody\n");
    late.wait().fails(75, &["an acknowledgement in /shmctl-handoff-", "50ms"]);
    let mut drops = place.shmctl("write", &["--on-full", "drop", "--ack-timeout", "20ms"]);
    feed(&mut drops, b"one\ntwo\n");
    let drops = drops.wait().ok();
    assert!(drops.err.contains("2 messages were dropped"), "{drops:?}");
    assert!(place.is_clean());
}

#[test]
fn a_writer_that_gives_up_says_how_many_were_acknowledged() {
    let place = Place::new();
    let mut writer = place.shmctl("write", &["--timeout", "2s"]);
    place.await_objects();
    let reader = place.shmctl("read", &["-n", "1"]);
    // All that it has to do in time is to wake up.
    place.await_sleeper();
    feed(&mut writer, b"one\ntwo\n");
    assert_eq!(good(reader), "one\n");
    writer.wait().fails(75, &["1 message was acknowledged before"]);
}

#[test]
fn signals_end_a_reader_and_a_writer_that_have_nothing_to_do() {
    let place = Place::new();
    let mut writer = place.shmctl("write", &PATIENT);
    writer.feed(b"first\n");
    let mut reader = place.shmctl("read", &["-n", "2"]);
    reader.until_out_has("first\n");
    reader.signal(Signal::SIGTERM);
    good(reader);
    writer.signal(Signal::SIGINT);
    let stopped = writer.wait().ok();
    assert!(stopped.err.ends_with("stopped by SIGINT: 1 message was acknowledged (5 bytes)\n"), "{stopped:?}");
    assert!(place.is_clean());
}

#[test]
fn a_reader_says_that_its_writer_was_killed_and_goes_on_with_the_next_one() {
    let place = Place::new();
    let mut writer = place.shmctl("write", &PATIENT);
    writer.feed(b"first\n");
    let mut reader = place.shmctl("read", &["-n", "2"]);
    // It has looked for the writer before it writes the first message.
    reader.until_out_has("first\n");
    writer.kill();
    let gone = format!("the writer of {} is gone", place.names[0]);
    reader.until_err_has(&gone);
    let mut next = place.shmctl("write", &PATIENT);
    feed(&mut next, b"second\n");
    good(next);
    let reader = reader.wait().ok();
    assert_eq!(reader.text(), "first\nsecond\n");
    assert_eq!(reader.err.matches("is gone").count(), 1, "{reader:?}");
}

#[test]
fn half_of_the_names_and_names_without_a_slash_are_usage_errors() {
    for rest in [
        &["--handoff"][..],
        &["--segment", "/s"],
        &["--handoff", "--segment", "s", "--avail", "/a", "--done", "/b"],
        &["--handoff", "--segment", "/s", "--avail", "/a", "--done", "/b", "--from", "oldest"],
    ] {
        let mut command = clean(env!("CARGO_BIN_EXE_shmctl"));
        command.arg("read").args(rest);
        Proc::spawn(command).wait().fails(2, &[]);
    }
}
