//! A handoff channel whose daemon is killed again and again, while `shmctl write` feeds it and `shmctl read` takes from it.

use std::io::Write;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_test_support::{Daemon, Proc, Raise, Setup, wait_until};

const CHANNEL: &str = "[[channel]]\nmode = \"handoff\"\nack_timeout = \"60s\"\n";
/// How often the daemon is killed, if `SHMD_KILLS` does not say it.
const KILLS: u32 = 4;

/// A `shmctl` that waits for the next daemon as long as any test lasts.
fn patient(daemon: &Daemon, command: &str) -> Proc {
    let mut shmctl = daemon.shmctl(&[command]);
    shmctl.env("SHMD_PATIENCE", "120s").stdin(Stdio::piped());
    Proc::spawn(shmctl)
}

#[test]
fn shmctl_write_and_read_go_on_and_each_line_comes_once() {
    let kills = std::env::var("SHMD_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let mut daemon = Daemon::start(CHANNEL);
    let (reader, mut writer) = (patient(&daemon, "read"), patient(&daemon, "write"));
    let (mut input, over) = (writer.take_stdin(), AtomicBool::new(false));
    let lines = std::thread::scope(|scope| {
        let end = Raise(&over);
        let feeding = scope.spawn(|| {
            let mut lines = 0u64;
            while !over.load(Ordering::Relaxed) {
                // Blocks while nothing is handed over.
                if input.write_all(format!("{lines}\n").as_bytes()).is_err() {
                    return None;
                }
                lines += 1;
                if lines.is_multiple_of(50) {
                    sleep(Duration::from_millis(1));
                }
            }
            drop(input);
            Some(lines)
        });
        daemon.until_stat("both are attached", |stat| stat.messages > 0);
        for kill in 0..kills {
            sleep(Duration::from_millis(u64::from(kill * 37 % 90)));
            daemon.kill();
            sleep(Duration::from_millis(u64::from(kill * 53 % 60)));
            daemon.launch(Setup::new(CHANNEL));
            let before = daemon.stat().messages;
            daemon.until_stat("messages are handed over", |stat| stat.messages > before);
        }
        drop(end);
        feeding.join().unwrap().expect("shmctl write takes its input")
    });
    writer.wait().quiet();
    wait_until("all lines are handed over", || daemon.stat().messages == lines);
    daemon.stop(Signal::SIGTERM);
    let seen = reader.wait().ok().text();
    let expected: Vec<_> = (0..lines).map(|n| n.to_string()).collect();
    assert_eq!(seen.lines().collect::<Vec<_>>(), expected);
}
