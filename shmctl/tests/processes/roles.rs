//! Who holds the writer role, and what becomes of those who lose it.

use shm_proto::{Error, Reader, ReaderError, Start};

use crate::helpers;
use shm_test_support::{Daemon, PATIENCE, wait_until};

/// A message of the roles that number them.
fn number(reader: &mut Reader) -> u64 {
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    u64::from_le_bytes(bytes[..8].try_into().unwrap())
}

#[test]
fn a_writer_without_descriptors_refuses_the_next_reader_and_goes_on() {
    let daemon = Daemon::start("");
    // Two come with each reader, and one of them stays.
    let mut narrow = helpers::start(&daemon, "narrow", &["3"]);
    narrow.until_err_has("limit ");
    let mut served = [daemon.reader(Start::New), daemon.reader(Start::New)];
    let before = served.each_mut().map(number);
    // The writer may be faster than the reader is attached.
    let mut refused = Reader::attach(&daemon.endpoint(), None, Start::New);
    let reason = loop {
        let received = match &mut refused {
            Ok(reader) => reader.recv(Some(PATIENCE)).map(drop),
            Err(Error::Reader(ReaderError::Evicted { reason, .. })) => break reason.clone(),
            Err(e) => panic!("{e}"),
        };
        match received {
            Ok(()) => {}
            Err(ReaderError::Evicted { reason, .. }) => break reason,
            Err(e) => panic!("{e}"),
        }
    };
    let said = narrow.err_so_far();
    let limit = said.split("limit ").nth(1).and_then(|rest| rest.split('.').next()).unwrap();
    for part in [&format!("process {}", narrow.pid()), &format!("{limit} open"), "ulimit -n"] {
        assert!(reason.contains(part), "{part:?} is not in {reason:?}");
    }
    daemon.until_log("event=evict");
    for (reader, before) in served.iter_mut().zip(before) {
        let mut last = before;
        while last < before + 100 {
            let next = number(reader);
            assert_eq!(next, last + 1);
            last = next;
        }
    }
    // There is room again as soon as the writer has heard that one of the others has gone.
    let [first, _second] = served;
    drop((first, refused));
    wait_until("another reader is served", || {
        let another = Reader::attach(&daemon.endpoint(), None, Start::New);
        another.is_ok_and(|mut reader| reader.recv(Some(PATIENCE)).is_ok())
    });
}
