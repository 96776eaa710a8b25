//! Channels that are not there are made as they were recorded.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use mcap::Channel;
use shm_proto::internal::control::{MAX_REQUEST, encode};
use shm_proto::{Bytes, ChannelName, Done, ErrorKind, Request};
use shmctl::companion::human::printable;
use shmctl::companion::{Failure, Global, Result, note};

use super::topics::Topics;
use crate::format::input::Input;

/// Memory is reserved at some gigabytes per second.
const ANSWER: Duration = Duration::from_secs(300);

/// `--set KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String, String);

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => Ok(Key(key.trim().to_owned(), value.to_owned())),
            _ => Err("write a key of the channel and its value, such as max=64MiB".to_owned()),
        }
    }
}

/// The keys of each channel, in the order of the channels.
pub(crate) fn keys(inputs: &[Input], topics: &Topics, set: &[Key]) -> Result<Vec<BTreeMap<String, String>>> {
    for (place, Key(key, _)) in set.iter().enumerate() {
        if set[..place].iter().any(|Key(earlier, _)| earlier == key) {
            return Err(Failure::Usage(format!("--set {key} is given twice: give it once")));
        }
    }
    let all: Vec<&Channel<'_>> =
        inputs.iter().flat_map(|input| input.summary.channels.values()).map(|it| &**it).collect();
    let keys_of = |(place, name): (usize, &ChannelName)| {
        let of_channel = all.iter().copied().filter(|channel| topics.place(&channel.topic) == Some(place));
        let (mut keys, unsaid) = recorded(of_channel);
        unsaid.iter().for_each(|why| note(&format!("channel {name}: {why}")));
        keys.extend(set.iter().map(|Key(key, value)| (key.clone(), value.clone())));
        keys
    };
    Ok(topics.channels.iter().enumerate().map(keys_of).collect())
}

/// What the files say about a channel, as far as its topics agree, and why something is left out.
fn recorded<'c>(channels: impl Iterator<Item = &'c Channel<'c>>) -> (BTreeMap<String, String>, Option<String>) {
    let mut agreed: Option<(BTreeMap<String, String>, Option<String>)> = None;
    for channel in channels {
        let this = of_one(channel);
        agreed = Some(match agreed {
            None => this,
            Some((mut keys, unsaid)) => {
                // A schema without the content that it belongs to would be refused.
                let differs = |part: &str| {
                    keys.keys()
                        .chain(this.0.keys())
                        .any(|key| key.starts_with(part) && keys.get(key) != this.0.get(key))
                };
                let (content, schema) = (differs("content"), differs("content") || differs("schema"));
                keys.retain(|key, value| match key.as_str() {
                    "content" => !content,
                    key if key.starts_with("schema") => !schema,
                    key => this.0.get(key) == Some(value),
                });
                (keys, unsaid.or(this.1))
            }
        });
    }
    agreed.unwrap_or_default()
}

fn of_one(channel: &Channel<'_>) -> (BTreeMap<String, String>, Option<String>) {
    let mut keys = BTreeMap::new();
    let mut unsaid = None;
    if let Some(on_full) = channel.metadata.get("shmd.on_full") {
        keys.insert("on_full".to_owned(), on_full.clone());
    }
    if channel.metadata.get("shmd.times").is_some_and(|times| times == "published") {
        keys.insert("timestamps".to_owned(), "true".to_owned());
    }
    if channel.message_encoding.is_empty() {
        return (keys, unsaid);
    }
    keys.insert("content".to_owned(), channel.message_encoding.clone());
    if let Some(schema) = channel.schema.as_ref().filter(|schema| !schema.name.is_empty()) {
        keys.insert("schema".to_owned(), schema.name.clone());
        if !schema.encoding.is_empty() {
            keys.insert("schema_encoding".to_owned(), schema.encoding.clone());
        }
        match std::str::from_utf8(&schema.data) {
            Ok("") => {}
            Ok(text) if text.len() <= MAX_REQUEST * 3 / 4 => {
                keys.insert("schema_text".to_owned(), text.to_owned());
            }
            Ok(text) => unsaid = Some(left_out(&schema.name, &format!("it has {}", Bytes(text.len() as u64)))),
            Err(_) => unsaid = Some(left_out(&schema.name, "it is no text")),
        }
    }
    (keys, unsaid)
}

fn left_out(schema: &str, why: &str) -> String {
    let schema = printable(schema);
    format!("the schema {schema} cannot be sent to the daemon, because {why}; a new channel declares only its name")
}

/// Makes a channel.
pub(crate) fn create(global: &Global, channel: &ChannelName, keys: &BTreeMap<String, String>) -> Result<()> {
    let request = Request::Create { channel: channel.clone(), keys: keys.clone(), keep: false };
    if encode(&request).is_ok_and(|line| line.len() > MAX_REQUEST) {
        return Err(Failure::Other(format!(
            "channel {channel} cannot be created, because its keys are too long for a request: create it with shmctl create"
        )));
    }
    match global.ask_within(&request, ANSWER) {
        Ok(Done::Create(created)) => {
            note(&format!(
                "{channel}: created, {} (max {}), until the daemon is stopped",
                Bytes(created.capacity),
                Bytes(created.max)
            ));
            Ok(())
        }
        Ok(other) => Err(Failure::Other(format!("control protocol: the daemon answered create with {other:?}"))),
        Err(Failure::Library(e)) if e.refusal() == Some(ErrorKind::BadConfig) => Err(Failure::Other(format!(
            "channel {channel} cannot be created as it was recorded: {e}; create it with shmctl create, or give a value with --set"
        ))),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use mcap::Schema;

    use super::*;

    fn channel(encoding: &str, schema: Option<(&str, &[u8])>) -> Channel<'static> {
        let schema = schema.map(|(name, data)| {
            Arc::new(Schema {
                id: 1,
                name: name.into(),
                encoding: "jsonschema".into(),
                data: Cow::Owned(data.to_vec()),
            })
        });
        let metadata = [("shmd.on_full", "drop"), ("shmd.times", "published"), ("other", "x")];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Channel { id: 1, topic: "imu".into(), schema, message_encoding: encoding.into(), metadata }
    }

    fn shown(channels: &[Channel<'_>]) -> String {
        let (keys, unsaid) = recorded(channels.iter());
        let keys: Vec<String> = keys.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
        keys.join(" ") + &unsaid.unwrap_or_default()
    }

    #[test]
    fn a_new_channel_has_what_all_of_its_topics_say() {
        let imu = channel("json", Some(("Imu", b"{}")));
        let whole = "content=json on_full=drop schema=Imu schema_encoding=jsonschema schema_text={} timestamps=true";
        assert_eq!(shown(std::slice::from_ref(&imu)), whole);
        assert_eq!(shown(&[imu.clone(), imu.clone()]), whole);
        let other = channel("json", Some(("Gps", b"{}")));
        assert_eq!(shown(&[imu.clone(), other]), "content=json on_full=drop timestamps=true");
        assert_eq!(shown(&[imu.clone(), channel("cbor", None)]), "on_full=drop timestamps=true");
        assert_eq!(shown(&[channel("", Some(("Imu", b"{}")))]), "on_full=drop timestamps=true");
        assert_eq!(shown(&[]), "");
    }

    #[test]
    fn a_schema_that_cannot_be_sent_is_named() {
        let large = vec![b'x'; MAX_REQUEST];
        for (data, why) in [(&b"\xff\xfe"[..], "no text"), (&large, "64KiB")] {
            let told = shown(&[channel("protobuf", Some(("Frame", data)))]);
            assert!(told.contains("schema=Frame") && !told.contains("schema_text") && told.contains(why), "{told}");
        }
    }

    #[test]
    fn a_key_has_a_value() {
        assert_eq!("max=64MiB".parse(), Ok(Key("max".into(), "64MiB".into())));
        for text in ["max", "=1", ""] {
            assert!(text.parse::<Key>().unwrap_err().contains("max=64MiB"), "{text}");
        }
    }
}
