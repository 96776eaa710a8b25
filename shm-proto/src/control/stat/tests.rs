use super::*;
use crate::control::log::LogEntry;
use crate::ring::geometry::OnFull;

/// `stat` of a channel as version 0.1 writes it.
const STAT: &str = r#"{"channel":"cam","segment":"/shmd.cam","mode":"ring","on_full":"block","capacity":65536,"min":65536,"max":262144,"reserved":65536,"memory":69632,"memory_total":69632,"pending":null,"used":0,"retained":8,"max_message":1024,"align":8,"timestamps":false,"messages":1,"bytes":8,"messages_per_s":0.5,"bytes_per_s":4.0,"last_minute":{"messages_per_s":0.5,"bytes_per_s":4.0},"last_hour":{"messages_per_s":0.5,"bytes_per_s":4.0},"dropped":0,"overwritten":0,"resizes":0,"evicted":0,"max_readers":64,"stalled_after_ms":5000,"source":"unix:/run/in","input":{"kind":"unix","object":"/run/in","state":"listening, 3 clients of 128","bytes":8,"messages":1,"errors":0,"last_error":null},"writer":{"pid":7,"program":"shmd","user":"me","role":"source","state":"active","heartbeat_ms":12},"readers":[{"reader":1,"pid":8,"program":"view","user":"me","state":"sleeping","lag_messages":0,"lag_bytes":0,"received":1,"lost":0,"heartbeat_ms":3,"wait":"adaptive"}]}"#;

#[test]
fn stat_is_read_as_values_and_written_as_the_same_words() {
    let stat: ChannelStat = serde_json::from_str(STAT).unwrap();
    assert_eq!(serde_json::to_string(&stat).unwrap(), STAT);
    assert_eq!((&stat.mode, &stat.on_full), (&Mode::Ring, &OnFull::Block.into()));
    let input = stat.input.unwrap();
    assert_eq!((input.kind, input.state), (SourceKind::Unix, SourceState::Listening { clients: 3, most: 128 }));
    let writer = stat.writer.unwrap();
    assert_eq!((writer.role, writer.state), (WriterRole::Source, WriterState::Active));
    assert_eq!(stat.readers[0].state, ReaderState::Sleeping);
}

#[test]
fn words_of_a_newer_daemon_are_kept() {
    let words = [
        (r#""mode":"ring""#, r#""mode":"torus""#),
        (r#""on_full":"block""#, r#""on_full":"spill""#),
        (r#""kind":"unix""#, r#""kind":"vsock""#),
        ("listening, 3 clients of 128", "listening, 3 clients"),
        (r#""role":"source""#, r#""role":"remote""#),
        (r#""state":"active""#, r#""state":"idle""#),
        (r#""state":"sleeping""#, r#""state":"resuming""#),
    ];
    let newer = words.iter().fold(STAT.to_owned(), |text, (old, new)| text.replace(old, new));
    let stat: ChannelStat = serde_json::from_str(&newer).unwrap();
    assert_eq!(serde_json::to_string(&stat).unwrap(), newer);
    assert_eq!((stat.mode.to_string().as_str(), stat.on_full.to_string().as_str()), ("torus", "spill"));
    let input = stat.input.unwrap();
    assert_eq!((input.kind.as_str(), input.state.to_string().as_str()), ("vsock", "listening, 3 clients"));
    let writer = stat.writer.unwrap();
    assert_eq!((writer.role.as_str(), writer.state.as_str()), ("remote", "idle"));
    assert_eq!(stat.readers[0].state, ReaderState::Other("resuming".into()));
}

#[test]
fn a_line_of_list_is_read_as_values_and_written_as_the_same_words() {
    let program = WriterName::Program { program: "a (pid 1, user x)".into(), pid: 7, user: "me".into() };
    for (text, name) in [
        ("none", WriterName::Nobody),
        ("stdin", WriterName::Source(SourceKind::Stdin)),
        ("a (pid 1, user x) (pid 7, user me)", program),
        ("a (pid 07, user me)", WriterName::Source(SourceKind::Other("a (pid 07, user me)".into()))),
        ("vsock", WriterName::Source(SourceKind::Other("vsock".into()))),
    ] {
        let line = format!(
            r#"{{"channel":"cam","mode":"handoff","capacity":1,"readers":0,"writer":"{text}","allowed":["read","write","admin","tap"]}}"#
        );
        let summary: Summary = serde_json::from_str(&line).unwrap();
        assert_eq!(serde_json::to_string(&summary).unwrap(), line);
        assert_eq!((summary.mode, summary.writer), (Mode::Handoff, name));
        assert_eq!(summary.allowed, [Right::Read, Right::Write, Right::Admin, Right::Other("tap".into())]);
    }
}

#[test]
fn a_sources_state_is_told_from_its_words() {
    for (text, state) in [
        ("starting", SourceState::Starting),
        ("open", SourceState::Open),
        ("waiting for a writer", SourceState::AwaitingWriter),
        ("skipping the rest of a bad input", SourceState::PassingOver),
        ("listening, 1 client of 9", SourceState::Listening { clients: 1, most: 9 }),
        ("listening, 0 clients of 9", SourceState::Listening { clients: 0, most: 9 }),
        ("running pid 4711", SourceState::Running { pid: 4711 }),
        ("pid 4711 has ended, and its output waits for readers", SourceState::Draining { pid: 4711 }),
        ("restarting in 2s", SourceState::Restarting { seconds: 2 }),
        ("following", SourceState::Following),
        ("waiting for the file", SourceState::AwaitingFile),
        ("cannot open it, trying again", SourceState::Retrying),
        ("ended", SourceState::Ended),
        ("failed", SourceState::Failed),
        ("running pid 4294967296", SourceState::Other("running pid 4294967296".into())),
        ("running pid 4711 ", SourceState::Other("running pid 4711 ".into())),
        ("", SourceState::Other(String::new())),
    ] {
        assert_eq!((state.to_string().as_str(), SourceState::from(text.to_owned())), (text, state.clone()));
    }
}

#[test]
fn an_entry_of_the_log_is_written_as_the_same_words() {
    for entry in [
        r#"{"seq":1,"time_ms":2,"severity":"warn","event":"source-stuck","channel":"cam","fields":{"pid":7,"by":"me"}}"#,
        r#"{"seq":1,"time_ms":2,"severity":"notice","event":"sealed","fields":{}}"#,
    ] {
        let read: LogEntry = serde_json::from_str(entry).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), entry);
    }
}
