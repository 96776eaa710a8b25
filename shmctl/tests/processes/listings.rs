//! The programs that the handoff protocol was specified with, as they are printed: each is the other side, in both directions.
//!
//! They are no part of this project. The test takes them out of the document when it is there, and compiles them unchanged.

use std::fs::{self, File};
use std::io::{PipeWriter, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use shm_test_support::{Daemon, Place, Proc, Setup, clean, compile, program, wait_until};

/// Names the document: each block of C stands under a heading that ends in its file's name.
const VARIABLE: &str = "SHMD_HANDOFF_LISTINGS";
/// Where it is looked for otherwise.
const BESIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/seed");

/// The names that are in the listings.
const OBJECTS: [&str; 3] = ["/dev/shm/demo_shm", "/dev/shm/sem.sem_avail", "/dev/shm/sem.sem_done"];
const NAMED: [&str; 7] = ["--handoff", "--segment", "/demo_shm", "--avail", "/sem_avail", "--done", "/sem_done"];
const CHANNEL: &str = "[[channel]]\nmode = \"handoff\"\nsegment = \"/demo_shm\"\navail = \"/sem_avail\"\n\
                       done = \"/sem_done\"\ncapacity = 4096\nmin = 4096\nmax = \"1MiB\"\n";
/// What their writer sends.
const WORDS: [&str; 4] = ["Hello", "World", "Dynamic", "Memory"];

/// The two programs, compiled, and their names for this test alone as long as it lives.
struct Listings {
    place: Place,
    _lock: Flock<File>,
}

impl Drop for Listings {
    fn drop(&mut self) {
        for object in OBJECTS {
            let _ = fs::remove_file(object);
        }
    }
}

/// Nothing where there is no document or no compiler; it is said which.
fn listings() -> Option<Listings> {
    let Some(document) = document() else {
        println!("skipped: no document with the protocol's listings; {VARIABLE} may name it");
        return None;
    };
    // Other names are not in them, so only one such test may run at a time on the machine, whoever runs it.
    let lock = File::open("/dev/shm").unwrap();
    let lock = Flock::lock(lock, FlockArg::LockExclusive).unwrap();
    let listings = Listings { place: Place::new(), _lock: lock };
    extract(&fs::read_to_string(document).unwrap(), &listings.place.dir);
    for name in ["process_a", "process_b"] {
        let (source, to) = (listings.place.path(&format!("{name}.c")), listings.place.path(name));
        if !compile(&source, &to) {
            return None;
        }
    }
    Some(listings)
}

fn document() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Some(named.into());
    }
    let beside = fs::read_dir(BESIDE).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    beside.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "md"))
}

/// Takes the C files out of the document.
fn extract(document: &str, dir: &Path) {
    let mut name = None;
    let mut file: Option<File> = None;
    for line in document.lines() {
        if let Some(open) = &mut file {
            if line.starts_with("```") {
                file = None;
            } else {
                writeln!(open, "{line}").unwrap();
            }
        } else if line.starts_with('#') {
            name = line.split_whitespace().last().filter(|word| word.ends_with(".c") || word.ends_with(".h"));
        } else if line.starts_with("```c")
            && let Some(name) = name.take()
        {
            file = Some(File::create(dir.join(name)).unwrap());
        }
    }
}

impl Listings {
    fn writer(&self) -> Proc {
        Proc::spawn(clean(self.place.path("process_a")))
    }

    fn reader(&self) -> Proc {
        Proc::spawn(clean(self.place.path("process_b")))
    }

    fn shmctl(&self, command: &str, rest: &[&str]) -> Proc {
        let mut shmctl = clean(program("shmctl"));
        shmctl.arg(command).args(NAMED).args(rest).stdin(std::process::Stdio::piped());
        Proc::spawn(shmctl)
    }
}

/// Waits until a writer has made everything: the semaphores come last.
fn await_objects() {
    wait_until("the objects are there", || OBJECTS.iter().all(|path| fs::metadata(path).is_ok_and(|it| it.len() > 0)));
    std::thread::sleep(std::time::Duration::from_millis(20));
}

/// What their reader prints.
fn received(messages: &[&str]) -> String {
    messages.iter().map(|message| format!("[B] Received: {message}\n")).collect()
}

/// The longest string that their reader's buffer of 256 bytes takes.
fn longest() -> String {
    "y".repeat(255)
}

#[test]
fn their_writer_is_read_whoever_is_started_first() {
    let Some(listings) = listings() else { return };
    for reader_first in [true, false, true] {
        let read = || listings.shmctl("read", &["-n", "4", "--format", "raw"]);
        let early = reader_first.then(read);
        let writer = listings.writer();
        let reader = early.unwrap_or_else(|| {
            await_objects();
            read()
        });
        assert_eq!(reader.wait().quiet().text(), WORDS.map(|word| format!("{word}\0")).concat());
        assert_eq!(writer.wait().ok().text().lines().count(), 4);
    }
}

#[test]
fn their_reader_gets_strings_up_to_its_buffers_size_without_a_daemon() {
    let Some(listings) = listings() else { return };
    // The segment that their writer leaves behind is stale, and replaced.
    let read = listings.shmctl("read", &["-n", "4"]);
    listings.writer().wait().ok();
    read.wait().quiet();
    assert!(Path::new(OBJECTS[0]).exists());
    let mut writer = listings.shmctl("write", &["--framing", "nul", "--keep-delimiter"]);
    await_objects();
    let reader = listings.reader();
    let longest = longest();
    writer.feed(format!("Hello\0World\0{longest}\0Memory\0").as_bytes());
    writer.wait().ok();
    assert_eq!(reader.wait().ok().text(), received(&["Hello", "World", &longest, "Memory"]));
    assert!(OBJECTS.iter().all(|path| !Path::new(path).exists()));
}

/// Feeds a string and waits until it has been acknowledged.
fn hand_over(daemon: &Daemon, input: &mut PipeWriter, text: &str) {
    let before = daemon.stat().messages;
    input.write_all(format!("{text}\0").as_bytes()).unwrap();
    daemon.until_stat("the message is acknowledged", |stat| stat.messages == before + 1);
}

#[test]
fn their_reader_follows_the_daemons_growth_in_the_middle_and_the_next_one_takes_a_killed_ones_place() {
    let Some(listings) = listings() else { return };
    let (output, mut input) = std::io::pipe().unwrap();
    let config = format!("{CHANNEL}source = \"stdin\"\nframing = \"nul\"\nkeep_delimiter = true\n");
    let daemon = Setup::new(&config).stdin(output).start();
    let longest = longest();
    let reader = listings.reader();
    hand_over(&daemon, &mut input, "Hello");
    daemon.resize(1 << 20).unwrap();
    hand_over(&daemon, &mut input, &longest);
    daemon.resize(8192).unwrap();
    hand_over(&daemon, &mut input, "shorter");
    daemon.resize(256 << 10).unwrap();
    hand_over(&daemon, &mut input, "longer again");
    assert_eq!(reader.wait().ok().text(), received(&["Hello", &longest, "shorter", "longer again"]));
    // One that is killed while it waits takes nothing with it.
    let mut dies = listings.reader();
    daemon.let_pass(std::time::Duration::from_millis(100));
    assert!(dies.is_running());
    dies.kill();
    input.write_all(b"1\x002\x003\x004\0").unwrap();
    daemon.until_stat("a message is on offer", |stat| stat.handoff.as_ref().is_some_and(|it| it.on_offer.is_some()));
    assert_eq!(listings.reader().wait().ok().text(), received(&["1", "2", "3", "4"]));
    daemon.until_stat("all is acknowledged", |stat| stat.messages == 8);
}

#[test]
fn their_reader_gets_what_a_lent_writer_publishes() {
    let Some(listings) = listings() else { return };
    let daemon = Daemon::start(CHANNEL);
    let mut writer = daemon.spawn_piped(&["write", "--framing", "nul", "--keep-delimiter"]);
    let reader = listings.reader();
    writer.feed(b"one\0two\0");
    daemon.until_stat("two are acknowledged", |stat| stat.messages == 2);
    daemon.cli(&["resize", "--bytes", "64KiB"]).ok();
    writer.feed(b"three\0four\0");
    assert_eq!(reader.wait().ok().text(), received(&["one", "two", "three", "four"]));
    writer.wait().ok();
    // The daemon's readers and theirs are of one kind: what this one writes, shmctl reads.
    let mut reader = daemon.spawn(&["read", "-n", "1"]);
    daemon.cli_with_input(&["write"], b"to shmctl\n").ok();
    reader.until_out_has("to shmctl");
    reader.wait().quiet();
}
