//! `--recover`: gives a recording that was interrupted its end.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs::File;
use std::io;
use std::path::Path;

use mcap::records::{Record, op};
use mcap::{MAGIC, parse_record};
use shm_proto::Bytes;
use shmctl::companion::human::{bytes_in_words, counted};
use shmctl::companion::{Failure, Result, note};

use super::file::{OutputFile, Refused};
use crate::format::contents::Contents;
use crate::format::encode::{ENTRY, append_index_entry, append_message_index};
use crate::format::input::{Input, Unreadable};
use crate::format::memory::Memory;
use crate::format::notes::{self, note as metadata};
use crate::format::scan::{Found, Indexes, Next, Scan, is_chunk_head};

/// What can be read of a file.
#[derive(Debug, Default)]
struct Survey {
    contents: Contents,
    /// Where the whole part ends.
    len: u64,
    /// The indexes of the last chunk that are not in the file.
    pending: Indexes,
    /// What is wrong in the middle of the file, with whole chunks behind it.
    damage: Option<String>,
    /// What was left out because it needs too much memory.
    too_large: Option<String>,
}

/// Repairs `path`, or writes what can be read of it to `output`.
pub(crate) fn run(path: &Path, output: Option<&Path>, replace: bool, memory: Bytes) -> Result<()> {
    let memory = Memory::new(memory);
    match (Input::open(path, memory), output) {
        (Ok(_) | Err(Unreadable::Unindexed(_)), None) => {
            note(&format!("{} has its end: there is nothing to repair", path.display()));
            return Ok(());
        }
        (Err(Unreadable::Io(error)), _) => return Err(failed(path, &error)),
        // It may have its end.
        (Err(Unreadable::Large(why)), None) => return Err(failed(path, &why)),
        (Err(Unreadable::Foreign(why)), _) => {
            return Err(failed(path, &format!("{why}; only MCAP files can be recovered")));
        }
        _ => {}
    }
    match output {
        None => repair(path, memory),
        Some(output) => copy(path, output, replace, memory),
    }
}

fn repair(path: &Path, memory: Memory) -> Result<()> {
    let mut file = OutputFile::repair(path).map_err(|refused| refusal(path, refused))?;
    let survey = survey(file.file(), memory, &mut |found| Ok(found.at), None).map_err(|e| failed(path, &e))?;
    if let Some(why) = survey.too_large {
        let shown = path.display();
        let way_out =
            format!("write what else can be read to a new file: shmctl record --recover {shown} --output NEW");
        return Err(failed(path, &format!("{why}; or {way_out}")));
    }
    if let Some(damage) = survey.damage {
        return Err(Failure::Other(format!(
            "{0}: {damage}, and there are whole chunks behind that place; to keep them, write what can be read to a new file: \
             shmctl record --recover {0} --output NEW",
            path.display()
        )));
    }
    let cut = file.len - survey.len;
    file.cut(survey.len).map_err(|e| failed(path, &e))?;
    let told = finish(&mut file, survey).map_err(|e| failed(path, &e))?;
    note(&format!("{}: recovered {told}; cut off {} that were incomplete", path.display(), bytes_in_words(cut)));
    Ok(())
}

fn copy(path: &Path, output: &Path, replace: bool, memory: Memory) -> Result<()> {
    let source = OutputFile::repair(path).map_err(|refused| refusal(path, refused))?;
    let file = OutputFile::create(output, replace).map_err(|refused| refusal(output, refused))?;
    let file = RefCell::new(file);
    // The header comes from the source.
    file.borrow_mut().cut(MAGIC.len() as u64).map_err(|e| failed(output, &e))?;
    let next = &mut |_: &Found| Ok(file.borrow().len);
    let keep = &mut |found: &Found| file.borrow_mut().append(&found.bytes).map(drop);
    let survey = survey(source.file(), memory, next, Some(keep)).map_err(|e| failed(output, &e))?;
    let mut file = file.into_inner();
    let left_out = survey.too_large.as_ref().map(|why| format!("left out what is too large: {why}"));
    let damage: String = survey.damage.iter().chain(&left_out).map(|why| format!("; {why}")).collect();
    let told = finish(&mut file, survey).map_err(|e| failed(output, &e))?;
    note(&format!("{}: recovered {told} from {}{damage}", output.display(), path.display()));
    Ok(())
}

/// Where a record lies in the file that is to be ended.
type Place<'a> = &'a mut dyn FnMut(&Found) -> io::Result<u64>;
/// What is done with a record that is whole. `None`: it stays where it is.
type Keep<'a> = Option<&'a mut dyn FnMut(&Found) -> io::Result<()>>;

/// Reads every record.
fn survey(source: &File, memory: Memory, place: Place<'_>, mut keep: Keep<'_>) -> io::Result<Survey> {
    let mut survey = Survey::default();
    let Some(mut scan) = Scan::new(source, memory)? else { return Ok(survey) };
    let (mut has_header, mut wrong) = (false, None);
    // Where records lie that follow a damaged one. They count only if a whole chunk behind them shows that the file goes on.
    let mut held = Vec::new();
    loop {
        let at = scan.at;
        // The end is made in memory, too.
        let weight = survey.contents.weight.saturating_mul(2).saturating_add((2 * size_of_val(&held[..])) as u64);
        memory.check("what its end has to mention", weight).map_err(io::Error::other)?;
        scan.memory = memory.with(weight);
        let found = match scan.next()? {
            Next::Record(found) if !matches!(found.kind(), op::DATA_END | op::FOOTER) => found,
            // Behind the end of the recording there is no chunk. If there is one, this place is damaged.
            _ if scan.seek_chunk(at)? => {
                wrong.get_or_insert_with(|| format!("the record at byte {at} is damaged"));
                continue;
            }
            _ => break,
        };
        match found.kind() {
            // A copy gets indexes that are calculated, and the chunk of this one may be the damaged one.
            op::MESSAGE_INDEX if wrong.is_some() || keep.is_some() => {
                // If its length is wrong, chunks may be in it.
                if parse_record(op::MESSAGE_INDEX, found.body()).is_err() && scan.seek_chunk(at + 1)? {
                    wrong.get_or_insert_with(|| format!("the record at byte {at} is damaged"));
                }
                continue;
            }
            _ => {}
        }
        has_header |= found.kind() == op::HEADER;
        if wrong.is_some() {
            if found.kind() != op::CHUNK {
                held.push(found.at);
                continue;
            }
            if Contents::default().add(&found, found.at).is_err() {
                if !is_chunk_head(&found.bytes) {
                    scan.seek_chunk(at + 1)?;
                }
                continue;
            }
            survey.damage = survey.damage.or(wrong.take());
            let behind = scan.at;
            for at in held.drain(..) {
                scan.at = at;
                if let Next::Record(earlier) = scan.next()? {
                    // One that is damaged itself is left out.
                    let _ = survey.take(&earlier, place, &mut keep)?;
                }
            }
            scan.at = behind;
        }
        if let Err(why) = survey.take(&found, place, &mut keep)? {
            wrong = Some(format!("the record at byte {} is damaged: {why}", found.at));
            // If its length may be wrong, too, the next records may be in it.
            if !is_chunk_head(&found.bytes) {
                scan.seek_chunk(at + 1)?;
            }
        }
    }
    survey.too_large = scan.too_large;
    if !has_header {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it ends before its first record"));
    }
    Ok(survey)
}

impl Survey {
    /// Adds a record if it is whole, or returns what is wrong with it.
    fn take(&mut self, found: &Found, place: Place<'_>, keep: &mut Keep<'_>) -> io::Result<Result<(), String>> {
        let at = place(found)?;
        if !self.is_index_right(found) {
            return Ok(Err("it does not have the messages of its chunk".to_owned()));
        }
        let indexes = match self.contents.add(found, at) {
            Ok(indexes) => indexes,
            Err(why) => return Ok(Err(why)),
        };
        self.len = found.at + found.bytes.len() as u64;
        let Some(keep) = keep else {
            self.remember(found, indexes);
            return Ok(Ok(()));
        };
        keep(found)?;
        for (channel, entries) in indexes.into_iter().flatten() {
            let mut index = Found { at: found.at, bytes: Vec::new() };
            append_message_index(&mut index.bytes, channel, &entries);
            let at = place(&index)?;
            keep(&index)?;
            self.contents.add(&index, at).map_err(io::Error::other)?;
        }
        Ok(Ok(()))
    }

    /// Whether an index has the messages that its channel has in the last chunk, in any order. Readers do not look into a chunk
    /// that has no messages for them by its indexes. Other records are right.
    fn is_index_right(&self, found: &Found) -> bool {
        if found.kind() != op::MESSAGE_INDEX {
            return true;
        }
        // What cannot be read is found when it is added.
        let Ok(Record::MessageIndex(index)) = parse_record(op::MESSAGE_INDEX, found.body()) else { return true };
        let pending = self.pending.iter().find(|(channel, _)| *channel == index.channel_id);
        let mut wanted: Vec<_> = pending.iter().flat_map(|(_, entries)| entries.chunks_exact(ENTRY)).collect();
        let mut there = Vec::new();
        index.records.iter().for_each(|entry| append_index_entry(&mut there, entry.log_time, entry.offset));
        let mut there: Vec<_> = there.chunks_exact(ENTRY).collect();
        wanted.sort_unstable();
        there.sort_unstable();
        wanted == there
    }

    /// Keeps track of the last chunk's indexes.
    fn remember(&mut self, found: &Found, indexes: Option<Indexes>) {
        match (found.kind(), indexes) {
            (_, Some(indexes)) => self.pending = indexes,
            (op::MESSAGE_INDEX, _) => {
                let there = self.contents.chunks.last().map(|chunk| &chunk.index.message_index_offsets);
                self.pending.retain(|(channel, _)| there.is_none_or(|there| !there.contains_key(channel)));
            }
            // A chunk that has none, because its writer writes none.
            _ => self.pending.clear(),
        }
    }
}

/// Appends the indexes that are missing and the end, or nothing: no chunk makes way for them. Returns what is in the file, in words.
fn finish(file: &mut OutputFile, survey: Survey) -> io::Result<String> {
    let len = file.len;
    let finished = append_rest(file, survey);
    if finished.is_err() {
        let _ = file.cut(len);
    }
    finished?;
    let (messages, chunks) = (file.contents.messages(), file.contents.chunks.len() as u64);
    Ok(format!("{} in {}", counted(messages, "message", "s"), counted(chunks, "chunk", "s")))
}

fn append_rest(file: &mut OutputFile, survey: Survey) -> io::Result<()> {
    let Survey { mut contents, pending, .. } = survey;
    for (channel, entries) in pending {
        let mut bytes = Vec::new();
        append_message_index(&mut bytes, channel, &entries);
        let at = file.append(&bytes)?;
        if let Some(chunk) = contents.chunks.last_mut() {
            chunk.index.message_index_offsets.insert(channel, at);
            chunk.index.message_index_length += bytes.len() as u64;
        }
    }
    file.contents = contents;
    file.append_end(&[metadata(notes::END, [("reason", "recovered".to_owned())])])
}

fn failed(path: &Path, why: &dyn Display) -> Failure {
    Failure::Other(format!("cannot recover {}: {why}", path.display()))
}

fn refusal(path: &Path, refused: Refused) -> Failure {
    match refused {
        Refused::InUse => failed(path, &"another program is writing to it; wait for its end"),
        Refused::Io(error) => failed(path, &error),
    }
}
