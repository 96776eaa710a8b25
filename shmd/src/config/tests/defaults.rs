use std::time::Duration;

use shm_cli::keys::{self, Kind};
use shm_proto::internal::framing::Framing;
use shm_proto::{Bytes, OnFull};

use super::super::raw::{Channel, Top};
use super::super::{SourceKind, show};
use super::*;

/// Keys of which a default cannot be written down: they depend on the user or on other keys.
const COMPUTED: [&str; 7] = ["runtime_dir", "prefix", "state_dir", "max_message", "segment", "avail", "done"];

fn without_files(config: Config) -> Config {
    Config { files: Vec::new(), ..config }
}

/// The manual, shmd.toml(5) and the completions come from that table.
#[test]
fn the_table_of_keys_has_the_keys_that_are_read_and_what_their_values_look_like() {
    for (table, names, types) in [(keys::TOP, Top::KEYS, Top::TYPES), (keys::CHANNEL, Channel::KEYS, Channel::TYPES)] {
        let mut written: Vec<_> = table.iter().map(|key| (key.name, key.kind)).collect();
        let kind = |kind: &str| match kind {
            "String" | "OnFull" => Kind::Text,
            "Bytes" => Kind::Size,
            "Time" => Kind::Time,
            "u32" => Kind::Number,
            "bool" => Kind::Flag,
            "Names" => Kind::Names,
            other => panic!("{other} is no kind of value: add it to shm-cli"),
        };
        let mut read: Vec<_> = names.iter().zip(types).map(|(name, of)| (*name, kind(of))).collect();
        written.sort_by_key(|(name, _)| *name);
        read.sort_by_key(|(name, _)| *name);
        assert_eq!(written, read);
    }
}

#[test]
fn the_shipped_file_is_the_defaults() {
    let shipped = Setup::new(&shipped()).good();
    assert_eq!(without_files(shipped), without_files(Setup::new("").good()));
}

#[test]
fn the_shipped_file_has_every_key_and_only_computed_ones_are_commented_out() {
    let text = shipped();
    for key in Top::KEYS.iter().chain(Channel::KEYS) {
        let start = format!("{key} = ");
        let active = text.lines().filter(|line| line.starts_with(&start)).count();
        let commented = text.lines().filter(|line| line.starts_with(&format!("# {start}"))).count();
        let expected = if COMPUTED.contains(key) { (0, 1) } else { (1, 0) };
        assert_eq!((active, commented), expected, "{key}");
    }
}

#[test]
fn the_commented_out_keys_show_the_defaults_of_root_and_of_the_other_keys() {
    let text = shipped().replace("# runtime_dir =", "runtime_dir =").replace("# prefix =", "prefix =");
    let text = text.replace("# state_dir =", "state_dir =");
    let mut setup = Setup::new(&text.replace("# max_message =", "max_message ="));
    let state_dir = Some("/var/lib/shmd".into());
    let root = Host { uid: 0, runtime_dir: "/run/shmd".into(), prefix: "shmd".parse().unwrap(), state_dir, ..host() };
    setup.host = root.clone();
    let mut bare = Setup::new("");
    bare.host = root;
    assert_eq!(without_files(setup.good()), without_files(bare.good()));
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = Setup::new("").good();
    assert_eq!(config.runtime_dir, Path::new("/run/user/1000/shmd"));
    assert_eq!((config.prefix.as_str(), config.log, config.max_clients), ("shmd-1000", log::LevelFilter::Info, 1024));
    let channel = &config.channels[0];
    assert_eq!(channel.name.as_str(), "main");
    assert_eq!((channel.min, channel.capacity, channel.max), (64 << 10, 1 << 20, 256 << 20));
    assert_eq!((channel.max_message, channel.align), ((256 << 20) - 72, 16));
    assert_eq!((channel.on_full, channel.max_readers, channel.wait_readers), (OnFull::Block, 64, 0));
    assert_eq!(channel.evict_after, Some(Duration::from_secs(30)));
    assert_eq!(channel.shrink_after, Some(Duration::from_secs(60)));
    assert_eq!((channel.ack, channel.ack_timeout), (false, Duration::from_secs(1)));
    assert_eq!((&channel.group, channel.mode), (&None, 0o640));
    assert_eq!((&channel.source, channel.framing), (&SourceKind::None, Framing::Lines));
}

#[test]
fn standard_input_feeds_the_channel_that_nobody_configured_and_no_other() {
    let source = |text: &str| {
        let mut setup = Setup::new(text);
        setup.host.stdin_feeds = true;
        setup.channel().source
    };
    assert_eq!(source(""), SourceKind::Stdin);
    assert_eq!(source("log = \"debug\""), SourceKind::Stdin);
    assert_eq!(source("[[channel]]"), SourceKind::None);
    let mut asked = Setup::new("").flag("source", "none");
    asked.host.stdin_feeds = true;
    assert_eq!(asked.channel().source, SourceKind::None);
    assert_eq!(Setup::new("").flag("source", "stdin").channel().source, SourceKind::Stdin);
}

#[test]
fn sizes_that_are_not_written_give_way_to_those_that_are() {
    let sizes = |text: &str| {
        let channel = Setup::new(&format!("[[channel]]\n{text}")).channel();
        (channel.min, channel.capacity, channel.max)
    };
    let (kib, mib) = (Bytes::KIB, Bytes::MIB);
    assert_eq!(sizes("max = \"32KiB\""), (32 * kib, 32 * kib, 32 * kib));
    assert_eq!(sizes("capacity = 4096"), (4096, 4096, 256 * mib));
    assert_eq!(sizes("capacity = \"1GiB\""), (64 * kib, 1024 * mib, 1024 * mib));
    assert_eq!(sizes("min = \"2MiB\""), (2 * mib, 2 * mib, 256 * mib));
    assert_eq!(sizes("min = 1\ncapacity = 4097\nmax = 8193"), (4096, 8192, 12288));
}

#[test]
fn the_default_of_max_fits_a_small_machine() {
    let mut setup = Setup::new("");
    setup.host.shm = Some(Shm { total: 64 * Bytes::MIB, free: 60 * Bytes::MIB });
    assert_eq!(setup.channel().max, 64 * Bytes::MIB);
}

#[test]
fn the_largest_message_leaves_room_for_headers_and_alignment() {
    for (max, align, limit) in [(4096, 16, 4024), (8192, 4096, 4088), (65536, 64, 65464)] {
        let text = format!("[[channel]]\nmax = {max}\nalign = {align}\n");
        assert_eq!(Setup::new(&text).channel().max_message, limit);
        let asked = |n: u64| Setup::new(&format!("{text}max_message = {n}\n"));
        assert_eq!(asked(limit).channel().max_message, limit);
        let refusal = asked(limit + 1).refusal();
        assert!(refusal.starts_with("shmd.toml:4: ") && refusal.contains(&limit.to_string()), "{refusal}");
    }
}

#[test]
fn what_is_shown_is_a_configuration_that_means_the_same() {
    let shown = [
        "",
        "[[channel]]\nname = \"a\"\nread = [\"*\", \"@0\", \"0\"]\nsource = \"stdin\"\nframing = \"chunk=4097\"\nflush = \"100ms\"\n\
         evict_after = \"0\"\n",
        "create = [\"@8\", \"7\"]\nmax_created = 3\nmax_created_memory = \"5MiB\"\nstate_dir = \"\"",
        "runtime_dir = \"/r\"\nprefix = \"p\"\nlog = \"off\"\nmax_clients = 7\n[[channel]]\nname = \"b\"\n\
         capacity = 12288\nmin = 8192\nmax = 16384\nmax_message = 1\nalign = 64\non_full = \"overwrite\"\n\
         max_readers = 2\nevict_after = \"1500ms\"\nshrink_after = \"0\"\nack = true\nack_timeout = \"2m\"\n\
         wait_readers = 2\ntimestamps = true\nprefault = true\ncontent = \"p\"\nschema = \"a::B\"\n\
         schema_encoding = \"proto3\"\nschema_text = \"x\\n\\\"y\\\"\"\ngroup = \"0\"\npermissions = \"0444\"\nwrite = [\"7\"]\nadmin = [\"@8\"]\n[[channel]]\nname = \"c\"",
        "[[channel]]\nname = \"f\"\nsource = \"fifo:/run/x\"\nwrite = [\"@7\"]\n[[channel]]\nname = \"u\"\n\
         source = \"unix:/run/y\"\nframing = \"length\"\n[[channel]]\nname = \"e\"\nsource = \"exec:sh -c 'a \\\"b\\\"'\"\n\
         [[channel]]\nname = \"t\"\nsource = \"tail:/var/log/ä b\"\n[[channel]]\nname = \"p\"\nsource = \"unix-seqpacket:/z\"\n",
        "[[channel]]\nmode = \"handoff\"\ngroup = \"0\"\nkeep_delimiter = true\nsegment = \"/demo_shm\"\nmax_message = 256\n",
    ];
    for text in shown {
        let setup = Setup::new(text);
        let config = setup.good();
        let shown = show(&config);
        assert!(shown.contains(&setup.file().display().to_string()), "{shown}");
        let again = Setup::new(&shown);
        assert_eq!(without_files(again.good()), without_files(config), "{shown}");
        let is_ring = !shown.contains("mode = \"handoff\"");
        for key in Top::KEYS.iter().chain(Channel::KEYS) {
            let others: &[&str] = if is_ring {
                &["segment", "avail", "done"]
            } else {
                &["align", "evict_after", "ack", "wait_readers", "timestamps", "prefault"]
            };
            if others.contains(key) {
                continue;
            }
            assert!(shown.lines().any(|line| line.starts_with(&format!("{key} = "))), "{key}\n{shown}");
        }
    }
}
