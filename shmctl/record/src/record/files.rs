//! The files of a recording, one after the other, and what has become of each channel.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use mcap::records::{Channel, Metadata, SchemaHeader};
use shmctl::companion::{Failure, Result, human};

use super::chunk::{Event, Numbers, Part, Sealed, channel_id};
use super::content::Description;
use super::file::{OutputFile, Refused};
use super::split::{Names, Split};
use crate::format::contents::Count;
use crate::format::notes::{self, note};

/// A channel, as far as the files go.
#[derive(Debug)]
struct Entry {
    record: Channel,
    schema: Option<(SchemaHeader, Vec<u8>)>,
    numbers: Option<Numbers>,
    /// The present file says how its messages are numbered.
    is_numbered: bool,
    lost: u64,
    /// Messages that were received and are in no file, and the number of the first of them.
    unwritten: Option<Count>,
}

/// Why writing has ended early.
#[derive(Debug)]
struct Broken {
    path: PathBuf,
    error: io::Error,
}

/// The end of a recording.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) files: Vec<PathBuf>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// What failed, and what is missing because of that.
    pub(crate) failed: Option<String>,
}

/// The files of a recording.
#[derive(Debug)]
pub(crate) struct Files {
    names: Names,
    split: Split,
    replace: bool,
    file: Option<OutputFile>,
    part: u32,
    entries: Vec<Entry>,
    broken: Option<Broken>,
    summary: Summary,
}

impl Files {
    /// Begins the first file.
    pub(crate) fn create(names: Names, split: Split, replace: bool) -> Result<Self> {
        if !replace && let Some(path) = names.in_the_way() {
            return Err(Failure::Other(format!(
                "{} is there already; --force replaces it, and another name for --output keeps it",
                path.display()
            )));
        }
        let mut files = Files {
            names,
            split,
            replace,
            file: None,
            part: 0,
            entries: Vec::new(),
            broken: None,
            summary: Summary::default(),
        };
        files.begin().map_err(|broken| Failure::Other(broken.to_string()))?;
        Ok(files)
    }

    /// Where the present file is.
    pub(crate) fn path(&self) -> PathBuf {
        self.names.part(self.part)
    }

    /// Whether writing has failed, so that nothing more is written.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.is_some()
    }

    /// Writes a chunk and what is to come before it. After a failure, counts what is missing.
    pub(crate) fn write(&mut self, sealed: &Sealed) {
        // Before anything can fail: messages are counted by their channels, also if nothing more is written.
        for event in &sealed.events {
            if let Event::Channel { topic, description } = event {
                self.entries.push(Entry::new(self.entries.len(), topic, description));
            }
        }
        if self.broken.is_none() {
            match self.try_write(sealed) {
                Ok(()) => {
                    self.summary.messages += sealed.parts.iter().map(|part| part.messages).sum::<u64>();
                    self.summary.bytes += sealed.parts.iter().map(|part| part.bytes).sum::<u64>();
                    return;
                }
                // The file gets its end when it is known what is missing.
                Err(broken) => self.broken = Some(broken),
            }
        }
        for count in sealed.counts() {
            self.miss(count);
        }
    }

    fn try_write(&mut self, sealed: &Sealed) -> Result<(), Broken> {
        let more = (sealed.buffer.bytes.len() + sealed.indexes.len()) as u64;
        if let Some(file) = &self.file
            && !file.contents.chunks.is_empty()
            && self.split.is_due(file.len, more + file.contents.end_len(), file.age())
        {
            self.end_file("the recording goes on in the next part");
            if let Some(broken) = self.broken.take() {
                return Err(broken);
            }
            self.begin()?;
        }
        let path = self.path();
        self.append(sealed).map_err(|error| Broken { path, error })
    }

    fn append(&mut self, sealed: &Sealed) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        for entry in &self.entries {
            // A new file describes all channels at its beginning.
            if !file.contents.channels.contains_key(&entry.record.id) {
                file.describe(&entry.record, entry.schema.as_ref())?;
            }
        }
        for event in &sealed.events {
            match event {
                Event::Channel { .. } => {}
                Event::Numbers { place, numbers } => {
                    let entry = &mut self.entries[*place];
                    (entry.numbers, entry.is_numbered) = (Some(*numbers), false);
                }
                Event::Notice { topic, time, text } => {
                    let facts = [("channel", topic.clone()), ("time", time.clone()), ("text", text.clone())];
                    file.note(&note(notes::NOTICE, facts))?;
                }
            }
        }
        for (entry, part) in self.entries.iter_mut().zip(&sealed.parts) {
            if part.messages > 0 && !entry.is_numbered {
                if let Some(numbers) = entry.numbers {
                    file.note(&entry.numbers_note(numbers, part.first))?;
                }
                entry.is_numbered = true;
            }
            if !(part.lost.is_empty() && part.skipped.is_empty()) {
                file.note(&entry.lost_note(part))?;
                entry.lost += part.lost.iter().map(|(_, count)| count).sum::<u64>();
            }
        }
        if sealed.counts().is_empty() { Ok(()) } else { file.chunk(sealed) }
    }

    /// Begins the next file.
    fn begin(&mut self) -> Result<(), Broken> {
        self.part += 1;
        let path = self.path();
        let mut file = OutputFile::create(&path, self.replace).map_err(|refused| Broken::of(&path, refused))?;
        let facts = [
            ("version", notes::VERSION.to_owned()),
            ("program", concat!("shmctl-record ", env!("CARGO_PKG_VERSION")).to_owned()),
            ("part", self.part.to_string()),
            ("started", human::utc_ns(SystemTime::now())),
        ];
        let mut result = file.note(&note(notes::RECORDING, facts));
        for entry in &mut self.entries {
            entry.is_numbered = false;
            result = result.and_then(|()| file.describe(&entry.record, entry.schema.as_ref()));
        }
        if let Err(error) = result {
            file.discard();
            return Err(Broken { path, error });
        }
        self.file = Some(file);
        self.summary.files.push(path);
        Ok(())
    }

    /// Ends the present file. What finds no place in it any more is missing.
    fn end_file(&mut self, reason: &str) {
        let Some(mut file) = self.file.take() else { return };
        let finished = file.finish(|contents, dropped| {
            let counts = contents.counts();
            let dropped: Vec<_> = dropped.iter().flat_map(|chunk| &chunk.counts).collect();
            let mut all = Vec::new();
            for entry in &self.entries {
                let id = entry.record.id;
                let gone = dropped.iter().filter(|count| count.channel == id).map(|count| count.messages).sum::<u64>();
                all.push(note(
                    notes::CHANNEL,
                    [
                        ("channel", entry.record.topic.clone()),
                        ("channel_id", id.to_string()),
                        ("messages", counts.get(&id).copied().unwrap_or(0).to_string()),
                        ("lost_so_far", entry.lost.to_string()),
                        ("unwritten", (entry.unwritten.map_or(0, |count| count.messages) + gone).to_string()),
                    ],
                ));
            }
            all.push(note(notes::END, [("reason", reason.to_owned())]));
            all
        });
        for count in finished.dropped.iter().flat_map(|chunk| &chunk.counts) {
            self.summary.messages -= count.messages;
            self.miss(*count);
        }
        let Some(error) = finished.error else { return };
        if !finished.has_end {
            log::warn!("{} has no end: {error}; shmctl record --recover gives it one", file.path.display());
        }
        let broken = Broken { path: file.path, error };
        // The first failure is the one that counts.
        self.broken.get_or_insert(broken);
    }

    fn miss(&mut self, count: Count) {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.record.id == count.channel) else { return };
        let before = entry.unwritten.unwrap_or(Count { messages: 0, ..count });
        let first = before.first.min(count.first);
        entry.unwritten = Some(Count { messages: before.messages + count.messages, first, ..count });
    }

    /// Ends the recording.
    pub(crate) fn finish(mut self, reason: &str) -> Summary {
        let broken = self.broken.as_ref().map(|broken| format!("a write failed: {}", broken.error));
        self.end_file(broken.as_deref().unwrap_or(reason));
        let missing: Vec<_> = self.entries.iter().filter_map(Entry::missing).collect();
        let what = match missing.as_slice() {
            [] => "every message that was received is in the files".to_owned(),
            missing => format!("received, but in no file: {}", missing.join(", ")),
        };
        self.summary.failed = self.broken.map(|broken| format!("{broken}; {what}"));
        self.summary
    }
}

impl Entry {
    fn new(place: usize, topic: &str, description: &Description) -> Self {
        let id = channel_id(place);
        let schema = description.schema.as_ref().map(|schema| {
            let header = SchemaHeader { id, name: schema.name.clone(), encoding: schema.encoding.clone() };
            (header, schema.text.clone())
        });
        let record = Channel {
            id,
            schema_id: if schema.is_some() { id } else { 0 },
            topic: topic.to_owned(),
            message_encoding: description.encoding.clone(),
            metadata: description.facts.clone(),
        };
        Entry { record, schema, numbers: None, is_numbered: false, lost: 0, unwritten: None }
    }

    fn numbers_note(&self, numbers: Numbers, first: u64) -> Metadata {
        note(
            notes::NUMBERS,
            [
                ("channel", self.record.topic.clone()),
                ("channel_id", self.record.id.to_string()),
                ("lineage", notes::id(numbers.lineage)),
                ("instance", notes::id(numbers.instance)),
                ("first_sequence", first.to_string()),
                ("times", if numbers.published { "published" } else { "received" }.to_owned()),
            ],
        )
    }

    fn lost_note(&self, part: &Part) -> Metadata {
        let mut facts = vec![
            ("channel", self.record.topic.clone()),
            ("channel_id", self.record.id.to_string()),
            ("count", part.lost.iter().map(|(_, count)| count).sum::<u64>().to_string()),
            ("lost", notes::gaps(&part.lost)),
        ];
        if !part.skipped.is_empty() {
            facts.push(("skipped", notes::gaps(&part.skipped)));
        }
        note(notes::LOST, facts)
    }

    /// What is in no file, in words.
    fn missing(&self) -> Option<String> {
        let Count { messages, first, .. } = self.unwritten?;
        Some(format!("{} of {}, from number {first} on", human::counted(messages, "message", "s"), self.record.topic))
    }
}

impl Broken {
    fn of(path: &std::path::Path, refused: Refused) -> Self {
        let error = match refused {
            Refused::Io(error) => error,
            Refused::InUse => io::Error::new(io::ErrorKind::ResourceBusy, "another program is writing to it"),
        };
        Broken { path: path.to_owned(), error }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { path, error } = self;
        let path = path.display();
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                write!(f, "no space is left for {path} ({error}); free some, or record to another disk")
            }
            io::ErrorKind::FileTooLarge => {
                write!(
                    f,
                    "{path} may not become larger ({error}); --split makes several files, and `ulimit -f` has the limit"
                )
            }
            io::ErrorKind::AlreadyExists => write!(f, "{path} is there already; --force replaces files"),
            _ => write!(f, "cannot write {path}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use mcap::records::ChunkHeader;
    use shm_test_support::TempDir;

    use super::super::depot::Buffer;
    use super::*;

    #[test]
    fn messages_of_a_channel_that_appears_after_a_failure_are_counted() {
        let dir = TempDir::new();
        let split = Split::new(&[]);
        let mut files = Files::create(Names::new(&dir.join("run.mcap"), &split), split, false).unwrap();
        files.broken = Some(Broken { path: files.path(), error: io::ErrorKind::StorageFull.into() });
        let header = ChunkHeader {
            message_start_time: 0,
            message_end_time: 0,
            uncompressed_size: 0,
            uncompressed_crc: 0,
            compression: String::new(),
            compressed_size: 0,
        };
        let event = Event::Channel { topic: "late".to_owned(), description: Description::default() };
        let mut part = Part::default();
        (part.messages, part.first, part.next) = (3, 5, 8);
        let (events, parts, buffer) = (vec![event], vec![part], Buffer::of(Vec::new()));
        files.write(&Sealed { events, parts, header, buffer, indexes: Vec::new(), index_offsets: Vec::new() });
        let failed = files.finish("").failed.unwrap();
        assert!(failed.ends_with("received, but in no file: 3 messages of late, from number 5 on"), "{failed}");
    }
}
