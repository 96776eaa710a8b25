//! Cutting a stream into messages of 64 bytes; the sink only counts them.

use std::io::{self, Read};

use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use shm_proto::internal::framing::{Framing, Input, MessageSink, Pump, Slotted, Step};
use shm_proto::{Error, Result};

const MESSAGE: usize = 64;
/// As much as one read of a pump takes.
const STREAM: usize = 256 << 10;

/// A stream that has so many bytes, and then nothing for now.
struct Source<'a>(&'a [u8]);

impl Read for Source<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(out)
    }
}

impl Input for Source<'_> {
    fn readable(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

#[derive(Default)]
struct Count {
    messages: usize,
    bytes: usize,
}

impl MessageSink for Count {
    type Error = Error;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64> {
        let before = self.messages;
        for message in messages {
            self.messages += 1;
            self.bytes += message.len();
        }
        Ok((self.messages - before) as u64)
    }

    fn publish_in_place(&mut self, _: usize, _: impl FnOnce(&mut [u8]) -> Option<usize>) -> Result<Slotted> {
        unreachable!("messages of {MESSAGE} bytes go through the buffer")
    }
}

fn cut(bencher: Bencher<'_, '_>, framing: Framing, one: &[u8]) {
    let messages = STREAM / one.len();
    let stream = one.repeat(messages);
    let mut pump = Pump::new(framing, 4096).unwrap();
    bencher.counter(ItemsCount::new(messages)).counter(BytesCount::of_slice(&stream)).bench_local(|| {
        let (mut source, mut sink) = (Source(&stream), Count::default());
        while pump.step(&mut source, &mut sink).unwrap() != Step::WouldBlock {}
        assert_eq!((sink.messages, sink.bytes), (messages, messages * MESSAGE));
    });
}

#[divan::bench]
fn lines(bencher: Bencher<'_, '_>) {
    cut(bencher, Framing::Lines, &[&[b'x'; MESSAGE][..], b"\n"].concat());
}

#[divan::bench]
fn nul(bencher: Bencher<'_, '_>) {
    cut(bencher, Framing::Nul, &[&[b'x'; MESSAGE][..], b"\0"].concat());
}

#[divan::bench]
fn length(bencher: Bencher<'_, '_>) {
    cut(bencher, Framing::Length, &[&(MESSAGE as u32).to_le_bytes()[..], &[b'x'; MESSAGE]].concat());
}

#[divan::bench]
fn chunk(bencher: Bencher<'_, '_>) {
    cut(bencher, Framing::Chunk(MESSAGE as u64), &[b'x'; MESSAGE]);
}
