//! A segment that a program with the writer role has written over.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use shm_proto::internal::ring::layout::control;
use shm_proto::internal::ring::{Owner, Snapshot, Walk, WalkFrom, Walked, noted_readers};
use shm_proto::{Geometry, Start};

use crate::bytes::Bytes;
use crate::ring::{self, CAPACITY};
use crate::scratch;

/// More messages than the data area has words.
const MOST: u64 = CAPACITY / 8 + 1;

/// A segment of each kind, and its facts.
fn segments() -> &'static [(Geometry, Vec<u8>)] {
    static SEGMENTS: OnceLock<Vec<(Geometry, Vec<u8>)>> = OnceLock::new();
    let owner = Owner { pid: 1, start: 1, boot_id: [0; 2], home: 0 };
    SEGMENTS.get_or_init(|| {
        (0..16u8).map(ring::geometry).map(|geometry| (geometry.clone(), ring::written(&geometry, owner))).collect()
    })
}

pub(super) fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let kind = input.byte();
    let (geometry, written) = &segments()[usize::from(kind & 15)];
    let mut bytes = written.clone();
    ring::patch(&mut bytes, &mut input);
    let segment = scratch::file(&bytes);
    let segment = segment.as_fd();

    // What the daemon looks at.
    if let Ok(shot) = Snapshot::read(segment) {
        let _ = shot.fault(geometry, CAPACITY);
    }
    let _ = Snapshot::without_places(segment);
    let _ = noted_readers(segment);
    let near_tail = Walk::begin(segment, WalkFrom::Mark).and_then(|mut walk| walk.go_on(segment, geometry, u64::MAX));
    assert_ne!(near_tail.ok(), Some(Walked::More));
    let from_floor = Walk::begin(segment, WalkFrom::Floor).and_then(|mut walk| walk.go_on(segment, geometry, u64::MAX));
    assert_ne!(from_floor.ok(), Some(Walked::More));
    let oldest = Walk::begin(segment, WalkFrom::NextFloor).map(|walk| walk.at());
    let whole = Walk::begin(segment, WalkFrom::NextFloor).and_then(|mut walk| {
        // In parts, as the daemon does.
        loop {
            match walk.go_on(segment, geometry, 1)? {
                Walked::More => {}
                found => return Ok(found),
            }
        }
    });

    // What readers see, whether or not a writer knows them.
    let mut readable = None;
    for (start, bits) in [(Start::Oldest, 0), (Start::New, 0), (Start::Oldest, control::REGISTERED)] {
        let received = ring::reader_with(segment, geometry, start, bits).map(|mut reader| {
            let from = reader.seq();
            (from, ring::read_all(&mut reader, MOST))
        });
        if start == Start::Oldest && bits == 0 {
            readable = Some(received);
        }
    }
    if let (Ok(oldest), Ok(Walked::Tail(tail)), Some(Ok((from, received)))) = (oldest, whole, readable) {
        assert_eq!(from, oldest.seq, "a walk begins at {oldest:?}, a reader elsewhere");
        match received {
            Ok(messages) => assert_eq!(from + messages, tail.seq, "a walk ends at {tail:?}, a reader elsewhere"),
            // Losses are counted and reported.
            Err((_, error)) => panic!("a walk finds all of it whole, up to {tail:?}; a reader: {error}"),
        }
    }

    // What the next writer makes of it.
    if let Ok(mut writer) = ring::writer(segment, geometry, CAPACITY) {
        for len in [0, 1, 100, 4000, 8] {
            if writer.try_publish(&vec![7; len]).is_err() || writer.maintain().is_err() {
                break;
            }
        }
        let _ = writer.is_drained();
    }
}
