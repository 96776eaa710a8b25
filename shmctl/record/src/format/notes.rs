//! What this program notes in a file beside messages: metadata records, whose names begin with `shmd.`. `etc/RECORDING.md`
//! describes them for people who read the files.

use std::collections::BTreeMap;

use mcap::records::Metadata;

/// At the beginning of each file: which program has written it, and which part of the recording it is.
pub(crate) const RECORDING: &str = "shmd.recording";
/// Before the first chunk of each file that has messages of a channel, and whenever the segment changes: how these messages are
/// numbered.
pub(crate) const NUMBERS: &str = "shmd.numbers";
/// Before a chunk: which messages are missing in it.
pub(crate) const LOST: &str = "shmd.lost";
/// What the recorder was told about a channel, for example that it was evicted.
pub(crate) const NOTICE: &str = "shmd.notice";
/// At the end of each file: what has become of a channel.
pub(crate) const CHANNEL: &str = "shmd.channel";
/// At the end of each file: why it ends.
pub(crate) const END: &str = "shmd.end";

/// The version of these notes.
pub(crate) const VERSION: &str = "1";

/// A metadata record.
pub(crate) fn note<'v>(name: &str, facts: impl IntoIterator<Item = (&'v str, String)>) -> Metadata {
    let metadata: BTreeMap<String, String> = facts.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Metadata { name: name.to_owned(), metadata }
}

/// A number that identifies something, as 16 hexadecimal digits.
pub(crate) fn id(number: u64) -> String {
    format!("{number:016x}")
}

/// The first number and the count of each gap: `17+3 25+1`.
pub(crate) fn gaps(gaps: &[(u64, u64)]) -> String {
    gaps.iter().map(|(first, count)| format!("{first}+{count}")).collect::<Vec<_>>().join(" ")
}
