//! Publishing and receiving.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use shm_proto::{Reader, Writer};

/// Stays in the second-level cache.
const CAPACITY: u64 = 1 << 20;
/// Messages in one look at the clock: they fit into the ring, so that nobody has to receive or publish in between.
const SAMPLE: u32 = 256;
const SIZES: [usize; 4] = [8, 64, 1024, 65_536];

fn message(size: usize) -> Vec<u8> {
    vec![7; size]
}

/// All bytes of the next message are looked at where they lie.
#[inline(always)]
fn receive(reader: &mut Reader) -> u64 {
    let message = reader.try_recv().unwrap().expect("a message is there");
    let sum = message.words().fold(0, u64::wrapping_add);
    message.finish().unwrap();
    sum
}

fn drain(readers: &mut [Reader]) {
    for reader in readers {
        while let Some(message) = reader.try_recv().unwrap() {
            message.finish().unwrap();
        }
    }
}

#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn publish(bencher: Bencher<'_, '_>, size: usize) {
    let (mut writer, _) = shm_test_support::channel(CAPACITY, 0);
    let message = message(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| writer.publish(black_box(&message)).unwrap());
}

/// 64 bytes to readers that are awake: the writer looks at each one's page.
#[divan::bench(args = [1, 4, 16, 64], sample_size = SAMPLE)]
fn publish_to_readers(bencher: Bencher<'_, '_>, readers: usize) {
    let (mut writer, mut readers) = shm_test_support::channel(CAPACITY, readers);
    let message = message(64);
    // Before each look at the clock the readers take what is there.
    let bencher = bencher.with_inputs(|| drain(&mut readers));
    bencher.bench_local_values(|()| writer.publish(black_box(&message)).unwrap());
}

/// Made in the program's memory and copied into the ring: to be compared with the next one.
#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn fill_and_publish(bencher: Bencher<'_, '_>, size: usize) {
    let (mut writer, _) = shm_test_support::channel(CAPACITY, 0);
    let mut message = message(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        black_box(&mut message[..]).fill(black_box(7));
        writer.publish(black_box(&message)).unwrap()
    });
}

/// Made where it is to lie.
#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn fill_in_place(bencher: Bencher<'_, '_>, size: usize) {
    let (mut writer, _) = shm_test_support::channel(CAPACITY, 0);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let mut slot = writer.reserve(size).unwrap().expect("a block channel drops nothing");
        slot.fill(black_box(7));
        slot.commit(size).unwrap()
    });
}

/// Messages of 64 bytes that become visible together.
#[divan::bench(args = [1, 8, 64, 256], sample_size = 64)]
fn publish_batch(bencher: Bencher<'_, '_>, messages: usize) {
    let (mut writer, _) = shm_test_support::channel(CAPACITY, 0);
    let message = message(64);
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        let mut batch = writer.batch();
        for _ in 0..messages {
            batch.push(black_box(&message)).unwrap();
        }
        batch.commit().unwrap();
    });
}

fn published(size: usize) -> (impl FnMut(), Reader) {
    let (mut writer, reader): (Writer, Reader) = shm_test_support::pair(CAPACITY);
    let message = message(size);
    let publish = move || {
        writer.publish(&message).unwrap();
    };
    (publish, reader)
}

/// Messages that are there.
#[divan::bench(args = [8, 64, 1024], sample_size = SAMPLE)]
fn receive_in_place(bencher: Bencher<'_, '_>, size: usize) {
    let (publish, mut reader) = published(size);
    let bencher = bencher.counter(BytesCount::new(size)).with_inputs(publish);
    bencher.bench_local_values(|()| receive(&mut reader));
}

/// Messages that are there, copied out.
#[divan::bench(args = [8, 64, 1024], sample_size = SAMPLE)]
fn receive_copy(bencher: Bencher<'_, '_>, size: usize) {
    let (publish, mut reader) = published(size);
    let mut out = Vec::with_capacity(size);
    let bencher = bencher.counter(BytesCount::new(size)).with_inputs(publish);
    bencher.bench_local_values(|()| reader.recv_into(&mut out, None).unwrap().seq);
}

/// One message there and out again.
#[divan::bench(args = SIZES, sample_size = SAMPLE)]
fn publish_and_receive(bencher: Bencher<'_, '_>, size: usize) {
    let (mut writer, mut reader) = shm_test_support::pair(CAPACITY);
    let message = message(size);
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        writer.publish(black_box(&message)).unwrap();
        receive(&mut reader)
    });
}

/// A look at a ring that has nothing.
#[divan::bench(sample_size = SAMPLE)]
fn poll_nothing(bencher: Bencher<'_, '_>) {
    let (mut writer, mut reader) = shm_test_support::pair(CAPACITY);
    // A reader that has not received anything has more to look at.
    writer.publish(b"first").unwrap();
    reader.try_recv().unwrap().unwrap().finish().unwrap();
    bencher.bench_local(|| black_box(&mut reader).try_recv().unwrap().is_none());
}
