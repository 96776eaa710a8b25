//! The writer role, lent by the daemon: from standard input to messages in the ring.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::framing::input::Shared;
use shm_proto::internal::framing::{MessageSink, Pump, Slotted, Step};
use shm_proto::{Error, Writer, WriterError};

use super::follow::{Borrower, is_over};
use super::progress::{Progress, Tally};
use super::stopped::{End, Stopped};
use super::{Args, hint, stdin};
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::human::messages;
use crate::output::{has_gone, has_news, wait_for};
use crate::signals::Signals;

/// How often a writer with nothing to publish shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often a shrink that waits for readers is checked.
const SHRINKING: Duration = Duration::from_millis(20);

/// The writer, and what became of the messages of the last step.
struct Sink {
    writer: Writer,
    /// Messages and bytes of the channel before this writer, which count from `earlier` on.
    before: (u64, u64),
    /// Messages and bytes that the command has published with earlier writers.
    earlier: (u64, u64),
    /// The role may be lost and lent again, so no input is read into the ring before it is sure to stay there.
    follows: bool,
    tally: Tally,
    /// When publishing has failed: how many messages of that step are published or dropped, and are not to be published again.
    taken: u64,
    /// How many of these every reader has acknowledged for certain.
    acknowledged: u64,
    /// On a handoff channel: the message, 1 or 0, and its bytes, that is published and not acknowledged.
    open: (u64, u64),
    /// The number of complete messages of the last step that were not published because a signal ended a wait.
    unpublished: u64,
}

impl Sink {
    fn new(writer: Writer, earlier: (u64, u64), follows: bool, tally: Tally) -> Self {
        let before = (writer.messages(), writer.bytes());
        Sink { writer, before, earlier, follows, tally, taken: 0, acknowledged: 0, open: (0, 0), unpublished: 0 }
    }

    /// Messages and bytes that the command has published.
    fn published(&self) -> (u64, u64) {
        let (messages, bytes) = (self.writer.messages() - self.before.0, self.writer.bytes() - self.before.1);
        (self.earlier.0 + messages, self.earlier.1 + bytes)
    }

    /// Publishes one message after the other, each until it is acknowledged. What of a batch was not handed over goes with the
    /// channel when the daemon is stopped, and nobody knows how much that is.
    fn hand_over<'m>(&mut self, mut messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, Error> {
        let mut taken = 0;
        while let Some(message) = messages.next() {
            self.tally.add(message.len());
            if let Err(error) = self.writer.publish(message) {
                let is_published = matches!(error, WriterError::Unacknowledged { .. });
                (self.taken, self.acknowledged) = (taken, taken);
                self.open = if is_published { (1, message.len() as u64) } else { (0, 0) };
                self.unpublished = u64::from(!is_published) + messages.count() as u64;
                return Err(error.into());
            }
            taken += 1;
        }
        Ok(taken)
    }
}

impl MessageSink for Sink {
    type Error = Error;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, Error> {
        if self.follows && self.writer.geometry().relayed {
            return self.hand_over(messages);
        }
        let (before, dropped) = (self.writer.messages(), self.writer.dropped());
        let (mut taken, tally) = (0, &self.tally);
        let mut messages = messages.inspect(|message| {
            taken += 1;
            tally.add(message.len());
        });
        let result = self.writer.publish_all(&mut messages);
        let taken_now = (self.writer.messages() - before) + self.writer.dropped().saturating_sub(dropped);
        self.taken = if result.is_err() { taken_now } else { 0 };
        if matches!(result, Err(Error::Writer(WriterError::Interrupted { .. } | WriterError::Unacknowledged { .. }))) {
            messages.by_ref().for_each(drop);
            self.unpublished = (taken + before).saturating_sub(self.writer.messages());
        }
        result
    }

    fn publish_in_place(
        &mut self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<Slotted, Error> {
        if self.follows {
            return Ok(Slotted::NoPlace);
        }
        self.taken = 0;
        self.writer.publish_in_place(len, fill)
    }
}

pub(super) fn run(args: &Args, global: &Global, signals: &Signals, progress: &Progress) -> Result<()> {
    let mut borrower = Borrower::new(args, global, signals);
    let Some(writer) = borrower.borrow()? else {
        return Stopped { done: "published", messages: 0, bytes: 0, unpublished: 0, unfinished: 0 }.tell(signals, "");
    };
    hint(args.framing);
    let mut input = stdin()?;
    let mut pump = Pump::new(args.framing, writer.geometry().max_message)?
        .keeping_delimiters(args.keep_delimiter)
        .flushing_after(args.flush);
    let mut sink = Sink::new(writer, (0, 0), args.follow, progress.tally());
    let (result, (published, bytes), (unpublished, taken, acknowledged), ack) = loop {
        let result = publish(&mut pump, &mut sink, &mut input, signals, progress);
        progress.clear();
        let (mut so_far, ack) = (sink.published(), sink.writer.geometry().ack);
        match result {
            Err(failure) if args.follow && is_over(&failure) && !signals.came() => {
                note(&format!("{failure}; waiting for it"));
                pump.have_been_taken(sink.taken);
                // It is published again.
                so_far = (so_far.0 - sink.open.0, so_far.1 - sink.open.1);
            }
            Ok(End::Daemon) if args.follow => {
                note("the daemon is gone, and no other one has taken its place; waiting for it");
            }
            result => {
                let counts = (sink.unpublished, sink.taken + sink.open.0, sink.acknowledged);
                break (result, so_far, counts, ack);
            }
        }
        // The role has to be free.
        drop(sink);
        match borrower.borrow() {
            Ok(Some(writer)) => sink = Sink::new(writer, so_far, true, progress.tally()),
            Ok(None) => break (Ok(End::Signal), so_far, (0, 0, 0), ack),
            Err(failure) => break (Err(failure), so_far, (0, 0, 0), ack),
        }
    };
    // On a channel with `ack`, messages whose publishing has not returned may be unread.
    let open = published.saturating_sub(pump.published() + acknowledged);
    let open = if ack && open > 0 { format!("; {open} of them may not have been acknowledged") } else { String::new() };
    let (whole, unfinished) = pump.left();
    let untaken = whole.saturating_sub(taken);
    let stopped = Stopped { done: "published", messages: published, bytes, unpublished: untaken, unfinished };
    match result {
        Ok(End::Input | End::Daemon) => {}
        Ok(End::Signal) => return stopped.tell(signals, &open),
        Err(Failure::Library(Error::Writer(WriterError::Interrupted { what }))) => {
            return Stopped { unpublished, unfinished: 0, ..stopped }
                .tell(signals, &format!("{open}; the command waited for {what}"));
        }
        Err(Failure::Library(Error::Writer(WriterError::Unacknowledged { behind, readers, .. }))) if signals.came() => {
            let waited = format!("{open}; the command waited for {behind} of {readers} readers");
            return Stopped { unpublished, unfinished: 0, ..stopped }.tell(signals, &waited);
        }
        // The signal went to the daemon as well, which has taken the role back first.
        Err(failure) if signals.came() && is_over(&failure) => return stopped.tell(signals, &open),
        Err(failure) => {
            if published > 0 {
                note(&format!("{}{open}", messages(published, "published before")));
            }
            return Err(failure);
        }
    }
    match pump.published().saturating_sub(published) {
        0 => log::info!("{}", messages(published, "published")),
        dropped => note(&format!(
            "{}, {} because the channel was full",
            messages(published, "published"),
            messages(dropped, "dropped")
        )),
    }
    Ok(())
}

fn publish(
    pump: &mut Pump,
    sink: &mut Sink,
    input: &mut Shared<OwnedFd>,
    signals: &Signals,
    progress: &Progress,
) -> Result<End> {
    let mut daemon_is_there = true;
    while !signals.came() {
        progress.tell(sink.published());
        match pump.step(input, sink)? {
            Step::Published(_) => {}
            Step::WouldBlock => {
                progress.tell(sink.published());
                let most = pump.flush_in().unwrap_or(Duration::MAX);
                wait(input, &mut sink.writer, signals, most, daemon_is_there)?;
                if daemon_is_there && sink.writer.is_disconnected() {
                    if sink.follows {
                        return Ok(End::Daemon);
                    }
                    // The readers that are attached have no need of it.
                    progress.clear();
                    note("the daemon is gone; readers that are attached still receive what is written");
                    daemon_is_there = false;
                }
            }
            Step::Eof => return Ok(End::Input),
        }
    }
    Ok(End::Signal)
}

/// Waits for input or a signal, for up to `most`, and carries out the daemon's requests during the wait.
fn wait(
    input: &Shared<OwnedFd>,
    writer: &mut Writer,
    signals: &Signals,
    most: Duration,
    daemon_is_there: bool,
) -> Result<()> {
    let timeout = if writer.is_shrinking() { SHRINKING } else { HEARTBEAT };
    let mut fds = vec![PollFd::new(input.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if daemon_is_there {
        fds.extend(writer.link_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    }
    wait_for(&mut fds, timeout.min(most))?;
    let input_only = has_news(&fds[0]) && !fds.get(2).is_some_and(|link| has_news(link) || has_gone(link));
    if !input_only {
        writer.maintain()?;
    }
    Ok(())
}
