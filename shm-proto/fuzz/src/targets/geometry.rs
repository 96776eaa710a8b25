//! A channel's facts, as a line says them, and a segment whose header agrees.

use std::os::fd::AsFd;

use nix::unistd::ftruncate;
use shm_proto::internal::control::decode;
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::record::PUBLISH_TIMES;
use shm_proto::internal::ring::{Beginning, Owner, Snapshot, Walk, WalkFrom, begin_segment};
use shm_proto::{Geometry, OnFull, Start};

use crate::bytes::Bytes;
use crate::ring;
use crate::scratch;

/// A chain that begins before this place does not come to its end here.
const FAR: u64 = 1 << 62;
/// The longest data area that is made.
const LONGEST: u64 = 1 << 20;

pub(super) fn run(input: &[u8]) {
    let mut bytes = Bytes::new(input);
    let geometry = match bytes.byte() % 2 {
        0 => match std::str::from_utf8(bytes.rest()).ok().and_then(|line| decode::<Geometry>(line).ok()) {
            Some(geometry) => geometry,
            None => return,
        },
        _ => facts(&mut bytes),
    };
    let length = bytes.word() % LONGEST;
    let file = scratch::file(&[]);
    ftruncate(&file, (DATA_OFFSET + length) as i64).expect("a file in memory can grow");
    let owner = Owner { pid: 1, start: 1, boot_id: [0; 2], home: 0 };
    let beginning = Beginning { pos: bytes.word(), seq: bytes.word(), bytes: bytes.word(), ..Beginning::default() };
    // The daemon checks its configuration before it makes a segment.
    if !geometry.align.is_power_of_two() || !(16..=4096).contains(&geometry.align) {
        assert!(ring::reader(file.as_fd(), &geometry, Start::New).is_err());
        assert!(ring::writer(file.as_fd(), &geometry, length).is_err());
        return;
    }
    begin_segment(file.as_fd(), &geometry, length, owner, &beginning).expect("a header can be written");
    if let Ok(shot) = Snapshot::read(file.as_fd()) {
        let _ = shot.fault(&geometry, length);
    }
    let _ =
        Walk::begin(file.as_fd(), WalkFrom::Floor).and_then(|mut walk| walk.go_on(file.as_fd(), &geometry, 1 << 16));
    let reader = ring::reader(file.as_fd(), &geometry, Start::Oldest);
    let writer = ring::writer(file.as_fd(), &geometry, length);
    let (Ok(mut reader), Ok(mut writer)) = (reader, writer) else { return };
    if beginning.pos.max(beginning.seq) > FAR {
        // No channel comes so far, and readers say so.
        return;
    }
    for len in [0, 1, 9, 100, 5000] {
        let message = vec![len as u8; len];
        match writer.try_publish(&message) {
            Ok(Some(_)) => {}
            Ok(None) => continue,
            Err(_) => break,
        }
        let mut received = Vec::new();
        let found = reader.try_recv().unwrap_or_else(|e| panic!("{e}: {geometry:?}"));
        found.expect("what was published is there").copy_to_vec(&mut received);
        assert_eq!(received, message, "{geometry:?} {length}");
    }
}

fn facts(bytes: &mut Bytes<'_>) -> Geometry {
    let small = |bytes: &mut Bytes<'_>| u64::from(bytes.half());
    let word = |bytes: &mut Bytes<'_>| match bytes.byte() % 4 {
        0 => small(bytes),
        1 => 4096 * small(bytes),
        2 => bytes.word(),
        _ => 1 << (bytes.byte() % 64),
    };
    let (max, largest) = (word(bytes), word(bytes));
    let mut geometry = Geometry::new("fuzz".parse().expect("a name"), 1, max, largest);
    geometry.align = bytes.one_of(&[16, 32, 64, 4096, 0, 8, 24, 8192, u32::MAX]);
    geometry.on_full = bytes.one_of(&[OnFull::Block, OnFull::Drop, OnFull::Overwrite]);
    geometry.max_readers = word(bytes) as u32;
    // Waiting for readers that never come is not what is tried here.
    geometry.prefault = bytes.byte() % 8 == 1;
    // Publish times, and what no program knows.
    geometry.features = bytes.one_of(&[0, PUBLISH_TIMES, 2]);
    geometry
}
