//! From raw settings to a checked configuration: defaults, ranges, and rules between keys.
//!
//! This is the only place with defaults; `etc/shmd.toml` shows them and a test holds the two together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;
use shm_proto::internal::client::SOCKET_NAME;
use shm_proto::internal::os::process::user_name;
use shm_proto::{ChannelName, Prefix};

use super::handoff::Mode;
use super::load::Loaded;
use super::origin::{Error, Located, Origin};
use super::raw::{Channel, DEFAULT_NAME, Top};
use super::sizes::Sizes;
use super::source::MAX_SOCKET_PATH;
use super::typed::{access, parse, parsed, ranged, some_time, time};
use super::{ChannelConfig, Config, SourceKind, content, creation, handoff, memory, semaphore_file, source};
use crate::access::group_id;
use crate::host::Host;

const LOG: LevelFilter = LevelFilter::Info;
const MAX_CLIENTS: u32 = 1024;
const LOG_ENTRIES: u32 = 1000;
const MAX_READERS: u32 = 64;
const EVICT_AFTER: Duration = Duration::from_secs(30);
const SHRINK_AFTER: Duration = Duration::from_secs(60);
const STALLED_AFTER: Duration = Duration::from_secs(5);
const ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// The cost of this number of readers in descriptors and cache lines is known; more were never measured.
pub(crate) const MOST_READERS: u32 = 1024;
const MOST_CLIENTS: u32 = 65_536;
/// An entry takes some 300 bytes.
const MOST_ENTRIES: u32 = 100_000;

/// Checks everything that was loaded.
pub(super) fn check(loaded: Loaded, host: &Host) -> Result<Config, Error> {
    let Loaded { top, channels, files, exit_on_eof } = loaded;
    one_of_each_name(&channels)?;
    let unconfigured = channels.iter().all(|(table, _)| table.is_none());
    let default_source = || if unconfigured && host.stdin_feeds { SourceKind::Stdin } else { SourceKind::None };
    let prefix = parsed(&top.prefix)?.unwrap_or_else(|| host.prefix.clone());
    let config = Config {
        runtime_dir: runtime_dir(&top, host)?,
        log: level(&top)?,
        max_clients: ranged(&top.max_clients, "max_clients", 1..=MOST_CLIENTS, MAX_CLIENTS)?,
        log_entries: ranged(&top.log_entries, "log_entries", 1..=MOST_ENTRIES, LOG_ENTRIES)?,
        creation: creation::check(&top, host)?,
        state_dir: creation::state_dir(&top, host)?,
        channels: channels
            .iter()
            .map(|(_, raw)| channel(raw, default_source(), &prefix, host))
            .collect::<Result<_, _>>()?,
        prefix,
        exit_on_eof: exit_on_eof.is_some(),
        files,
    };
    one_of_each_object(&channels, &config)?;
    source::one_of_each(channels.iter().zip(&config.channels).map(|((_, raw), channel)| (raw, &channel.source)))?;
    if let Some(origin) = exit_on_eof
        && !config.channels.iter().any(|channel| channel.source == SourceKind::Stdin)
    {
        let reason = "this waits for the end of standard input, which feeds no channel here; add --source stdin, or \
                      make standard input a pipe";
        return Err(Error::Bad { origin, reason: reason.to_owned() });
    }
    memory::all_fit(&config, &channels.iter().map(|(_, raw)| raw).collect::<Vec<_>>(), host)?;
    Ok(config)
}

/// Checks one channel.
pub(super) fn channel(
    raw: &Channel,
    default_source: SourceKind,
    prefix: &Prefix,
    host: &Host,
) -> Result<ChannelConfig, Error> {
    let sizes = Sizes::check(raw, host)?;
    let max_readers = ranged(&raw.max_readers, "max_readers", 1..=MOST_READERS, MAX_READERS)?;
    let group = group(raw, host)?;
    let name = match &raw.name {
        Some(name) => parse(name)?,
        None => DEFAULT_NAME.parse::<ChannelName>().unwrap_or_else(|e| unreachable!("{e}")),
    };
    let mode = Mode::check(raw, prefix, &name, group.is_some())?;
    let framing = parsed(&raw.framing)?.unwrap_or_default();
    let write = access(&raw.write, host)?;
    let source = source::check(raw, framing, &write)?.unwrap_or(default_source);
    let flush = time(&raw.flush, Duration::ZERO).map(some_time)?;
    Ok(ChannelConfig {
        name,
        capacity: sizes.capacity,
        min: sizes.min,
        max: sizes.max,
        max_message: if mode.handoff.is_some() { handoff::max_message(raw, &sizes)? } else { sizes.max_message },
        align: sizes.align,
        on_full: raw.on_full.as_ref().map(|v| v.value).unwrap_or_default(),
        max_readers,
        evict_after: time(&raw.evict_after, EVICT_AFTER).map(some_time)?,
        shrink_after: time(&raw.shrink_after, SHRINK_AFTER).map(some_time)?,
        stalled_after: time(&raw.stalled_after, STALLED_AFTER).map(some_time)?,
        ack: raw.ack.as_ref().is_some_and(|v| v.value),
        ack_timeout: ack_timeout(raw)?,
        wait_readers: wait_readers(raw, max_readers)?,
        timestamps: raw.timestamps.as_ref().is_some_and(|v| v.value),
        prefault: raw.prefault.as_ref().is_some_and(|v| v.value),
        declared: content::check(raw)?,
        mode: mode.permissions,
        handoff: mode.handoff,
        read: access(&raw.read, host)?.and_group(group.as_ref().map(|(_, gid)| *gid)),
        admin: access(&raw.admin, host)?,
        group,
        flush: source::flush(raw, &source, framing, flush)?,
        source,
        framing,
        write,
        keep_delimiter: raw.keep_delimiter.as_ref().is_some_and(|v| v.value),
        created: None,
    })
}

fn one_of_each_name(channels: &[(Option<Origin>, Channel)]) -> Result<(), Error> {
    let place = |(table, channel): &(Option<Origin>, Channel)| {
        channel.name.as_ref().map(|name| name.origin.clone()).or_else(|| table.clone())
    };
    for (index, later) in channels.iter().enumerate() {
        let name = later.1.name();
        let earlier = channels[..index].iter().find(|(_, channel)| channel.name() == name);
        if let (Some(first), Some(origin)) = (earlier.and_then(place), place(later)) {
            let reason = format!("channel {name:?} is there already, at {first}; every channel needs its own name");
            return Err(Error::Bad { origin, reason });
        }
    }
    Ok(())
}

/// No two channels have an object in common, whatever their names are.
fn one_of_each_object(channels: &[(Option<Origin>, Channel)], config: &Config) -> Result<(), Error> {
    for (index, later) in config.channels.iter().enumerate() {
        let common =
            |earlier: &ChannelConfig| Some((later.common_object(earlier, &config.prefix)?, earlier.name.clone()));
        let Some((object, other)) = config.channels[..index].iter().find_map(common) else { continue };
        let reason = format!(
            "channel {} would have the object {object}, which channel {other} has; choose another name for one of them",
            later.name
        );
        let (table, raw) = &channels[index];
        let is_it = |written: &&Located<String>| [&written.value, &semaphore_file(&written.value)].contains(&&object);
        let named = [&raw.segment, &raw.avail, &raw.done].into_iter().flatten().find(is_it).or(raw.name.as_ref());
        return Err(match named.map(|written| &written.origin).or(table.as_ref()) {
            Some(origin) => Error::Bad { origin: origin.clone(), reason },
            None => Error::TooMuch(reason),
        });
    }
    Ok(())
}

fn runtime_dir(top: &Top, host: &Host) -> Result<PathBuf, Error> {
    let Some(written) = &top.runtime_dir else { return Ok(host.runtime_dir.clone()) };
    let dir = Path::new(&written.value);
    if !dir.is_absolute() {
        return Err(written.bad(format!("runtime_dir {:?} must be an absolute path", written.value)));
    }
    let length = dir.join(SOCKET_NAME).as_os_str().len();
    if length > MAX_SOCKET_PATH {
        return Err(written.bad(format!(
            "runtime_dir is too long: the socket's path {SOCKET_NAME} in it has {length} bytes, \
             the kernel allows {MAX_SOCKET_PATH}"
        )));
    }
    Ok(dir.to_owned())
}

fn level(top: &Top) -> Result<LevelFilter, Error> {
    top.log.as_ref().map_or(Ok(LOG), |level| {
        level.value.parse().map_err(|_| {
            level.bad(format!("log {:?} is not a level: use off, error, warn, info, debug or trace", level.value))
        })
    })
}

fn group(raw: &Channel, host: &Host) -> Result<Option<(String, u32)>, Error> {
    let Some(group) = raw.group.as_ref().filter(|group| !group.value.is_empty()) else { return Ok(None) };
    let name = &group.value;
    let gid = group_id(name).map_err(|why| group.unusable(why))?;
    if host.groups.contains(gid) {
        return Ok(Some((name.clone(), gid)));
    }
    Err(group.bad(format!(
        "the daemon's user, {}, is not in group {name}, and only a member may give objects to a group; under systemd put \
         SupplementaryGroups={name} into a drop-in (systemctl edit shmd) and restart the service, because a reload does not \
         change the daemon's groups; otherwise add the user to the group and restart the daemon",
        user_name(host.uid)
    )))
}

fn ack_timeout(raw: &Channel) -> Result<Duration, Error> {
    match (&raw.ack_timeout, time(&raw.ack_timeout, ACK_TIMEOUT)?) {
        (Some(written), Duration::ZERO) => {
            Err(written.bad("ack_timeout 0 would let no publish succeed; use at least 1ms"))
        }
        (_, timeout) => Ok(timeout),
    }
}

fn wait_readers(raw: &Channel, max_readers: u32) -> Result<u32, Error> {
    match &raw.wait_readers {
        Some(wait) if wait.value > max_readers => Err(wait.bad(format!(
            "wait_readers {} is more than max_readers {max_readers}: nothing would ever be published",
            wait.value
        ))),
        wait => Ok(wait.as_ref().map_or(0, |wait| wait.value)),
    }
}
