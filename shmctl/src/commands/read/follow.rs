//! One attachment after the other, and the loop that empties each.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::ErrorKind;
use shm_proto::internal::handoff;
use shm_proto::internal::handoff::Names;
use shm_proto::{
    Attachment, ChannelName, Endpoint, Error, HandoffError, Message, Reader, ReaderError, RequestError, Start,
};

use super::losses::Losses;
use super::{Args, Format};
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::human::messages;
use crate::output::{Output, has_gone, has_news, wait_for};
use crate::signals::Signals;

/// Between attempts to attach again: first this long, then twice as long each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A daemon that says to wait longer than this is asked again all the same.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// A reader that sleeps shows that often that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why reading ended.
#[derive(Debug)]
pub(super) enum End {
    /// As many messages as were asked for, or a signal.
    Done,
    /// Nothing came for as long as was allowed.
    Silence(Duration),
    /// The attachment ended, or there was none to be had.
    Detached(Error),
}

/// A reading that outlives attachments.
#[derive(Debug)]
pub(super) struct Session {
    endpoint: Endpoint,
    /// Without a daemon: where messages are handed over.
    names: Option<Names>,
    channel: Option<ChannelName>,
    start: Start,
    follow: bool,
    pub(super) left: Option<u64>,
    timeout: Option<Duration>,
    pub(super) format: Format,
    pub(super) signals: Signals,
    pub(super) output: Output,
    scratch: Vec<u8>,
    losses: Losses,
    pub(super) received: u64,
    /// The last attempt to attach succeeded.
    attached: bool,
    /// The lineage of the segment last attached to, and the number of the message to come next there.
    place: Option<(u64, u64)>,
    /// The segment that was found broken last, and where.
    broken: Option<(u64, u64)>,
    /// When the last message came, or the waiting began.
    pub(super) last: Instant,
}

impl Session {
    pub(super) fn new(args: Args, start: Start, global: &Global) -> Result<Self> {
        Ok(Session {
            endpoint: global.endpoint(),
            names: args.objects.names()?,
            channel: global.channel.clone(),
            start,
            follow: args.follow,
            left: args.count,
            timeout: args.timeout,
            format: args.format,
            signals: Signals::catch()?,
            output: Output::stdout()?,
            scratch: Vec::new(),
            losses: Losses::default(),
            received: 0,
            attached: false,
            place: None,
            broken: None,
            last: Instant::now(),
        })
    }

    /// Reads until there is a reason to end.
    pub(super) fn run(mut self) -> Result<()> {
        let result = self.read();
        let flushed = self.output.flush(&self.signals);
        self.losses.tell();
        let (received, lost) = (self.received, self.losses.total());
        if lost > 0 {
            note(&format!("{}, {}", messages(received, "received"), messages(lost, "lost")));
        } else {
            log::info!("{}", messages(received, "received"));
        }
        match (result, flushed) {
            (Ok(()), flushed) => flushed,
            // A closed output ends quietly, whatever else there was to say.
            (Err(_), Err(Failure::OutputClosed)) => Err(Failure::OutputClosed),
            (Err(failure), _) => Err(failure),
        }
    }

    fn read(&mut self) -> Result<()> {
        let mut pause = SHORTEST_PAUSE;
        loop {
            self.attached = false;
            let end = self.attach_and_read()?;
            if self.attached {
                pause = SHORTEST_PAUSE;
            }
            let detached = match end {
                End::Done => return Ok(()),
                End::Silence(waited) => return Err(self.silence(waited)),
                End::Detached(error) => error,
            };
            self.output.flush(&self.signals)?;
            if !(self.follow && self.may_come_back(&detached)) {
                return match detached {
                    Error::Reader(ReaderError::Closed { .. }) | Error::Handoff(HandoffError::Closed { .. }) => Ok(()),
                    error => Err(error.into()),
                };
            }
            let told_to_wait = retry_after(&detached);
            if pause == SHORTEST_PAUSE || told_to_wait.is_some_and(|wait| wait >= LONGEST_PAUSE) {
                note(&format!("{detached}; waiting for it"));
            }
            if let Some(end) = self.pause(told_to_wait.unwrap_or_default().max(pause))? {
                return match end {
                    End::Silence(waited) => Err(self.silence(waited)),
                    _ => Ok(()),
                };
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// Whether attaching again may succeed later.
    fn may_come_back(&self, error: &Error) -> bool {
        match error {
            Error::Request(RequestError::NoDaemon { .. } | RequestError::TimedOut { .. })
            | Error::Reader(
                ReaderError::Disconnected { .. }
                | ReaderError::Closed { .. }
                | ReaderError::Evicted { .. }
                | ReaderError::TimedOut { .. },
            )
            | Error::Handoff(
                HandoffError::Disconnected { .. }
                | HandoffError::Closed { .. }
                | HandoffError::Evicted { .. }
                | HandoffError::TimedOut { .. },
            ) => true,
            Error::Request(RequestError::Refused(refusal)) => match refusal.kind {
                ErrorKind::Busy | ErrorKind::TryLater => true,
                // While a daemon starts; before the first attachment it is more likely to be a misspelt name.
                ErrorKind::NoSuchChannel | ErrorKind::TooMany => self.place.is_some(),
                _ => false,
            },
            _ => false,
        }
    }

    fn silence(&self, waited: Duration) -> Failure {
        let channel = self.channel.as_ref().map(|name| format!(" on channel {name}")).unwrap_or_default();
        let what = format!("a message{channel} ({})", messages(self.received, "received"));
        ReaderError::TimedOut { what, waited }.into()
    }

    fn attach_and_read(&mut self) -> Result<End> {
        if self.left == Some(0) {
            return Ok(End::Done);
        }
        // Whatever is in a segment that was not there before was published while this reading was going on.
        let start = if self.place.is_some() { Start::Oldest } else { self.start };
        if let Some(names) = self.names.clone() {
            self.attached = true;
            return self.take_over(&mut handoff::Reader::new(names));
        }
        let mut reader = match Attachment::open(&self.endpoint, self.channel.as_deref(), start) {
            Ok(Attachment::Ring(reader)) => *reader,
            Ok(Attachment::Handoff(mut reader)) => {
                self.attached = true;
                log::info!("attached to channel {}, handed over through {}", reader.facts().channel, reader.names());
                return self.take_over(&mut *reader);
            }
            Err(error) => return Ok(End::Detached(error)),
        };
        self.attached = true;
        // One segment may follow another under a reader; messages are numbered on.
        let lineage = reader.geometry().lineage;
        match self.place {
            Some((known, next)) if known == lineage => {
                log::info!("attached again to channel {}, going on with message {next}", reader.geometry().channel);
            }
            Some(_) => log::info!("attached to the new segment of channel {}", reader.geometry().channel),
            None => log::info!("attached to channel {}", reader.geometry().channel),
        }
        if self.place.is_none_or(|(known, _)| known != lineage) {
            self.place = Some((lineage, reader.seq()));
        }
        self.drain(&mut reader)
    }

    /// Takes every message and sleeps when there is none.
    fn drain(&mut self, reader: &mut Reader) -> Result<End> {
        loop {
            let before = self.received;
            loop {
                match self.take_next(reader) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error @ ReaderError::Corrupt { .. }) if self.goes_on(reader) => {
                        note(&format!("{error}; messages may be missing; going on when the daemon has replaced it"));
                        break;
                    }
                    Err(error) => return Ok(End::Detached(error.into())),
                }
                if self.left == Some(0) || self.signals.came() {
                    return Ok(End::Done);
                }
                if self.output.is_full() {
                    self.output.flush_some(&self.signals)?;
                }
            }
            self.output.flush_some(&self.signals)?;
            if self.received > before {
                self.last = Instant::now();
            }
            if !self.output.is_empty() {
                continue;
            }
            self.losses.tell();
            match reader.arm() {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => return Ok(End::Detached(error.into())),
            }
            if let Some(end) = self.sleep(reader)? {
                return Ok(end);
            }
        }
    }

    /// Takes the next message, and returns false if no message is there.
    fn take_next(&mut self, reader: &mut Reader) -> Result<bool, ReaderError> {
        let Some(message) = reader.try_recv()? else { return Ok(false) };
        match self.take(message) {
            Ok(()) | Err(ReaderError::Lapped { .. } | ReaderError::Withdrawn { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether a broken segment may be replaced under this reader: not without a daemon, and not if it was just waited for.
    fn goes_on(&mut self, reader: &Reader) -> bool {
        let here = (reader.geometry().instance, reader.seq());
        !reader.is_disconnected() && self.broken.replace(here) != Some(here)
    }

    /// Appends the message to the output, if it was not overwritten meanwhile and is not known from before.
    fn take(&mut self, message: Message<'_>) -> Result<(), ReaderError> {
        let seq = message.seq();
        let next = self.place.map_or(seq, |(_, next)| next);
        if seq < next {
            return message.finish();
        }
        // Overwritten, given up with an attachment, or lapped: whatever it was, it is missing here.
        let lost = (seq - next).saturating_sub(message.skipped_before());
        let before = self.output.buffer().len();
        self.format.append(&message, lost, self.output.buffer(), &mut self.scratch);
        if let Err(error) = message.finish() {
            self.output.buffer().truncate(before);
            return Err(error);
        }
        if lost > 0 {
            self.losses.add(lost, seq);
        }
        if let Some((_, next)) = &mut self.place {
            *next = seq + 1;
        }
        self.received += 1;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    /// Sleeps until the reader, the daemon, a signal or the output has something to tell.
    fn sleep(&mut self, reader: &Reader) -> Result<Option<End>> {
        let mut fds = [
            PollFd::new(self.output.as_fd(), PollFlags::empty()),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(reader.as_fd(), PollFlags::POLLIN),
        ];
        wait_for(&mut fds, self.until_silence().min(HEARTBEAT))?;
        let gone = has_gone(&fds[0]);
        let news = has_news(&fds[2]);
        self.after_wait(gone, news)
    }

    /// Sleeps between two attempts to attach.
    fn pause(&mut self, pause: Duration) -> Result<Option<End>> {
        let end = Instant::now() + pause;
        loop {
            let left = end.saturating_duration_since(Instant::now()).min(self.until_silence());
            let mut fds = [
                PollFd::new(self.output.as_fd(), PollFlags::empty()),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            wait_for(&mut fds, left)?;
            let gone = has_gone(&fds[0]);
            if let Some(end) = self.after_wait(gone, false)? {
                return Ok(Some(end));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
        }
    }

    pub(super) fn after_wait(&self, output_gone: bool, news: bool) -> Result<Option<End>> {
        if output_gone {
            return Err(Failure::OutputClosed);
        }
        if self.signals.came() {
            return Ok(Some(End::Done));
        }
        match self.timeout {
            Some(timeout) if !news && self.until_silence().is_zero() => Ok(Some(End::Silence(timeout))),
            _ => Ok(None),
        }
    }

    pub(super) fn until_silence(&self) -> Duration {
        self.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(self.last.elapsed()))
    }
}

/// How long the daemon says to wait before another attempt.
fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Request(RequestError::Refused(refusal)) => {
            refusal.retry_after_ms.map(|ms| Duration::from_millis(ms).min(LONGEST_WAIT))
        }
        _ => None,
    }
}
