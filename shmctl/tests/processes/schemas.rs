//! JSON output keeps to the schemas in `etc/schemas`, and all of what they describe appears. Those of `bench` and `doctor` are checked
//! where these commands are tested.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::json;
use shm_proto::internal::control::stat::ReaderState;
use shm_proto::{Reader, Start};
use shm_test_support::{Daemon, PATIENCE, Place, Proc, Schema, Setup};

/// Looks again until everything in the schema has been seen.
#[track_caller]
fn until_whole(schema: &mut Schema, sample: impl Fn() -> String) {
    let begun = Instant::now();
    loop {
        schema.check_text(&sample());
        let unseen = schema.unseen();
        if unseen.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "never in the output: {unseen:?}\n{}", sample());
        sleep(Duration::from_millis(20));
    }
}

/// A daemon with every kind of channel, and what goes on there.
struct Busy {
    _says: Reader,
    _peers: Vec<Proc>,
    daemon: Daemon,
    _feed: std::io::PipeWriter,
}

/// A reader that is attached and stands still.
fn standing(daemon: &Daemon, channel: &str) -> Proc {
    let mut reader = daemon.spawn(&["read", channel]);
    daemon.until_all_stat("the reader has chosen its start", |stats| {
        let stat = stats.iter().find(|stat| stat.channel.as_str() == channel).unwrap();
        stat.readers.iter().any(|it| it.pid == reader.pid() && it.state != ReaderState::Joining)
    });
    reader.freeze();
    reader
}

impl Busy {
    /// `at_rest` looks before anything happens.
    fn start(at_rest: impl FnOnce(&Daemon)) -> Self {
        let place = Place::new();
        let fifo = place.path("in").display().to_string();
        let config = format!(
            "[[channel]]\nname = \"times\"\ntimestamps = true\ncontent = \"json\"\nschema = \"sample\"\nschema_encoding = \"jsonschema\"\n\
             schema_text = \"{{}}\"\n[[channel]]\nname = \"fed\"\nsource = \"stdin\"\n[[channel]]\n\
             name = \"fifo\"\nsource = \"fifo:{fifo}\"\nmax_message = 8\n[[channel]]\nname = \"hand\"\nmode = \"handoff\"\n[[channel]]\n\
             name = \"shrinks\"\nevict_after = \"0\"\n"
        );
        let (input, mut feed) = std::io::pipe().unwrap();
        let daemon = Setup::new(&config).stdin(input).start_in(place);
        at_rest(&daemon);
        daemon.cli(&["create", "made", "--max", "1MiB"]).ok();
        feed.write_all(b"one\n").unwrap();
        let mut into_fifo = OpenOptions::new().write(true).open(&fifo).unwrap();
        into_fifo.write_all(b"one\ntoo long for it\n").unwrap();
        let mut peers =
            vec![standing(&daemon, "times"), daemon.spawn(&["read", "times"]), standing(&daemon, "shrinks")];
        daemon.until_all_stat("both readers have chosen their start", |stats| {
            let readers = &stats[0].readers;
            readers.len() == 2 && readers.iter().all(|reader| reader.state != ReaderState::Joining)
        });
        daemon.cli_with_input(&["write", "times"], b"one\ntwo\n").quiet();
        daemon.cli_with_input(&["write", "shrinks"], &[b'x'; 500_000]).quiet();
        daemon.cli(&["resize", "shrinks", "64KiB"]).quiet();
        let mut writer = daemon.spawn_piped(&["write", "hand"]);
        writer.feed(b"one\ntwo\n");
        daemon.cli(&["read", "hand", "-n", "1"]).ok();
        peers.push(writer);
        let mut says = Reader::attach(&daemon.endpoint(), Some("made"), Start::New).unwrap();
        assert!(says.set_status("looks on"));
        Busy { _says: says, _peers: peers, daemon, _feed: feed }
    }
}

#[test]
fn stat_list_and_log_keep_to_their_schemas_in_every_kind_of_channel() {
    let mut stat = Schema::of("stat");
    let busy = Busy::start(|daemon| stat.check_text(&daemon.cli(&["stat", "--json"]).quiet().text()));
    until_whole(&mut stat, || busy.daemon.cli(&["stat", "--json"]).quiet().text());
    until_whole(&mut Schema::of("list"), || busy.daemon.cli(&["list", "--json"]).quiet().text());
    until_whole(&mut Schema::of("log"), || busy.daemon.cli(&["log", "--json"]).quiet().text());
    Schema::of("top").check_text(&busy.daemon.cli(&["top", "--once", "--json", "--interval", "50ms"]).quiet().text());
}

#[test]
fn messages_in_json_keep_to_their_schema() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\ntimestamps = true\n[[channel]]\nname = \"imu\"\n");
    daemon.cli_with_input(&["write", "cam"], b"text\n\xff\xfe\n").quiet();
    daemon.cli_with_input(&["write", "imu"], b"text\n").quiet();
    let mut schema = Schema::of("read");
    for channels in [&["cam"][..], &["imu"], &["cam", "imu"]] {
        let args = [&["read"], channels, &["--from", "oldest", "--until-empty", "--format", "json"]].concat();
        let text = daemon.cli(&args).quiet().text();
        assert!(text.lines().count() == channels.len() + usize::from(channels.contains(&"cam")), "{text}");
        schema.check_text(&text);
    }
    assert_eq!(schema.unseen(), [""; 0]);
}

#[test]
fn the_answers_to_reload_and_reexec_keep_to_their_schemas() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n");
    let changed = "log_entries = 500\n[[channel]]\nname = \"cam\"\nmax_readers = 5\ncapacity = \"2MiB\"\n[[channel]]\nname = \"gps\"\n";
    fs::write(daemon.place.path("shmd.toml"), changed).unwrap();
    let run = daemon.cli(&["reload", "--json"]);
    assert_eq!(run.code, Some(3), "{run:?}");
    let mut schema = Schema::of("reload");
    schema.check_text(&run.text());
    assert_eq!(schema.unseen(), [""; 0], "{run:?}");
    let answer: serde_json::Value = serde_json::from_str(&run.text()).unwrap();
    let names = |list: &str| answer[list].as_array().unwrap().len();
    assert_eq!(["created", "removed", "changed", "kept"].map(names), [1, 1, 2, 1], "{answer}");
    // As the configuration has it, so that the next program can go on.
    fs::write(daemon.place.path("shmd.toml"), changed.replace("capacity = \"2MiB\"\n", "")).unwrap();
    daemon.cli(&["reload"]).ok();
    let mut schema = Schema::of("reexec");
    schema.check_text(&daemon.cli(&["reexec", "--json"]).quiet().text());
    assert_eq!(schema.unseen(), [""; 0]);
}

#[test]
fn the_answer_to_create_keeps_to_its_schema() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n");
    let mut schema = Schema::of("create");
    schema.check_text(&daemon.cli(&["create", "imu", "--max", "1MiB", "--json"]).quiet().text());
    let source = format!("source=fifo:{}", daemon.place.path("missing/in").display());
    let waits = daemon.cli(&["create", "gps", "--max", "1MiB", "--set", &source, "--json"]);
    assert_eq!(waits.code, Some(0), "{waits:?}");
    schema.check_text(&waits.text());
    assert_eq!(schema.unseen(), [""; 0], "{waits:?}");
}

#[test]
fn what_does_not_keep_to_a_schema_is_found() {
    let schema = json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["a"],
        "properties": {
            "a": { "type": "integer", "minimum": 1, "description": "a" },
            "b": { "type": ["string", "null"], "enum": ["x", null], "description": "b" },
            "c": { "type": "array", "description": "c", "items": { "$ref": "#/$defs/it" } }
        },
        "oneOf": [{ "required": ["b"] }, { "required": ["c"] }],
        "$defs": { "it": { "type": "object", "additionalProperties": { "type": "boolean" } } }
    });
    let is_good = |value: serde_json::Value| {
        let schema = schema.clone();
        std::panic::catch_unwind(move || Schema::new("x", schema).check(&value)).is_ok()
    };
    for good in [json!({ "a": 1, "b": "x" }), json!({ "a": 2, "b": null }), json!({ "a": 1, "c": [{ "y": true }, {}] })]
    {
        assert!(is_good(good.clone()), "{good}");
    }
    for bad in [
        json!(1),
        json!({ "b": "x" }),
        json!({ "a": 0, "b": "x" }),
        json!({ "a": 1.5, "b": "x" }),
        json!({ "a": "1", "b": "x" }),
        json!({ "a": 1, "b": "y" }),
        json!({ "a": 1, "b": "x", "d": 1 }),
        json!({ "a": 1, "b": "x", "c": [] }),
        json!({ "a": 1 }),
        json!({ "a": 1, "c": [{ "y": 1 }] }),
        json!({ "a": 1, "c": [1] }),
    ] {
        assert!(!is_good(bad.clone()), "{bad}");
    }
    let mut seen = Schema::new("x", schema.clone());
    seen.check(&json!({ "a": 1, "b": "x" }));
    assert_eq!(seen.unseen(), ["b null", "c"]);
}

#[test]
fn a_reference_leads_into_another_schema_and_from_there_within_that() {
    let property = |reference: &str| {
        let properties = json!({ "a": { "$ref": reference } });
        Schema::new("x", json!({ "type": "object", "additionalProperties": false, "properties": properties }))
    };
    let mut rate = property("urn:shmd:stat:1#/$defs/channel/properties/last_minute");
    assert_eq!(rate.fields(), ["a?  object", "a.bytes_per_s  number", "a.messages_per_s  number"]);
    rate.check(&json!({ "a": { "bytes_per_s": 1.5, "messages_per_s": 1 } }));
    assert_eq!(rate.unseen(), [""; 0]);
    for (reference, value, fault) in [
        ("urn:shmd:stat:1#/$defs/channel/properties/last_minute", json!({}), "$.a: messages_per_s is missing"),
        ("urn:shmd:log:1", json!({ "seq": 0 }), "is missing"),
        ("urn:shmd:log:2", json!({}), "urn:shmd:log:2 leads nowhere"),
    ] {
        let mut schema = property(reference);
        let refused = std::panic::catch_unwind(move || schema.check(&json!({ "a": value }))).unwrap_err();
        let told = refused.downcast_ref::<String>().unwrap();
        assert!(told.contains(fault), "{told}");
    }
}

#[test]
fn a_schema_that_would_let_something_pass_is_refused() {
    for (schema, fault) in [
        (json!({ "type": "string", "pattern": "x" }), "pattern is not understood"),
        (json!({ "type": "object", "properties": {} }), "takes anything"),
        (json!({ "type": "object", "additionalProperties": false, "properties": { "a": {} } }), "no description"),
        (json!({ "type": "object", "additionalProperties": false, "properties": {}, "required": ["a"] }), "has none"),
    ] {
        let refused = std::panic::catch_unwind(move || Schema::new("x", schema)).unwrap_err();
        let told = refused.downcast_ref::<String>().unwrap();
        assert!(told.contains(fault), "{told}");
    }
}
