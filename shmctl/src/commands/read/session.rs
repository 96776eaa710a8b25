//! The loop that reads from one attachment after the other.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::{Attachment, ChannelName, Error, Follower, HandoffError, Message, ReaderError};

use super::losses::Losses;
use super::{Args, Format};
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::human::messages;
use crate::output::{Output, has_gone, has_news, wait_for};
use crate::signals::Signals;

/// How often a sleeping reader shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why reading ended.
#[derive(Debug)]
pub(super) enum End {
    /// As many messages as were asked for, or a signal.
    Done,
    /// No message arrived within the timeout.
    Silence(Duration),
}

/// What is read, and where it goes.
#[derive(Debug)]
pub(super) struct Session {
    channel: Option<ChannelName>,
    pub(super) left: Option<u64>,
    timeout: Option<Duration>,
    pub(super) format: Format,
    pub(super) signals: Signals,
    pub(super) output: Output,
    scratch: Vec<u8>,
    losses: Losses,
    /// Losses that were to be reported with a message that could not be received in the end.
    unreported: u64,
    pub(super) received: u64,
    /// When the last message came, or the waiting began.
    pub(super) last: Instant,
}

impl Session {
    pub(super) fn new(args: &Args, global: &Global) -> Result<Self> {
        Ok(Session {
            channel: global.channel.clone(),
            left: args.count,
            timeout: args.timeout,
            format: args.format,
            signals: Signals::catch()?,
            output: Output::stdout()?,
            scratch: Vec::new(),
            losses: Losses::default(),
            unreported: 0,
            received: 0,
            last: Instant::now(),
        })
    }

    /// Calls `read` until there is a reason to end.
    pub(super) fn run(mut self, mut read: impl FnMut(&mut Self) -> Result<Option<End>>) -> Result<()> {
        let result = loop {
            if self.left == Some(0) {
                break Ok(());
            }
            match read(&mut self) {
                Ok(None) => {}
                Ok(Some(End::Done)) => break Ok(()),
                Err(Failure::Library(
                    Error::Reader(ReaderError::Closed { .. }) | Error::Handoff(HandoffError::Closed { .. }),
                )) => break Ok(()),
                Ok(Some(End::Silence(waited))) => break Err(self.silence(waited)),
                Err(failure) => break Err(failure),
            }
        };
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
            // A closed output ends the command without a message.
            (Err(_), Err(Failure::OutputClosed)) => Err(Failure::OutputClosed),
            (Err(failure), _) => Err(failure),
        }
    }

    /// Takes every message, and sleeps if there is none.
    pub(super) fn follow(&mut self, follower: &mut Follower) -> Result<Option<End>> {
        let is_ring = match follower.attachment()? {
            Some(Attachment::Handoff(reader)) => match self.take_over(&mut **reader) {
                Err(Failure::Library(error)) => {
                    follower.go_on_after(error)?;
                    false
                }
                end => return end,
            },
            attachment => attachment.is_some(),
        };
        if is_ring && self.drain(follower)? {
            return Ok(Some(End::Done));
        }
        let is_attached = follower.is_attached();
        if !is_attached {
            self.output.flush(&self.signals)?;
        }
        if let Some(notice) = follower.notice() {
            note(&notice.to_string());
        }
        if is_attached {
            if !self.output.is_empty() {
                return Ok(None);
            }
            self.losses.tell();
        }
        if follower.arm()? { self.sleep(Some(follower.as_fd()), HEARTBEAT, is_attached) } else { Ok(None) }
    }

    /// Takes every message that is there. Returns whether that is enough.
    fn drain(&mut self, follower: &mut Follower) -> Result<bool> {
        let before = self.received;
        while self.take_next(follower)? {
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
    fn take_next(&mut self, follower: &mut Follower) -> Result<bool> {
        let Some(message) = follower.try_recv()? else { return Ok(false) };
        if let Err(error) = self.take(message) {
            follower.go_on_after(error)?;
            return Ok(follower.is_attached());
        }
        Ok(true)
    }

    /// Appends the message to the output, if it was not overwritten during the copy.
    fn take(&mut self, message: Message<'_>) -> Result<(), ReaderError> {
        let seq = message.seq();
        // Overwritten, lapped, or lost with its attachment: the message is missing here.
        let lost = self.unreported + message.lost_before();
        let before = self.output.buffer().len();
        self.format.append(&message, lost, self.output.buffer(), &mut self.scratch);
        if let Err(error) = message.finish() {
            self.output.buffer().truncate(before);
            self.unreported = lost;
            return Err(error);
        }
        self.unreported = 0;
        if lost > 0 {
            self.losses.add(lost, seq);
        }
        self.received += 1;
        if let Some(left) = &mut self.left {
            *left -= 1;
        }
        Ok(())
    }

    /// Sleeps until the follower, a signal or the output has something to tell, but no longer than `most`. `counts`: news of
    /// the follower may be a message.
    pub(super) fn sleep(
        &mut self,
        follower: Option<BorrowedFd<'_>>,
        most: Duration,
        counts: bool,
    ) -> Result<Option<End>> {
        let mut fds = vec![
            PollFd::new(self.output.as_fd(), PollFlags::empty()),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(follower.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        wait_for(&mut fds, self.until_silence().min(most))?;
        let gone = has_gone(&fds[0]);
        let news = counts && fds.get(2).is_some_and(has_news);
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
        let channel = self.channel.as_ref().map(|name| format!(" on channel {name}")).unwrap_or_default();
        let what = format!("a message{channel} ({})", messages(self.received, "received"));
        ReaderError::TimedOut { what, waited }.into()
    }
}
