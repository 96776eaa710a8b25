//! From a written value to a checked one of its type.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use shm_proto::internal::duration;

use super::origin::{Error, Located};
use super::raw::{Names, Time};
use crate::access::Access;
use crate::host::Host;

/// A list of users and groups; without one, nobody but root and the daemon's own user.
pub(super) fn access(names: &Option<Located<Names>>, host: &Host) -> Result<Access, Error> {
    match names {
        Some(names) => Access::parse(host.uid, &names.value.0).map_err(|why| names.unusable(why)),
        None => Ok(Access::only(host.uid)),
    }
}

/// A number within a range.
pub(super) fn ranged(
    written: &Option<Located<u32>>,
    key: &str,
    range: RangeInclusive<u32>,
    default: u32,
) -> Result<u32, Error> {
    match written {
        Some(n) if !range.contains(&n.value) => {
            Err(n.bad(format!("{key} {} is not from {} to {}", n.value, range.start(), range.end())))
        }
        n => Ok(n.as_ref().map_or(default, |n| n.value)),
    }
}

/// A time, or the default.
pub(super) fn time(written: &Option<Located<Time>>, default: Duration) -> Result<Duration, Error> {
    written.as_ref().map_or(Ok(default), |text| duration::parse(&text.value.0).map_err(|e| text.bad(e)))
}

/// Zero is the configuration's word for never.
pub(super) fn some_time(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

/// What the text means.
pub(super) fn parse<T: FromStr<Err: Display>>(text: &Located<String>) -> Result<T, Error> {
    text.value.parse().map_err(|e: T::Err| text.bad(e))
}

/// The same, of a text that need not be there.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: &Option<Located<String>>) -> Result<Option<T>, Error> {
    text.as_ref().map(parse).transpose()
}
