//! `shmctl write`: standard input to messages.

mod follow;
mod handoff;
mod progress;
mod publish;
mod stopped;

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use shm_proto::internal::framing::Framing;
use shm_proto::internal::framing::input::Shared;
use shm_proto::{Error, Expected};

use self::progress::Progress;
use super::handoff::Objects;
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::human;
use crate::signals::Signals;
use crate::target::Target;

const EXAMPLES: &str = "\
Examples:
  journalctl -f | shmctl write                   one message per line
  find . -print0 | shmctl write --framing nul    one message per name
  shmctl write --framing chunk=64KiB < film.ts   one message per 64 KiB; the last may be shorter
  producer | shmctl write --framing length       4 bytes, little-endian, before each message
  tcpdump -U -w - | shmctl write --framing stream
                                                 what has arrived is a message at once
  tcpdump -U -w - | shmctl write --framing chunk=4KiB --flush 100ms
                                                 one message per 4 KiB, or less after 100 ms
  sensor | shmctl write cam --follow             goes on after a restart of the daemon
  printf 'Hello\\0World\\0' | shmctl write --framing nul --keep-delimiter \\
      --handoff --segment /demo_shm --avail /sem_avail --done /sem_done
                                                 strings to a C program, without a daemon

Only one program at a time can write to a channel. A message over the channel's limit ends the command with 1, and the error \
states its length; no message is cut to fit. If the channel is full, its on_full decides: wait, drop and count, or overwrite.

SIGINT and SIGTERM end the command with 0: it publishes the whole messages that it has read as far as that needs no \
waiting, and says on standard error how many messages and bytes were published. A message that is not complete is not \
published.

With --follow, nothing of the input is lost when the role is: what was not published is published when the command has the role \
again. A message whose publishing was cut short by the end of the role may come twice.";

/// As for a channel of the daemon.
const LEAST_ACK_TIMEOUT: Duration = Duration::from_millis(1);

/// Publish standard input as messages.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Where a message ends: lines, nul, length, chunk=SIZE, or stream (what has arrived is a message at once).
    #[arg(long, value_name = "FRAMING", default_value_t = Framing::Lines)]
    framing: Framing,
    /// Leave the newline or zero byte in the message; with --framing nul messages are then strings in C.
    #[arg(long)]
    keep_delimiter: bool,
    /// With --framing chunk: publish a chunk that is not full TIME after its first byte.
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    flush: Option<Duration>,
    /// Borrow the role again when it was taken back, for example because the daemon was restarted, and wait for a daemon or a role
    /// that is not there yet. Meanwhile the input waits.
    #[arg(short, long, conflicts_with = "handoff")]
    follow: bool,
    /// Show messages, bytes and rates on standard error if that is a terminal.
    #[arg(long)]
    progress: bool,
    /// Write only to a channel whose configuration declares this content: an encoding, and after a colon the name of a schema, such
    /// as json or protobuf:telemetry.Frame. Any other channel is refused, with both names.
    #[arg(long, value_name = "TYPE[:SCHEMA]", conflicts_with = "handoff")]
    expect: Option<Expected>,
    #[command(flatten)]
    objects: Objects,
    /// With --handoff: permissions of the objects; both sides need to read and write them.
    #[arg(long, value_name = "OCTAL", default_value = "0600", requires = "handoff", value_parser = permissions)]
    permissions: Permissions,
    /// With --handoff: a message that a reader takes and does not acknowledge within TIME is offered again, or dropped.
    #[arg(long, value_name = "TIME", default_value = "1s", requires = "handoff", value_parser = ack_timeout)]
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

/// Without any time, every message would be offered again before a reader could acknowledge it.
fn ack_timeout(text: &str) -> Result<Duration, String> {
    match human::duration(text)? {
        time if time < LEAST_ACK_TIMEOUT => Err(format!("{text:?} is too short: the shortest is 1ms")),
        time => Ok(time),
    }
}

pub(crate) fn run(args: Args, global: &Global) -> Result<()> {
    let signals = Signals::catch()?;
    check_flush(args.flush, args.framing)?;
    let names = args.objects.names(global)?;
    let progress = Progress::new(args.progress);
    match names {
        Some(names) => handoff::run(&args, names, &signals, &progress),
        None => publish::run(&args, global, &signals, &progress),
    }
}

/// # Errors
/// A usage error: the framing has no messages that could be published in part.
fn check_flush(after: Option<Duration>, framing: Framing) -> Result<()> {
    match (after, framing.refuses_flush()) {
        (Some(_), Some(reason)) => Err(Failure::Usage(format!(
            "--flush does not go with --framing {framing}: {reason}; leave --flush out, or use --framing chunk=SIZE"
        ))),
        _ => Ok(()),
    }
}

/// Somebody who types needs to know how to end.
fn hint(framing: Framing) {
    if io::stdin().is_terminal() {
        let what = if framing == Framing::Lines { "type lines, and each is a message" } else { "type the input" };
        note(&format!("standard input is a terminal: {what}; Ctrl-D ends the input"));
    }
}

/// Standard input, whose mode is shared with other processes and stays as it is.
fn stdin() -> Result<Shared<OwnedFd>> {
    let fd = io::stdin().as_fd().try_clone_to_owned();
    Ok(Shared::new(fd.map_err(|e| Error::system("cannot read standard input", e))?)?)
}
