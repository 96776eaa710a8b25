//! The daemon itself: whether it runs, which version it is, and whether its last reload took effect.

use std::{fs, io};

use shm_proto::internal::client::Endpoint;
use shm_proto::internal::control::Pong;
use shm_proto::internal::control::log::{LogEntry, LogEvent, Value};
use shm_proto::{Error, ErrorKind, ProtocolError, RequestError};

use super::access;
use super::finding::{Finding, Severity};
use super::site::Site;
use crate::error::Failure;
use crate::human::{age, printable, utc};

/// The clock of the log may be a little ahead of a look at the clock here, not more.
const TOLERANCE_MS: u64 = 2_000;

/// The daemon did not answer what it was asked, and this is the reason.
pub(super) fn unanswered(endpoint: &Endpoint, failure: &Failure, site: &Site) -> Finding {
    let socket = endpoint.socket.display();
    let cannot = format!("the daemon at {socket} cannot be examined");
    let (severity, check, what, command) = match failure {
        Failure::Library(Error::Request(RequestError::NoDaemon { reason, .. })) => {
            return absent(endpoint, reason, site);
        }
        Failure::Library(error) if error.system_reason().is_some_and(is_permission) => {
            return access::socket(&endpoint.socket);
        }
        Failure::Library(Error::Request(RequestError::TimedOut { .. })) => {
            (Severity::Critical, "daemon", format!("the daemon at {socket} does not answer"), site.restart())
        }
        Failure::Library(Error::Request(RequestError::Protocol(ProtocolError::Version { .. }))) => {
            let what = format!("the daemon at {socket} and this shmctl have different protocols");
            (Severity::Critical, "version", what, site.restart())
        }
        Failure::Library(error) if error.refusal() == Some(ErrorKind::NoSuchChannel) => {
            (Severity::Unknown, "access", cannot, site.shmctl("list"))
        }
        _ => (Severity::Unknown, "daemon", cannot, site.journal()),
    };
    Finding::new(severity, check, what, printable(failure), command)
}

fn is_permission(reason: &io::Error) -> bool {
    reason.kind() == io::ErrorKind::PermissionDenied
}

/// No daemon answers at the socket.
fn absent(endpoint: &Endpoint, reason: &str, site: &Site) -> Finding {
    Finding::new(
        Severity::Critical,
        "daemon",
        format!("no daemon answers at {}", endpoint.socket.display()),
        reason,
        site.start(),
    )
}

/// Whether this program, the running daemon and the daemon's file are of one version.
pub(super) fn version(daemon: &Pong, site: &Site) -> Vec<Finding> {
    let mut findings = Vec::new();
    let own = env!("CARGO_PKG_VERSION");
    if daemon.version != own {
        findings.push(Finding::new(
            Severity::Warning,
            "version",
            format!("the daemon has version {}, and this shmctl has {own}", printable(&daemon.version)),
            "one of the two was upgraded and the other was not",
            site.shmctl("reexec"),
        ));
    }
    // Only root and the daemon's user see where the link leads.
    let program = fs::read_link(format!("/proc/{}/exe", daemon.pid));
    if program.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)")) {
        findings.push(Finding::new(
            Severity::Warning,
            "version",
            format!("the daemon (pid {}) runs a program that has been replaced", daemon.pid),
            "an upgrade replaced the file, and the daemon was not told",
            site.shmctl("reexec"),
        ));
    }
    findings
}

/// What the operation log says: a reload that failed and was not followed by one that took effect, and times in the future.
pub(super) fn log(entries: &[LogEntry], now_ms: u64, site: &Site) -> Vec<Finding> {
    let mut findings = Vec::new();
    let last = entries.iter().rfind(|entry| [LogEvent::Reload, LogEvent::ReloadFailed].contains(&entry.event));
    if let Some(entry) = last.filter(|entry| entry.event == LogEvent::ReloadFailed) {
        let reason = match entry.fields.get("reason") {
            // Not as the log shows it, which is in quotation marks.
            Some(Value::Text(reason)) => printable(reason),
            _ => "the log gives no reason".to_owned(),
        };
        findings.push(Finding::new(
            Severity::Warning,
            "reload",
            format!("the last reload, at {}, was refused: the daemon has the settings of before", utc(entry.time_ms)),
            reason,
            format!("correct the configuration, then: {}", site.check_and_reload()),
        ));
    }
    let newest = entries.iter().map(|entry| entry.time_ms).max().unwrap_or(0);
    if newest > now_ms + TOLERANCE_MS {
        findings.push(Finding::new(
            Severity::Warning,
            "clock",
            format!("the operation log has an entry {} in the future", age(newest - now_ms)),
            "the wall clock was set back; channels do not depend on it, and only the times in the log are misleading",
            "timedatectl status",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::log::{Fields, Severity as LogSeverity};

    use super::*;

    fn site() -> Site {
        Site::new(std::path::Path::new("/run/shmd/shmd.sock"), None)
    }

    fn entry(event: LogEvent, time_ms: u64) -> LogEntry {
        let mut entry = LogEntry::new(LogSeverity::Warn, event);
        entry.time_ms = time_ms;
        entry.fields = Fields(vec![("reason".into(), Value::Text("shmd.toml:3: no".into()))]);
        entry
    }

    #[test]
    fn another_version_is_found() {
        let own = std::process::id();
        assert_eq!(version(&Pong::new(env!("CARGO_PKG_VERSION").into(), own, "shmd".into()), &site()), []);
        let findings = version(&Pong::new("9.8.7".into(), own, "shmd".into()), &site());
        assert!(findings[0].what.contains("9.8.7") && findings[0].command == "shmctl reexec", "{findings:?}");
    }

    #[test]
    fn a_refused_reload_counts_until_another_one_succeeds() {
        let (failed, done) = (entry(LogEvent::ReloadFailed, 1_000), entry(LogEvent::Reload, 2_000));
        let findings = log(&[done.clone(), failed.clone()], 5_000, &site());
        assert_eq!((findings[0].check, findings[0].cause.as_str()), ("reload", "shmd.toml:3: no"));
        assert_eq!(log(&[failed, done], 5_000, &site()), []);
        assert_eq!(log(&[], 0, &site()), []);
    }

    #[test]
    fn a_clock_that_was_set_back_is_found() {
        let entries = [entry(LogEvent::Attach, 100_000)];
        assert_eq!(log(&entries, 99_000, &site()), []);
        let findings = log(&entries, 40_000, &site());
        assert!(findings[0].what.contains("1m in the future"), "{findings:?}");
    }
}
