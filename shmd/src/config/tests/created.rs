use std::collections::BTreeMap;

use shm_proto::internal::os::peer::Credentials;
use shm_proto::{Bytes, OnFull};

use super::super::{Created, created};
use super::*;

/// The daemon's user on the imagined machine is 1000.
const USER: u32 = 7;

fn asked(uid: u32, keys: &[(&str, &str)]) -> Result<ChannelConfig, String> {
    let keys: BTreeMap<_, _> = keys.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
    let by = Created { uid, user: "me".to_owned(), time_ms: 1, kept: false, keys };
    let host = host();
    created(&"cam".parse().unwrap(), by.into(), &host, &host.prefix).map_err(|e| e.to_string())
}

#[test]
fn keys_mean_what_they_mean_in_a_file() {
    let keys = [
        ("max", "4MiB"),
        ("on_full", "drop"),
        ("align", "64"),
        ("ack", "true"),
        ("read", "@50, 8"),
        ("evict_after", "0"),
    ];
    let channel = asked(USER, &keys).unwrap();
    assert_eq!((channel.name.as_str(), channel.max, channel.align), ("cam", 4 * Bytes::MIB, 64));
    assert_eq!((channel.on_full, channel.ack, channel.evict_after), (OnFull::Drop, true, None));
    assert_eq!(channel.read.names().collect::<Vec<_>>(), ["@50", "8"]);
    let declared = [("content", "p"), ("schema", "a::B"), ("schema_text", "message B {}\n\"x\"")];
    assert_eq!(asked(USER, &declared).unwrap().declared.content.unwrap().to_string(), "p:a::B");
    for schema in ["\"string\"", "[\"null\", \"string\"]", " {\"type\": \"int\"}\n", "1"] {
        let declared = asked(USER, &[("content", "avro"), ("schema", "A"), ("schema_text", schema)]).unwrap().declared;
        assert_eq!(declared.text.unwrap().inline(), Some(schema));
    }
    let made_in_file = Setup::new("[[channel]]\nname = \"cam\"\n").channel();
    let plain = asked(1000, &[]).unwrap();
    assert_eq!((plain.capacity, plain.max, plain.mode), (made_in_file.capacity, made_in_file.max, made_in_file.mode));
}

#[test]
fn whoever_has_made_a_channel_may_do_everything_with_it_and_others_may_not() {
    let channel = asked(USER, &[("write", "8")]).unwrap();
    let peer = |uid| Credentials { pid: 1, uid, gid: 9, groups: Vec::new() };
    let may = |uid| [&channel.read, &channel.write, &channel.admin].map(|list| list.allows(&peer(uid)));
    assert_eq!(may(USER), [true; 3]);
    assert_eq!(may(1000), [true; 3]);
    assert_eq!(may(8), [false, true, false]);
    assert_eq!(may(9), [false; 3]);
}

#[test]
fn what_cannot_be_is_refused_with_the_key_and_the_reason() {
    for (key, text, reason) in [
        ("max", "64QB", "key max: \"64QB\" is not a size"),
        ("max", "9GiB", "key max: max 9GiB"),
        ("colour", "red", "key colour: unknown key \"colour\"; known are name, capacity"),
        ("name", "imu", "key name: the channel's name stands beside its keys"),
        ("read", "no such user", "key read: there is no user"),
        ("permissions", "0666", "key permissions: "),
        ("source", "stdin", "key source: standard input"),
        ("source", "exec:id", "key source: only root and the daemon's own user"),
        ("source", "tail:/etc/shadow", "key source: only root and the daemon's own user"),
        ("mode", "handoff", "key mode: only root and the daemon's own user"),
        ("schema_file", "/etc/shadow", "key schema_file: only root and the daemon's own user"),
        ("schema_file", "/nonexistent", "key schema_file: only root and the daemon's own user"),
        ("segment", "/x", "key segment: segment, avail and done"),
    ] {
        let refused = asked(USER, &[(key, text)]).unwrap_err();
        assert!(refused.starts_with(reason), "{key} = {text}: {refused}");
    }
    let refused = asked(USER, &[("min", "2MiB"), ("max", "1MiB")]).unwrap_err();
    assert_eq!(refused, "key min: min 2MiB is more than max 1MiB (key max)");
}

#[test]
fn root_and_the_daemons_user_may_set_what_has_the_daemons_rights_but_not_standard_input() {
    for uid in [0, 1000] {
        asked(uid, &[("source", "exec:id")]).unwrap();
        asked(uid, &[("mode", "handoff"), ("segment", "/x")]).unwrap();
        assert!(asked(uid, &[("source", "stdin")]).unwrap_err().contains("standard input"));
    }
}

#[test]
fn the_rules_have_defaults_that_fit_a_small_machine_and_bounds() {
    let rules = |text: &str| Setup::new(text).good().creation;
    let usual = rules("");
    assert_eq!((usual.most, usual.most_memory, usual.may.names().count()), (64, Bytes::GIB, 0));
    let mut small = Setup::new("");
    small.host.shm = Some(Shm { total: 64 * Bytes::MIB, free: 60 * Bytes::MIB });
    assert_eq!(small.good().creation.most_memory, 32 * Bytes::MIB);
    let own = rules("create = [\"*\"]\nmax_created = 0\nmax_created_memory = \"2GiB\"\n");
    assert_eq!((own.most, own.most_memory, own.may.names().next().as_deref()), (0, 2 * Bytes::GIB, Some("*")));
    for (text, reason) in [
        ("create = [\"no such user\"]", "there is no user"),
        ("max_created = 65537", "max_created 65537 is not from 0 to 65536"),
        ("max_created_memory = \"much\"", "is not a size"),
        ("state_dir = \"state\"", "must be an absolute path"),
    ] {
        let refused = Setup::new(text).refusal();
        assert!(refused.starts_with("shmd.toml:1: ") && refused.contains(reason), "{refused}");
    }
}

#[test]
fn state_is_kept_where_the_host_says_or_the_file_or_nowhere() {
    let dir = |text: &str| Setup::new(text).good().state_dir.map(|dir| dir.display().to_string());
    assert_eq!(dir("").as_deref(), Some("/home/me/.local/state/shmd"));
    assert_eq!(dir("state_dir = \"/s\"").as_deref(), Some("/s"));
    assert_eq!(dir("state_dir = \"\""), None);
}
