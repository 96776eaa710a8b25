//! Replay makes channels that are not there.

use shm_test_support::Daemon;

use crate::kit::{Contents, assert_messages, daemon, message, publish, record, writer};
use crate::replay::{foreign, replay};

#[test]
fn a_channel_that_is_not_there_is_made_as_it_was_recorded() {
    let text = "{\"type\":\"object\"}";
    let recorded = Daemon::start(&format!(
        "[[channel]]\nname = \"imu\"\nmax = \"16MiB\"\non_full = \"overwrite\"\ntimestamps = true\ncontent = \"json\"\nschema = \"Imu\"\n\
         schema_encoding = \"jsonschema\"\nschema_text = '{text}'\n"
    ));
    let file = recorded.place.path("run.mcap");
    let recorder = record(&recorded, &file, &["-n", "10"]);
    publish(&mut writer(&recorded.endpoint(), "imu"), 0..10);
    recorder.wait().ok();

    let other = daemon("");
    replay(&other, &file, &["--speed", "max"]).refused(1, &["imu", "--create"]);
    let max = ["--speed", "max", "--create", "--set", "max=32MiB"];
    let told = replay(&other, &file, &max).ok().err;
    assert!(told.contains("imu: created") && told.contains("max 32MiB"), "{told}");
    // It is there now.
    let told = replay(&other, &file, &max).ok().err;
    assert!(!told.contains("created"), "{told}");
    assert_eq!(other.cli(&["stat", "imu", "--schema"]).quiet().text(), text);

    let again = other.place.path("again.mcap");
    record(&other, &again, &["imu", "--from", "oldest", "-n", "20"]).wait().ok();
    let (before, after) = (Contents::of(&file), Contents::of(&again));
    let messages = after.of_topic("imu");
    assert_messages(&messages[..10], 0..10);
    assert_messages(&messages[10..], 0..10);
    let channel = |contents: &Contents| {
        let channel = contents.summary.channels.values().next().unwrap().clone();
        let schema = channel.schema.clone().unwrap();
        let schema = (schema.name.clone(), schema.encoding.clone(), schema.data.to_vec());
        (channel.message_encoding.clone(), schema, channel.metadata.clone())
    };
    assert_eq!(channel(&before), channel(&after));
    assert_eq!(channel(&after).2["shmd.on_full"], "overwrite");
}

#[test]
fn topics_of_other_programs_get_channels_too_and_wrong_keys_are_refused() {
    let daemon = daemon("");
    let file = daemon.place.path("foreign.mcap");
    foreign(&file, None, &[("/imu", 1, &message(3)), ("gps", 2, &message(6))]);
    replay(&daemon, &file, &["--map", "/imu=imu", "--set", "max=1MiB"]).refused(2, &["--create"]);
    let create = ["--map", "/imu=imu", "--create", "--set"];
    for (set, code, part) in
        [(&["max"][..], 2, "max=64MiB"), (&["max=1", "--set", "max=2"], 2, "twice"), (&["mix=1"], 1, "mix")]
    {
        replay(&daemon, &file, &[&create[..], set].concat()).refused(code, &[part]);
    }
    assert_eq!(daemon.cli(&["list"]).text().matches("imu").count(), 0);
    replay(&daemon, &file, &[&create[..], &["max=4MiB"]].concat()).ok();
    for (channel, n) in [("imu", 3), ("gps", 6)] {
        let read = daemon.cli(&["read", channel, "--from", "oldest", "-n", "1", "--format", "raw"]);
        assert!(read.ok().out == message(n), "{channel}");
    }
}
