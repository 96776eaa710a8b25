//! What may stand behind `--watch`: a time, or the channel if the time is left out.

use std::str::FromStr;
use std::time::Duration;

use shm_proto::{ChannelName, Error, ErrorKind, RequestError};

use crate::error::{Failure, Result};
use crate::human;

/// The interval if none is given.
const USUAL: Duration = Duration::from_secs(1);

/// The word behind `--watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Watch {
    /// Repeat after this time.
    Every(Duration),
    /// The channel: `stat --watch cam`.
    Channel(ChannelName),
}

impl FromStr for Watch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match human::duration(text) {
            // A time that is too short is no channel.
            Ok(_) => human::interval(text).map(Watch::Every),
            Err(no_time) => {
                text.parse().map(Watch::Channel).map_err(|no_channel| format!("{no_time}; and {no_channel}"))
            }
        }
    }
}

impl Watch {
    pub(super) fn interval(&self) -> Duration {
        match self {
            Watch::Every(interval) => *interval,
            Watch::Channel(_) => USUAL,
        }
    }

    /// A channel that does not exist may have been meant as a time.
    pub(super) fn explain(&self, failure: Failure) -> Failure {
        match (self, failure) {
            (Watch::Channel(name), Failure::Library(Error::Request(RequestError::Refused(mut refusal))))
                if refusal.kind == ErrorKind::NoSuchChannel =>
            {
                refusal.message += &format!("; and {name} is no time for --watch, such as 5 or 500ms");
                RequestError::Refused(refusal).into()
            }
            (_, failure) => failure,
        }
    }
}

/// The channel from behind `--watch`, or the one in its usual place.
///
/// # Errors
/// A usage error if they differ.
pub(super) fn channel(watch: Option<&Watch>, named: Vec<ChannelName>) -> Result<Vec<ChannelName>> {
    match (watch, named.as_slice()) {
        (Some(Watch::Channel(behind)), [name]) if behind != name => Err(Failure::Usage(format!(
            "{name} and {behind}, behind --watch, are two channels: name one, or give --watch a time, such as 5 or 500ms"
        ))),
        (Some(Watch::Channel(behind)), _) => Ok(vec![behind.clone()]),
        _ => Ok(named),
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::Refusal;

    use super::*;

    #[test]
    fn what_is_no_time_is_a_channel_and_what_is_neither_is_told_so() {
        let every = |ms| Ok(Watch::Every(Duration::from_millis(ms)));
        for (text, watch) in [("5", every(5000)), ("0.5", every(500)), ("500ms", every(500)), ("1m", every(60_000))] {
            assert_eq!(text.parse(), watch, "{text}");
        }
        let cam: Watch = "cam".parse().unwrap();
        assert_eq!((&cam, cam.interval()), (&Watch::Channel("cam".parse().unwrap()), USUAL));
        assert!("1ms".parse::<Watch>().unwrap_err().contains("too short"));
        let neither = "a/b".parse::<Watch>().unwrap_err();
        assert!(neither.contains("is not a time") && neither.contains("is not a channel name"), "{neither}");
    }

    #[test]
    fn two_different_channels_are_a_usage_error_that_names_both() {
        let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<ChannelName>>();
        let cam = Watch::Channel("cam".parse().unwrap());
        assert_eq!(channel(Some(&cam), names(&[])).unwrap(), names(&["cam"]));
        assert_eq!(channel(Some(&cam), names(&["cam"])).unwrap(), names(&["cam"]));
        assert_eq!(channel(Some(&Watch::Every(USUAL)), names(&["imu"])).unwrap(), names(&["imu"]));
        assert_eq!(channel(None, names(&["imu"])).unwrap(), names(&["imu"]));
        let refused = channel(Some(&cam), names(&["imu"])).unwrap_err();
        assert_eq!(refused.exit_code(), 2);
        assert!(refused.to_string().contains("imu and cam"), "{refused}");
    }

    #[test]
    fn a_channel_that_does_not_exist_may_be_a_time_that_was_not_understood() {
        let refused = |kind| Failure::from(RequestError::Refused(Refusal::new(kind, "no channel named soon")));
        let soon = Watch::Channel("soon".parse().unwrap());
        let told = soon.explain(refused(ErrorKind::NoSuchChannel)).to_string();
        assert!(told.starts_with("no channel named soon; and soon is no time for --watch"), "{told}");
        assert_eq!(soon.explain(refused(ErrorKind::Busy)).to_string(), "no channel named soon");
        let every = Watch::Every(USUAL).explain(refused(ErrorKind::NoSuchChannel));
        assert_eq!(every.to_string(), "no channel named soon");
    }
}
