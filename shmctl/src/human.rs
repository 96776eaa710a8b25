//! Numbers and names for people.

use std::time::Duration;

/// Bytes in the largest unit that leaves a whole number, with one decimal where that is not exact: `512`, `64KiB`,
/// `1.5MiB`.
pub(crate) fn bytes(n: u64) -> String {
    scaled(n as f64, 1024.0, &["", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// A number of things a second: `0/s`, `950/s`, `12.3k/s`, `1.2M/s`.
pub(crate) fn per_second(n: f64) -> String {
    format!("{}/s", scaled(n, 1000.0, &["", "k", "M", "G", "T"]))
}

/// Bytes a second: `1.5MiB/s`.
pub(crate) fn bytes_per_second(n: f64) -> String {
    format!("{}/s", bytes(n.max(0.0).round() as u64))
}

/// A count with its thousands set apart: `1,234,567`.
pub(crate) fn count(n: u64) -> String {
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

/// A number of messages and what happened to them: `1 message was lost`, `2 messages were lost`.
pub(crate) fn messages(n: u64, what: &str) -> String {
    if n == 1 { format!("1 message was {what}") } else { format!("{n} messages were {what}") }
}

/// An age: `12ms`, `3.4s`, `5m`, `2h`, `3d`.
pub(crate) fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => format!("{:.1}s", millis as f64 / 1000.0),
        60_000..3_600_000 => format!("{}m", millis / 60_000),
        3_600_000..86_400_000 => format!("{}h", millis / 3_600_000),
        _ => format!("{}d", millis / 86_400_000),
    }
}

/// A part of a whole in percent; 0 of 0 is 0.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let percent = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    if percent > 0.0 && percent < 1.0 { "<1%".to_owned() } else { format!("{percent:.0}%") }
}

/// Text that somebody else chose, with whatever a terminal might obey made visible.
pub(crate) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// What to wait between looks: a number of seconds, or a duration with its unit.
pub(crate) fn interval(text: &str) -> Result<Duration, String> {
    let told = || format!("{text:?} is not a time: write seconds, such as 1 or 0.5, or 500ms, 30s, 5m");
    let duration = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| told())?,
        Err(_) => shm_proto::duration::parse(text).map_err(|_| told())?,
    };
    if duration < Duration::from_millis(10) {
        return Err(format!("{text:?} is too short: the shortest is 10ms"));
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
        assert_eq!(messages(1, "lost"), "1 message was lost");
        assert_eq!(messages(0, "received"), "0 messages were received");
        assert_eq!(percent(0, 0), "0%");
        assert_eq!(percent(1, 1000), "<1%");
        assert_eq!(percent(512, 1024), "50%");
    }

    #[test]
    fn foreign_text_cannot_command_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\n\u{e9}"), "a\\u{1b}[2Jb\\n\u{e9}");
    }

    #[test]
    fn an_interval_is_seconds_or_a_duration() {
        assert_eq!(interval("2").unwrap(), Duration::from_secs(2));
        assert_eq!(interval("0.5").unwrap(), Duration::from_millis(500));
        assert_eq!(interval("250ms").unwrap(), Duration::from_millis(250));
        for text in ["0", "-1", "NaN", "inf", "never", "1ms"] {
            assert!(interval(text).unwrap_err().contains(text), "{text}");
        }
    }
}
