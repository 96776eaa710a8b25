//! A daemon of a newer release sends lines that this release does not know.

use std::io::Write;
use std::os::unix::net::UnixStream;

use super::*;
use crate::control::{Conn, MAX_REPLY};

#[test]
fn a_writer_passes_over_a_line_that_it_does_not_know() {
    let mut channel = TestChannel::new(4096, geometry(1 << 16));
    let mut writer = channel.writer();
    channel.send(ToWriter::Unknown, Vec::new());
    channel.grow(8192);
    assert_eq!(writer.publish(&[7; 5000]).unwrap(), Some(0));
    let mut reader = channel.reader(Start::Oldest);
    assert_eq!(receive(&mut reader), [7; 5000]);
}

#[test]
fn a_reader_passes_over_a_line_that_it_does_not_know_and_hears_the_next() {
    let mut channel = TestChannel::new(4096, geometry(4096));
    let (mut daemon, ours) = UnixStream::pair().unwrap();
    let mut reader = channel.reader_on(Start::Oldest, Some(Conn::new(ours, MAX_REPLY)));
    daemon.write_all(b"{\"v\":1,\"event\":\"rotated\",\"to\":[1]}\n").unwrap();
    daemon.write_all(b"{\"v\":1,\"event\":\"closing\",\"reason\":\"the end\",\"until\":7}\n").unwrap();
    reader.listen();
    assert_eq!((reader.farewell(), reader.is_disconnected()), (Some("the end"), false));
}
