//! Whether the machine has the memory that the channels ask for.

use shm_proto::Bytes;

use super::Config;
use super::origin::{Error, Origin};
use super::raw::Channel;
use crate::host::Host;
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
pub(super) fn all_fit(config: &Config, raws: &[&Channel], host: &Host) -> Result<(), Error> {
    let objects = config.channels.iter().map(|channel| channel.object(&config.prefix));
    let held: u64 = objects.map(|object| host.held(&object)).sum();
    let asked = config.channels.iter().fold(0u64, |sum, channel| sum.saturating_add(channel.capacity + PAGE));
    let (there, place) = match (host.shm, host.memory) {
        (Some(shm), _) if asked > shm.free.saturating_add(held) => {
            (shm.free.saturating_add(held), format!("are free in {}", host.shm_dir.display()))
        }
        (_, Some(memory)) if asked > memory => (memory, "are the machine's memory".to_owned()),
        _ => return Ok(()),
    };
    let reason = format!(
        "the channels' capacities at the start are {asked} bytes together with their headers ({}), but only {there} \
         bytes {place}; lower capacity",
        config.channels.iter().map(|c| format!("{} {}", c.name, Bytes(c.capacity))).collect::<Vec<_>>().join(", ")
    );
    Err(match largest(config, raws) {
        Some(origin) => Error::Bad { origin, reason },
        None => Error::TooMuch(reason),
    })
}

/// Where the largest capacity was asked for: the first line to look at.
fn largest(config: &Config, raws: &[&Channel]) -> Option<Origin> {
    let (_, raw) = config.channels.iter().zip(raws).max_by_key(|(channel, _)| channel.capacity)?;
    raw.capacity.as_ref().or(raw.min.as_ref()).map(|size| size.origin.clone())
}
