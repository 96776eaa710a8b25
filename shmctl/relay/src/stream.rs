//! A stream of the server, as both directions need it.

use std::error::Error as _;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, RetentionPolicy, StorageType,
};
use async_nats::jetstream::{Context, stream::Stream};
use log::{info, warn};
use shmctl::companion::Failure;

use crate::failure::{Trouble, is_servers_own, with_causes};

/// What `JetStream` answers when there is no such thing.
const NOT_FOUND: usize = 404;

/// What the server counts beside the payload: headers and their names.
pub(crate) const HEADERS: usize = 512;
/// Bytes of a message that a relay needs: half of them may be headers.
const LEAST: i32 = 2 * HEADERS as i32;

/// Finds a stream.
///
/// # Errors
/// That there is none, with the way to make it; or that the server did not answer.
pub(crate) async fn find(context: &Context, name: &str, subjects: &str) -> Result<Stream, Trouble> {
    let error = match context.get_stream(name).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    match error.kind() {
        GetStreamErrorKind::JetStream(e) if e.code() == NOT_FOUND => Err(Trouble::last(format!(
            "the server has no stream {name}; make it with shmctl relay out --create-stream, or with nats stream add {name} \
             --subjects '{subjects}'"
        ))),
        GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
            Err(Trouble::Final(Failure::Usage(format!("{name:?} cannot be the name of a stream"))))
        }
        _ => Err(Trouble::passing(format!("cannot ask for stream {name}"), no_jetstream(&with_causes(&error)))),
    }
}

/// Finds a stream or makes it.
///
/// # Errors
/// That the server does not make it, or did not answer.
pub(crate) async fn create(context: &Context, name: &str, subjects: &str, bytes: u64) -> Result<Stream, Trouble> {
    match find(context, name, subjects).await {
        Err(Trouble::Final(Failure::Other(_))) => {}
        found => return found,
    }
    let config = Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        max_bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
        discard: DiscardPolicy::Old,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        ..Config::default()
    };
    match context.create_stream(config).await {
        Ok(_) => info!("made stream {name} for subjects {subjects}, {bytes} bytes at most"),
        Err(error) => match error.kind() {
            CreateStreamErrorKind::JetStream(e) if !is_servers_own(e.code()) => {
                return Err(Trouble::last(format!("the server does not make stream {name}: {e}")));
            }
            // It may be too large for what the server may store.
            _ => {
                let what = format!("cannot make stream {name} with {bytes} bytes (--stream-bytes)");
                return Err(Trouble::passing(what, with_causes(&error)));
            }
        },
    }
    find(context, name, subjects).await
}

/// What the server knows about the stream now.
///
/// # Errors
/// That the stream was removed, or that the server did not answer.
pub(crate) async fn info(stream: &Stream) -> Result<Info, Trouble> {
    let error = match stream.get_info().await {
        Ok(info) => return Ok(info),
        Err(error) => error,
    };
    let answer = error.source().and_then(|source| source.downcast_ref::<async_nats::jetstream::Error>());
    if answer.is_some_and(|answer| answer.code() == NOT_FOUND) {
        let name = &stream.cached_info().config.name;
        return Err(Trouble::Gone(format!("the server no longer has stream {name}: it was removed")));
    }
    Err(Trouble::passing("cannot ask for the stream", with_causes(&error)))
}

/// The number of the last message that the stream has got.
///
/// # Errors
/// As [`info`].
pub(crate) async fn last_sequence(stream: &Stream) -> Result<u64, Trouble> {
    Ok(info(stream).await?.state.last_sequence)
}

/// A message of the stream.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) payload: bytes::Bytes,
}

/// The newest message with this subject, if there is one.
pub(crate) async fn newest(stream: &Stream, subject: &str) -> Result<Option<Stored>, Trouble> {
    let got = stream.get_last_raw_message_by_subject(subject).await;
    or_none(got).map_err(|why| Trouble::passing("cannot ask for the newest message", why))
}

/// The message with this number, if the stream still has it.
pub(crate) async fn numbered(stream: &Stream, sequence: u64) -> Result<Option<Stored>, Trouble> {
    let got = stream.get_raw_message(sequence).await;
    or_none(got).map_err(|why| Trouble::passing(format!("cannot ask for message {sequence}"), why))
}

fn or_none(
    got: Result<async_nats::jetstream::message::StreamMessage, async_nats::jetstream::stream::LastRawMessageError>,
) -> Result<Option<Stored>, String> {
    match got {
        Ok(message) => Ok(Some(Stored { sequence: message.sequence, payload: message.payload })),
        Err(error) => match error.kind() {
            LastRawMessageErrorKind::NoMessageFound => Ok(None),
            LastRawMessageErrorKind::JetStream(e) if e.code() == NOT_FOUND => Ok(None),
            _ => Err(with_causes(&error)),
        },
    }
}

/// Refuses a stream that does not take messages with this subject, and says what its settings mean for a relay.
///
/// # Errors
/// That the stream does not take them.
pub(crate) fn check(config: &Config, subject: &str, subjects: &str) -> Result<(), Failure> {
    let name = &config.name;
    if !config.subjects.iter().any(|pattern| matches(pattern, subject)) {
        return Err(Failure::Other(format!(
            "stream {name} takes subjects {}, and this relay publishes {subject}; give it --subject, or change the stream: nats \
             stream edit {name} --subjects '{subjects}'",
            config.subjects.join(", ")
        )));
    }
    if config.retention != RetentionPolicy::Limits {
        warn!(
            "stream {name} removes messages that were received: a relay that is started again may publish messages a second \
             time, which a relay in passes over"
        );
    }
    if config.max_message_size > 0 && config.max_message_size < LEAST {
        return Err(Failure::Other(format!(
            "stream {name} takes messages of up to {} bytes, and a relay needs at least {LEAST}; change it: nats stream edit {name} \
             --max-msg-size=-1",
            config.max_message_size
        )));
    }
    if config.no_ack {
        return Err(Failure::Other(format!(
            "stream {name} has no_ack set: nobody would know what is in it; change it: nats stream edit {name} --ack"
        )));
    }
    Ok(())
}

/// Whether the newest message of the stream is the newest that a relay has published. A stream that removes messages which were
/// received, or which are old, may have nothing left. A relay out that is started then sends the channel from its oldest message on.
pub(crate) fn keeps_newest(config: &Config) -> bool {
    config.retention == RetentionPolicy::Limits && config.max_age.is_zero()
}

/// Whether a subject is one of a pattern: `*` is one token, `>` is the rest.
fn matches(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

fn no_jetstream(why: &str) -> String {
    if why.contains("no responders") {
        format!("{why}; is JetStream enabled (nats-server -js)?")
    } else {
        why.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn subjects_match_patterns() {
        for (pattern, subject) in
            [("cam.7", "cam.7"), ("cam.*", "cam.7"), ("cam.>", "cam.7"), (">", "cam"), ("*.*", "a.b")]
        {
            assert!(matches(pattern, subject), "{pattern} {subject}");
        }
        for (pattern, subject) in
            [("cam", "cam.7"), ("cam.*", "cam"), ("cam.>", "cam"), ("*", "a.b"), ("cam.*", "imu.7")]
        {
            assert!(!matches(pattern, subject), "{pattern} {subject}");
        }
    }

    #[test]
    fn a_stream_that_removes_more_than_its_oldest_messages_does_not_keep_the_newest() {
        let with = |retention, max_age| keeps_newest(&Config { retention, max_age, ..Config::default() });
        assert!(with(RetentionPolicy::Limits, Duration::ZERO));
        assert!(!with(RetentionPolicy::Limits, Duration::from_secs(60)));
        assert!(!with(RetentionPolicy::WorkQueue, Duration::ZERO));
        assert!(!with(RetentionPolicy::Interest, Duration::ZERO));
    }

    #[test]
    fn a_stream_for_other_subjects_is_refused_with_the_way_out() {
        let config = Config { name: "CAM".into(), subjects: vec!["imu.*".into()], ..Config::default() };
        let error = check(&config, "CAM.00", "CAM.*").unwrap_err().to_string();
        for part in ["stream CAM takes subjects imu.*", "publishes CAM.00", "--subject", "nats stream edit CAM"] {
            assert!(error.contains(part), "{error}");
        }
        let config = Config { name: "CAM".into(), subjects: vec!["CAM.>".into()], no_ack: true, ..Config::default() };
        assert!(check(&config, "CAM.00", "CAM.*").unwrap_err().to_string().contains("no_ack"));
        for (most, fits) in [(-1, true), (0, true), (LEAST, true), (LEAST - 1, false)] {
            let config = Config { max_message_size: most, no_ack: false, ..config.clone() };
            let checked = check(&config, "CAM.00", "CAM.*");
            assert_eq!(checked.is_ok(), fits, "{most}");
            assert!(checked.err().is_none_or(|error| error.to_string().contains("--max-msg-size=-1")));
        }
    }
}
