//! What a relay keeps in the description of its consumer: the [mark](super::book::Mark), and whose consumer it is.

use std::fmt;
use std::str::FromStr;

use super::book::{Mark, WORDS};
use super::owner::Owner;

/// Before the owner.
const BY: &str = " by ";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Description {
    /// There is none before the first message.
    pub(super) mark: Option<Mark>,
    /// There is none if the consumer was made by another program.
    pub(super) owner: Option<Owner>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.mark {
            Some(mark) => write!(f, "{mark}")?,
            None => f.write_str(&WORDS.join(" "))?,
        }
        self.owner.iter().try_for_each(|owner| write!(f, "{BY}{owner}"))
    }
}

/// A description that no relay has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign;

impl FromStr for Description {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        if text.is_empty() {
            return Ok(Description::default());
        }
        let (mark, owner) = match text.split_once(BY) {
            Some((mark, owner)) => (mark, Some(owner.parse().map_err(|_| Foreign)?)),
            None => (text, None),
        };
        let mark = if mark == WORDS.join(" ") { None } else { Some(mark.parse().map_err(|_| Foreign)?) };
        Ok(Description { mark, owner })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_read_as_it_was_written() {
        let mark = Mark { stream_seq: 3, lineage: 0xab, seq: 100, ring: 0xcd, ring_seq: 7 };
        let owner = Owner::new("far by far", "shmd", "cam");
        for mark in [None, Some(mark)] {
            for owner in [None, Some(owner.clone())] {
                let description = Description { mark, owner };
                assert_eq!(description.to_string().parse(), Ok(description));
            }
        }
        assert_eq!("".parse(), Ok(Description::default()));
        for text in ["my consumer", "made by me", "shmd-relay 1 by me", "shmd-relay 2 by 7 far shmd cam"] {
            assert_eq!(text.parse::<Description>(), Err(Foreign), "{text}");
        }
    }
}
