//! A channel's sizes: given values, defaults, and whether they fit each other.

use shm_proto::Bytes;
use shm_proto::internal::ring::record::{LEAST_ALIGN, MAX_CAPACITY, MOST_ALIGN, Strides, features, is_alignment};

use super::memory;
use super::origin::{Error, Located};
use super::raw::{Channel, HANDOFF};
use crate::host::Host;
use crate::policy::PAGE;

const CAPACITY: u64 = Bytes::MIB;
const MIN: u64 = 64 * Bytes::KIB;
const MAX: u64 = 256 * Bytes::MIB;

/// Checked sizes in bytes.
pub(super) struct Sizes {
    pub(super) capacity: u64,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) align: u32,
    pub(super) max_message: u64,
}

impl Sizes {
    /// A default gives way to the sizes that are written: a channel with `max = "32KiB"` alone is valid.
    pub(super) fn check(raw: &Channel, host: &Host) -> Result<Self, Error> {
        let capacity = pages(&raw.capacity, "capacity")?;
        let min = pages(&raw.min, "min")?;
        let max = pages(&raw.max, "max")?;
        if let Some(written) = raw.max.as_ref().filter(|max| max.value.get() < PAGE) {
            return Err(written.bad(format!("max {} is less than a page, {PAGE} bytes", written.value)));
        }
        let default_max = host.shm.map_or(MAX, |shm| MAX.min(shm.total / PAGE * PAGE)).max(PAGE);
        let most = max.unwrap_or(default_max.max(capacity.unwrap_or(0)).max(min.unwrap_or(0)));
        let least = min.unwrap_or(MIN.min(most).min(capacity.unwrap_or(u64::MAX)));
        let start = capacity.unwrap_or(CAPACITY.clamp(least.min(most), most));
        if let (Some(min), true) = (&raw.min, least > most) {
            return Err(min.bad(format!("min {} is more than max {}", min.value, show(&raw.max, most))));
        }
        if let (Some(capacity), false) = (&raw.capacity, (least..=most).contains(&start)) {
            return Err(capacity.bad(format!(
                "capacity {} is outside min {} to max {}",
                capacity.value,
                show(&raw.min, least),
                show(&raw.max, most)
            )));
        }
        memory::one_fits(raw, most, host)?;
        if let Some(written) = raw.max.as_ref().filter(|max| max.value.get() > MAX_CAPACITY) {
            return Err(written.bad(format!(
                "max {} is more than a ring can have, {}",
                written.value,
                Bytes(MAX_CAPACITY)
            )));
        }
        let align = align(raw)?;
        let max_message = max_message(raw, most, align)?;
        Ok(Sizes { capacity: start, min: least, max: most, align, max_message })
    }
}

/// Rounded up to whole pages, and at least one.
fn pages(size: &Option<Located<Bytes>>, key: &str) -> Result<Option<u64>, Error> {
    let Some(size) = size else { return Ok(None) };
    match size.value.get().max(1).checked_next_multiple_of(PAGE) {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Some(bytes)),
        _ => Err(size.bad(format!("{key} {} is more than any file can have, {} bytes", size.value, i64::MAX))),
    }
}

fn show(written: &Option<Located<Bytes>>, used: u64) -> String {
    match written {
        Some(written) => format!("{} ({})", written.value, written.origin),
        None => format!("{} (default)", Bytes(used)),
    }
}

fn align(raw: &Channel) -> Result<u32, Error> {
    match &raw.align {
        Some(align) if !is_alignment(align.value.into()) => {
            Err(align.bad(format!("align {} is not a power of two from {LEAST_ALIGN} to {MOST_ALIGN}", align.value)))
        }
        align => Ok(align.as_ref().map_or(LEAST_ALIGN as u32, |align| align.value)),
    }
}

/// At most what fits into an otherwise empty ring of `max` bytes. A [handoff](super::handoff::max_message) has another limit.
fn max_message(raw: &Channel, max: u64, align: u32) -> Result<u64, Error> {
    if raw.mode.as_ref().is_some_and(|mode| mode.value == HANDOFF) {
        return Ok(raw.max_message.as_ref().map_or(u64::MAX, |asked| asked.value.get()));
    }
    let times = raw.timestamps.as_ref().is_some_and(|v| v.value);
    let strides = Strides::new(align.into(), features(times));
    let overhead = strides.overhead();
    let limit = (max >= overhead).then(|| strides.largest_message(max));
    match (&raw.max_message, limit) {
        (None, Some(limit)) => Ok(limit),
        (Some(asked), Some(limit)) if asked.value.get() <= limit => Ok(asked.value.get()),
        (Some(asked), Some(limit)) => Err(asked.bad(format!(
            "max_message {} does not fit into max {}: with align {align} the largest message is {limit} bytes; \
             raise max or lower max_message",
            asked.value,
            show(&raw.max, max),
        ))),
        (_, None) => {
            let reason = format!(
                "max {} holds no message at all with align {align}: {overhead} bytes are needed besides it",
                Bytes(max)
            );
            // Only an alignment of a page against a ring of a page comes to this, so one of them was written.
            match (&raw.align, &raw.max) {
                (Some(align), _) => Err(align.bad(reason)),
                (None, Some(max)) => Err(max.bad(reason)),
                (None, None) => Err(Error::TooMuch(reason)),
            }
        }
    }
}
