//! A segment that a daemon has left behind, and the daemon that comes after it.

use std::os::fd::AsFd;
use std::sync::OnceLock;

use shm_proto::internal::ring::{Walk, WalkFrom, Walked};
use shm_proto::{Geometry, Start};
use shmd::fuzzing::Successor;

use crate::bytes::Bytes;
use crate::ring::{self, CAPACITY};
use crate::scratch::{self, Directory};

/// A daemon for each kind of channel, and what the one before it has left: the facts and the segment.
fn cases() -> &'static [(Successor, Geometry, Vec<u8>)] {
    static CASES: OnceLock<Vec<(Successor, Geometry, Vec<u8>)>> = OnceLock::new();
    CASES.get_or_init(|| {
        let directory = Directory::new("adoption");
        let configured = ["16 block", "64 block", "32 drop", "16 overwrite"].map(|of| of.split_once(' ').expect("two words"));
        let case = |(align, on_full): (&str, &str)| {
            let text = format!(
                "[[channel]]\nname = \"fuzz\"\nsource = \"none\"\nmax_message = 4000\ncapacity = {CAPACITY}\nmin = 8192\nmax = {}\n\
                 align = {align}\non_full = \"{on_full}\"\n",
                ring::MAX
            );
            let successor = Successor::new(directory.path(), &text);
            let geometry = successor.geometry();
            let written = ring::written(&geometry, successor.predecessor());
            (successor, geometry, written)
        };
        configured.into_iter().map(case).collect()
    })
}

pub(super) fn run(input: &[u8]) {
    let mut input = Bytes::new(input);
    let kind = input.byte();
    let (successor, before, written) = &cases()[usize::from(kind & 3)];
    let mut bytes = written.clone();
    if kind & 4 != 0 {
        // A file that a lent writer has cut short or made longer.
        bytes.resize(usize::from(input.half()) % (3 * written.len()), 0);
    }
    if bytes.len() >= 8 {
        ring::patch(&mut bytes, &mut input);
    }
    let file = scratch::file(&bytes);
    let adopted = successor.adopt(file.try_clone().expect("a descriptor can be duplicated"), scratch::read_only(&file));
    let Ok((geometry, capacity)) = adopted else { return };
    assert_eq!((geometry.max_capacity, geometry.align), (before.max_capacity, before.align));
    let file = file.as_fd();
    let walked = Walk::begin(file, WalkFrom::Floor).and_then(|mut walk| walk.go_on(file, &geometry, u64::MAX));
    let Ok(Walked::Tail(tail)) = walked else { panic!("adopted, and then {walked:?}") };
    for start in [Start::Oldest, Start::New] {
        let mut reader = ring::reader(file, &geometry, start).unwrap_or_else(|e| panic!("adopted, but {e}"));
        ring::read_all(&mut reader, capacity / 8)
            .unwrap_or_else(|(n, e)| panic!("adopted, but after {n} messages: {e}"));
        let end = tail.seq;
        assert_eq!(reader.seq(), end, "adopted, and from {start:?} a reader does not end where the records do");
    }
    let mut reader = ring::reader(file, &geometry, Start::New).unwrap_or_else(|e| panic!("adopted, but {e}"));
    let mut writer = ring::writer(file, &geometry, capacity).unwrap_or_else(|e| panic!("adopted, but {e}"));
    let published = writer.try_publish(b"the next one").unwrap_or_else(|e| panic!("adopted, but {e}"));
    if let Some(seq) = published {
        let message = reader.try_recv().unwrap_or_else(|e| panic!("adopted, but {e}"));
        assert_eq!(message.map(|message| message.seq()), Some(seq));
    }
}
