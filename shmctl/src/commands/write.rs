//! `shmctl write`: standard input to messages.

mod handoff;
mod stopped;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::framing::input::Shared;
use shm_proto::internal::framing::{Framing, MessageSink, Pump, Slotted, Step};
use shm_proto::{Error, Writer, WriterError};

use self::stopped::{End, Stopped};
use super::handoff::Objects;
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::human::{self, messages};
use crate::output::{has_gone, has_news, wait_for};
use crate::signals::Signals;
use crate::target::Target;

/// How often a writer with nothing to publish shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often a shrink that waits for readers is checked.
const SHRINKING: Duration = Duration::from_millis(20);

const EXAMPLES: &str = "\
Examples:
  journalctl -f | shmctl write                   one message per line
  find . -print0 | shmctl write --framing nul    one message per name
  shmctl write --framing chunk=64KiB < film.ts   one message per 64 KiB; the last may be shorter
  producer | shmctl write --framing length       a length of 4 bytes, little-endian, before each message
  printf 'Hello\\0World\\0' | shmctl write --framing nul --keep-delimiter \\
      --handoff --segment /demo_shm --avail /sem_avail --done /sem_done
                                                 strings to a C program, without a daemon

Only one program at a time can write to a channel. A message over the channel's limit ends the command with 1, and the error \
states its length; no message is cut to fit. If the channel is full, its on_full decides: wait, drop and count, or overwrite.

SIGINT and SIGTERM end the command with 0: it publishes the whole messages that it has read as far as that needs no \
waiting, and says on standard error how many messages and bytes were published. A message that is not complete is not \
published.";

/// Publish standard input as messages.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Where a message ends: lines, nul, length, or chunk=SIZE.
    #[arg(long, value_name = "FRAMING", default_value_t = Framing::Lines)]
    framing: Framing,
    /// Leave the newline or zero byte in the message; with --framing nul messages are then strings in C.
    #[arg(long)]
    keep_delimiter: bool,
    #[command(flatten)]
    objects: Objects,
    /// With --handoff: permissions of the objects; both sides need to read and write them.
    #[arg(long, value_name = "OCTAL", default_value = "0600", requires = "handoff", value_parser = permissions)]
    permissions: Permissions,
    /// With --handoff: a message that a reader takes and does not acknowledge within TIME is offered again, or dropped.
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "handoff", value_parser = human::duration)]
    ack_timeout: Duration,
    /// With --handoff: what becomes of a message that nobody acknowledges within --ack-timeout.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Overdue::Block, requires = "handoff")]
    on_full: Overdue,
    /// With --handoff: withdraw a message that no reader acknowledges within TIME, and end with exit code 75.
    #[arg(short, long, value_name = "TIME", requires = "handoff", value_parser = human::duration)]
    timeout: Option<Duration>,
}

/// What to do with a message that is not acknowledged in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Overdue {
    /// It stays on offer, until somebody acknowledges it.
    Block,
    /// It is dropped and counted.
    Drop,
}

/// Permission bits.
#[derive(Clone, Copy, Debug)]
struct Permissions(u32);

fn permissions(text: &str) -> Result<Permissions, String> {
    match u32::from_str_radix(text, 8) {
        Ok(bits) if bits <= 0o777 && bits & 0o600 == 0o600 => Ok(Permissions(bits)),
        _ => Err("write an octal number that lets the owner read and write, such as 0600, 0660 or 0666".to_owned()),
    }
}

pub(crate) fn run(args: Args, global: &Global) -> Result<()> {
    let signals = Signals::catch()?;
    if let Some(names) = args.objects.names()? {
        return handoff::run(&args, names, &signals);
    }
    let mut writer = Writer::attach(&global.endpoint(), global.channel.as_deref())?;
    writer.interrupt_on(signals.flag());
    let before = (writer.messages(), writer.bytes());
    let mut pump = Pump::new(args.framing, writer.geometry().max_message)?.keeping_delimiters(args.keep_delimiter);
    let mut sink = Sink { writer, unpublished: 0 };
    let result = publish(&mut pump, &mut sink, &signals);
    let Sink { writer, unpublished } = sink;
    let (published, bytes) = (writer.messages() - before.0, writer.bytes() - before.1);
    // On a channel with `ack`, messages whose publishing has not returned may be unread.
    let open = published.saturating_sub(pump.published());
    let open = if writer.geometry().ack && open > 0 {
        format!("; {open} of them may not have been acknowledged")
    } else {
        String::new()
    };
    let stopped = Stopped { done: "published", messages: published, bytes, unpublished, unfinished: pump.unfinished() };
    match result {
        Ok(End::Input) => {}
        Ok(End::Signal) => return stopped.tell(&signals, &open),
        Err(Failure::Library(Error::Writer(WriterError::Interrupted { what }))) => {
            return Stopped { unfinished: 0, ..stopped }
                .tell(&signals, &format!("{open}; the command waited for {what}"));
        }
        Err(Failure::Library(Error::Writer(WriterError::Unacknowledged { behind, readers, .. }))) if signals.came() => {
            let waited = format!("{open}; the command waited for {behind} of {readers} readers");
            return Stopped { unfinished: 0, ..stopped }.tell(&signals, &waited);
        }
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

/// The writer, and the number of complete messages that were not published because a signal ended a wait.
struct Sink {
    writer: Writer,
    unpublished: u64,
}

impl MessageSink for Sink {
    type Error = Error;

    fn publish_all<'m>(&mut self, messages: impl Iterator<Item = &'m [u8]>) -> Result<u64, Error> {
        let before = self.writer.messages();
        let mut taken = 0;
        let mut messages = messages.inspect(|_| taken += 1);
        let result = self.writer.publish_all(&mut messages);
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
        self.writer.publish_in_place(len, fill)
    }
}

fn publish(pump: &mut Pump, sink: &mut Sink, signals: &Signals) -> Result<End> {
    let mut input = stdin()?;
    let mut daemon_is_there = true;
    while !signals.came() {
        match pump.step(&mut input, sink)? {
            Step::Published(_) => {}
            Step::WouldBlock => wait(&input, &mut sink.writer, signals, &mut daemon_is_there)?,
            Step::Eof => return Ok(End::Input),
        }
    }
    Ok(End::Signal)
}

/// Waits for input or a signal, and carries out the daemon's requests during the wait.
fn wait(input: &Shared<OwnedFd>, writer: &mut Writer, signals: &Signals, daemon_is_there: &mut bool) -> Result<()> {
    let timeout = if writer.is_shrinking() { SHRINKING } else { HEARTBEAT };
    let mut fds = vec![PollFd::new(input.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    if *daemon_is_there {
        fds.extend(writer.link_fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
    }
    wait_for(&mut fds, timeout)?;
    let input_only = has_news(&fds[0]) && !fds.get(2).is_some_and(|link| has_news(link) || has_gone(link));
    if !input_only {
        writer.maintain()?;
    }
    if *daemon_is_there && writer.is_disconnected() {
        // The readers that are attached have no need of it.
        note("the daemon is gone; readers that are attached still receive what is written");
        *daemon_is_there = false;
    }
    Ok(())
}

/// Standard input, whose mode is shared with other processes and stays as it is.
fn stdin() -> Result<Shared<OwnedFd>> {
    let fd = io::stdin().as_fd().try_clone_to_owned();
    Ok(Shared::new(fd.map_err(|e| Error::system("cannot read standard input", e))?)?)
}
