use std::collections::BTreeSet;

use shm_proto::internal::control::Pong;
use shm_proto::internal::control::stat::{Mode, ReaderState, SourceKind, WriterRole};
use shm_proto::internal::handoff::Names;

use super::*;

fn scrape() -> Scrape {
    let mut cam = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
    (cam.capacity, cam.min, cam.max, cam.pending) = (1 << 20, 1 << 16, 1 << 28, Some(1 << 16));
    (cam.messages, cam.bytes, cam.memory_total) = (u64::MAX, 10, 4096);
    let mut writer = WriterStat::new(WriterRole::Lent, 4711, "camd".into(), "me".into());
    writer.heartbeat_ms = 1_500;
    cam.writer = Some(writer);
    cam.input = Some(SourceStat::new(SourceKind::Unix, None, SourceState::Listening { clients: 3, most: 128 }));
    for number in 1..3 {
        let mut reader = ReaderStat::new(number, 4711, "a \"b\"".into(), "me".into(), ReaderState::Stalled);
        (reader.lag_messages, reader.heartbeat_ms) = (7, 12);
        reader.oldest_unread_ns = Some(2_000_000_001);
        let latency = "{\"messages\":9,\"p50_ns\":1,\"p90_ns\":2,\"p99_ns\":3,\"max_ns\":4}";
        reader.latency = Some(serde_json::from_str(latency).unwrap());
        cam.readers.push(reader);
    }
    let mut hand = ChannelStat::new("hand".parse().unwrap(), Mode::Handoff, "/hand".into());
    let mut handoff = HandoffStat::new(Names::new("/hand", "/hand.avail", "/hand.done").unwrap());
    (handoff.on_offer, handoff.on_offer_ms, handoff.last_ack_ms) = (Some(9), Some(20), Some(30));
    hand.handoff = Some(handoff);
    hand.readers.push(ReaderStat::new(1, 1, "x".into(), "me".into(), ReaderState::Other("dreaming".into())));
    Scrape::new(Some(Pong::new("0.1.0".into(), 1, "shmd".into())), vec![cam, hand], &mut Default::default())
}

#[test]
fn every_metric_is_printed_once_with_help_and_type_and_its_name_has_its_unit() {
    let text = render(&scrape());
    let mut seen = BTreeSet::new();
    for family in FAMILIES {
        let name = family.name;
        assert!(seen.insert(name), "{name} twice");
        assert_eq!(text.matches(&format!("# HELP {name} ")).count(), 1, "{name}\n{text}");
        assert_eq!(text.matches(&format!("# TYPE {name} {}\n", family.kind)).count(), 1, "{name}\n{text}");
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        assert!(family.help.ends_with('.'), "{name}: {}", family.help);
        assert!(
            text.lines().any(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' '])),
            "{name}"
        );
    }
    for unit in ["_ms", "_kib", "_millis", "_count", "_seconds_total"] {
        assert!(!seen.iter().any(|name| name.ends_with(unit)), "{unit}");
    }
}

#[test]
fn samples_have_their_labels_and_whole_numbers_keep_their_digits() {
    let text = render(&scrape());
    for line in [
        "shmd_up 1",
        r#"shmd_build_info{version="0.1.0"} 1"#,
        r#"shmd_channel_info{channel="cam",mode="ring",on_full="block",source="unix"} 1"#,
        r#"shmd_channel_messages_total{channel="cam"} 18446744073709551615"#,
        r#"shmd_channel_capacity_pending_bytes{channel="cam"} 65536"#,
        r#"shmd_channel_readers{channel="cam"} 2"#,
        r#"shmd_writer_present{channel="hand"} 0"#,
        r#"shmd_writer_state{channel="cam",state="active"} 1"#,
        r#"shmd_writer_last_seen_age_seconds{channel="cam"} 1.500"#,
        r#"shmd_source_state{channel="cam",kind="unix",state="listening"} 1"#,
        r#"shmd_reader_lag_messages{channel="cam",reader="a \"b\""} 7"#,
        r##"shmd_reader_lag_messages{channel="cam",reader="a \"b\"#2"} 7"##,
        r#"shmd_reader_state{channel="cam",reader="a \"b\"",state="stalled"} 1"#,
        r#"shmd_reader_state{channel="cam",reader="a \"b\"",state="evicted"} 0"#,
        r#"shmd_reader_state{channel="hand",reader="x",state="dreaming"} 1"#,
        r#"shmd_reader_last_seen_age_seconds{channel="cam",reader="a \"b\""} 0.012"#,
        r#"shmd_handoff_offered_message_age_seconds{channel="hand"} 0.020"#,
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(!text.contains("4711"), "a process number is no label:\n{text}");
}

#[test]
fn without_a_daemon_there_is_still_a_text() {
    let text = render(&Scrape::new(None, Vec::new(), &mut Default::default()));
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(samples[0], "shmd_up 0");
    assert_eq!(samples.len(), 2, "{text}");
}

/// Every name that begins like one of our metrics.
fn names_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("shmd_")).collect()
}

#[test]
fn the_dashboard_names_only_metrics_that_exist() {
    let text = include_str!("../../../../etc/grafana.json");
    let dashboard: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().is_some_and(|version| version >= 36), "schemaVersion");
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let named = names_in(text);
    let unknown: Vec<_> = named.difference(&known).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has a number of its own");
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap_or_else(|| panic!("{title} has no targets"));
        assert!(
            !targets.is_empty() && targets.iter().all(|target| !names_in(target["expr"].as_str().unwrap()).is_empty()),
            "{title}"
        );
        for side in ["h", "w", "x", "y"] {
            assert!(panel["gridPos"][side].is_u64(), "{title}: gridPos.{side}");
        }
        assert!(panel["gridPos"]["x"].as_u64().unwrap() + panel["gridPos"]["w"].as_u64().unwrap() <= 24, "{title}");
    }
}
