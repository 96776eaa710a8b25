//! Whether the system lets the daemon open as many descriptors as its configuration may need, and who gets the last of them.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use log::debug;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shm_proto::Error;

use crate::config::{ChannelConfig, SourceKind};
use crate::operation_log::{LogEvent, operation};

/// Of the daemon itself: its loop, signals, lock, socket, log, service manager.
const OWN: u64 = 11;
/// Of every channel: its segment, writable and not.
const CHANNEL: u64 = 2;
/// More of one whose messages are handed over.
const HANDOFF: u64 = 11;
/// Of an attached reader: connection, process, page, bell, and the page for a writer inside the daemon.
const READER: u64 = 5;
/// Of a writer that is lent the role: connection, process, page.
const LENT: u64 = 3;
/// While a program attaches, asks for something, or memory is reserved.
const MOMENT: u64 = 6;
/// Clients that a listening source takes.
const CLIENTS: u64 = 128;

/// This part of the limit is kept for the masters, so that they get in whatever others have taken, but no more than so many.
const KEPT_PART: u64 = 16;
const MOST_KEPT: u64 = 32;

/// How many descriptors there must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    /// To serve one reader and one writer.
    least: u64,
    /// To serve all readers, writers and clients of sources that the configuration lets in.
    all: u64,
}

/// `inherited` are open when the daemon starts.
fn need(channels: &[ChannelConfig], inherited: u64) -> Need {
    let fixed = channels.iter().map(|channel| {
        let source = match channel.source {
            SourceKind::None => 0,
            SourceKind::Stdin => 5,
            SourceKind::Fifo(..) | SourceKind::Unix(..) => 6,
            SourceKind::Tail(_) => 7,
            SourceKind::Exec(_) => 8,
        };
        CHANNEL + source + if channel.handoff.is_some() { HANDOFF } else { 0 }
    });
    let served = channels.iter().map(|channel| {
        let fed = match channel.source {
            SourceKind::None => LENT,
            SourceKind::Unix(..) => CLIENTS,
            _ => 0,
        };
        fed + u64::from(channel.max_readers) * READER
    });
    let start = inherited + OWN + fixed.sum::<u64>();
    Need { least: start + READER + LENT + MOMENT, all: start + served.sum::<u64>() + MOMENT }
}

/// Raises the limit to the hard one, and compares it with the need. The usual soft limit of 1024 is for programs that use
/// `select`.
///
/// # Errors
/// When there are not enough to serve one reader.
pub(crate) fn prepare(channels: &[ChannelConfig]) -> Result<(), Error> {
    let Ok((mut limit, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return Ok(()) };
    if limit < hard {
        match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
            Ok(()) => limit = hard,
            Err(e) => debug!("event=limit descriptors={limit} reason=\"{e}\""),
        }
    }
    // One is that of the directory while it is read.
    let inherited = std::fs::read_dir("/proc/self/fd").map_or(3, |open| open.count().saturating_sub(1) as u64);
    let need = need(channels, inherited);
    if limit < need.least {
        let reason = format!(
            "the limit is {limit} descriptors (ulimit -n, LimitNOFILE=), and the configuration needs at least {} to serve one \
             reader, {} to serve all that it lets in; raise the limit, or have fewer channels",
            need.least, need.all
        );
        return Err(Error::system("start", io::Error::other(reason)));
    }
    compare(limit, need);
    Ok(())
}

/// Why nobody but the masters gets another descriptor, if so. `open` is any that is open.
pub(crate) fn are_scarce(open: BorrowedFd<'_>) -> Option<String> {
    let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let kept = (limit / KEPT_PART).min(MOST_KEPT);
    // The kernel gives the lowest number that is free, so that all numbers below it are taken.
    let lowest = open.try_clone_to_owned().map_or(limit, |copy| u64::try_from(copy.as_raw_fd()).unwrap_or(0));
    (lowest + kept >= limit).then(|| {
        format!(
            "{lowest} of the daemon's {limit} descriptors are open, and the others are kept for root and the daemon's own user; \
             raise the limit (ulimit -n, LimitNOFILE=), or lower max_clients and max_readers"
        )
    })
}

/// After a reload.
pub(crate) fn look(channels: &[ChannelConfig]) {
    if let Ok((limit, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
        compare(limit, need(channels, 3));
    }
}

fn compare(limit: u64, need: Need) {
    if limit >= need.all {
        debug!("event=limit descriptors={limit} least={} all={}", need.least, need.all);
        return;
    }
    let few =
        operation(LogEvent::FewDescriptors).number("limit", limit).number("least", need.least).number("all", need.all);
    let reason = "not all readers, writers and clients that the configuration lets in can be served at the same time: some \
                  will be refused; raise the limit (ulimit -n, LimitNOFILE=), or lower max_readers";
    few.reason(reason).warn();
}
