//! Numbers and names for people.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

/// Bytes in the largest unit that leaves a whole number, with one decimal where that is not exact: `512`, `64KiB`,
/// `1.5MiB`.
pub fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Bytes in a sentence, where a bare number would not say what it counts: `1 byte`, `512 bytes`, `64KiB`.
pub fn bytes_in_words(n: u64) -> String {
    match n {
        1 => "1 byte".to_owned(),
        0..1024 => format!("{n} bytes"),
        _ => bytes(n),
    }
}

/// A rate: `0/s`, `950/s`, `12.3k/s`, `1.2M/s`.
pub fn per_second(n: f64) -> String {
    format!("{}/s", scaled(n, 1000.0, &["", "k", "M", "G", "T"]))
}

/// Bytes per second: `1.5MiB/s`.
pub fn bytes_per_second(n: f64) -> String {
    format!("{}/s", bytes(n.max(0.0).round() as u64))
}

/// A count with its thousands set apart: `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun, with the ending of the plural: `1 resize`, `2 resizes`.
pub fn counted(n: u64, noun: &str, plural: &str) -> String {
    format!("{} {noun}{}", count(n), if n == 1 { "" } else { plural })
}

/// A number of messages and what happened to them: `1 message was lost`, `2 messages were lost`.
pub fn messages(n: u64, what: &str) -> String {
    if n == 1 { format!("1 message was {what}") } else { format!("{n} messages were {what}") }
}

/// Messages that were carried, their bytes, and how long that took: `2 messages, 64KiB, in 3.4s`.
pub fn carried(messages: u64, bytes: u64, elapsed: Duration) -> String {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    format!("{}, {}, in {}", counted(messages, "message", "s"), bytes_in_words(bytes), age(millis))
}

/// An age: `12ms`, `3.4s`, `5m`, `2h`, `3d`.
pub fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{:.1}s", millis as f64 / 1000.0),
        60_000..3_600_000 => format!("{}m", millis / 60_000),
        3_600_000..86_400_000 => format!("{}h", millis / 3_600_000),
        _ => format!("{}d", millis / 86_400_000),
    }
}

/// A moment, given in milliseconds since 1970: `2026-01-31T23:59:58.123Z`.
pub fn utc(millis: u64) -> String {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// A date with nanoseconds: `2026-01-31T23:59:58.123456789Z`.
pub fn utc_ns(date: SystemTime) -> String {
    let since = date.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let text = utc(millis);
    format!("{}{:06}Z", text.trim_end_matches('Z'), since.subsec_nanos() % 1_000_000)
}

/// A time in its unit: `850ns`, `12us`, `3.4ms`, `2.1s`.
pub fn nanos(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns}ns"),
        1_000..1_000_000 => format!("{}us", tenths(ns, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", tenths(ns, 1_000_000)),
        _ => age(ns / 1_000_000),
    }
}

/// With one decimal below ten.
fn tenths(n: u64, unit: u64) -> String {
    if n < 10 * unit { format!("{:.1}", n as f64 / unit as f64) } else { (n / unit).to_string() }
}

/// Days since 1970-01-01 as year, month and day, by Howard Hinnant's `civil_from_days`: years begin in March, so that the
/// leap day is the last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, of_year - (153 * from_march + 2) / 5 + 1)
}

/// A part of a whole in percent; 0 of 0 is 0.
pub fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    if percent > 0.0 && percent < 1.0 { "<1%".to_owned() } else { format!("{percent:.0}%") }
}

/// Text that another program chose, with the characters made visible that a terminal might obey, or that change the order of others.
pub fn printable(text: impl Display) -> String {
    let is_obeyed = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.to_string().chars().flat_map(|c| if is_obeyed(c) { c.escape_default().collect() } else { vec![c] }).collect()
}

/// A time on the command line: a number of seconds, or a duration with its unit.
pub fn duration(text: &str) -> Result<Duration, String> {
    let told =
        || format!("{text:?} is not a time: write seconds, such as 5 or 0.5, or a number with a unit: 500ms, 30s, 5m");
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| told()),
        Err(_) => shm_proto::internal::duration::parse(text).map_err(|_| told()),
    }
}

/// The time between two requests to the daemon: a [`duration`] of 10 ms to 24 h. A clock cannot add every duration to the present.
pub fn interval(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_millis(10) {
        return Err(format!("{text:?} is too short: the shortest is 10ms"));
    }
    if duration > Duration::from_secs(24 * 3600) {
        return Err(format!("{text:?} is too long: the longest is 24h"));
    }
    Ok(duration)
}

fn scaled(n: f64, step: f64, units: &[&str]) -> String {
    let tenths = |value: f64| (value * 10.0).round() / 10.0;
    let (mut value, mut unit) = (n.max(0.0), 0);
    while tenths(value) >= step && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    format!("{}{}", tenths(value), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_are_short() {
        for (n, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1KiB"),
            (1536, "1.5KiB"),
            (65_536, "64KiB"),
            ((1 << 20) - 1, "1MiB"),
            (3 << 30, "3GiB"),
            (u64::MAX, "16EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
        for (n, text) in [(0.0, "0/s"), (0.5, "0.5/s"), (999.0, "999/s"), (12_345.0, "12.3k/s"), (107e6, "107M/s")] {
            assert_eq!(per_second(n), text);
        }
        assert_eq!(bytes_per_second(1.5 * 1024.0), "1.5KiB/s");
    }

    #[test]
    fn counts_ages_and_parts_are_readable() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12, 3400, 300_000, 7_200_000, 200_000_000].map(age), ["12ms", "3.4s", "5m", "2h", "2d"]);
        assert_eq!(
            [999, 1_500, 12_999, 3_400_000, 2_100_000_000].map(nanos),
            ["999ns", "1.5us", "12us", "3.4ms", "2.1s"]
        );
        assert_eq!([0, 1, 1000].map(|n| counted(n, "resize", "s")), ["0 resizes", "1 resize", "1,000 resizes"]);
        assert_eq!(messages(1, "lost"), "1 message was lost");
        assert_eq!(messages(0, "received"), "0 messages were received");
        assert_eq!(percent(0, 0), "0%");
        assert_eq!(percent(1, 1000), "<1%");
        assert_eq!(percent(512, 1024), "50%");
    }

    #[test]
    fn moments_are_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_735_689_600, "2025-01-01T00:00:00"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(utc(seconds * 1000 + 7), format!("{text}.007Z"));
            let date = SystemTime::UNIX_EPOCH + Duration::new(seconds, 7_000_009);
            assert_eq!(utc_ns(date), format!("{text}.007000009Z"));
        }
    }

    #[test]
    fn foreign_text_cannot_command_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{e9}"), "a\\u{1b}[2Jb\\n\u{e9}");
        assert_eq!(printable("ok\u{202e}dellats"), "ok\\u{202e}dellats");
    }

    #[test]
    fn a_time_is_seconds_or_a_duration_and_an_interval_is_not_too_short() {
        assert_eq!(duration("5").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("0").unwrap(), Duration::ZERO);
        assert_eq!(duration("1ms").unwrap(), Duration::from_millis(1));
        assert!(duration("soon").unwrap_err().contains("500ms"));
        assert_eq!(interval("2").unwrap(), Duration::from_secs(2));
        assert_eq!(interval("0.5").unwrap(), Duration::from_millis(500));
        assert_eq!(interval("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(interval("24h").unwrap(), Duration::from_secs(86_400));
        for text in ["0", "-1", "NaN", "inf", "never", "1ms", "25h", "1e19"] {
            assert!(interval(text).unwrap_err().contains(text), "{text}");
        }
    }
}
