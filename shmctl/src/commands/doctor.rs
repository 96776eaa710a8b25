//! `shmctl doctor`: what is wrong here, why, and which command mends it.

mod access;
mod channels;
mod configuration;
mod daemon;
mod finding;
mod host;
mod leftovers;
mod ring_size;
mod site;

use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args as ClapArgs;
use shm_cli::exit_codes;
use shm_proto::internal::client::default_runtime_dir;
use shm_proto::internal::control::Pong;
use shm_proto::internal::control::stat::ChannelStat;
use shm_proto::{Client, Done, Request};

use self::finding::{CHECKS, Finding, Report, Severity, render, worst};
use self::site::Site;
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
    let checks: String = CHECKS.iter().map(|(check, meaning)| format!("  {check:<11}  {meaning}\n")).collect();
    format!(
        "\
Run as root or as the daemon's user to see everything.

Checks:
{checks}
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
    let findings = examine(args, global);
    let shown = if args.json { print_json(&Report::new(&findings)) } else { print(&render(&findings, Page::stdout())) };
    match shown {
        // Whoever closed the output may still look at the exit code, and 0 would say that nothing is wrong.
        Ok(()) | Err(Failure::OutputClosed) => {}
        Err(failure) => {
            failure.tell(&[]);
            return Err(Failure::Found(Severity::Unknown.exit_code()));
        }
    }
    worst(&findings).map_or(Ok(()), |severity| Err(Failure::Found(severity.exit_code())))
}

/// Whatever the daemon answers, or does not, is a finding: the exit codes of other commands mean something else to monitoring.
fn examine(args: &Args, global: &Global) -> Vec<Finding> {
    let endpoint = global.endpoint();
    let site = Site::new(&endpoint.socket, global.runtime_dir.as_deref());
    let unanswered = |failure: Failure| vec![daemon::unanswered(&endpoint, &failure, &site)];
    let mut findings = Vec::new();
    let daemon = ask_daemon(global).map_err(|failure| findings = unanswered(failure)).ok();
    if let Some(daemon) = &daemon {
        findings.extend(daemon::version(daemon, &site));
        let channels = examine_channels(daemon, global, &site);
        let log = channels.is_ok().then(|| log(global).map(|entries| daemon::log(&entries, now_ms(), &site)));
        for found in [Some(channels), log].into_iter().flatten() {
            findings.extend(found.unwrap_or_else(unanswered));
        }
    }
    findings.extend(configuration::look(daemon.as_ref().map(|daemon| daemon.pid), &site));
    let is_own = endpoint.socket.starts_with(default_runtime_dir());
    if is_own && daemon.is_some() {
        findings.extend(host::remove_ipc(nix::unistd::geteuid().as_raw()));
    }
    findings.extend(leftovers::look(args.fix));
    findings
}

fn ask_daemon(global: &Global) -> Result<Pong> {
    match Client::connect(&global.endpoint(), ANSWER)?.request(&Request::Ping)? {
        Done::Ping(daemon) => Ok(daemon),
        other => Err(unexpected("ping", &other)),
    }
}

fn examine_channels(daemon: &Pong, global: &Global, site: &Site) -> Result<Vec<Finding>> {
    let mut channels = stat(global)?;
    if channels.is_empty() {
        return Ok(vec![access::no_channel(site)]);
    }
    let mut findings = Vec::new();
    let earlier = if channels.iter().any(crate::condition::is_full) {
        sleep(MOMENT);
        std::mem::replace(&mut channels, stat(global)?)
    } else {
        Vec::new()
    };
    findings.extend(channels::look(&earlier, &channels, site));
    findings.extend(access::objects(&channels, site));
    findings.extend(host::memory(&channels));
    findings.extend(host::descriptors(daemon, &channels, site));
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
