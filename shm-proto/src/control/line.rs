//! A value as a line of JSON, and back.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Envelope, VERSION};
use crate::error::ProtocolError;

const EXCERPT_CHARS: usize = 80;

/// The line that carries `body`, with the version beside it and a newline at the end. There is no other newline.
///
/// # Errors
/// [`ProtocolError::Broken`] for a body that JSON cannot express.
pub fn encode<T: Serialize>(body: &T) -> Result<Vec<u8>, ProtocolError> {
    let mut line = serde_json::to_vec(&Envelope { v: VERSION, body })
        .map_err(|e| ProtocolError::Broken(format!("a line cannot be written as JSON: {e}")))?;
    line.push(b'\n');
    Ok(line)
}

/// The content of `line`. The version is checked first, so that a line of another version has another error than an invalid line.
///
/// # Errors
/// [`ProtocolError::Version`] if the line is of another version, [`ProtocolError::Broken`] if it is not what was expected.
/// Both name what was found.
pub fn decode<T: DeserializeOwned>(line: &str) -> Result<T, ProtocolError> {
    #[derive(Deserialize)]
    struct Probe {
        v: Option<u64>,
    }
    let bad = |e: serde_json::Error| ProtocolError::Broken(format!("line {} is not understood: {e}", excerpt(line)));
    match serde_json::from_str::<Probe>(line).map_err(bad)?.v {
        Some(v) if v == u64::from(VERSION) => {}
        Some(theirs) => return Err(ProtocolError::Version { theirs, ours: VERSION }),
        None => return Err(ProtocolError::Broken(format!("line {} has no version \"v\"", excerpt(line)))),
    }
    serde_json::from_str::<Envelope<T>>(line).map(|envelope| envelope.body).map_err(bad)
}

/// The beginning of a line, made printable, because what a stranger sent goes to a log or a terminal.
pub(crate) fn excerpt(line: &str) -> String {
    let short: String = line.chars().take(EXCERPT_CHARS).collect();
    let more =
        if short.len() < line.len() { format!(" and {} more bytes", line.len() - short.len()) } else { String::new() };
    format!("{short:?}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Done, ErrorKind, Pong, Reexecuted, Refusal, Reloaded, Reply, Request};
    use crate::ring::link::{ToDaemon, ToWriter};

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_request_is_the_line_that_a_person_would_type() {
        assert_eq!(text(encode(&Request::Ping).unwrap()), "{\"v\":1,\"op\":\"ping\"}\n");
        assert_eq!(decode::<Request>(r#"{"v":1,"op":"ping"}"#).unwrap(), Request::Ping);
        assert_eq!(
            decode::<Request>(r#"{"op":"resize","bytes":18446744073709551615,"v":1,"later":[1]}"#).unwrap(),
            Request::Resize { channel: None, bytes: u64::MAX }
        );
    }

    #[test]
    fn every_kind_of_line_comes_back_as_it_was() {
        macro_rules! round_trip {
            ($type:ty, $value:expr) => {{
                let value: $type = $value;
                let line = text(encode(&value).unwrap());
                assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
                assert_eq!(decode::<$type>(&line).unwrap(), value, "{line}");
            }};
        }
        let channel = Some("cam".parse().unwrap());
        round_trip!(Request, Request::Evict { channel: channel.clone(), reader: 3 });
        round_trip!(Request, Request::Attach { channel, program: Some("a\nb".into()), layout: 2, expect: None });
        round_trip!(Reply, Reply::Ok(Done::Evict {}));
        round_trip!(Reply, Reply::Ok(Done::Stat(Vec::new())));
        round_trip!(
            Reply,
            Reply::Ok(Done::Ping(Pong { daemon: "shmd".into(), version: "0".into(), pid: 1, prefix: "p".into() }))
        );
        let refusal = Refusal { channels: vec!["cam".parse().unwrap()], ..Refusal::new(ErrorKind::Busy, "later") };
        round_trip!(Reply, Reply::Error(refusal));
        let policy = ToWriter::Policy { ack: true, ack_timeout_ms: 1, evict_after_ms: 0, wait_readers: 2 };
        round_trip!(ToWriter, policy);
        round_trip!(Request, Request::Log { channel: None, since: 3, last: Some(2), follow: true });
        round_trip!(Reply, Reply::Ok(Done::Reload(Reloaded::default())));
        round_trip!(Reply, Reply::Ok(Done::Reexec(Reexecuted::default())));
        round_trip!(ToWriter, ToWriter::Grown { capacity: u64::MAX, done: true });
        round_trip!(ToDaemon, ToDaemon::Evicted { reader: 1, reason: "slow".into() });
    }

    #[test]
    fn another_version_is_told_from_a_faulty_line_even_when_its_content_is_unknown() {
        match decode::<Request>(r#"{"v":9,"op":"fly"}"#) {
            Err(e @ ProtocolError::Version { theirs: 9, ours: VERSION }) => {
                assert!(e.to_string().contains('9') && e.to_string().contains('1'), "{e}");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_faulty_line_is_repeated_shortened_and_printable() {
        let long = format!("\u{1b}[31m{}", "x".repeat(500));
        for line in
            ["", "{", "null", "[1]", r#"{"op":"ping"}"#, r#"{"v":1}"#, r#"{"v":1,"op":[1]}"#, r#"{"v":-1}"#, &long]
        {
            let Err(ProtocolError::Broken(reason)) = decode::<Request>(line) else { panic!("{line} was accepted") };
            assert!(reason.len() < 400 && !reason.contains('\u{1b}'), "{reason}");
            assert!(reason.contains(&excerpt(line)), "{reason}");
        }
    }

    #[test]
    fn a_deeply_nested_line_is_refused() {
        let line = format!("{{\"v\":1,\"op\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        assert!(matches!(decode::<Request>(&line), Err(ProtocolError::Broken(_))));
    }
}
