//! Durations as people write them: `500ms`, `30s`, `5m`, `2h`, and `0`.

use std::time::Duration;

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{input:?} is not a duration: write a number with its unit ms, s, m or h, such as 500ms, 30s or 5m; 0 for never"
)]
pub struct BadDuration {
    /// The text as given.
    pub input: String,
}

/// Suffixes with their nanoseconds, largest first. `us` and `ns` are there so that every duration can be written.
const UNITS: [(&str, u128); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a whole number with a unit; only 0 needs none.
///
/// ```
/// use std::time::Duration;
/// assert_eq!(shm_proto::internal::duration::parse("500ms")?, Duration::from_millis(500));
/// assert_eq!(shm_proto::internal::duration::parse("0")?, Duration::ZERO);
/// # Ok::<(), shm_proto::Error>(())
/// ```
///
/// # Errors
/// [`BadDuration`] with the text as given.
pub fn parse(input: &str) -> Result<Duration, BadDuration> {
    let bad = || BadDuration { input: input.to_owned() };
    let text = input.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u128 = text[..digits].parse().map_err(|_| bad())?;
    let unit = text[digits..].trim_start();
    if unit.is_empty() && number == 0 {
        return Ok(Duration::ZERO);
    }
    let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
    let nanos = number.checked_mul(*scale).ok_or_else(bad)?;
    let seconds = u64::try_from(nanos / 1_000_000_000).map_err(|_| bad())?;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

/// The duration in the largest unit that divides it, so that [`parse`] gives the same one back.
#[must_use]
pub fn show(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match UNITS.iter().find(|(_, scale)| nanos.is_multiple_of(*scale)) {
        Some((name, scale)) if nanos > 0 => format!("{}{name}", nanos / scale),
        _ => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_a_unit_is_a_duration() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            (" 10 s ", 10_000),
        ] {
            assert_eq!(parse(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn a_refused_duration_is_repeated_with_the_accepted_form() {
        for text in ["", "s", "5", "1.5s", "-1s", "5 minutes", "30S", "99999999999999999999999999999999999999999h"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
            assert!(message.contains("500ms"), "{message}");
        }
    }

    #[test]
    fn what_is_shown_parses_back() {
        let odd = [Duration::ZERO, Duration::new(1, 1), Duration::from_micros(1500), Duration::MAX];
        for duration in odd.into_iter().chain([1, 999, 1000, 60_000, 90_000, 7_200_000].map(Duration::from_millis)) {
            assert_eq!(parse(&show(duration)).unwrap(), duration, "{}", show(duration));
        }
        assert_eq!(show(Duration::from_secs(90)), "90s");
        assert_eq!(show(Duration::from_secs(120)), "2m");
    }
}
