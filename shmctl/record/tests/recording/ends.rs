//! However a recording ends, what was published before is in the file, and the file is complete.

use nix::sys::signal::Signal;
use shm_test_support::{Daemon, Proc, Setup, clean, program, wait_until};

use crate::kit::{Contents, assert_messages, daemon, has, message, publish, record, writer};

#[test]
fn at_a_signal_everything_that_was_published_before_is_recorded() {
    for (signal, reason) in [(Signal::SIGINT, "SIGINT"), (Signal::SIGTERM, "SIGTERM"), (Signal::SIGHUP, "SIGHUP")] {
        let daemon = daemon("");
        let file = daemon.place.path("run.mcap");
        let mut recorder = record(&daemon, &file, &[]);
        let mut writer = daemon.writer();
        publish(&mut writer, 0..10);
        // It finds the signal and the messages together.
        recorder.freeze();
        publish(&mut writer, 10..200);
        recorder.signal(signal);
        recorder.thaw();
        recorder.wait().ok();
        let contents = Contents::of(&file);
        assert_messages(&contents.of_topic("main"), 0..200);
        assert_eq!(contents.reason(), reason);
    }
}

#[test]
fn a_recorder_that_ignores_hangups_goes_on() {
    let daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    let mut command = clean("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(program("shmctl")).args(["record", "-o"]).arg(&file);
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    let mut recorder = Proc::spawn(command);
    wait_until("the recorder is attached", || has(&file, b"shmd.times"));
    recorder.signal(Signal::SIGHUP);
    publish(&mut daemon.writer(), 0..20);
    // Messages are written after the signal has arrived.
    wait_until("the messages are in the file", || has(&file, &message(13)));
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    assert_eq!(Contents::of(&file).reason(), "SIGINT");
}

#[test]
fn a_writer_that_goes_on_does_not_hold_up_the_end() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\n");
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &[]);
    let mut writer = daemon.spawn_piped(&["write", "--framing", "chunk=100"]);
    let mut stdin = writer.take_stdin();
    std::thread::scope(|scope| {
        // Ends with the pipe, which is closed when the writer is killed.
        scope.spawn(move || while std::io::Write::write_all(&mut stdin, &[7; 65536]).is_ok() {});
        daemon.until_stat("messages flow", |stat| stat.messages > 10_000);
        recorder.signal(Signal::SIGINT);
        recorder.wait().ok();
        drop(writer);
    });
    let contents = Contents::of(&file);
    assert!(contents.messages.len() >= 10_000 && contents.messages.iter().all(|message| message.data == [7; 100]));
}

#[test]
fn a_time_ends_the_recording() {
    let daemon = daemon("");
    publish(&mut daemon.writer(), 0..3);
    let file = daemon.place.path("run.mcap");
    daemon.cli(&["record", "-o", file.to_str().unwrap(), "--from", "oldest", "--duration", "200ms"]).ok();
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("main"), 0..3);
    assert_eq!(contents.reason(), "the time is over");
}

#[test]
fn the_end_of_the_channel_ends_the_recording_with_0() {
    let mut daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    let recorder = record(&daemon, &file, &[]);
    publish(&mut daemon.writer(), 0..50);
    daemon.stop(Signal::SIGTERM);
    recorder.wait().ok();
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("main"), 0..50);
    assert!(contents.reason().contains("closed"), "{}", contents.reason());
}

#[test]
fn a_daemon_that_vanishes_ends_the_recording_with_69_and_the_file_is_complete() {
    let mut daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    let mut command = daemon.shmctl(&["record", "-o", file.to_str().unwrap(), "--from", "oldest"]);
    command.env("SHMD_PATIENCE", "0s");
    publish(&mut daemon.writer(), 0..22);
    let mut recorder = shm_test_support::Proc::spawn(command);
    // The messages are on the disk a second later at the latest.
    shm_test_support::wait_until("the messages are in the file", || {
        assert!(recorder.is_running(), "{}", recorder.err_so_far());
        crate::kit::has(&file, &crate::kit::message(21))
    });
    daemon.kill();
    recorder.wait().fails(69, &["22 messages", "is gone"]);
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("main"), 0..22);
    assert!(contents.reason().contains("is gone"), "{}", contents.reason());
    daemon.launch(Setup::new("[[channel]]\nmax = \"16MiB\"\n"));
}

#[test]
fn a_recorder_goes_on_with_the_next_daemon() {
    let config = "[[channel]]\nmax = \"16MiB\"\n";
    let mut daemon = Daemon::start(config);
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &[]);
    publish(&mut daemon.writer(), 0..50);
    daemon.kill();
    daemon.launch(Setup::new(config));
    publish(&mut daemon.writer(), 50..100);
    daemon.until_stat("the recorder has read everything", |stat| {
        stat.readers.iter().any(|reader| reader.lag_messages == 0) && stat.messages == 100
    });
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("main"), 0..100);
}

#[test]
fn a_recorder_that_follows_waits_for_the_next_daemon_whose_messages_begin_anew() {
    let config = "[[channel]]\nmax = \"16MiB\"\n";
    let mut daemon = Daemon::start(config);
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &["--follow"]);
    publish(&mut daemon.writer(), 0..20);
    daemon.stop(Signal::SIGTERM);
    recorder.until_err_has("waiting for it");
    daemon.launch(Setup::new(config));
    publish(&mut daemon.writer(), 0..30);
    daemon.until_stat("the recorder has read everything", |stat| {
        stat.readers.len() == 1 && stat.readers[0].received == 30
    });
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    let contents = Contents::of(&file);
    let all = contents.of_topic("main");
    assert_messages(&all[..20], 0..20);
    assert_messages(&all[20..], 0..30);
    let numbers = contents.notes("shmd.numbers");
    assert_eq!(numbers.iter().map(|facts| facts["first_sequence"].as_str()).collect::<Vec<_>>(), ["0", "0"]);
    assert_ne!(numbers[0]["lineage"], numbers[1]["lineage"]);
    assert!(contents.notes("shmd.notice")[0]["text"].contains("closed"));
}

#[test]
fn one_channel_that_is_closed_does_not_end_the_others() {
    let two = "[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n";
    let daemon = Daemon::start(two);
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &["--channel", "cam", "--channel", "imu"]);
    publish(&mut writer(&daemon.endpoint(), "cam"), 0..5);
    std::fs::write(daemon.place.path("shmd.toml"), "[[channel]]\nname = \"imu\"\n").unwrap();
    daemon.cli(&["reload"]).ok();
    recorder.until_err_has("channel cam is closed; going on with imu");
    publish(&mut writer(&daemon.endpoint(), "imu"), 0..5);
    daemon
        .until_stat("the recorder has read everything", |stat| stat.readers.iter().any(|reader| reader.received == 5));
    recorder.signal(Signal::SIGINT);
    recorder.wait().ok();
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("cam"), 0..5);
    assert_messages(&contents.of_topic("imu"), 0..5);
}

#[test]
fn one_channel_that_fails_does_not_end_the_others_and_its_failure_is_that_of_the_recording() {
    let mut daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n");
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &["--follow", "--channel", "cam", "--channel", "imu"]);
    for channel in ["cam", "imu"] {
        publish(&mut writer(&daemon.endpoint(), channel), 0..5);
    }
    daemon.stop(Signal::SIGTERM);
    recorder.until_err_has("waiting for it");
    daemon.launch(Setup::new("[[channel]]\nname = \"cam\"\nmode = \"handoff\"\n[[channel]]\nname = \"imu\"\n"));
    recorder.until_err_has("; going on with imu");
    publish(&mut writer(&daemon.endpoint(), "imu"), 0..8);
    daemon.until_all_stat("the recorder has read everything", |channels| {
        channels.iter().flat_map(|channel| &channel.readers).any(|reader| reader.received == 8)
    });
    recorder.signal(Signal::SIGINT);
    recorder.wait().fails(1, &["channel cam hands"]);
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("cam"), 0..5);
    let of_imu = contents.of_topic("imu");
    assert_messages(&of_imu[..5], 0..5);
    assert_messages(&of_imu[5..], 0..8);
    assert!(contents.notes("shmd.notice").iter().any(|notice| notice["text"].contains("channel cam hands")));
}
