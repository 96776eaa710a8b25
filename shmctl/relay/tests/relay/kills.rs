//! Random deaths by SIGKILL of everything but the two ends: both relays, both daemons, the server. Every message arrives once and in
//! order.
//!
//! Some deaths in the suite; `SHMD_KILLS` says how many. With as many as here, more than 10 million messages go through:
//!
//! ```console
//! $ SHMD_KILLS=400 cargo test --release -p shmctl-relay --test relay kills -- --nocapture
//! ```

use std::fs;
use std::time::Duration;

use shm_proto::internal::os::random;
use shm_test_support::{Proc, wait_until};

use crate::helpers::{FAR, Host, SOURCE, Server, Sink, Source, envelope, skip_without_server};

/// Deaths, without `SHMD_KILLS`.
const KILLS: u64 = 15;
/// Messages of this size come now and then. With `SMALL` they travel in parts.
const LARGE: usize = 150_000;
/// The server takes 64 KiB, so that all of 10 million messages fit on a disk.
const SMALL: &str = "max_payload: 65536\n";

#[test]
fn nothing_is_lost_and_nothing_comes_twice_through_random_kills() {
    if skip_without_server("random_kills") {
        return;
    }
    let given = std::env::var("SHMD_KILLS").ok().map(|kills| kills.parse().unwrap());
    let kills: u64 = given.unwrap_or(KILLS);
    // In the suite the machine does other things as well.
    let pace = if given.is_some() { Duration::ZERO } else { Duration::from_millis(2) };
    let (mut server, mut here, mut there) = (Server::with(SMALL), Host::start(SOURCE), Host::start(FAR));
    let url = server.url();
    let start_out = |here: &Host| here.out(&url, &["--stream-bytes", "6GiB"]);
    let mut out: Proc = start_out(&here);
    out.until_err_has("publishing to stream CAM");
    let mut inward = there.inward(&url, &[]);
    let source = Source::start(here.daemon.endpoint(), u64::MAX, LARGE, pace);
    let sink = Sink::start(there.daemon.endpoint(), 0, LARGE);
    sink.until(100);
    let mut counts = [0u64; 5];
    for _ in 0..kills {
        let victim = (random::u64() % 5) as usize;
        counts[victim] += 1;
        match victim {
            0 => {
                out.kill();
                out = start_out(&here);
            }
            1 => {
                inward.kill();
                inward = there.inward(&url, &[]);
            }
            2 => here.replace(),
            3 => there.replace(),
            _ => {
                server.kill();
                server.launch();
            }
        }
        // Some deaths follow at once, while the one before is not overcome.
        if !random::u64().is_multiple_of(4) {
            sink.until(sink.got() + random::u64() % 3000);
        }
    }
    let sent = source.finish();
    sink.finish(sent);
    eprintln!(
        "{kills} kills of out, in, source's daemon, far daemon, server {counts:?}: {sent} messages, each came once"
    );
}

/// More than a server gives a relay without acknowledgements.
const MANY: u64 = 8200;

/// A server that was killed may give everything again. That must not use up what it gives without acknowledgements while the relay
/// has a part of a message, and waits for the rest.
#[test]
fn a_server_that_has_forgotten_all_acknowledgements_does_not_stop_the_relay() {
    if skip_without_server("a_server_that_has_forgotten") {
        return;
    }
    let (mut server, here, there) =
        (Server::start(), Host::start(SOURCE), Host::start("[[channel]]\nname = \"cam\"\n"));
    let _out = here.out_with_stream(&server.url(), &[]);
    let _inward = there.inward(&server.url(), &["--consumer", "relay"]);
    server.publish_all("CAM.7", &(0..MANY).map(|seq| envelope(seq, b"small", None)).collect::<Vec<_>>());
    server.publish("CAM.7", &envelope(MANY, b"first ", Some((0, 11))));
    wait_until("the relay has the first part", || {
        let info = server.ask("$JS.API.CONSUMER.INFO.CAM.relay");
        info.contains(&format!("\"stream_seq\":{}", MANY + 1)) && info.contains("\"num_ack_pending\":1,")
    });
    server.kill();
    let state = server.dir.path().join("store/jetstream/$G/streams/CAM/obs/relay/o.dat");
    fs::remove_file(&state).unwrap();
    server.launch();
    server.publish("CAM.7", &envelope(MANY, b"part!", Some((6, 11))));
    wait_until("the whole message arrives", || there.daemon.stat().messages == MANY + 1);
}
