//! Readers that write over everything that a reader can write, while others read.
//!
//! Some hundred thousand mutations in the suite; `SHM_MUTATIONS` says how many:
//!
//! ```console
//! $ SHM_MUTATIONS=100000000 cargo test --release -p shmctl --test processes hostile::mutations -- --nocapture
//! ```
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use nix::sys::signal::Signal;
use shm_proto::internal::control::{Conn, Received};
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::Snapshot;
use shm_proto::internal::ring::layout::{CURSOR_JOINING, LAYOUT_VERSION, ReaderPage};
use shm_proto::internal::ring::link::FromReader;
use shm_proto::{Client, Done, Request, Start};

use crate::content::mix;
use shm_test_support::{Daemon, PATIENCE, Raise, heavy, wait_until};

/// In all, unless `SHM_MUTATIONS` says it.
const MUTATIONS: u64 = 400_000;
/// Hostile readers at a time.
const HOSTILE: u64 = 2;
/// The most that one attachment makes: what comes after an eviction is tried, too, but not for ever.
const EACH: u64 = 50_000;
/// So many after it has been told that it was evicted.
const AFTERWARDS: u64 = 2_000;
/// So many between looks at the segment and at the connection.
const ROUND: u64 = 64;
/// Bytes of a page, as 32-bit and as 64-bit words.
const HALVES: u64 = 1024;
const WORDS: u64 = 512;

/// A hostile reader: everything that it was handed.
struct Hostile {
    conn: Conn,
    segment: OwnedFd,
    page: SharedPage<ReaderPage>,
    _page: OwnedFd,
    bell: OwnedFd,
}

impl Hostile {
    fn attach(daemon: &Daemon) -> Self {
        let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
        let request =
            Request::Attach { channel: None, program: Some("hostile".into()), layout: LAYOUT_VERSION, expect: None };
        let (done, fds) = client.request_with_fds(&request).unwrap();
        assert!(matches!(done, Done::Attach(_)), "{done:?}");
        let [segment, page_fd, bell] = <[_; 3]>::try_from(fds).unwrap();
        let page = SharedPage::open(page_fd.as_fd()).unwrap();
        Self { conn: client.into_conn(), segment, page, _page: page_fd, bell }
    }

    fn words(&self) -> &[AtomicU64; WORDS as usize] {
        // SAFETY: the page is so long, aligned, writable and all atomics, and lives as long as this value.
        unsafe { &*(&raw const *self.page).cast() }
    }

    fn halves(&self) -> &[AtomicU32; HALVES as usize] {
        // SAFETY: as above.
        unsafe { &*(&raw const *self.page).cast() }
    }

    /// Writes over the page, with numbers that mean something or none; `tail` is where the writer was a moment ago. A careful one
    /// keeps its cursor where it may be, and is not evicted for it.
    fn mutate(&self, random: &mut impl FnMut(u64) -> u64, tail: u64, careful: bool) {
        let near = tail.wrapping_add(8 * random(64)).wrapping_sub(8 * random(64));
        let values =
            [0, 1, 2, 3, near, tail, CURSOR_JOINING, CURSOR_JOINING - 1, i32::MAX as u64, u64::from(u32::MAX), 256];
        let value = match random(16) {
            0..11 => values[random(values.len() as u64) as usize],
            11 => random(u64::MAX),
            12 => 1 << random(64),
            _ => near,
        };
        // Mostly where something is: in the first six lines, and above all the cursor.
        match random(8) {
            _ if careful && random(4) == 0 => self.page.line.cursor.store(tail, Ordering::SeqCst),
            _ if careful => self.words()[1 + random(47) as usize].store(value, Ordering::SeqCst),
            0 => self.page.line.cursor.store(value, Ordering::SeqCst),
            1 => self.words()[random(WORDS) as usize].store(value, Ordering::SeqCst),
            2 => self.halves()[random(HALVES) as usize].store(value as u32, Ordering::SeqCst),
            3 => drop(self.words()[random(48) as usize].fetch_xor(1 << random(64), Ordering::SeqCst)),
            4 | 5 => self.halves()[random(96) as usize].store(value as u32, Ordering::SeqCst),
            _ => self.words()[random(48) as usize].store(value, Ordering::SeqCst),
        }
    }

    /// Says that the ring is broken, rings its own bell, and listens. False once the daemon has said that it is evicted.
    fn talk(&mut self, random: &mut impl FnMut(u64) -> u64) -> bool {
        if random(64) == 0 {
            let _ = self.conn.queue(&FromReader::Broken { reason: "\u{1b}[2J\nevent=forged".to_owned() }, Vec::new());
            let _ = self.conn.flush();
        }
        let _ = nix::unistd::write(&self.bell, b"ding");
        loop {
            match self.conn.receive() {
                Ok(Received::Line(line, _)) if line.contains("\"evicted\"") => return false,
                Ok(Received::Line(..)) => {}
                Ok(Received::Nothing) => return true,
                Ok(Received::Closed) | Err(_) => return false,
            }
        }
    }
}

fn message(n: u64) -> Vec<u8> {
    let len = 8 + (mix(n) % 900) as usize / 8 * 8;
    (0..len as u64 / 8).flat_map(|word| mix(n * 128 + word).to_le_bytes()).collect()
}

/// Makes at least so many mutations, and, if somebody has to be evicted, goes on until somebody was: a short attack may be over
/// before the writer has looked at its readers.
fn attack(daemon: &Daemon, seed: u64, most: u64, made: &AtomicU64, must_evict: Option<&AtomicBool>) {
    let mut numbers = (seed << 40..).map(mix);
    let mut random = |most: u64| numbers.next().unwrap() % most;
    let (mut mutations, begun) = (0, Instant::now());
    let is_short = || must_evict.is_some_and(|done| !done.load(Ordering::Relaxed)) && begun.elapsed() < PATIENCE;
    while mutations < most || is_short() {
        let mut hostile = Hostile::attach(daemon);
        let careful = random(4) == 0;
        let mut last = mutations + if mutations < most { EACH.min(most - mutations) } else { EACH };
        let (mut tail, mut is_told) = (0, false);
        while mutations < last {
            if let Ok(shot) = Snapshot::read(hostile.segment.as_fd()) {
                tail = shot.tail.pos;
            }
            (0..ROUND).for_each(|_| hostile.mutate(&mut random, tail, careful));
            mutations += ROUND;
            // The others take their turn, so that they meet many states of the page.
            std::thread::yield_now();
            made.fetch_add(ROUND, Ordering::Relaxed);
            if !is_told && !hostile.talk(&mut random) {
                (last, is_told) = (last.min(mutations + AFTERWARDS), true);
                must_evict.inspect(|done| done.store(true, Ordering::Relaxed));
            }
        }
    }
}

/// On a channel that loses nothing, and on one that overwrites, where readers are not waited for.
fn everything_is_mutated(keys: &str, loses: bool) {
    let _turn = heavy();
    let most = std::env::var("SHM_MUTATIONS").map_or(MUTATIONS, |text| text.parse().unwrap()) / HOSTILE / 2;
    // Whoever is slow is not evicted, so that a busy machine costs nobody anything: who is evicted has lied.
    let sizes = "capacity = \"64KiB\"\nmax = \"256KiB\"\nevict_after = \"0\"\nmax_readers = 64";
    let mut daemon = Daemon::start(&format!("[[channel]]\n{sizes}\n{keys}\n"));
    let mut readers = [daemon.reader(Start::Oldest), daemon.reader(Start::Oldest)];
    let mut writer = daemon.writer();
    let (stop, made, evicted) = (AtomicBool::new(false), AtomicU64::new(0), AtomicBool::new(false));
    let received = std::thread::scope(|scope| {
        let _stop = Raise(&stop);
        let attackers: Vec<_> = (0..HOSTILE)
            .map(|seed| {
                let (daemon, made, must_evict) = (&daemon, &made, (!loses).then_some(&evicted));
                scope.spawn(move || attack(daemon, seed, most, made, must_evict))
            })
            .collect();
        let stop = &stop;
        let reading: Vec<_> = readers
            .iter_mut()
            .map(|reader| {
                scope.spawn(move || {
                    let (mut bytes, mut next) = (Vec::new(), 0);
                    loop {
                        let got = reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
                        assert_eq!(got.seq, next + got.lost_before, "numbers follow each other");
                        assert!(loses || got.lost_before == 0);
                        next = got.seq + 1;
                        if bytes.is_empty() {
                            return next;
                        }
                        assert!(bytes == message(got.seq), "message {} has wrong bytes", got.seq);
                    }
                })
            })
            .collect();
        scope.spawn(move || {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                n += u64::from(writer.publish_within(&message(n), PATIENCE).unwrap().is_some());
            }
            writer.publish_within(&[], PATIENCE).unwrap();
        });
        attackers.into_iter().for_each(|attacker| attacker.join().unwrap());
        stop.store(true, Ordering::Relaxed);
        reading.into_iter().map(|reading| reading.join().unwrap()).collect::<Vec<_>>()
    });
    let stat = daemon.stat();
    println!("{} mutations, {received:?} messages, {} evictions", made.load(Ordering::Relaxed), stat.evicted);
    assert!(received.iter().all(|next| *next == stat.messages), "{received:?} {stat:?}");
    wait_until("the hostile ones have left", || daemon.stat().readers.len() == readers.len());
    drop(readers);
    let log = daemon.stop(Signal::SIGTERM);
    // Nobody is named twice.
    let mut evictions: BTreeMap<&str, u32> = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("event=evict ")) {
        let reader = line.split("reader=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
        *evictions.entry(reader).or_default() += 1;
        assert!(!["1", "2"].contains(&reader), "an honest reader was evicted: {line}");
    }
    assert!(evictions.values().all(|times| *times == 1), "{evictions:?}");
    assert!(loses || !evictions.is_empty(), "nobody was evicted");
    assert!(!log.contains("\nevent=forged") && !log.contains('\u{1b}') && !log.contains("event=broken"), "{log}");
}

#[test]
fn mutations_by_readers_of_a_block_channel_harm_nobody_else() {
    everything_is_mutated("on_full = \"block\"", false);
}

#[test]
fn mutations_by_readers_of_an_overwrite_channel_harm_nobody_else() {
    everything_is_mutated("on_full = \"overwrite\"", true);
}
