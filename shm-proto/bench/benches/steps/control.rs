//! Lines on the control socket: what attaching costs besides the kernel.

use divan::{Bencher, black_box};
use shm_proto::internal::control::{Attached, Reply, decode, encode};
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::{Done, Geometry, Request};

fn request() -> Request {
    Request::Attach {
        channel: Some("camera".parse().unwrap()),
        program: Some("viewer".to_owned()),
        layout: 2,
        expect: None,
    }
}

fn reply() -> Reply {
    let mut geometry = Geometry::new("camera".parse().unwrap(), 0x0123_4567_89ab_cdef, 1 << 30, 1 << 29);
    geometry.lineage = 42;
    geometry.evict_after_ms = 10_000;
    geometry.asymmetric = true;
    Reply::Ok(Done::Attach(Attached::new(7, geometry)))
}

fn line<T: serde::Serialize>(body: &T) -> String {
    String::from_utf8(encode(body).unwrap()).unwrap()
}

#[divan::bench]
fn encode_request(bencher: Bencher<'_, '_>) {
    let request = request();
    bencher.bench_local(|| encode(black_box(&request)).unwrap());
}

#[divan::bench]
fn decode_request(bencher: Bencher<'_, '_>) {
    let line = line(&request());
    bencher.bench_local(|| decode::<Request>(black_box(&line)).unwrap());
}

#[divan::bench]
fn encode_reply(bencher: Bencher<'_, '_>) {
    let reply = reply();
    bencher.bench_local(|| encode(black_box(&reply)).unwrap());
}

#[divan::bench]
fn decode_reply(bencher: Bencher<'_, '_>) {
    let line = line(&reply());
    bencher.bench_local(|| decode::<Reply>(black_box(&line)).unwrap());
}

/// What the writer reads when a reader attaches.
#[divan::bench]
fn decode_line_to_writer(bencher: Bencher<'_, '_>) {
    let line = line(&ToWriter::ReaderJoined { reader: 7 });
    bencher.bench_local(|| decode::<ToWriter>(black_box(&line)).unwrap());
}
