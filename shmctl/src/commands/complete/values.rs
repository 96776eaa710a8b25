//! What may stand as a value: words that are always the same, and what the running daemon knows.

use std::path::Path;
use std::time::Duration;

use clap::{Arg, ValueHint};
use shm_cli::keys::{self, Kind};
use shm_proto::internal::control::stat::Summary;
use shm_proto::{Client, Done, Endpoint, Request};

use super::Answer;
use super::place::Place;
use crate::global::Global;
use crate::human::printable;

/// At the prompt, a longer wait for a list would be worse than no list.
const ANSWER: Duration = Duration::from_secs(1);

/// A word that may stand at the cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) text: String,
    /// What it means, in a few words.
    pub(super) about: String,
}

impl Candidate {
    pub(super) fn new(text: impl Into<String>, about: &str) -> Self {
        Candidate { text: text.into(), about: about.to_owned() }
    }
}

/// Values of options and keys that are words, though they are not all the values.
const WORDS: &[(&str, &[(&str, &str)])] = &[
    (
        "format",
        &[
            ("lines", "the bytes and a newline"),
            ("raw", "the bytes"),
            ("hex", "a line of hexadecimal digits"),
            ("hexdump", "offsets, bytes and text"),
            ("json", "a JSON object per line"),
            ("length", "the length in 4 bytes, and the bytes"),
        ],
    ),
    (
        "framing",
        &[
            ("lines", "a message per line"),
            ("nul", "a zero byte behind each message"),
            ("length", "4 bytes, little-endian, before each message"),
            ("chunk=", "the next SIZE bytes"),
            ("stream", "what has arrived"),
        ],
    ),
    ("wait", &[("adaptive", ""), ("sleep", "the least processor time"), ("spin=", "the least latency")]),
    ("listen", &[("unix:", "a Unix socket"), ("systemd", "the sockets of a socket unit")]),
    (
        "on_full",
        &[
            ("block", "the writer waits"),
            ("drop", "drop the new message"),
            ("overwrite", "overwrite the oldest messages"),
        ],
    ),
    ("mode", &[("ring", ""), ("handoff", "one message at a time")]),
    (
        "source",
        &[
            ("none", "programs write"),
            ("stdin", "standard input"),
            ("fifo:", "a FIFO"),
            ("unix:", "clients of a socket"),
            ("unix-seqpacket:", "packets of clients of a socket"),
            ("exec:", "a program's output"),
            ("tail:", "a file that grows"),
        ],
    ),
    ("log", &[("off", ""), ("error", ""), ("warn", ""), ("info", ""), ("debug", ""), ("trace", "")]),
    ("log_target", &[("stderr", ""), ("syslog", ""), ("file:", "a file")]),
];

/// What may stand as this option's or argument's value.
pub(super) fn of(arg: &Arg, place: &Place<'_>, global: &Global) -> Answer {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let shown = possible.iter().filter(|value| !value.is_hide_set());
        let about =
            |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string).unwrap_or_default();
        return Answer::Words(shown.map(|value| Candidate::new(value.get_name(), &about(value))).collect());
    }
    let id = arg.get_id().as_str();
    match id {
        // A new channel has a name that no channel has.
        "target" if creates(place) => Answer::Words(Vec::new()),
        // The first of two words is the channel, unless it is the only one.
        "channel" | "channels" | "target" | "first" => Answer::Words(channels(place, global)),
        "second" | "reader" if place.command.get_name() == "evict" => Answer::Words(readers(place, global)),
        "set" => Answer::Words(settings(place, global)),
        _ => match (words(id), arg.get_value_hint()) {
            (Some(words), _) => Answer::Words(words),
            (None, ValueHint::DirPath) => Answer::Directories,
            (None, ValueHint::FilePath | ValueHint::AnyPath) => Answer::Files,
            _ => Answer::Words(Vec::new()),
        },
    }
}

fn words(id: &str) -> Option<Vec<Candidate>> {
    let (_, words) = WORDS.iter().find(|(known, _)| *known == id)?;
    Some(words.iter().map(|(word, about)| Candidate::new(*word, about)).collect())
}

/// Asks the daemon that the command would ask. Whatever goes wrong, there is nothing to suggest.
fn ask(place: &Place<'_>, global: &Global, request: &Request) -> Option<Done> {
    let dir = place.given("runtime_dir").map(Path::new).or(global.runtime_dir.as_deref());
    let mut client = Client::connect(&Endpoint::find(dir), ANSWER).ok()?;
    client.set_timeout(ANSWER);
    client.request(request).ok()
}

fn list(place: &Place<'_>, global: &Global) -> Vec<Summary> {
    match ask(place, global, &Request::List) {
        Some(Done::List(channels)) => channels,
        _ => Vec::new(),
    }
}

fn channels(place: &Place<'_>, global: &Global) -> Vec<Candidate> {
    let channels = list(place, global);
    let others = channels.iter().filter(|summary| !place.has_value("channels", summary.channel.as_str()));
    let about = |summary: &Summary| printable(format!("{}, writer: {}", summary.mode, summary.writer));
    others.map(|summary| Candidate::new(summary.channel.as_str(), &about(summary))).collect()
}

/// The numbers of the channel's readers, or of the only channel's.
fn readers(place: &Place<'_>, global: &Global) -> Vec<Candidate> {
    let channel = place.given("channel").or(place.given("first")).and_then(|name| name.parse().ok());
    let channel = channel.or_else(|| global.channel.clone());
    match ask(place, global, &Request::Stat { channel }) {
        Some(Done::Stat(channels)) if channels.len() == 1 => {
            let about = |program: &str, pid: u32| printable(format!("{program}, pid {pid}"));
            let readers = channels[0].readers.iter();
            readers.map(|it| Candidate::new(it.reader.to_string(), &about(&it.program, it.pid))).collect()
        }
        _ => Vec::new(),
    }
}

/// Whether this is a line of `shmctl create`.
fn creates(place: &Place<'_>) -> bool {
    place.command.get_name() == "create"
}

/// `CHANNEL.KEY=VALUE`, or `KEY=VALUE` of a new channel: the keys up to the sign, and then the values that are words.
fn settings(place: &Place<'_>, global: &Global) -> Vec<Candidate> {
    if let Some((setting, _)) = place.typed.split_once('=') {
        let key = setting.rsplit('.').next().unwrap_or_default();
        let key = keys::CHANNEL.iter().find(|known| known.name == key);
        let words = match key {
            Some(key) if key.kind == Kind::Flag => vec![Candidate::new("true", ""), Candidate::new("false", "")],
            Some(key) => words(key.name).unwrap_or_default(),
            None => Vec::new(),
        };
        return words.into_iter().map(|it| Candidate { text: format!("{setting}={}", it.text), ..it }).collect();
    }
    let before = if creates(place) { vec![String::new()] } else { settable(place, global) };
    let keys = |before: &String| {
        let before = before.clone();
        keys::CHANNEL.iter().map(move |key| Candidate::new(format!("{before}{}=", key.name), key.kind.word()))
    };
    before.iter().flat_map(keys).collect()
}

/// What stands before the keys of each channel: the running daemon's, and the one that is named on the line.
fn settable(place: &Place<'_>, global: &Global) -> Vec<String> {
    let mut names: Vec<String> = list(place, global).iter().map(|summary| summary.channel.to_string()).collect();
    names.extend(place.given("name").map(str::to_owned));
    if names.is_empty() {
        names.push("main".to_owned());
    }
    names.into_iter().map(|name| name + ".").collect()
}

#[cfg(test)]
mod tests {
    use clap::Args as _;

    use super::*;

    #[test]
    fn words_are_values_that_are_taken() {
        use shm_proto::internal::framing::Framing;
        let of = |id: &str| words(id).unwrap().into_iter().map(|it| it.text);
        assert!(
            of("framing")
                .all(|it| (it.clone() + if it.ends_with('=') { "1KiB" } else { "" }).parse::<Framing>().is_ok())
        );
        for word in of("format") {
            let read = crate::commands::read::Args::augment_args(clap::Command::new("read"));
            assert!(read.try_get_matches_from(["read", "--format", &word]).is_ok(), "{word}");
        }
        assert!(of("log").all(|it| it.parse::<log::LevelFilter>().is_ok()));
        let mut waits = of("wait").map(|it| it.clone() + if it.ends_with('=') { "50us" } else { "" });
        assert!(waits.all(|it| it.parse::<shm_proto::WaitStrategy>().is_ok()));
        for key in ["on_full", "mode", "source", "framing"] {
            let meaning = keys::CHANNEL.iter().find(|known| known.name == key).unwrap().meaning;
            let listed = |word: &str| meaning.contains(word.trim_end_matches('=')) || key == "source";
            assert!(of(key).all(|word| listed(&word)), "{key}: {meaning}");
        }
    }
}
