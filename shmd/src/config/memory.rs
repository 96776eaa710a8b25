//! Whether the machine has the memory that the channels ask for.

use shm_proto::Bytes;

use super::origin::{Error, Origin};
use super::raw::Channel;
use super::{ChannelConfig, Config};
use crate::host::{Host, Shm};
use crate::policy::PAGE;

/// Refuses a channel that could not reach its `max` if it had the machine to itself.
pub(super) fn one_fits(raw: &Channel, max: u64, host: &Host) -> Result<(), Error> {
    let Some(written) = raw.max.as_ref().or(raw.capacity.as_ref()).or(raw.min.as_ref()) else { return Ok(()) };
    if let Some(shm) = host.shm.filter(|shm| max > shm.total) {
        return Err(written.bad(format!(
            "max {} ({max} bytes) is more than the whole of {}, {} bytes; lower max or enlarge the file system",
            Bytes(max),
            host.shm_dir.display(),
            shm.total
        )));
    }
    if let Some(memory) = host.memory.filter(|memory| max > *memory) {
        return Err(written.bad(format!(
            "max {} ({max} bytes) is more than the machine's memory, {memory} bytes; lower max",
            Bytes(max)
        )));
    }
    Ok(())
}

/// Refuses channels whose first capacities do not fit into memory together. `raws` are the channels as written.
///
/// A channel whose object is there already needs nothing more: the object is adopted with the capacity that it has, or, at a reload,
/// it is the channel's own. If it has to be replaced, its memory is free for others before. So what is refused here cannot be, and
/// what is not may still fail when the channels are made, with the numbers.
pub(super) fn all_fit(config: &Config, raws: &[&Channel], host: &Host) -> Result<(), Error> {
    let need = |channels: &[&ChannelConfig]| {
        channels.iter().fold(0u64, |sum, channel| sum.saturating_add(channel.capacity + PAGE))
    };
    let all: Vec<&ChannelConfig> = config.channels.iter().collect();
    let held = |channel: &ChannelConfig| host.held(&channel.object(&config.prefix));
    let new: Vec<_> = all.iter().copied().filter(|channel| held(channel).is_none()).collect();
    let free = |shm: Shm| all.iter().filter_map(|channel| held(channel)).fold(shm.free, u64::saturating_add);
    let (channels, there, place) = match (host.shm.map(free), host.memory) {
        (Some(free), _) if need(&new) > free => (new, free, format!("are free in {}", host.shm_dir.display())),
        (_, Some(memory)) if need(&all) > memory => (all, memory, "are the machine's memory".to_owned()),
        _ => return Ok(()),
    };
    let asked = need(&channels);
    let reason = format!(
        "the channels' capacities at the start are {asked} bytes together with their headers ({}), but only {there} \
         bytes {place}; lower capacity",
        channels.iter().map(|c| format!("{} {}", c.name, Bytes(c.capacity))).collect::<Vec<_>>().join(", ")
    );
    Err(match largest(&channels, config, raws) {
        Some(origin) => Error::Bad { origin, reason },
        None => Error::TooMuch(reason),
    })
}

/// Where the largest capacity of these was asked for: the first line to look at.
fn largest(channels: &[&ChannelConfig], config: &Config, raws: &[&Channel]) -> Option<Origin> {
    let largest = channels.iter().max_by_key(|channel| channel.capacity)?;
    let (_, raw) = config.channels.iter().zip(raws).find(|(channel, _)| channel.name == largest.name)?;
    raw.capacity.as_ref().or(raw.min.as_ref()).map(|size| size.origin.clone())
}
