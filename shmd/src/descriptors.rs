//! Whether the system lets the daemon open as many descriptors as its configuration may need.

use std::io;

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
