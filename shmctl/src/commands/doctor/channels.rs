//! Channels that are full, stalled or fed by a source that failed, and whose doing that is.

use shm_proto::OnFull;
use shm_proto::internal::control::stat::{ChannelStat, FullPolicy, ReaderStat, ReaderState, SourceState, WriterState};

use super::finding::{Finding, Severity};
use super::ring_size;
use super::site::Site;
use crate::condition::{effect, is_full, name, slowest};
use crate::human::{age, bytes, count, percent, printable};

/// `earlier` is a look at the same channels a moment ago, which tells a reader that is slow from one that stands still.
pub(super) fn look(earlier: &[ChannelStat], now: &[ChannelStat], site: &Site) -> Vec<Finding> {
    let mut findings = Vec::new();
    for stat in now {
        let before = earlier.iter().find(|it| it.channel == stat.channel && it.segment == stat.segment);
        findings.extend(full(before, stat, site));
        findings.extend(source(stat, site));
        findings.extend(peers(stat, site));
        findings.extend(ring_size::look(stat, site));
        if stat.readers.len() >= stat.max_readers as usize {
            findings.push(Finding::new(
                Severity::Warning,
                "readers",
                format!("channel {} has {} readers, which is its max_readers", stat.channel, stat.readers.len()),
                "another reader will be refused",
                format!("raise max_readers of channel {} in shmd.toml, then: {}", stat.channel, site.shmctl("reload")),
            ));
        }
    }
    findings
}

fn evict(stat: &ChannelStat, reader: &ReaderStat, site: &Site) -> String {
    site.shmctl(format_args!("evict -c {} --reader {}", stat.channel, reader.reader))
}

/// What ends a program. Of a program in a container of its own, the daemon does not know the number, and 0 stands for it.
fn end(pid: u32) -> String {
    match pid {
        0 => "end that program in its container, where its process number is known".to_owned(),
        pid => format!("kill {pid}"),
    }
}

fn full(before: Option<&ChannelStat>, stat: &ChannelStat, site: &Site) -> Option<Finding> {
    let before = before.filter(|before| is_full(before))?;
    let culprit = slowest(stat).filter(|_| is_full(stat))?;
    let then = before.readers.iter().find(|reader| reader.reader == culprit.reader)?;
    let stands = then.received == culprit.received;
    let severity = match &stat.on_full {
        FullPolicy::Known(OnFull::Block) if !stands => Severity::Warning,
        FullPolicy::Known(OnFull::Block | OnFull::Drop) => Severity::Critical,
        _ => Severity::Warning,
    };
    let effect = effect(&stat.on_full, stands);
    let (used, capacity) = (bytes(stat.used), bytes(stat.capacity));
    let level = format!("{used} of {capacity}, {}", percent(stat.used, stat.capacity));
    let pace = if stands {
        format!("read nothing while this command looked; its last sign of life was {} ago", age(culprit.heartbeat_ms))
    } else {
        "reads, but too slowly".to_owned()
    };
    let command = if stands || stat.capacity >= stat.max {
        evict(stat, culprit, site)
    } else {
        site.shmctl(format_args!("resize -c {} --bytes {}", stat.channel, stat.max))
    };
    Some(Finding::new(
        severity,
        "full",
        format!("channel {} is full ({level}), and {} {effect}", stat.channel, name(culprit)),
        format!(
            "the reader is {} messages ({}) behind and {pace}",
            count(culprit.lag_messages),
            bytes(culprit.lag_bytes)
        ),
        command,
    ))
}

fn source(stat: &ChannelStat, site: &Site) -> Option<Finding> {
    let input = stat.input.as_ref()?;
    let last = input.last_error.as_ref().map_or_else(|| "no error is known".to_owned(), printable);
    let (severity, what, command) = match input.state {
        SourceState::Failed => {
            let command = format!("correct the source in shmd.toml, then: {}", site.restart());
            (Severity::Critical, "has given up", command)
        }
        SourceState::Retrying => {
            let command = site.shmctl(format_args!("log -n 20 -c {}", stat.channel));
            (Severity::Warning, "cannot be opened and is tried again", command)
        }
        _ => return None,
    };
    let what = format!("the source {} of channel {} {what}", printable(&stat.source), stat.channel);
    Some(Finding::new(severity, "source", what, last, command))
}

fn peers(stat: &ChannelStat, site: &Site) -> Vec<Finding> {
    let mut findings = Vec::new();
    let limit = age(stat.stalled_after_ms);
    for reader in &stat.readers {
        match reader.state {
            ReaderState::Stalled => findings.push(Finding::new(
                Severity::Warning,
                "stalled",
                format!("{} of channel {} is stalled", name(reader), stat.channel),
                format!(
                    "it has {} messages to read, and showed no sign of life for {} (stalled_after is {limit})",
                    count(reader.lag_messages),
                    age(reader.heartbeat_ms)
                ),
                evict(stat, reader, site),
            )),
            ReaderState::Evicted => findings.push(Finding::new(
                Severity::Warning,
                "evicted",
                format!("{} of channel {} was evicted and has not detached", name(reader), stat.channel),
                format!(
                    "the program does not look at its channel: its last sign of life was {} ago",
                    age(reader.heartbeat_ms)
                ),
                end(reader.pid),
            )),
            _ => {}
        }
    }
    if let Some(writer) = stat.writer.as_ref().filter(|writer| writer.state == WriterState::Stalled) {
        let (program, user) = (printable(&writer.program), printable(&writer.user));
        findings.push(Finding::new(
            Severity::Warning,
            "stalled",
            format!("the writer of channel {} ({program}, pid {}, user {user}) is stalled", stat.channel, writer.pid),
            format!("its last sign of life was {} ago (stalled_after is {limit})", age(writer.heartbeat_ms)),
            end(writer.pid),
        ));
    }
    if let Some(handoff) = stat.handoff.as_ref().filter(|handoff| handoff.stalled) {
        findings.push(Finding::new(
            Severity::Warning,
            "stalled",
            format!("nobody acknowledges the message on offer in channel {}", stat.channel),
            format!(
                "it has been on offer for {}: no reader runs, or the reader hangs",
                age(handoff.on_offer_ms.unwrap_or(0))
            ),
            site.shmctl(format_args!("read -c {}", stat.channel)),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::slice::from_ref;

    use shm_proto::internal::control::stat::{Mode, SourceKind, SourceStat, WriterRole, WriterStat};

    use super::*;

    /// What is found with the system's daemon.
    fn look(earlier: &[ChannelStat], now: &[ChannelStat]) -> Vec<Finding> {
        super::look(earlier, now, &Site::new(Path::new("/run/shmd/shmd.sock"), None))
    }

    fn channel() -> ChannelStat {
        let mut stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        (stat.capacity, stat.max, stat.used, stat.max_readers) = (1000, 1000, 950, 64);
        let mut reader = ReaderStat::new(3, 4712, "view".into(), "me".into(), ReaderState::Sleeping);
        (reader.lag_bytes, reader.lag_messages, reader.received, reader.heartbeat_ms) = (950, 19, 7, 12_000);
        stat.readers.push(reader);
        stat
    }

    #[test]
    fn the_reader_that_holds_the_writer_up_is_named() {
        let stat = channel();
        let findings = look(from_ref(&stat), from_ref(&stat));
        let [found] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!((found.severity, found.check), (Severity::Critical, "full"));
        for part in ["channel cam is full", "reader 3 (view, pid 4712, user me)", "holds the writer up"] {
            assert!(found.what.contains(part), "{found:?}");
        }
        assert!(found.cause.contains("19 messages (950) behind") && found.cause.contains("12.0s ago"), "{found:?}");
        assert_eq!(found.command, "shmctl evict -c cam --reader 3");
        let instance = Site::new(Path::new("/run/shmd-b/shmd.sock"), Some(Path::new("/run/shmd-b")));
        let findings = super::look(from_ref(&stat), from_ref(&stat), &instance);
        assert_eq!(findings[0].command, "shmctl --runtime-dir /run/shmd-b evict -c cam --reader 3");
        // Full only now, or only before.
        let mut empty = stat.clone();
        empty.used = 0;
        assert_eq!(look(from_ref(&empty), from_ref(&stat)), []);
        assert_eq!(look(&[stat], &[empty]), []);
    }

    #[test]
    fn a_reader_that_is_only_slow_is_no_reason_for_an_alarm_and_growing_helps_if_it_is_possible() {
        let (earlier, mut stat) = (channel(), channel());
        stat.readers[0].received += 1;
        stat.max = 4000;
        let findings = look(&[earlier], &[stat]);
        assert_eq!(findings[0].severity, Severity::Warning);
        assert!(
            findings[0].what.contains("slows the writer down") && findings[0].cause.contains("too slowly"),
            "{findings:?}"
        );
        assert_eq!(findings[0].command, "shmctl resize -c cam --bytes 4000");
    }

    #[test]
    fn a_program_without_a_number_here_is_not_to_be_killed_by_number() {
        assert_eq!(end(4711), "kill 4711");
        assert!(!end(0).contains("kill"), "kill 0 would end the operator's own programs");
    }

    #[test]
    fn sources_peers_and_places_are_looked_at() {
        let mut stat = channel();
        (stat.used, stat.max_readers, stat.source) = (0, 1, "fifo:/run/in".into());
        stat.readers[0].state = ReaderState::Stalled;
        let mut writer = WriterStat::new(WriterRole::Lent, 4711, "camd".into(), "me".into());
        writer.state = WriterState::Stalled;
        stat.writer = Some(writer);
        let mut input = SourceStat::new(SourceKind::Fifo, None, SourceState::Failed);
        input.last_error = Some("no such file".into());
        stat.input = Some(input);
        let findings = look(&[], &[stat]);
        let checks: Vec<_> = findings.iter().map(|found| found.check).collect();
        assert_eq!(checks, ["source", "stalled", "stalled", "readers"], "{findings:?}");
        assert!(findings[0].what.contains("fifo:/run/in") && findings[0].cause == "no such file", "{findings:?}");
    }
}
