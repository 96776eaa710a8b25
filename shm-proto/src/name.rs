//! Channel names and the names of the shared memory objects made from them.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A channel's name: 1 to 64 characters of `A-Z a-z 0-9 . _ -`, not starting with a dot or a dash.
///
/// The name becomes part of a file name in `/dev/shm`, hence no slash and no hidden file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ChannelName(String);

/// The first part of every object's name: `shmd` for the system's daemon, `shmd-UID` for a user's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(String);

/// A name that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is not a {what}: {reason}; use 1 to 64 of A-Z a-z 0-9 . _ -")]
#[non_exhaustive]
pub struct BadName {
    /// Which kind of name.
    pub what: &'static str,
    /// The name as given.
    pub input: String,
    /// What is wrong with it.
    pub reason: String,
}

const MAX_LEN: usize = 64;

fn check(what: &'static str, name: &str) -> Result<(), BadName> {
    let reason = if name.is_empty() {
        "it is empty".to_owned()
    } else if name.len() > MAX_LEN {
        format!("it has {} bytes, at most {MAX_LEN} are allowed", name.len())
    } else if name.starts_with(['.', '-']) {
        "it starts with a dot or a dash".to_owned()
    } else if let Some(c) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "._-".contains(*c))) {
        format!("it contains {c:?}")
    } else {
        return Ok(());
    };
    Err(BadName { what, input: name.to_owned(), reason })
}

impl ChannelName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for ChannelName {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Prefix {
    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a channel's segment for `shm_open`: `/PREFIX.NAME`.
    #[must_use]
    pub fn segment_name(&self, channel: &ChannelName) -> String {
        format!("/{}.{}", self.0, channel.0)
    }
}

macro_rules! text_type {
    ($type:ident, $what:literal) => {
        impl FromStr for $type {
            type Err = BadName;
            fn from_str(name: &str) -> Result<Self, BadName> {
                check($what, name)?;
                Ok(Self(name.to_owned()))
            }
        }
        impl TryFrom<String> for $type {
            type Error = BadName;
            fn try_from(name: String) -> Result<Self, BadName> {
                check($what, &name)?;
                Ok(Self(name))
            }
        }
        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

text_type!(ChannelName, "channel name");
text_type!(Prefix, "prefix of object names");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for name in ["main", "cam.front-left_2", "A", &"x".repeat(64)] {
            assert_eq!(name.parse::<ChannelName>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn a_refused_name_says_why() {
        for (name, why) in [
            ("", "empty"),
            ("a/b", "'/'"),
            (".hidden", "dot"),
            ("-n", "dash"),
            ("a b", "' '"),
            ("\u{e9}", "contains"),
            (&*"x".repeat(65), "65 bytes"),
        ] {
            let message = name.parse::<ChannelName>().unwrap_err().to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    #[test]
    fn the_segment_is_named_after_prefix_and_channel() {
        let prefix: Prefix = "shmd-1000".parse().unwrap();
        assert_eq!(prefix.segment_name(&"cam".parse().unwrap()), "/shmd-1000.cam");
    }
}
