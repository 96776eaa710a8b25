//! The loop that reads from one attachment after the other.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::os::clock;
use shm_proto::{Attachment, ChannelName, Message, ReaderError};

use super::Args;
use super::about::About;
use super::format::Printer;
use super::pace::Pace;
use super::stream::{Kept, Stream, Streams, is_closed, next_of};
use crate::error::{Failure, Result, note};
use crate::human::messages;
use crate::output::{Output, has_gone, has_news, wait_for};
use crate::signals::Signals;

/// How often a sleeping reader shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why reading ended.
#[derive(Debug)]
pub(super) enum End {
    /// As many messages as were asked for, all that are there, or a signal.
    Done,
    /// No message arrived within the timeout.
    Silence(Duration),
}

/// How messages are read and where they go.
#[derive(Debug)]
pub(super) struct Session {
    channels: Vec<ChannelName>,
    pub(super) left: Option<u64>,
    timeout: Option<Duration>,
    pub(super) until_empty: bool,
    printer: Printer,
    grep: Option<Vec<u8>>,
    /// Older messages are not written, by the monotonic clock.
    pub(super) since_ns: Option<u64>,
    pace: Option<Pace>,
    pub(super) signals: Signals,
    pub(super) output: Output,
    scratch: Vec<u8>,
    pub(super) received: u64,
    /// When the last message was written, or the waiting began.
    pub(super) last: Instant,
}

impl Session {
    pub(super) fn new(args: &Args, channels: &[ChannelName]) -> Result<Self> {
        Ok(Session {
            channels: channels.to_vec(),
            left: args.count,
            timeout: args.timeout,
            until_empty: args.until_empty,
            printer: Printer::new(args.format.clone(), channels.len() > 1)?,
            grep: args.grep.as_ref().map(|text| text.as_bytes().to_vec()),
            since_ns: args
                .since
                .map(|since| clock::monotonic_ns().saturating_sub(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))),
            pace: args.rate.map(Pace::per_second),
            signals: Signals::catch()?,
            output: Output::stdout()?,
            scratch: Vec::new(),
            received: 0,
            last: Instant::now(),
        })
    }

    /// Calls `read` until there is a reason to end.
    pub(super) fn run<S>(
        mut self,
        source: &mut S,
        mut read: impl FnMut(&mut Self, &mut S) -> Result<Option<End>>,
        losses: impl FnOnce(&mut S) -> u64,
    ) -> Result<()> {
        let result = loop {
            if self.left == Some(0) {
                break Ok(());
            }
            match read(&mut self, source) {
                Ok(None) => {}
                Ok(Some(End::Done)) => break Ok(()),
                Err(failure) if is_closed(&failure) => break Ok(()),
                Ok(Some(End::Silence(waited))) => break Err(self.silence(waited)),
                Err(failure) => break Err(failure),
            }
        };
        let flushed = self.output.flush(&self.signals);
        let (received, lost) = (self.received, losses(source));
        if lost > 0 {
            note(&format!("{}, {}", messages(received, "received"), messages(lost, "lost")));
        } else {
            log::info!("{}", messages(received, "received"));
        }
        match (result, flushed) {
            (Ok(()), flushed) => flushed.map(drop),
            // A closed output ends the command without a message.
            (Err(_), Err(Failure::OutputClosed)) => Err(Failure::OutputClosed),
            (Err(failure), _) => Err(failure),
        }
    }

    /// Takes every message, and sleeps if there is none.
    pub(super) fn follow(&mut self, streams: &mut Streams) -> Result<Option<End>> {
        match streams.only() {
            None => streams.attach()?,
            Some(stream) => {
                if let Some(Attachment::Handoff(reader)) = stream.follower.attachment()? {
                    match self.take_over(&mut **reader) {
                        Err(Failure::Library(error)) => stream.follower.go_on_after(error)?,
                        end => return end,
                    }
                }
            }
        }
        if self.drain(streams)? {
            return Ok(Some(End::Done));
        }
        let is_attached = streams.open().any(|stream| stream.follower.is_attached());
        if !is_attached {
            self.output.flush(&self.signals)?;
        }
        streams.for_each_open(|stream| {
            stream.follower.notice().iter().for_each(|notice| note(&notice.to_string()));
            Ok(())
        })?;
        if is_attached {
            if !self.output.is_empty() {
                return Ok(None);
            }
            streams.tell_losses();
        }
        let (mut armed, mut all_attached) = (true, true);
        streams.for_each_open(|stream| {
            armed &= stream.follower.arm()?;
            all_attached &= stream.follower.is_attached();
            Ok(())
        })?;
        let pause = self.pause();
        if !pause.is_zero() {
            return self.rest(pause);
        }
        if !armed {
            // Messages that are not written do not count.
            return self.after_wait(false, self.is_unfiltered());
        }
        if self.until_empty && all_attached {
            return Ok(Some(End::Done));
        }
        let fds: Vec<_> =
            streams.open().map(|stream| (stream.follower.as_fd(), stream.follower.is_attached())).collect();
        self.sleep(&fds, HEARTBEAT)
    }

    /// Takes every message that is there, from each channel in turn. Returns whether that is enough.
    fn drain(&mut self, streams: &mut Streams) -> Result<bool> {
        let (before, mut idle) = (self.received, 0);
        while idle < streams.len() {
            if !self.pause().is_zero() {
                break;
            }
            let index = streams.next();
            let took = if streams.at(index).is_open() { self.take_next(streams.at(index)) } else { Ok(false) };
            match took {
                Ok(true) => idle = 0,
                Ok(false) => idle += 1,
                Err(failure) => streams.end(index, failure)?,
            }
            if self.left == Some(0) || self.signals.came() {
                return Ok(true);
            }
            if self.output.is_full() {
                self.output.flush_some(&self.signals)?;
            }
        }
        self.output.flush_some(&self.signals)?;
        if self.received > before {
            self.last = Instant::now();
        }
        Ok(false)
    }

    /// Takes the next message, and returns false if no message is there.
    fn take_next(&mut self, stream: &mut Stream) -> Result<bool> {
        if stream.is_passing() {
            return stream.pass(|bytes| contains(bytes, self.grep.as_deref()));
        }
        if let Some(kept) = stream.take_kept() {
            return self.write_kept(stream, &kept).map(|()| true);
        }
        let Stream { follower, losses, unreported, unwritten, .. } = stream;
        let Some(message) = next_of(follower)? else { return Ok(false) };
        // Overwritten, lapped, or lost with its attachment: the message is missing here.
        let lost = *unreported + message.lost_before();
        let seq = message.seq();
        match self.take(message, lost + *unwritten)? {
            Ok(is_written) => {
                *unreported = 0;
                *unwritten = if is_written { 0 } else { *unwritten + lost };
                if lost > 0 {
                    losses.add(lost, seq);
                }
            }
            Err(error) => {
                *unreported = lost;
                follower.go_on_after(error)?;
                return Ok(follower.is_attached());
            }
        }
        Ok(true)
    }

    /// Appends the message to the output, if it was not overwritten during the copy, and returns whether it was to be written.
    fn take(&mut self, message: Message<'_>, lost: u64) -> Result<Result<bool, ReaderError>> {
        let published_ns = message.published_ns();
        let channel = message.reader().geometry().channel.as_str();
        let about = About { channel, seq: message.seq(), lost, published_ns };
        let is_recent = self.is_recent(&about)?;
        if let Some(obstacle) = self.printer.obstacle(&about, message.len()) {
            return Err(Failure::Other(obstacle));
        }
        let before = self.output.buffer().len();
        let is_written = match &self.grep {
            _ if !is_recent => false,
            None => {
                self.printer.append(&about, &message, self.output.buffer(), &mut self.scratch);
                true
            }
            Some(text) => {
                message.copy_to_vec(&mut self.scratch);
                let is_written = contains(&self.scratch, Some(text));
                if is_written {
                    self.printer.append_bytes(&about, &self.scratch, self.output.buffer());
                }
                is_written
            }
        };
        if let Err(error) = message.finish() {
            self.output.buffer().truncate(before);
            return Ok(Err(error));
        }
        if is_written {
            self.count();
        }
        Ok(Ok(is_written))
    }

    /// Whether the message is as new as `--since` wants it.
    fn is_recent(&self, about: &About<'_>) -> Result<bool> {
        match (self.since_ns, about.published_ns) {
            (None, _) => Ok(true),
            (Some(since), Some(published)) => Ok(published >= since),
            (Some(_), None) => Err(Failure::Other(format!(
                "channel {}: its messages have no publish times, which --since needs; set timestamps = true for the channel and \
                 restart the daemon, or use --last",
                about.channel
            ))),
        }
    }

    fn write_kept(&mut self, stream: &mut Stream, kept: &Kept) -> Result<()> {
        let channel = stream.channel();
        let Kept { seq, lost, published_ns, .. } = *kept;
        let about = About { channel: &channel, seq, lost, published_ns };
        if let Some(obstacle) = self.printer.obstacle(&about, kept.bytes.len()) {
            return Err(Failure::Other(obstacle));
        }
        self.printer.append_bytes(&about, &kept.bytes, self.output.buffer());
        if kept.lost > 0 {
            stream.losses.add(kept.lost, kept.seq);
        }
        self.count();
        Ok(())
    }

    /// Appends a message that was handed over, unless it is not to be written.
    pub(super) fn take_handed_over(&mut self, channel: &str, bytes: &[u8]) -> Result<()> {
        let about = About { channel, seq: self.received, lost: 0, published_ns: None };
        if !contains(bytes, self.grep.as_deref()) {
            return Ok(());
        }
        if let Some(obstacle) = self.printer.obstacle(&about, bytes.len()) {
            return Err(Failure::Other(obstacle));
        }
        self.printer.append_bytes(&about, bytes, self.output.buffer());
        self.count();
        Ok(())
    }

    /// A message is in the output.
    fn count(&mut self) {
        self.received += 1;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        if let Some(pace) = &mut self.pace {
            pace.written(Instant::now());
        }
    }

    /// Whether every message is written.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.grep.is_none() && self.since_ns.is_none()
    }

    /// The time until another message may be written.
    pub(super) fn pause(&self) -> Duration {
        self.pace.as_ref().map_or(Duration::ZERO, |pace| pace.left(Instant::now()))
    }

    /// Waits for a part of the pause. That is no silence of the channel.
    pub(super) fn rest(&mut self, pause: Duration) -> Result<Option<End>> {
        let mut fds = [
            PollFd::new(self.output.as_fd(), PollFlags::empty()),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        wait_for(&mut fds, pause.min(HEARTBEAT))?;
        let gone = has_gone(&fds[0]);
        self.last = Instant::now();
        self.after_wait(gone, true)
    }

    /// Sleeps until a follower, a signal or the output has something to tell, but no longer than `most`. The flag says whether
    /// news of a follower may be a message.
    pub(super) fn sleep(&mut self, followers: &[(BorrowedFd<'_>, bool)], most: Duration) -> Result<Option<End>> {
        let mut fds = vec![
            PollFd::new(self.output.as_fd(), PollFlags::empty()),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(followers.iter().map(|(fd, _)| PollFd::new(*fd, PollFlags::POLLIN)));
        wait_for(&mut fds, self.until_silence().min(most))?;
        let gone = has_gone(&fds[0]);
        let news = followers.iter().zip(&fds[2..]).any(|((_, counts), fd)| *counts && has_news(fd));
        self.after_wait(gone, news)
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

    fn silence(&self, waited: Duration) -> Failure {
        let names: Vec<_> = self.channels.iter().map(ToString::to_string).collect();
        let channel = match names.len() {
            0 => String::new(),
            1 => format!(" on channel {}", names[0]),
            _ => format!(" on channels {}", names.join(", ")),
        };
        let what = format!("a message{channel} ({})", messages(self.received, "received"));
        ReaderError::TimedOut { what, waited }.into()
    }
}

/// Whether the text is in the message; no text is in every message.
fn contains(bytes: &[u8], text: Option<&[u8]>) -> bool {
    match text {
        None | Some([]) => true,
        Some(text) => bytes.windows(text.len()).any(|window| window == text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_wherever_it_is() {
        for (bytes, text, found) in [
            (&b"an error"[..], Some("err"), true),
            (b"error", Some("error"), true),
            (b"erro", Some("error"), false),
            (b"", Some(""), true),
            (b"", None, true),
            (b"\xff\0a", Some("a"), true),
        ] {
            assert_eq!(contains(bytes, text.map(str::as_bytes)), found, "{bytes:?} {text:?}");
        }
    }
}
