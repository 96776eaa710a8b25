//! Messages that are plain data, against the real daemon: `cargo test --workspace`, which builds the daemon, and then
//! `cargo test -p shm-proto --features zerocopy --test typed`.

use shm_proto::{Reader, ReaderError, Start, Writer};
use shm_test_support::{Daemon, PATIENCE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Debug, PartialEq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Sample {
    time_ns: u64,
    sensor: u32,
    number: u32,
    value: f64,
}

fn sample(number: u32) -> Sample {
    Sample { time_ns: 1_000_000 + u64::from(number), sensor: 7, number, value: f64::from(number) / 3.0 }
}

fn pair(daemon: &Daemon) -> (Reader, Writer) {
    (daemon.reader(Start::New), daemon.writer())
}

#[test]
fn values_arrive_as_they_were_published() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = pair(&daemon);
    for number in 0..100 {
        assert_eq!(writer.publish_value(&sample(number)).unwrap(), Some(number.into()));
    }
    let mut batch = writer.batch();
    for number in 100..200 {
        batch.push_value(&sample(number)).unwrap();
    }
    batch.commit().unwrap();
    for number in 200..300 {
        let mut slot = writer.reserve(size_of::<Sample>()).unwrap().unwrap();
        *slot.as_value_mut() = sample(number);
        slot.commit(size_of::<Sample>()).unwrap();
    }
    for number in 0..150 {
        let (value, received) = reader.recv_value::<Sample>(Some(PATIENCE)).unwrap();
        assert_eq!((value, received.seq, received.lost_before), (sample(number), number.into(), 0));
    }
    for number in 150..300 {
        let message = reader.recv(Some(PATIENCE)).unwrap();
        assert_eq!(message.value(), Some(sample(number)));
        message.finish().unwrap();
    }
}

#[test]
fn the_bytes_are_those_that_a_c_program_has() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = pair(&daemon);
    writer.publish_value(&Sample { time_ns: 1, sensor: 2, number: 3, value: 0.0 }).unwrap();
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    assert_eq!(bytes, [1u64.to_le_bytes(), (3 << 32 | 2u64).to_le_bytes(), [0; 8]].concat());
}

#[test]
fn many_values_are_one_message() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = pair(&daemon);
    let samples: Vec<_> = (0..1000).map(sample).collect();
    writer.publish_value(samples.as_slice()).unwrap();
    writer.publish(b"not a number of samples").unwrap();
    let mut out = vec![sample(9)];
    let message = reader.recv(Some(PATIENCE)).unwrap();
    assert!(message.copy_values(&mut out));
    message.finish().unwrap();
    assert_eq!(out, samples);
    let message = reader.recv(Some(PATIENCE)).unwrap();
    assert!(!message.copy_values(&mut out) && out.is_empty());
    assert_eq!(message.value::<Sample>(), None);
}

#[test]
fn a_message_of_another_length_is_an_error_and_is_passed() {
    let daemon = Daemon::start("");
    let (mut reader, mut writer) = pair(&daemon);
    writer.publish(b"text").unwrap();
    writer.publish_value(&sample(1)).unwrap();
    match reader.recv_value::<Sample>(Some(PATIENCE)) {
        Err(error @ ReaderError::NoSuchValue { seq: 0, len: 4, expected: 24, .. }) => {
            assert_eq!(error.to_string(), "message 0 of channel main has 4 bytes, a value of 24 bytes was expected");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reader.recv_value::<Sample>(Some(PATIENCE)).unwrap().0, sample(1));
}

#[test]
#[should_panic(expected = "a value of 24 bytes, aligned to 8, in 23 bytes")]
fn a_slot_of_another_length_is_no_place_for_a_value() {
    let daemon = Daemon::start("");
    let mut writer = daemon.writer();
    let mut slot = writer.reserve(23).unwrap().unwrap();
    let _: &mut Sample = slot.as_value_mut();
}
