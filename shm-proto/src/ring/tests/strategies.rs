//! Ways to wait for a message.

use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::ring::WaitStrategy;

#[test]
fn every_message_arrives_however_a_reader_waits() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let strategies = [WaitStrategy::Adaptive, WaitStrategy::Sleep, WaitStrategy::Spin(Duration::from_micros(200))];
    let mut readers: Vec<_> = strategies.iter().map(|_| channel.reader(Start::Oldest)).collect();
    for (n, (reader, strategy)) in readers.iter_mut().zip(strategies).enumerate() {
        reader.set_wait_strategy(strategy);
        assert_eq!(reader.wait_strategy(), strategy);
        assert_eq!(WaitStrategy::of_word(channel.readers[n].page.line.wait.load(Ordering::Relaxed)), strategy);
    }
    let mut writer = channel.writer();
    thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(move || {
                for n in 0..300_u32 {
                    let mut bytes = Vec::new();
                    reader.recv_into(&mut bytes, Some(Duration::from_secs(120))).unwrap();
                    assert_eq!(bytes, n.to_ne_bytes());
                }
            });
        }
        for n in 0..300_u32 {
            writer.publish(&n.to_ne_bytes()).unwrap();
            if n % 10 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
        }
    });
}

#[test]
fn a_reader_that_spins_looks_for_its_time_before_it_sleeps() {
    let mut channel = TestChannel::new(65536, geometry(65536));
    let mut reader = channel.reader(Start::Oldest);
    let _writer = channel.writer();
    let time = Duration::from_millis(20);
    reader.set_wait_strategy(WaitStrategy::Spin(time));
    let begun = Instant::now();
    assert!(reader.arm().unwrap());
    assert!(begun.elapsed() >= time, "{:?}", begun.elapsed());
    // For a program that has looked already.
    reader.set_wait_strategy(WaitStrategy::Spin(Duration::MAX));
    assert_eq!(reader.wait_strategy(), WaitStrategy::Spin(Duration::from_secs(1)), "the longest time");
    assert!(reader.arm_at_once().unwrap());
}
