//! Moments in a recording.

use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use shmctl::companion::{Failure, Result, human};

/// A moment, as the command line has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// So long after the first message.
    Offset(Duration),
    /// Nanoseconds since 1970.
    At(u64),
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(offset) = human::duration(text) {
            return Ok(When::Offset(offset));
        }
        let date = text.parse::<Timestamp>().ok().and_then(|date| u64::try_from(date.as_nanosecond()).ok());
        date.map(When::At).ok_or_else(|| {
            format!(
                "{text:?} is neither an offset nor a date: write 10s, 1.5 (seconds) or 5m, or a date with its zone, such as \
                 2026-01-31T12:00:00Z or 2026-01-31T13:00:00+01:00"
            )
        })
    }
}

/// A part of a recording, by the times of its messages in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Range {
    /// Earlier messages are left out.
    pub(crate) from: Option<u64>,
    /// These and later messages are left out.
    pub(crate) to: Option<u64>,
}

impl Range {
    /// `first` is the time of the first message.
    pub(crate) fn new(first: u64, from: Option<When>, to: Option<When>) -> Result<Self> {
        let moment = |when| match when {
            When::Offset(offset) => first.saturating_add(u64::try_from(offset.as_nanos()).unwrap_or(u64::MAX)),
            When::At(at) => at,
        };
        let range = Range { from: from.map(moment), to: to.map(moment) };
        match (range.from, range.to) {
            (Some(from), Some(to)) if from >= to => {
                Err(Failure::Usage("--from is not before --to: there is nothing between them".to_owned()))
            }
            _ => Ok(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_offset_or_a_date() {
        let seconds = |seconds| Ok(When::Offset(Duration::from_secs(seconds)));
        for (text, when) in [
            ("10s", seconds(10)),
            ("10", seconds(10)),
            ("5m", seconds(300)),
            ("1970-01-01T00:00:01Z", Ok(When::At(1_000_000_000))),
            ("1970-01-01T01:00:01.5+01:00", Ok(When::At(1_500_000_000))),
            ("2026-01-31", Err(())),
            ("1969-01-01T00:00:00Z", Err(())),
            ("soon", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(text.parse::<When>().map_err(drop), when, "{text}");
        }
    }

    #[test]
    fn offsets_count_from_the_first_message() {
        let range = |from: &str, to: &str| Range::new(7, Some(from.parse().unwrap()), Some(to.parse().unwrap()));
        let second = 1_000_000_000;
        assert_eq!(range("1", "2").unwrap(), Range { from: Some(7 + second), to: Some(7 + 2 * second) });
        assert_eq!(range("1970-01-01T00:00:00Z", "2").unwrap().from, Some(0));
        assert_eq!(Range::new(7, None, None).unwrap(), Range::default());
        for (from, to) in [("2", "2"), ("3", "2"), ("1", "1970-01-01T00:00:00Z")] {
            assert_eq!(range(from, to).unwrap_err().exit_code(), 2, "{from} {to}");
        }
    }
}
