//! What a person sees.

use nix::sys::signal::Signal;
use shm_test_support::{Daemon, Proc, Screen, Terminal, wait_for, wait_until};

use crate::kit::{daemon, publish};

#[test]
fn progress_is_shown_in_one_line_and_is_gone_at_the_end() {
    let daemon = daemon("");
    let terminal = Terminal::new(24, 80);
    let file = daemon.place.path("run.mcap");
    let mut command = daemon.shmctl(&["record", "-o", file.to_str().unwrap()]);
    command.stdout(std::process::Stdio::null()).stderr(terminal.stdio());
    let mut recorder = Proc::spawn_untouched(command);
    daemon.until_readers(1);
    publish(&mut daemon.writer(), 0..5);
    let screen = wait_for("the messages are on the screen", || {
        Some(terminal.screen())
            .filter(|screen| screen.text().contains("5 messages, 4.1KiB") && screen.text().contains("left"))
    });
    let line = screen.lines()[0].clone();
    assert!(line.contains("/s") && line.contains(" behind") && line.contains(" written"), "{line}");
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    let screen = wait_for("the result is on the screen", || {
        let words = |screen: &Screen| screen.text().split_whitespace().collect::<Vec<_>>().join(" ");
        Some(terminal.screen()).filter(|screen| words(screen).contains("5 messages, 4.1KiB, in "))
    });
    assert!(!screen.text().contains(" left"), "{}", screen.text());
    assert_eq!((screen.scrolled, screen.wrapped), (0, 0), "{}", screen.text());
}

#[test]
fn a_recorder_that_falls_behind_says_so() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\n");
    let file = daemon.place.path("run.mcap");
    // What takes long is compressing, and there is no memory for what waits for it.
    let slow = ["--compression", "zstd", "--level", "19", "--threads", "1", "--buffer", "1MiB"];
    let mut recorder = daemon.spawn(&[&["record", "-o", file.to_str().unwrap()][..], &slow].concat());
    daemon.until_readers(1);
    let mut writer = daemon.writer();
    let mut noise = 7u64;
    wait_until("the recorder is behind", || {
        for _ in 0..100 {
            let bytes: Vec<u8> = (0..1000)
                .map(|_| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (noise >> 56) as u8
                })
                .collect();
            writer.publish(&bytes).unwrap();
        }
        recorder.err_so_far().contains("behind")
    });
    recorder.signal(Signal::SIGINT);
    let run = recorder.wait().ok();
    let told = "channel main: the recorder is ";
    assert!(run.err.contains(told) && run.err.contains("holds at most 64KiB"), "{run:?}");
}
