//! A writer that is killed after any instruction of handing a message over: the next one loses no message, and doubles none.
//!
//! The test goes through all instructions if `SHMD_STEPS=1` is set, and through a sample of them otherwise.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::memfd::{MFdFlags, memfd_create};
use shm_proto::internal::handoff::{Entry, Journal, Progress, Reader, Settings, Stage, Writer};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{HandoffError, SystemError};
use shm_test_support::{Handoff, Raise, here, in_child, killed_after, skip_without_trace, soon, wait_until};

/// The newest entry in a file.
#[derive(Debug)]
struct InFile(File);

impl InFile {
    fn read(&self) -> Entry {
        let mut bytes = [0; 16];
        self.0.read_exact_at(&mut bytes, 0).unwrap();
        let stage = match bytes[8] {
            1 => Stage::Offered(bytes[12..].try_into().unwrap()),
            2 => Stage::Ended,
            _ => Stage::None,
        };
        Entry { number: u64::from_le_bytes(bytes[..8].try_into().unwrap()), stage, ..Entry::default() }
    }
}

impl Journal for InFile {
    fn note(&mut self, entry: &Entry) -> Result<(), SystemError> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&entry.number.to_le_bytes());
        match entry.stage {
            Stage::None => {}
            Stage::Offered(first) => {
                bytes[8] = 1;
                bytes[12..].copy_from_slice(&first);
            }
            Stage::Ended => bytes[8] = 2,
        }
        self.0.write_all_at(&bytes, 0).map_err(|e| SystemError::new("note", e))
    }
}

/// All messages have one length and the same first bytes, so that what is left of one looks like the next one.
fn message(number: u64) -> Vec<u8> {
    [*b"the same", number.to_le_bytes()].concat()
}

fn until_read(writer: &mut Writer) -> Result<(), HandoffError> {
    loop {
        match writer.progress(soon())? {
            Progress::Acknowledged => return Ok(()),
            Progress::Waiting => {}
            // The reader had every chance.
            Progress::Dropped => std::process::abort(),
        }
    }
}

/// Goes on where the writer before has ended, and hands the next message over, before and after which is `stop`. Ends as if it were
/// killed.
fn go_on(settings: &Settings, file: &File, stop: fn()) -> Result<(), HandoffError> {
    let journal = InFile(file.try_clone().map_err(|e| SystemError::new("duplicate", e))?);
    let entry = journal.read();
    let mut writer = Writer::create(settings.clone())?;
    writer.keep_journal(Box::new(journal), entry);
    let number = entry.next(writer.take_up()?);
    until_read(&mut writer)?;
    stop();
    writer.offer_parts(number, 16, |put| put(&message(number)))?;
    until_read(&mut writer)?;
    stop();
    std::mem::forget(writer);
    Ok(())
}

#[test]
fn no_message_is_lost_or_doubled_by_a_writer_that_is_killed_after_any_instruction() {
    if skip_without_trace("a handoff's writer is killed at any instruction") {
        return;
    }
    let place = Handoff::new();
    let settings = Settings { keep_offer: true, drop_late: true, ..place.settings() };
    let file = File::from(memfd_create("journal", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(16).unwrap();
    // A process that is traced is stopped when a child of it ends, and memory is reserved in a child.
    let made = in_child(|| Writer::create(settings.clone()).map(std::mem::forget).is_err().into());
    assert_eq!(made.exit_code(), 0);
    let (seen, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = Raise(&over);
        scope.spawn(|| {
            let mut reader = Reader::new(place.0.clone());
            let mut bytes = Vec::new();
            while !over.load(Ordering::Relaxed) {
                if let Ok(Some(_)) = reader.recv_until(&mut bytes, monotonic_ns() + 10_000_000) {
                    seen.lock().unwrap().push(bytes.clone());
                }
            }
        });
        let whole = std::env::var_os("SHMD_STEPS").is_some();
        let mut at = if whole { 0 } else { 16 + u64::from(std::process::id() % 16) };
        let mut kills = 0;
        while killed_after(at, || go_on(&settings, &file, here).is_err().into()) {
            kills += 1;
            // Whatever it had begun is over when the next one has handed its message over.
            assert_eq!(in_child(|| go_on(&settings, &file, || ()).is_err().into()).exit_code(), 0);
            let entry = InFile(file.try_clone().unwrap()).read();
            assert_eq!(entry.stage, Stage::Ended);
            wait_until("all are read", || seen.lock().unwrap().len() as u64 > entry.number);
            let all: Vec<_> = (0..=entry.number).map(message).collect();
            assert_eq!(*seen.lock().unwrap(), all, "killed before instruction {at}");
            at += if whole { 1 } else { at / 8 };
        }
        println!("killed {kills} times, the last time before instruction {at}");
        assert!(kills > 10, "only {kills} kills, the last one before instruction {at}");
    });
    assert_eq!(in_child(|| Writer::create(settings.clone()).is_err().into()).exit_code(), 0);
    assert!(place.is_clean());
}
