//! The channel as a command's first argument, and what stands beside it.

use std::fmt::Display;
use std::str::FromStr;

use clap::Args as ClapArgs;
use shm_proto::ChannelName;

use crate::error::{Failure, Result};

/// The argument of commands that take a channel and nothing else.
#[derive(Debug, ClapArgs)]
pub struct Target {
    /// The channel, as with --channel.
    #[arg(value_name = "CHANNEL")]
    target: Option<ChannelName>,
}

impl Target {
    /// The channel, if it is given here.
    #[must_use]
    pub fn channels(&self) -> Vec<ChannelName> {
        self.target.iter().cloned().collect()
    }
}

/// Up to two words, and an option that may replace the second: `[CHANNEL] [VALUE]`.
#[derive(Debug)]
pub(crate) struct Words<'a, T> {
    /// What the value is, with the command: `a size: shmctl resize [CHANNEL] 4MiB`.
    pub(crate) what: &'a str,
    /// The first word: the channel if there is a value beside it, and otherwise the value.
    pub(crate) first: Option<&'a str>,
    pub(crate) second: Option<&'a str>,
    /// The option's name and value.
    pub(crate) option: (&'a str, Option<T>),
}

impl<T: FromStr<Err: Display> + PartialEq + Display + Copy> Words<'_, T> {
    /// The channel, if it is named, and the value.
    ///
    /// # Errors
    /// A usage error: a word that is neither, no value, or two different values.
    pub(crate) fn settle(&self) -> Result<(Option<ChannelName>, T)> {
        let (name, given) = self.option;
        let (channel, value) = match (self.first, self.second, given) {
            (Some(channel), Some(value), _) => (Some(channel), Some(self.value(value)?)),
            (first, None, Some(_)) => (first, None),
            (Some(value), None, None) => (None, Some(self.value(value)?)),
            (None, _, _) => (None, None),
        };
        let channel = channel.map(str::parse).transpose()?;
        match (value, given) {
            (Some(value), Some(given)) if value != given => {
                Err(Failure::Usage(format!("{value} and {name} {given} differ: give {} once", self.what)))
            }
            (Some(value), _) | (None, Some(value)) => Ok((channel, value)),
            (None, None) => Err(Failure::Usage(format!("give {}", self.what))),
        }
    }

    fn value(&self, word: &str) -> Result<T> {
        word.parse().map_err(|error: T::Err| Failure::Usage(format!("{word:?}: {error}; give {}", self.what)))
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::Bytes;

    use super::*;

    fn settled(words: &[&str], option: Option<u64>) -> Result<(Option<String>, u64)> {
        let words = Words {
            what: "a size",
            first: words.first().copied(),
            second: words.get(1).copied(),
            option: ("--bytes", option.map(Bytes)),
        };
        words.settle().map(|(channel, bytes)| (channel.map(|name| name.to_string()), bytes.get()))
    }

    #[test]
    fn a_single_word_is_the_value_unless_the_option_has_it() {
        for (words, option, channel, value) in [
            (&["4096"][..], None, None, 4096),
            (&["cam", "4KiB"], None, Some("cam"), 4096),
            (&["cam"], Some(4096), Some("cam"), 4096),
            (&["4096"], Some(8192), Some("4096"), 8192),
            (&["cam", "4096"], Some(4096), Some("cam"), 4096),
            (&[], Some(1), None, 1),
        ] {
            assert_eq!(settled(words, option).unwrap(), (channel.map(str::to_owned), value), "{words:?} {option:?}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_a_usage_error_that_says_how_to_write_it() {
        for (words, option, parts) in [
            (&[][..], None, &["give a size"][..]),
            (&["cam"], None, &["\"cam\"", "give a size"]),
            (&["cam", "big"], None, &["\"big\"", "64KiB"]),
            (&["cam", "4096"], Some(8192), &["4KiB", "--bytes 8KiB", "once"]),
            (&["a/b", "4096"], None, &["a/b", "A-Z"]),
        ] {
            let refused = settled(words, option).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{words:?}");
            let told = refused.to_string();
            assert!(parts.iter().all(|part| told.contains(part)), "{words:?}: {told}");
        }
    }
}
