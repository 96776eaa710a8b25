//! Writers that lose their role at any moment, and readers that notice nothing of it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use shm_proto::ErrorKind;
use shm_proto::internal::os::fds;
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::record::Header;
use shm_proto::internal::ring::{Received, Snapshot};
use shm_proto::{Endpoint, Error, Reader, ReaderError, RequestError, Start, Writer, WriterError};

use crate::content::{Content, mix};
use shm_test_support::PATIENCE;

/// One message in so many is as large as a megabyte.
pub(crate) const LARGE_ONE_IN: u64 = 5000;
/// In milliseconds: what takes so long hangs.
const LONG: u16 = 60_000;
/// The last message.
pub(crate) const END: &[u8] = b"the end of the storm";

/// Borrows the role again and again, hands its connection to whoever listens at `socket`, and publishes what the numbers say,
/// in all the ways that there are. Ends when `stop` is there. The file `tally` says at any time how many messages were published
/// for certain, and how many may have been: see [`read_tally`].
pub(crate) fn write(endpoint: &Endpoint, socket: &str, stop: &str, tally: &str) {
    let content = Content::new(LARGE_ONE_IN);
    let told = UnixStream::connect(socket).unwrap();
    let tally = fs::File::create(tally).unwrap();
    let note = |sure: u64, unsure: u64| {
        let bytes = [sure.to_le_bytes(), unsure.to_le_bytes()].concat();
        tally.write_all_at(&bytes, 0).unwrap();
    };
    let (mut sure, mut unsure) = (0u64, 0u64);
    note(sure, unsure);
    let is_over = || fs::exists(stop).unwrap();
    while !is_over() {
        let mut writer = match Writer::attach(endpoint, None) {
            Ok(writer) => writer,
            Err(Error::Request(RequestError::Refused(refusal)))
                if [ErrorKind::WriterTaken, ErrorKind::Busy].contains(&refusal.kind) =>
            {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            // It was stopped, and the role taken back, before it had it; or the daemon has died.
            Err(
                Error::Writer(WriterError::Revoked { .. } | WriterError::TimedOut { .. })
                | Error::Request(RequestError::NoDaemon { .. } | RequestError::TimedOut { .. } | RequestError::System(_)),
            ) => {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        let Some(link) = writer.link_fd() else { continue };
        fds::send(told.as_fd(), b"role", &[link]).unwrap();
        let error = loop {
            if is_over() {
                break None;
            }
            let before = writer.messages();
            match publish(&mut writer, &content) {
                Ok(()) => {
                    sure += writer.messages() - before;
                    note(sure, unsure);
                }
                // Published. The role ended while it waited for the readers.
                Err(WriterError::Unacknowledged { ended: Some(_), .. }) => {
                    sure += writer.messages() - before;
                    break None;
                }
                Err(e) => break Some(e),
            }
        };
        match error {
            None => {}
            Some(WriterError::Superseded { .. }) => unsure += BATCH,
            Some(WriterError::Revoked { .. }) => unsure += BATCH - 1,
            // Its connection was cut, the daemon has not noticed yet, and the message needs a larger ring.
            Some(WriterError::NoSpace { .. }) => unsure += BATCH - 1,
            Some(e) => panic!("{e}"),
        }
        note(sure, unsure);
    }
}

/// What a writer has noted: messages published for certain, and how many more may have been. One that was killed may have
/// published [`BATCH`] more.
pub(crate) fn read_tally(tally: &Path) -> (u64, u64) {
    let bytes = fs::read(tally).unwrap();
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    (word(0), word(8))
}

/// Most messages of one call of `publish`.
pub(crate) const BATCH: u64 = 8;

fn publish(writer: &mut Writer, content: &Content) -> Result<(), WriterError> {
    let n = writer.messages();
    match n % 3 {
        0 => drop(writer.publish(content.message(n))?),
        1 => {
            let message = content.message(n);
            if let Some(mut slot) = writer.reserve(message.len())? {
                slot.copy_from_slice(message);
                slot.commit(message.len())?;
            }
        }
        _ => {
            let mut batch = writer.batch();
            let mut next = n;
            for _ in 0..BATCH {
                if batch.push(content.message(next))?.is_some() {
                    next += 1;
                }
            }
            batch.commit()?;
        }
    }
    Ok(())
}

/// Receives in one of the ways that there are up to the last message, and compares every one with what its number says. What the
/// numbers leave out must have been reported as lost.
pub(crate) fn read(endpoint: &Endpoint, way: &str, started: &str) {
    let content = Content::new(LARGE_ONE_IN);
    let mut reader = Reader::attach(endpoint, None, Start::Oldest).unwrap();
    fs::write(Path::new(started), "").unwrap();
    let (mut bytes, mut next, mut received, mut lost) = (Vec::new(), 0, 0, 0);
    loop {
        let Received { seq, lost_before, .. } = match receive(&mut reader, way, &mut bytes, &mut lost) {
            Ok(Some(received)) => received,
            Ok(None) => continue,
            Err(e) => panic!("after message {next}: {e}"),
        };
        assert_eq!(seq, next + lost_before, "numbers follow each other");
        next = seq + 1;
        received += 1;
        if bytes == END {
            break;
        }
        assert!(bytes == content.message(seq), "message {seq}: {} bytes are not what was sent", bytes.len());
    }
    assert_eq!((reader.received(), reader.lost()), (received, next - received));
    eprintln!("received {received} of {next}.");
}

/// Receives in one of the ways that there are, until it is killed.
pub(crate) fn read_on(endpoint: &Endpoint, way: &str) {
    let content = Content::new(LARGE_ONE_IN);
    let mut reader = loop {
        match Reader::attach(endpoint, None, Start::New) {
            Ok(reader) => break reader,
            // The daemon has died, and another one is on its way.
            Err(Error::Request(_)) => std::thread::sleep(Duration::from_millis(1)),
            Err(e) => panic!("{e}"),
        }
    };
    let (mut bytes, mut lost) = (Vec::new(), 0);
    loop {
        match receive(&mut reader, way, &mut bytes, &mut lost) {
            Ok(Some(got)) => assert!(bytes == END || bytes == content.message(got.seq), "message {}", got.seq),
            Ok(None) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// The next message, if there is one. `lost` is what was lost before messages that were overwritten while they were read.
fn receive(
    reader: &mut Reader,
    way: &str,
    bytes: &mut Vec<u8>,
    lost: &mut u64,
) -> Result<Option<Received>, ReaderError> {
    let message = match way {
        "copy" => return reader.recv_into(bytes, Some(PATIENCE)).map(Some),
        "wait" => reader.recv(Some(PATIENCE))?,
        _ => {
            if reader.arm()? {
                // Nothing but the bell wakes it.
                let rung = poll(&mut [PollFd::new(reader.as_fd(), PollFlags::POLLIN)], LONG);
                assert_eq!(rung, Ok(1), "the bell does not ring: {reader:?}");
            }
            let Some(message) = reader.try_recv()? else { return Ok(None) };
            message
        }
    };
    message.copy_to_vec(bytes);
    let (seq, lost_before) = (message.seq(), *lost + message.lost_before());
    match message.finish() {
        Ok(()) => {
            *lost = 0;
            Ok(Some(Received { seq, lost_before, published_ns: None }))
        }
        Err(ReaderError::Lapped { .. }) => {
            *lost = lost_before;
            Ok(None)
        }
        Err(ReaderError::Withdrawn { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Borrows the role, publishes some messages, and makes nonsense of some words of the segment at `path` meanwhile: of its
/// published places, or of records. `seed` says which.
pub(crate) fn scribble(endpoint: &Endpoint, path: &str, seed: u64) {
    let mut writer = Writer::attach(endpoint, None).unwrap();
    let segment = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut random = (seed << 32..).map(mix);
    let mut random = |most: u64| random.next().unwrap() % most;
    for n in 0..500 {
        // It may have lost the role already.
        if writer.publish(&[n as u8; 200]).is_err() {
            return;
        }
    }
    let tail = Snapshot::read(segment.as_fd()).unwrap().tail;
    let data = segment.metadata().unwrap().len() - DATA_OFFSET;
    for _ in 0..3 {
        // Often something that would be right if the file were as long as the mapping.
        let off = (data + random(8 << 20)) & !15 | 8;
        let words = [off, random(u64::MAX), Header::jump(off, tail.seq).0, Header::data(off & 0xff_ffff, tail.seq).0];
        let word = words[random(4) as usize];
        let at = match random(3) {
            0 => 128 + 8 * random(48),
            1 => DATA_OFFSET + tail.off,
            _ => DATA_OFFSET + 8 * random(data / 8),
        };
        segment.write_all_at(&word.to_le_bytes(), at).unwrap();
        let _ = writer.publish(b"after that");
    }
}

/// Receives up to the last message, whatever it is told of in between.
pub(crate) fn endure(endpoint: &Endpoint, way: &str, started: &str) {
    let mut reader = Reader::attach(endpoint, None, Start::New).unwrap();
    fs::write(Path::new(started), "").unwrap();
    let (mut bytes, mut broken, mut lost) = (Vec::new(), 0, 0);
    loop {
        match receive(&mut reader, way, &mut bytes, &mut lost) {
            Ok(Some(_)) if bytes == END => break,
            Ok(_) => {}
            Err(ReaderError::Corrupt { .. }) => broken += 1,
            Err(e) => panic!("{e}"),
        }
    }
    eprintln!("broken {broken} times.");
}
