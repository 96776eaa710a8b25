//! Readers that come and go while daemons are killed again and again and one program writes: whichever daemon has let a reader in, and
//! whether or not the writer has found that daemon, the reader loses nothing of a lossless channel.
//!
//! ```console
//! $ SHMD_KILLS=1000 cargo test --release -p shmd --test daemon crashed::coming -- --nocapture
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use shm_proto::{Endpoint, Reader, ReaderError, Start, Writer};

use crate::{Daemon, joined, wait_for};

/// How often a daemon is killed, if `SHMD_KILLS` does not say it.
const KILLS: u64 = 10;
const READERS: u64 = 3;
/// Nobody is evicted.
const CHANNEL: &str = "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmin = \"64KiB\"\nmax = \"256KiB\"\n\
                       evict_after = \"0s\"\n";
/// How long a message is waited for before the reader looks whether all is over.
const LOOK: Duration = Duration::from_millis(100);

/// Numbers that look as if they came by chance, other ones for each reader.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// Attaches again and again until it is over. Returns how often, and the number of messages.
fn come_and_go(endpoint: &Endpoint, mut numbers: Numbers, over: &AtomicBool) -> (u64, u64) {
    let (mut attached, mut received) = (0, 0);
    while !over.load(Ordering::Relaxed) {
        let start = if numbers.below(2) == 0 { Start::Oldest } else { Start::New };
        let Ok(mut reader) = Reader::attach(endpoint, None, start) else {
            // There is no daemon at the moment.
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        attached += 1;
        if numbers.below(4) == 0 {
            // It says nothing to a daemon that comes meanwhile.
            thread::sleep(Duration::from_millis(numbers.below(100)));
        }
        read(&mut reader, numbers.below(200_000), over);
        assert_eq!(reader.lost(), 0);
        received += reader.received();
    }
    (attached, received)
}

fn read(reader: &mut Reader, most: u64, over: &AtomicBool) {
    let (mut bytes, mut next) = (Vec::new(), None);
    while reader.received() < most && !over.load(Ordering::Relaxed) {
        match reader.recv_into(&mut bytes, Some(LOOK)) {
            Ok(message) => {
                assert_eq!(message.lost_before, 0, "before message {}", message.seq);
                assert_eq!(bytes, message.seq.to_le_bytes());
                assert_eq!(*next.get_or_insert(message.seq), message.seq);
                next = Some(message.seq + 1);
            }
            Err(ReaderError::TimedOut { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn readers_that_come_between_two_deaths_lose_nothing() {
    let kills = std::env::var("SHMD_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut daemon = Daemon::start("kills-coming", CHANNEL);
    let (over, published) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let writing = {
        let (over, published) = (Arc::clone(&over), Arc::clone(&published));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let n = published.load(Ordering::Relaxed);
                assert_eq!(writer.publish(&n.to_le_bytes()).unwrap(), Some(n));
                published.store(n + 1, Ordering::Relaxed);
            }
        })
    };
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let (endpoint, over) = (daemon.endpoint(), Arc::clone(&over));
            thread::spawn(move || come_and_go(&endpoint, Numbers(n), &over))
        })
        .collect();
    for kill in 0..kills {
        let before = published.load(Ordering::Relaxed);
        wait_for(|| published.load(Ordering::Relaxed) > before, || daemon.log());
        // Often before the writer has found it.
        thread::sleep(Duration::from_millis(kill * 37 % 60));
        daemon.die();
        thread::sleep(Duration::from_millis(kill * 53 % 40));
        daemon.come_back();
    }
    over.store(true, Ordering::Relaxed);
    joined(writing);
    let seen: Vec<_> = readers.into_iter().map(joined).collect();
    println!(
        "{kills} deaths, {} messages published; attached and received: {seen:?}",
        published.load(Ordering::Relaxed)
    );
    assert!(seen.iter().all(|&(attached, received)| attached > 0 && received > 0), "{seen:?}");
    assert_eq!(daemon.stop(), Some(0));
    assert_eq!(daemon.leftovers(), Vec::<std::path::PathBuf>::new());
}
