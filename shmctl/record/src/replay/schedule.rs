//! When messages are due.

use std::str::FromStr;

use shm_proto::internal::os::clock::monotonic_ns;

/// How fast messages are published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Speed {
    /// So many times as fast as they were recorded.
    Factor(f64),
    /// As fast as the readers allow.
    Max,
}

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        match text.parse::<f64>() {
            Ok(factor) if (1e-6..=1e6).contains(&factor) => Ok(Speed::Factor(factor)),
            _ => Err(format!("{text:?} is no speed: write a factor, such as 2 or 0.5, or max")),
        }
    }
}

/// The moments of messages, all from one beginning: being late with one of them delays no other.
#[derive(Debug)]
pub(crate) struct Schedule {
    speed: Speed,
    /// The time of the first message in the recording, and the moment at which it was published now.
    begin: Option<(u64, u64)>,
}

impl Schedule {
    pub(crate) fn new(speed: Speed) -> Self {
        Schedule { speed, begin: None }
    }

    /// The moment for a message that was recorded at `time`, by the monotonic clock. `None`: at once.
    pub(crate) fn due(&mut self, time: u64) -> Option<u64> {
        let Speed::Factor(factor) = self.speed else { return None };
        let (first, begun) = *self.begin.get_or_insert_with(|| (time, monotonic_ns()));
        let after = time.saturating_sub(first) as f64 / factor;
        Some(begun.saturating_add(after as u64))
    }

    /// The recording begins again.
    pub(crate) fn restart(&mut self) {
        self.begin = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_speed_is_a_factor_or_max() {
        assert_eq!(
            ["1", "0.5", "max"].map(|text| text.parse::<Speed>().unwrap()),
            [Speed::Factor(1.0), Speed::Factor(0.5), Speed::Max]
        );
        for text in ["0", "-1", "NaN", "inf", "fast", ""] {
            assert!(text.parse::<Speed>().unwrap_err().contains("0.5"), "{text}");
        }
    }

    #[test]
    fn distances_are_those_of_the_recording_divided_by_the_speed() {
        for (speed, apart) in [(1.0, 3000), (2.0, 1500), (0.5, 6000)] {
            let mut schedule = Schedule::new(Speed::Factor(speed));
            let first = schedule.due(10_000).unwrap();
            assert_eq!(schedule.due(13_000), Some(first + apart));
            // A message that is out of order is not before the first one.
            assert_eq!(schedule.due(9_000), Some(first));
            schedule.restart();
            assert!(schedule.due(13_000).unwrap() >= first);
        }
        assert_eq!(Schedule::new(Speed::Max).due(7), None);
    }
}
