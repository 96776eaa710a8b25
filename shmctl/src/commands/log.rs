//! `shmctl log`: the daemon's last operations.

use std::fmt::Write;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use clap::Args as ClapArgs;
use nix::poll::{PollFd, PollFlags};
use shm_proto::internal::control::log::LogEntry;
use shm_proto::internal::control::{Conn, Received, decode};
use shm_proto::{Client, Done, ErrorKind, Request, RequestError};

use super::unexpected;
use crate::error::{Failure, Result, note};
use crate::global::{ANSWER, Global};
use crate::human::{printable, utc};
use crate::output::{has_gone, print, wait_for};
use crate::signals::Signals;
use crate::target::Target;

const EXAMPLES: &str = "\
Each line has the time (UTC), the number, the severity and the event. Users see the operations of channels that they may see. \
Root and the daemon's own user see all operations.

Examples:
  shmctl log -n 20
  shmctl log --follow cam
  shmctl log --json | jq -r 'select(.event == \"evict\") | .fields.program'";

/// The longest sleep of a follower. It matters only for a signal that comes between the check and the sleep.
const SLEEP: Duration = Duration::from_secs(3600);

/// Show the daemon's last operations: attach, detach, evict, grow, shrink, overflow, reload and so on.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Show only the last NUMBER operations.
    #[arg(short = 'n', long = "number", value_name = "NUMBER")]
    number: Option<u32>,
    /// Go on with new operations until SIGINT or the daemon's end.
    #[arg(short, long)]
    follow: bool,
    /// Print one JSON object per line.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let request = Request::Log { channel: global.channel.clone(), since: 0, last: args.number, follow: args.follow };
    if !args.follow {
        return match global.ask(&request)? {
            // A channel that is gone may have entries, and one without entries may be misspelt.
            Done::Log(entries) if entries.is_empty() => no_channel(global).map_or(Ok(()), Err),
            Done::Log(entries) => show(&entries, args.json),
            other => Err(unexpected("log", &other)),
        };
    }
    let signals = Signals::catch()?;
    let mut client = Client::connect(&global.endpoint(), ANSWER)?;
    match client.request(&request)? {
        Done::Log(entries) => {
            let obstacle = if entries.is_empty() { no_channel(global) } else { None };
            match obstacle {
                Some(Failure::Library(e)) if e.refusal() == Some(ErrorKind::NoSuchChannel) => {
                    note(&format!("{e}; waiting for the channel's first operation"));
                }
                Some(failure) => return Err(failure),
                None => {}
            }
            show(&entries, args.json)?;
        }
        other => return Err(unexpected("log", &other)),
    }
    follow(client.into_conn(), global, &signals, args.json)
}

/// Why there are no operations of the channel that is named, if that is because of its name or of this user's rights.
fn no_channel(global: &Global) -> Option<Failure> {
    global.channel.as_ref()?;
    global.ask(&Request::Stat { channel: global.channel.clone() }).err()
}

fn follow(mut conn: Conn, global: &Global, signals: &Signals, json: bool) -> Result<()> {
    let stdout = io::stdout();
    loop {
        match conn.receive()? {
            Received::Line(line, _) => show(&[decode::<LogEntry>(&line)?], json)?,
            Received::Closed => {
                let (socket, reason) = (global.endpoint().socket, "it has ended".to_owned());
                return Err(RequestError::NoDaemon { socket, reason }.into());
            }
            Received::Nothing => {
                let out = PollFd::new(stdout.as_fd(), PollFlags::empty());
                let read = PollFd::new(conn.as_fd(), PollFlags::POLLIN);
                let mut fds = [out, read, PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
                wait_for(&mut fds, SLEEP)?;
                if has_gone(&fds[0]) {
                    return Err(Failure::OutputClosed);
                }
            }
        }
        if signals.came() {
            return Ok(());
        }
    }
}

fn show(entries: &[LogEntry], json: bool) -> Result<()> {
    let mut text = String::new();
    for entry in entries {
        if json {
            text += &serde_json::to_string(entry).map_err(|e| Failure::Other(format!("cannot write JSON: {e}")))?;
            text.push('\n');
        } else {
            let line = printable(entry);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{} {:>6} {:<5} {line}", utc(entry.time_ms), entry.seq, entry.severity);
        }
    }
    print(&text)
}
