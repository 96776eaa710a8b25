//! What was published is in the file: each message once, in order, byte for byte.

use shm_test_support::Daemon;

use crate::kit::{Contents, assert_messages, daemon, message, publish, record, recorded, writer};

const COUNT: u64 = 400;

#[test]
fn messages_of_every_size_are_recorded_with_every_compression() {
    for compression in ["none", "lz4", "zstd"] {
        let daemon = daemon("");
        let file = daemon.place.path("run.mcap");
        // Some messages are larger than a chunk.
        let recorder =
            record(&daemon, &file, &["--compression", compression, "--threads", "3", "--chunk", "64KiB", "-n", "400"]);
        publish(&mut daemon.writer(), 0..COUNT);
        let run = recorder.wait().ok();
        assert!(run.err.contains("run.mcap: 400 messages, ") && run.out.is_empty(), "{run:?}");
        let contents = Contents::of(&file);
        assert_messages(&contents.of_topic("main"), 0..COUNT);
        assert!(contents.summary.chunk_indexes.len() > 10);
        let name = if compression == "none" { "" } else { compression };
        assert!(contents.summary.chunk_indexes.iter().all(|chunk| chunk.compression == name));
        assert!(contents.messages.is_sorted_by_key(|message| message.time));
        assert!(contents.messages.iter().zip(0..).all(|(message, n)| message.sequence == n));
    }
}

#[test]
fn several_channels_are_recorded_together() {
    let names = ["cam", "imu", "gps"];
    let daemon = Daemon::start(&names.map(|name| format!("[[channel]]\nname = \"{name}\"\n")).concat());
    let file = daemon.place.path("run.mcap");
    let recorder = record(&daemon, &file, &["cam", "gps", "imu", "-n", "600", "--chunk", "64KiB"]);
    let mut writers = names.map(|name| writer(&daemon.endpoint(), name));
    for n in 0..200 {
        for writer in &mut writers {
            publish(writer, n..n + 1);
        }
    }
    recorder.wait().ok();
    let contents = Contents::of(&file);
    for name in names {
        assert_messages(&contents.of_topic(name), 0..200);
    }
    assert!(contents.messages.is_sorted_by_key(|message| message.time));
    assert_eq!(contents.notes("shmd.numbers").len(), 3);
    assert_eq!(contents.notes("shmd.channel").iter().filter(|facts| facts["messages"] == "200").count(), 3);
}

#[test]
fn all_channels_are_those_that_are_rings() {
    let daemon = Daemon::start(
        "[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"slow\"\nmode = \"handoff\"\n[[channel]]\nname = \"imu\"\n",
    );
    let file = daemon.place.path("run.mcap");
    let recorder = record(&daemon, &file, &["--all", "-n", "2"]);
    for name in ["cam", "imu"] {
        publish(&mut writer(&daemon.endpoint(), name), 0..1);
    }
    recorder.wait().ok();
    let contents = Contents::of(&file);
    let mut topics: Vec<_> = contents.messages.iter().map(|message| message.topic.as_str()).collect();
    topics.sort_unstable();
    assert_eq!(topics, ["cam", "imu"]);
}

#[test]
fn a_recording_can_begin_with_what_is_there_already() {
    let daemon = daemon("");
    publish(&mut daemon.writer(), 0..20);
    let file = daemon.place.path("run.mcap");
    record(&daemon, &file, &["--from", "oldest", "-n", "20"]).wait().ok();
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("main"), 0..20);
    assert_eq!(contents.reason(), "as many messages as were asked for");
}

#[test]
fn the_notes_say_how_messages_are_numbered_and_when_they_were_published() {
    for (more, times) in [("timestamps = true\n", "published"), ("", "received")] {
        let daemon = daemon(more);
        publish(&mut daemon.writer(), 0..7);
        let file = daemon.place.path("run.mcap");
        let recorder = record(&daemon, &file, &["-n", "3"]);
        publish(&mut daemon.writer(), 7..10);
        recorder.wait().ok();
        let contents = Contents::of(&file);
        assert_eq!(contents.messages.iter().map(|message| message.sequence).collect::<Vec<_>>(), [7, 8, 9]);
        let geometry = daemon.reader(shm_proto::Start::New).geometry().clone();
        let numbers = contents.notes("shmd.numbers")[0];
        for (key, value) in [
            ("channel", "main".to_owned()),
            ("channel_id", "1".to_owned()),
            ("first_sequence", "7".to_owned()),
            ("lineage", format!("{:016x}", geometry.lineage)),
            ("instance", format!("{:016x}", geometry.instance)),
            ("times", times.to_owned()),
        ] {
            assert_eq!(numbers[key], value, "{key}");
        }
        let channel = contents.summary.channels.values().next().unwrap();
        assert_eq!((channel.metadata["shmd.times"].as_str(), channel.message_encoding.as_str()), (times, ""));
        assert_eq!(contents.notes("shmd.recording")[0]["part"], "1");
    }
}

#[test]
fn a_message_has_the_time_at_which_it_was_published() {
    let daemon = daemon("timestamps = true\n");
    let file = daemon.place.path("run.mcap");
    let mut recorder = record(&daemon, &file, &["-n", "2"]);
    let now = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let before = now();
    // It cannot have received the messages before it goes on.
    recorder.freeze();
    publish(&mut daemon.writer(), 0..2);
    let after = now();
    std::thread::sleep(std::time::Duration::from_millis(100));
    recorder.thaw();
    recorder.wait().ok();
    // The two clocks may differ by as much as the recorder's first look at them was wrong.
    const WRONG: u64 = 50_000_000;
    for message in Contents::of(&file).messages {
        assert!((before - WRONG..after + WRONG).contains(&message.time), "{before} {} {after}", message.time);
    }
}

#[test]
fn encodings_and_schemas_are_those_of_the_command_line() {
    let daemon = daemon("");
    let (file, schema) = (daemon.place.path("run.mcap"), daemon.place.path("point.json"));
    let text = "{\"type\":\"object\"}";
    std::fs::write(&schema, text).unwrap();
    let schema = format!("main=Point:{}", schema.display());
    let recorder = record(&daemon, &file, &["-n", "1", "main", "--schema", &schema]);
    publish(&mut daemon.writer(), 0..1);
    recorder.wait().ok();
    let contents = Contents::of(&file);
    let channel = contents.summary.channels.values().next().unwrap();
    let found = channel.schema.as_ref().unwrap();
    assert_eq!(
        (channel.message_encoding.as_str(), found.name.as_str(), found.encoding.as_str(), &*found.data),
        ("json", "Point", "jsonschema", text.as_bytes())
    );
}

#[test]
fn what_a_channel_declares_is_in_the_file() {
    let text = "{\"type\":\"object\"}";
    let daemon = Daemon::start(&format!(
        "[[channel]]\nname = \"imu\"\ncontent = \"json\"\nschema = \"Imu\"\nschema_encoding = \"jsonschema\"\n\
         schema_text = '{text}'\n[[channel]]\nname = \"cam\"\ncontent = \"image/jpeg\"\n[[channel]]\nname = \"raw\"\n"
    ));
    let file = daemon.place.path("run.mcap");
    let recorder = record(&daemon, &file, &["-n", "3", "--all", "--encoding", "raw=cbor"]);
    for name in ["imu", "cam", "raw"] {
        publish(&mut writer(&daemon.endpoint(), name), 0..1);
    }
    recorder.wait().ok();
    let contents = Contents::of(&file);
    let found =
        |topic: &str| contents.summary.channels.values().find(|channel| channel.topic == topic).unwrap().clone();
    let schema = found("imu").schema.clone().unwrap();
    assert_eq!((schema.name.as_str(), schema.encoding.as_str(), &*schema.data), ("Imu", "jsonschema", text.as_bytes()));
    for (topic, encoding) in [("imu", "json"), ("cam", "image/jpeg"), ("raw", "cbor")] {
        assert_eq!(found(topic).message_encoding, encoding);
    }
    assert!(found("cam").schema.is_none() && found("raw").schema.is_none());
}

#[test]
fn what_is_published_faster_than_it_is_recorded_waits_and_is_recorded() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"1MiB\"\n");
    let file = daemon.place.path("run.mcap");
    recorded(&daemon, &file, 5000, &["--buffer", "1MiB"]);
    let contents = Contents::of(&file);
    assert_messages(&contents.of_topic("main"), 0..5000);
    assert_eq!(contents.messages[5].data.len(), message(5).len());
}
