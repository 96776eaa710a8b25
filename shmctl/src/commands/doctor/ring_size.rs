//! Rings that are too small for their traffic.
//!
//! Messages flow through them, only more slowly than they could, and nobody is to blame. So this is a note and no fault.
//!
//! A ring is *small* if it has less than [`LINES`], or room for fewer than [`MESSAGES`] messages of the present mean size:
//!
//! * Below 256 KiB, the cache lines that the writer is about to fill are those that the reader has just read, and both processors
//!   wait for them to change hands: 1 KiB messages flow at 2.9 M/s through 64 and 128 KiB, and at 16 M/s through 256 KiB and more;
//!   on another machine at 7.6, 9.6, 14 and 17 M/s through 64, 128, 256 and 512 KiB (`PERFORMANCE.md`).
//! * With room for fewer than four messages, writer and reader take turns: the writer waits until a message is read before it has
//!   space for another, whatever the size of the ring.
//!
//! It is small *for its traffic* if the writer goes around it at least [`LAPS`] times a second. A writer that does nothing else goes
//! around 64 and 128 KiB 45,000 and 22,000 times a second, by the figures above. At less than a twentieth of that, the two sides
//! rarely want the same lines at the same time, and a larger ring would make nothing faster.

use shm_proto::internal::control::stat::{ChannelStat, Mode};
use shm_proto::internal::ring::record::{Strides, features, is_alignment};

use super::finding::{Finding, Severity};
use super::site::Site;
use crate::human::{bytes, bytes_per_second, per_second};

/// From this capacity on, in bytes, writer and reader do not wait for each other's cache lines.
const LINES: u64 = 256 << 10;
/// Room for this many messages lets writer and reader work side by side.
const MESSAGES: u64 = 4;
/// The least number of laps a second that counts as traffic.
const LAPS: f64 = 1000.0;

/// A note about the ring, if it is small for the traffic of the last second.
pub(super) fn look(stat: &ChannelStat, site: &Site) -> Option<Finding> {
    if stat.mode != Mode::Ring || stat.capacity == 0 || stat.messages_per_s <= 0.0 {
        return None;
    }
    let (channel, capacity) = (&stat.channel, stat.capacity);
    let mean = (stat.bytes_per_s / stat.messages_per_s).ceil() as u64;
    // What a message takes in the ring, with its header.
    let strides =
        is_alignment(stat.align.into()).then(|| Strides::new(stat.align.into(), features(stat.timestamps)))?;
    let stride = strides.of(mean);
    let laps = stat.messages_per_s * stride as f64 / capacity as f64;
    let needed = LINES.max(stride.saturating_mul(MESSAGES).saturating_add(strides.overhead()));
    if laps < LAPS || capacity >= needed {
        return None;
    }
    let why = if capacity < LINES {
        format!("below {} its writer and its readers wait for the same cache lines", bytes(LINES))
    } else {
        format!("with room for fewer than {MESSAGES} messages, its writer and its readers take turns")
    };
    let wanted = needed.checked_next_power_of_two().unwrap_or(needed);
    let command = if needed <= stat.max {
        site.shmctl(format_args!("resize -c {channel} --bytes {}", wanted.min(stat.max)))
    } else {
        // A reload keeps `max` as it was.
        format!("set max of channel {channel} to {} in shmd.toml, then: {}", bytes(wanted), site.restart())
    };
    Some(Finding::new(
        Severity::Note,
        "small",
        format!("channel {channel} is small for its traffic, which a larger ring may carry faster"),
        format!(
            "its capacity is {}, and {} in messages of {} go around it {}; {why}",
            bytes(capacity),
            bytes_per_second(stat.bytes_per_s),
            bytes(mean),
            per_second(laps)
        ),
        command,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(stat: &ChannelStat) -> Option<Finding> {
        super::look(stat, &Site::new(std::path::Path::new("/run/shmd/shmd.sock"), None))
    }

    /// A channel with this capacity, through which messages of `size` bytes flow.
    fn channel(capacity: u64, size: u64, messages_per_s: f64) -> ChannelStat {
        let mut stat = ChannelStat::new("cam".parse().unwrap(), Mode::Ring, "/shmd.cam".into());
        (stat.capacity, stat.max, stat.align, stat.messages_per_s) = (capacity, 64 << 20, 16, messages_per_s);
        stat.bytes_per_s = messages_per_s * size as f64;
        stat
    }

    #[test]
    fn a_small_ring_is_noted_from_its_thousandth_lap_a_second_on() {
        // 64 messages of 1 KiB are a lap, with 16 bytes less for the header of each.
        assert_eq!(look(&channel(64 << 10, 1008, 63_999.0)), None);
        let found = look(&channel(64 << 10, 1008, 64_000.0)).unwrap();
        assert_eq!((found.severity, found.check), (Severity::Note, "small"));
        assert!(found.what.contains("channel cam is small"), "{found:?}");
        for part in ["capacity is 64KiB", "61.5MiB/s", "messages of 1008", "1k/s", "below 256KiB", "cache lines"] {
            assert!(found.cause.contains(part), "{part}: {found:?}");
        }
        assert_eq!(found.command, "shmctl resize -c cam --bytes 262144");
    }

    #[test]
    fn from_256_kib_on_only_the_size_of_the_messages_counts() {
        assert!(look(&channel((256 << 10) - 4096, 1 << 10, 1e6)).is_some());
        assert_eq!(look(&channel(256 << 10, 1 << 10, 1e6)), None);
        // Four of them, and a little too much for four of them with their headers.
        assert_eq!(look(&channel(4 << 20, (1 << 20) - 64, 1e6)), None);
        let found = look(&channel(4 << 20, 1 << 20, 1e6)).unwrap();
        assert!(found.cause.contains("fewer than 4 messages"), "{found:?}");
        assert_eq!(found.command, "shmctl resize -c cam --bytes 8388608");
    }

    #[test]
    fn a_channel_that_may_not_grow_so_far_needs_another_configuration() {
        let mut stat = channel(64 << 10, 1 << 10, 1e6);
        stat.max = 256 << 10;
        assert_eq!(look(&stat).unwrap().command, "shmctl resize -c cam --bytes 262144");
        let mut large = channel(4 << 20, 5 << 18, 1e6);
        large.max = 6 << 20;
        assert_eq!(look(&large).unwrap().command, "shmctl resize -c cam --bytes 6291456", "8 MiB would be too much");
        stat.max -= 1;
        let command = look(&stat).unwrap().command;
        assert_eq!(command, "set max of channel cam to 256KiB in shmd.toml, then: systemctl restart shmd");
    }

    #[test]
    fn small_messages_go_around_the_ring_with_their_headers() {
        // 8 bytes take 16, and 32 with a publish time and an alignment of 32.
        assert_eq!(look(&channel(64 << 10, 8, 4_095_999.0)), None);
        assert!(look(&channel(64 << 10, 8, 4_096_000.0)).is_some());
        let mut timed = channel(64 << 10, 8, 2_048_000.0);
        (timed.timestamps, timed.align) = (true, 32);
        assert!(look(&timed).is_some());
    }

    #[test]
    fn nothing_is_said_without_traffic_or_of_a_handoff() {
        assert_eq!(look(&channel(64 << 10, 1 << 10, 0.0)), None);
        assert_eq!(look(&channel(0, 1 << 10, 1e6)), None);
        let mut handoff = channel(4096, 1 << 10, 1e6);
        handoff.mode = Mode::Handoff;
        assert_eq!(look(&handoff), None);
    }
}
