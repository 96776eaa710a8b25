//! `shmctl doctor`: what is wrong here, why, and which command mends it.

mod access;
mod channels;
mod configuration;
mod daemon;
mod finding;
mod host;
mod leftovers;
mod ring_size;

use std::io::ErrorKind;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use shm_cli::exit_codes;
use shm_proto::internal::client::default_runtime_dir;
use shm_proto::internal::control::Pong;
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::{Client, Done, Error, Request, RequestError};

use self::finding::{Finding, Report, Severity, render, worst};
use super::unexpected;
use crate::error::{Failure, Result};
use crate::exit_code;
use crate::global::{ANSWER, Global};
use crate::output::{print, print_json};
use crate::target::Target;
use crate::terminal::Page;

/// The time between two looks at channels that seem full.
const MOMENT: Duration = Duration::from_secs(1);

fn after_help() -> String {
    format!(
        "\
The checks: daemon, socket, access (this user's), version, reload, clock, leftover (segments of dead daemons), object (modes), \
config (files that are no TOML), group (groups in the configuration that the daemon is not in), memory (/dev/shm), descriptors, \
remove-ipc (a user's own daemon), full (and the reader that is to blame), stalled, evicted, readers, source, small (a note: the ring \
is small for its traffic). Run as root or as the daemon's user to see everything.

Exit codes, those of monitoring plugins (Nagios):
{}

Examples:
  shmctl doctor
  shmctl doctor --fix
  shmctl doctor --json | jq -r '.findings[] | .check + \": \" + .what'",
        exit_codes(exit_code::DOCTOR)
    )
}

/// Look for everything that keeps channels from working, and say what mends it.
#[derive(Debug, ClapArgs)]
#[command(after_help = after_help())]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Remove segments that a dead daemon left, if they are this user's and no process uses them. Unread messages in them are
    /// lost. Nothing else is changed.
    #[arg(long)]
    fix: bool,
    /// Print one line of JSON: an object with status and findings.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let findings = examine(args, global)?;
    if args.json {
        print_json(&Report::new(&findings))?;
    } else {
        print(&render(&findings, Page::stdout()))?;
    }
    worst(&findings).map_or(Ok(()), |severity| Err(Failure::Found(severity.exit_code())))
}

fn examine(args: &Args, global: &Global) -> Result<Vec<Finding>> {
    let endpoint = global.endpoint();
    let mut findings = Vec::new();
    let daemon = match ask_daemon(global) {
        Ok(daemon) => Some(daemon),
        Err(Failure::Library(Error::Request(RequestError::NoDaemon { reason, .. }))) => {
            findings.push(daemon::absent(&endpoint, &reason));
            None
        }
        Err(Failure::Library(error))
            if error.system_reason().is_some_and(|it| it.kind() == ErrorKind::PermissionDenied) =>
        {
            findings.push(access::socket(&endpoint.socket));
            None
        }
        Err(Failure::Library(Error::Request(error @ RequestError::TimedOut { .. }))) => {
            let (what, command) = ("the daemon does not answer", "systemctl restart shmd");
            findings.push(Finding::new(Severity::Critical, "daemon", what, error.to_string(), command));
            None
        }
        Err(failure) => return Err(failure),
    };
    if let Some(daemon) = &daemon {
        findings.extend(daemon::version(daemon));
        findings.extend(examine_channels(daemon, global)?);
        findings.extend(daemon::log(&log(global)?, now_ms()));
    }
    findings.extend(configuration::look(daemon.as_ref().map(|daemon| daemon.pid)));
    let is_own = endpoint.socket.starts_with(default_runtime_dir());
    if is_own && daemon.is_some() {
        findings.extend(host::remove_ipc(nix::unistd::geteuid().as_raw()));
    }
    findings.extend(leftovers::look(args.fix));
    Ok(findings)
}

fn ask_daemon(global: &Global) -> Result<Pong> {
    match Client::connect(&global.endpoint(), ANSWER)?.request(&Request::Ping)? {
        Done::Ping(daemon) => Ok(daemon),
        other => Err(unexpected("ping", &other)),
    }
}

fn examine_channels(daemon: &Pong, global: &Global) -> Result<Vec<Finding>> {
    let mut channels = stat(global)?;
    if channels.is_empty() {
        return Ok(vec![access::no_channel()]);
    }
    let mut findings = Vec::new();
    let earlier = if channels.iter().any(crate::condition::is_full) {
        sleep(MOMENT);
        std::mem::replace(&mut channels, stat(global)?)
    } else {
        Vec::new()
    };
    findings.extend(channels::look(&earlier, &channels));
    findings.extend(access::objects(&channels));
    findings.extend(host::memory(&channels));
    findings.extend(host::descriptors(daemon, &channels));
    Ok(findings)
}

fn stat(global: &Global) -> Result<Vec<ChannelStat>> {
    match global.ask(&Request::Stat { channel: global.channel.clone() })? {
        Done::Stat(channels) => Ok(channels),
        other => Err(unexpected("stat", &other)),
    }
}

fn log(global: &Global) -> Result<Vec<shm_proto::internal::control::log::LogEntry>> {
    match global.ask(&Request::Log { channel: None, since: 0, last: None, follow: false })? {
        Done::Log(entries) => Ok(entries),
        other => Err(unexpected("log", &other)),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
