//! Slow readers and stopped readers, tested with whole programs.

use std::io::{PipeReader, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::internal::control::stat::ReaderState;
use shm_proto::{Start, WriterError};

use shm_test_support::{Daemon, PATIENCE, Proc, Setup, wait_until};

/// No reader here needs this long for a message, however busy the machine is. The tests run for several times as long.
const EVICT_AFTER: Duration = Duration::from_secs(2);

/// Stops a test's second thread, also if the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// `shmctl read` into a pipe that the test empties.
fn read_into_pipe(daemon: &Daemon) -> (Proc, PipeReader) {
    let (out, into) = std::io::pipe().unwrap();
    let mut command = daemon.shmctl(&["read"]);
    command.stdout(into);
    let reader = Proc::spawn_as_is(command);
    daemon.until_readers(1);
    (reader, out)
}

/// Reads up to 16 KiB from the pipe; returns false at its end.
fn take(out: &mut PipeReader, lines: &mut Vec<u8>) -> bool {
    let mut some = [0; 16 << 10];
    let got = out.read(&mut some).unwrap();
    lines.extend_from_slice(&some[..got]);
    got > 0
}

/// Lines of 800 bytes that begin with their number.
fn line(number: u64) -> String {
    format!("{number} {}", ".".repeat(780))
}

/// Checks that the lines are numbered from 0 without gaps. The last one may be cut off.
fn check_order(lines: &[u8]) {
    let lines: Vec<&str> = std::str::from_utf8(lines).unwrap().split('\n').collect();
    let whole = &lines[..lines.len() - 1];
    let mut numbers = whole.iter().map(|line| line.split(' ').next().unwrap().parse::<u64>().unwrap());
    assert!(!whole.is_empty() && numbers.by_ref().zip(0..).all(|(number, wanted)| number == wanted));
}

#[test]
fn a_slow_reader_of_a_full_channel_is_neither_evicted_nor_called_stalled() {
    let daemon = Daemon::start(
        "[[channel]]\ncapacity = \"16MiB\"\nmax = \"16MiB\"\nevict_after = \"2s\"\nstalled_after = \"2s\"\n",
    );
    let (_reader, mut out) = read_into_pipe(&daemon);
    let stop = AtomicBool::new(false);
    let mut lines = Vec::new();
    std::thread::scope(|scope| {
        let _stop = Stop(&stop);
        scope.spawn(|| {
            let mut writer = daemon.writer();
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                // Tries again for as long as the test lasts, as `shmctl write` waits.
                match writer.publish_within(line(number).as_bytes(), EVICT_AFTER / 10) {
                    Ok(_) => number += 1,
                    Err(e) => assert!(matches!(e, WriterError::TimedOut { .. }), "{e}"),
                }
            }
        });
        let look = || -> ChannelStat {
            let stat = daemon.stat();
            assert!(
                stat.evicted == 0 && stat.readers.len() == 1 && stat.readers[0].state != ReaderState::Stalled,
                "{stat:?}"
            );
            stat
        };
        wait_until("the channel is full", || look().used > (16 << 20) - (64 << 10));
        // All of this is less than an eighth of the capacity, after which a reader publishes its cursor without being asked.
        let (begun, received) = (Instant::now(), look().readers[0].received);
        while begun.elapsed() < 4 * EVICT_AFTER {
            assert!(take(&mut out, &mut lines));
            std::thread::sleep(EVICT_AFTER / 20);
            look();
        }
        assert!(look().readers[0].received > received, "it was seen to move");
        assert!(lines.len() < 2 << 20, "{} bytes", lines.len());
    });
    assert!(!daemon.log().contains("event=stalled") && !daemon.log().contains("event=evict "), "{}", daemon.log());
    check_order(&lines);
}

#[test]
fn the_end_of_a_source_waits_for_a_slow_reader() {
    let (input, mut feed) = std::io::pipe().unwrap();
    let setup = Setup::new("").args(&["--exit-on-eof", "--capacity=16MiB", "--max=16MiB", "--set=main.evict_after=2s"]);
    let mut daemon = setup.stdin(input).start();
    let (reader, mut out) = read_into_pipe(&daemon);
    let sent: String = (0..2500).map(|number| line(number) + "\n").collect();
    std::io::Write::write_all(&mut feed, sent.as_bytes()).unwrap();
    drop(feed);
    daemon.until_stat("everything is published", |stat| stat.messages == 2500);
    let (begun, mut lines) = (Instant::now(), Vec::new());
    // Slowly for several times `evict_after`, then without pauses.
    while take(&mut out, &mut lines) {
        if begun.elapsed() < 3 * EVICT_AFTER && lines.len() < sent.len() * 9 / 10 {
            std::thread::sleep(EVICT_AFTER / 20);
        }
    }
    assert!(lines == sent.as_bytes(), "{} of {} bytes", lines.len(), sent.len());
    reader.wait().quiet();
    let log = daemon.until_end();
    assert!(!log.contains("event=evict "), "{log}");
}

#[test]
fn a_stopped_reader_ends_neither_a_channel_that_drops_nor_one_that_waits_for_acknowledgement() {
    for keys in ["on_full = \"drop\"", "ack = true\nack_timeout = \"200ms\""] {
        let daemon = Daemon::start(&format!(
            "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"1s\"\nstalled_after = \"0\"\n{keys}\n"
        ));
        let mut stopped = daemon.spawn(&["read"]);
        daemon.until_readers(1);
        stopped.freeze();
        let mut good = daemon.reader(Start::New);
        let mut writer = daemon.writer();
        let (mut in_vain, mut row, mut bytes) = (0u64, 0, Vec::new());
        let end = Instant::now() + PATIENCE;
        // Until the stopped reader is evicted and the other one has received the following messages.
        while row < 1000 {
            assert!(Instant::now() < end, "{keys}: {in_vain} messages in vain, {:?}", daemon.stat());
            let published = match writer.publish(&[7; 64]) {
                Ok(seq) => seq.is_some(),
                Err(WriterError::Unacknowledged { .. }) => true,
                Err(e) => panic!("{e}"),
            };
            if published {
                good.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
                assert!(good.try_recv().unwrap().is_none());
            }
            let stat_says_gone = row > 0 || daemon.stat().evicted == 1;
            (row, in_vain) = if published && stat_says_gone { (row + 1, in_vain) } else { (0, in_vain + 1) };
            if keys.starts_with("ack") && row == 1 {
                break;
            }
        }
        assert!(in_vain > 0, "{keys}");
        assert_eq!((daemon.stat().evicted, good.lost()), (1, 0), "{keys}");
        stopped.thaw();
        let said = if keys.starts_with("ack") { "held the writer up for 1" } else { "there was no space for" };
        stopped.wait().fails(1, &["evicted from channel main", said]);
    }
}
