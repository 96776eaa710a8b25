//! `shmctl read` with several channels: in order of arrival, with the channel's name, each with its own end.

use nix::sys::signal::Signal;

use shm_test_support::{Daemon, Setup, wait_for};

const TWO: &str = "[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n";

fn write(daemon: &Daemon, channel: &str, lines: &str) {
    daemon.cli_with_input(&["write", channel], lines.as_bytes()).quiet();
}

/// Waits until every channel has this number of readers, and all of them have chosen their start.
fn until_readers(daemon: &Daemon, count: usize) {
    daemon.until_all_stat("the readers are attached", |stats| {
        let joined = |reader: &shm_proto::internal::control::stat::ReaderStat| {
            reader.state != shm_proto::internal::control::stat::ReaderState::Joining
        };
        stats.iter().all(|stat| stat.readers.len() == count && stat.readers.iter().all(joined))
    });
}

#[test]
fn messages_of_several_channels_come_in_order_of_arrival_and_show_their_channel() {
    let daemon = Daemon::start(TWO);
    let mut lines = daemon.spawn(&["read", "cam", "imu", "-n", "4"]);
    let json = daemon.spawn(&["read", "imu", "cam", "-n", "4", "--format", "json"]);
    let hex = daemon.spawn(&["read", "imu", "cam", "-n", "4", "--format", "hex"]);
    until_readers(&daemon, 3);
    let mut shown = String::new();
    for (channel, text) in [("cam", "one"), ("imu", "two"), ("imu", "three"), ("cam", "four")] {
        write(&daemon, channel, &format!("{text}\n"));
        shown += &format!("{channel}: {text}\n");
        lines.until_out_has(&shown);
    }
    lines.wait().prints(&shown);
    let json = json.wait().quiet().text();
    let values = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut of_cam: Vec<_> = values.clone().filter(|value| value["channel"] == "cam").collect();
    assert_eq!((of_cam.len(), values.count()), (2, 4), "{json}");
    let last = of_cam.remove(1);
    assert_eq!((last["seq"].as_u64(), last["lost"].as_u64(), last["data"].as_str()), (Some(1), Some(0), Some("four")));
    let hex = hex.wait().quiet().text();
    assert!(hex.contains("cam: 6f6e65\n") && hex.contains("imu: 74776f\n"), "{hex}");
}

#[test]
fn nothing_is_lost_when_all_channels_are_busy() {
    const SENT: usize = 20_000;
    let daemon = Daemon::start(TWO);
    let read = daemon.spawn(&["read", "cam", "imu", "-n", &(2 * SENT).to_string()]);
    until_readers(&daemon, 1);
    let lines = |channel: &str| (0..SENT).map(|n| format!("{channel} {n}\n")).collect::<String>();
    std::thread::scope(|scope| {
        for channel in ["cam", "imu"] {
            scope.spawn(|| write(&daemon, channel, &lines(channel)));
        }
    });
    let out = read.wait().quiet().text();
    for channel in ["cam", "imu"] {
        let prefix = format!("{channel}: ");
        let mine: String =
            out.lines().filter_map(|line| line.strip_prefix(&prefix)).map(|line| format!("{line}\n")).collect();
        assert!(mine == lines(channel), "{channel}: {} bytes", mine.len());
    }
}

#[test]
fn a_channel_that_ends_ends_only_its_own_messages() {
    let mut daemon = Daemon::start(TWO);
    let mut read = daemon.spawn(&["read", "cam", "imu"]);
    let mut evicted = daemon.spawn(&["read", "cam", "imu"]);
    until_readers(&daemon, 2);
    let readers = || {
        let json = daemon.cli(&["stat", "cam", "--json"]).quiet().text();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json[0]["readers"].as_array().unwrap().clone()
    };
    let number = readers()
        .into_iter()
        .find(|reader| reader["pid"].as_u64() == Some(evicted.pid().into()))
        .and_then(|reader| reader["reader"].as_u64())
        .unwrap();
    daemon.cli(&["evict", "cam", &number.to_string()]).quiet();
    evicted.until_err_has("evicted from channel cam");
    evicted.until_err_has("going on with imu");
    write(&daemon, "imu", "still here\n");
    evicted.until_out_has("imu: still here\n");
    // A channel that is removed is closed.
    let config = daemon.place.path("shmd.toml");
    std::fs::write(&config, "[[channel]]\nname = \"imu\"\n").unwrap();
    daemon.cli(&["reload"]).ok();
    read.until_err_has("channel cam is closed; going on with imu");
    write(&daemon, "imu", "and here\n");
    read.until_out_has("imu: and here\n");
    daemon.stop(Signal::SIGTERM);
    read.wait().ok();
    // The eviction is not forgotten.
    evicted.wait().fails(1, &["error: evicted from channel cam"]);
}

#[test]
fn a_follower_of_several_channels_goes_on_with_the_next_daemon() {
    let mut daemon = Daemon::start(TWO);
    let mut read = daemon.spawn(&["read", "cam", "imu", "--follow", "--from", "oldest", "-n", "4"]);
    until_readers(&daemon, 1);
    write(&daemon, "cam", "one\n");
    write(&daemon, "imu", "two\n");
    read.until_out_has("imu: two\n");
    daemon.stop(Signal::SIGTERM);
    daemon.launch(Setup::new(TWO));
    write(&daemon, "imu", "three\n");
    read.until_out_has("imu: three\n");
    write(&daemon, "cam", "four\n");
    let out = read.wait().ok().text();
    assert_eq!(out, "cam: one\nimu: two\nimu: three\ncam: four\n");
}

#[test]
fn what_cannot_be_read_together_is_refused_with_the_reason() {
    let handoff = format!("{TWO}[[channel]]\nname = \"hand\"\nmode = \"handoff\"\n");
    let daemon = Daemon::start(&handoff);
    daemon.cli(&["read", "cam", "imu", "--format", "raw"]).refused(2, &["--format raw", "lines, hex"]);
    daemon.cli(&["read", "cam", "imu", "--format", "length"]).refused(2, &["--format length", "json"]);
    daemon.cli(&["read", "cam", "imu", "cam"]).refused(2, &["channel cam is named twice"]);
    daemon.cli(&["read", "cam", "imu", "-c", "gps"]).refused(2, &["cam and --channel gps differ"]);
    daemon.cli(&["read", "-c", "cam", "-c", "cam"]).refused(2, &["channel cam is named twice"]);
    daemon.cli(&["read", "cam", "hand"]).refused(1, &["channel hand", "shmctl read hand"]);
    daemon.cli(&["read", "cam", "imy"]).refused(1, &["no channel named imy", "did you mean imu?"]);
    let silent = daemon.cli(&["read", "cam", "imu", "--timeout", "100ms"]);
    silent.refused(75, &["a message on channels cam, imu (0 messages were received)"]);
}

#[test]
fn a_rate_gives_every_channel_its_turn() {
    let daemon = Daemon::start(TWO);
    write(&daemon, "cam", "1\n2\n3\n");
    write(&daemon, "imu", "4\n5\n6\n");
    let args = ["read", "cam", "imu", "--from", "oldest", "--rate", "1000", "-n", "6"];
    let out = daemon.cli(&args).quiet().text();
    let mut channels: Vec<_> = out.lines().map(|line| &line[..3]).collect();
    channels.truncate(4);
    channels.sort_unstable();
    assert_eq!(channels, ["cam", "cam", "imu", "imu"], "{out}");
    wait_for("nobody is attached any more", || {
        daemon.cli(&["stat", "--json"]).text().contains("\"readers\":[]").then_some(())
    });
}
