//! The channels that are read: each has a follower and its own end.

use std::collections::VecDeque;

use shm_proto::{Attachment, ChannelName, Error, Follower, HandoffError, Message, ReaderError};

use super::losses::Losses;
use crate::error::{Failure, Result, note};

/// What a record in a ring takes beside its bytes, at least.
const RECORD: u64 = 16;

/// A message that was copied out of the ring and is not written yet.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) seq: u64,
    pub(super) lost: u64,
    pub(super) published_ns: Option<u64>,
    pub(super) bytes: Vec<u8>,
}

/// With `--last`: the messages that were there at the beginning pass by, and the last of them are kept.
#[derive(Debug)]
struct Last {
    most: usize,
    /// Bytes of the ring that have passed by. When they are as many as the ring can hold, all messages that were there at the
    /// beginning are among them, however fast the writer is.
    passed: u64,
}

/// A channel that is read.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) follower: Follower,
    name: Option<ChannelName>,
    last: Option<Last>,
    kept: VecDeque<Kept>,
    pub(super) losses: Losses,
    /// Losses that were to be reported with a message that could not be received in the end.
    pub(super) unreported: u64,
    /// Losses that were reported, before messages that are not written.
    pub(super) unwritten: u64,
    has_begun: bool,
    has_ended: bool,
}

impl Stream {
    pub(super) fn new(follower: Follower, name: Option<ChannelName>, last: Option<usize>) -> Self {
        Stream {
            follower,
            name,
            last: last.map(|most| Last { most, passed: 0 }),
            kept: VecDeque::new(),
            losses: Losses::default(),
            unreported: 0,
            unwritten: 0,
            has_begun: false,
            has_ended: false,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        !self.has_ended
    }

    /// The channel's name, as far as it is known.
    fn label(&self) -> String {
        self.name.as_ref().map_or_else(|| "main".to_owned(), ToString::to_string)
    }

    /// The name of the channel that is attached, or was.
    pub(super) fn channel(&mut self) -> String {
        match self.follower.attachment() {
            Ok(Some(Attachment::Ring(reader))) => reader.geometry().channel.to_string(),
            _ => self.label(),
        }
    }

    /// Attaches if it is time to. One of several channels has to be a ring: a handoff channel's reader waits for its message.
    fn attach(&mut self) -> Result<()> {
        match self.follower.attachment()? {
            Some(Attachment::Handoff(reader)) => Err(Failure::Other(format!(
                "channel {0}: it hands one message over at a time, and cannot be read together with other channels; read it \
                 by itself: shmctl read {0}",
                reader.facts().channel
            ))),
            attachment => {
                self.has_begun |= attachment.is_some();
                Ok(())
            }
        }
    }

    /// The oldest message that was kept, when it is time to write it.
    pub(super) fn take_kept(&mut self) -> Option<Kept> {
        if self.last.is_some() { None } else { self.kept.pop_front() }
    }

    /// Whether the messages that were there at the beginning are passing by.
    pub(super) fn is_passing(&self) -> bool {
        self.last.is_some()
    }

    /// Takes the next message that was there at the beginning and keeps it, if it `fits`. False: there is no attachment yet. If
    /// the attachment ends, the messages that were kept are written at once. An error comes again with the next attempt to receive.
    pub(super) fn pass(&mut self, fits: impl Fn(&[u8]) -> bool) -> Result<bool> {
        match self.pass_next(fits) {
            Err(_) if !self.kept.is_empty() => {
                self.last = None;
                Ok(true)
            }
            passed => passed,
        }
    }

    fn pass_next(&mut self, fits: impl Fn(&[u8]) -> bool) -> Result<bool> {
        let Some(last) = &mut self.last else { return Ok(false) };
        let Some(message) = next_of(&mut self.follower)? else {
            // Without an attachment there may be no more for a long time.
            let is_all = self.follower.is_attached() || !self.kept.is_empty();
            if is_all {
                self.last = None;
            }
            return Ok(is_all);
        };
        let (seq, lost, most) = (message.seq(), self.unreported + message.lost_before(), last.most);
        last.passed += message.len() as u64 + RECORD;
        let published_ns = message.published_ns();
        let is_all = last.passed >= message.reader().geometry().max_capacity;
        let mut bytes = Vec::new();
        message.copy_to_vec(&mut bytes);
        if let Err(error) = message.finish() {
            self.unreported = lost;
            self.follower.go_on_after(error)?;
            return Ok(self.follower.is_attached());
        }
        if is_all {
            self.last = None;
        }
        self.unreported = if fits(&bytes) {
            self.kept.push_back(Kept { seq, lost, published_ns, bytes });
            0
        } else {
            lost
        };
        if self.kept.len() > most {
            self.kept.pop_front();
        }
        // Nothing is missing before the first message that is written.
        match self.kept.front_mut() {
            Some(first) => first.lost = 0,
            None => self.unreported = 0,
        }
        Ok(true)
    }
}

/// All channels that are read, in the order of the command line.
#[derive(Debug)]
pub(super) struct Streams {
    all: Vec<Stream>,
    /// The channel whose turn it is.
    turn: usize,
    /// Why the first channel that failed has ended, while others go on.
    failure: Option<Failure>,
}

impl Streams {
    pub(super) fn new(mut all: Vec<Stream>) -> Self {
        if all.len() > 1 {
            for stream in &mut all {
                stream.losses = Losses::labelled(format!("channel {}: ", stream.label()));
            }
        }
        Streams { all, turn: 0, failure: None }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The only channel, if there is only one.
    pub(super) fn only(&mut self) -> Option<&mut Stream> {
        match self.all.as_mut_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// The next channel in turn, whether it is open or not.
    pub(super) fn next(&mut self) -> usize {
        let turn = self.turn;
        self.turn = (turn + 1) % self.all.len();
        turn
    }

    pub(super) fn at(&mut self, index: usize) -> &mut Stream {
        &mut self.all[index]
    }

    /// The channels that have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = &Stream> {
        self.all.iter().filter(|stream| stream.is_open())
    }

    /// Calls `each` for every channel that has not ended. A channel for which it fails has ended.
    pub(super) fn for_each_open(&mut self, mut each: impl FnMut(&mut Stream) -> Result<()>) -> Result<()> {
        for index in 0..self.all.len() {
            let stream = &mut self.all[index];
            if stream.is_open()
                && let Err(failure) = each(stream)
            {
                self.end(index, failure)?;
            }
        }
        Ok(())
    }

    /// Attaches what is to be attached.
    pub(super) fn attach(&mut self) -> Result<()> {
        self.for_each_open(Stream::attach)
    }

    /// Decides about the failure of one of several channels: the others go on if it has ended, and has begun before.
    ///
    /// # Errors
    /// What ends the command: the failure itself, or of the channels that have ended the first failure.
    pub(super) fn end(&mut self, index: usize, failure: Failure) -> Result<()> {
        let is_end = matches!(failure, Failure::Library(Error::Reader(_)));
        if self.all.len() == 1 || !is_end || !self.all[index].has_begun {
            return Err(failure);
        }
        self.all[index].has_ended = true;
        let others: Vec<_> = self.open().map(Stream::label).collect();
        if others.is_empty() {
            return Err(self.failure.take().unwrap_or(failure));
        }
        note(&format!("{failure}; going on with {}", others.join(", ")));
        if !is_closed(&failure) {
            self.failure.get_or_insert(failure);
        }
        Ok(())
    }

    /// Reports losses that were not reported yet.
    pub(super) fn tell_losses(&mut self) {
        self.all.iter_mut().for_each(|stream| stream.losses.tell());
    }

    /// All lost messages.
    pub(super) fn lost(&self) -> u64 {
        self.all.iter().map(|stream| stream.losses.total()).sum()
    }
}

/// The next message, if there is one. A channel that was attached just now may hand its messages over: then there is none here,
/// and the next attachment that is looked at is that of a handoff.
pub(super) fn next_of(follower: &mut Follower) -> Result<Option<Message<'_>>> {
    none_in_handoff(follower.try_recv())
}

fn none_in_handoff<M>(received: Result<Option<M>, Error>) -> Result<Option<M>> {
    match received {
        Err(Error::IsHandoff { .. }) => Ok(None),
        received => Ok(received?),
    }
}

/// Whether this is the regular end of a channel.
pub(super) fn is_closed(failure: &Failure) -> bool {
    matches!(
        failure,
        Failure::Library(Error::Reader(ReaderError::Closed { .. }) | Error::Handoff(HandoffError::Closed { .. }))
    )
}

#[cfg(test)]
mod tests {
    use shm_proto::{Endpoint, Start};

    use super::*;

    fn streams(names: &[&str]) -> Streams {
        let endpoint = Endpoint::in_dir("/nowhere".as_ref());
        let stream = |name: &&str| {
            let follower = Follower::new(endpoint.clone(), Some(name), Start::New).unwrap();
            Stream { has_begun: true, ..Stream::new(follower, Some(name.parse().unwrap()), None) }
        };
        Streams::new(names.iter().map(stream).collect())
    }

    fn closed(channel: &str) -> Failure {
        ReaderError::Closed { channel: channel.to_owned() }.into()
    }

    fn evicted(channel: &str) -> Failure {
        ReaderError::Evicted { channel: channel.to_owned(), reason: "slow".to_owned() }.into()
    }

    #[test]
    fn a_channel_that_ends_ends_only_itself_until_it_is_the_last() {
        let mut both = streams(&["cam", "imu"]);
        both.end(0, closed("cam")).unwrap();
        assert_eq!(both.open().map(Stream::label).collect::<Vec<_>>(), ["imu"]);
        assert!(is_closed(&both.end(1, closed("imu")).unwrap_err()));
    }

    #[test]
    fn the_first_failure_is_that_of_the_command() {
        let mut three = streams(&["cam", "imu", "gps"]);
        three.end(1, closed("imu")).unwrap();
        three.end(0, evicted("cam")).unwrap();
        assert!(three.end(2, closed("gps")).unwrap_err().to_string().contains("cam"));
    }

    #[test]
    fn a_mistake_ends_everything_at_once() {
        let mut both = streams(&["cam", "imu"]);
        both.at(1).has_begun = false;
        assert!(both.end(1, evicted("imu")).is_err());
        assert!(matches!(both.end(0, Failure::OutputClosed), Err(Failure::OutputClosed)));
        assert!(streams(&["cam"]).end(0, closed("cam")).is_err());
    }

    #[test]
    fn what_was_kept_is_written_when_the_attachment_ends() {
        for once in [true, false] {
            let follower = Follower::new(Endpoint::in_dir("/nowhere".as_ref()), Some("cam"), Start::Oldest).unwrap();
            let follower = if once { follower.once() } else { follower };
            let mut stream = Stream::new(follower, None, Some(2));
            assert!(!stream.pass(|_| true).unwrap_or(false) && stream.is_passing(), "there is nothing to be written");
            stream.kept.push_back(Kept { seq: 7, lost: 0, published_ns: None, bytes: b"seven".to_vec() });
            assert!(stream.pass(|_| true).unwrap());
            assert_eq!(stream.take_kept().unwrap().bytes, b"seven");
            assert_eq!(stream.follower.try_recv().is_err(), once);
        }
    }

    #[test]
    fn a_handoff_that_is_attached_while_messages_are_looked_for_is_no_failure() {
        let handoff = Error::IsHandoff { channel: "cam".to_owned(), objects: "/cam".to_owned() };
        assert!(none_in_handoff::<()>(Err(handoff)).unwrap().is_none());
        let closed = Error::Reader(ReaderError::Closed { channel: "cam".to_owned() });
        assert!(none_in_handoff::<()>(Err(closed)).is_err());
        assert!(none_in_handoff(Ok(Some(1))).unwrap() == Some(1));
    }

    #[test]
    fn every_channel_has_its_turn() {
        let mut three = streams(&["cam", "imu", "gps"]);
        assert_eq!([0; 4].map(|_| three.next()), [0, 1, 2, 0]);
    }
}
