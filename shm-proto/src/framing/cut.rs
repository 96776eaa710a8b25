//! Finds where messages end in what has been read.

use std::io::BufRead;

use super::Framing;

/// Bytes of the number before a message in [`Framing::Length`].
pub(super) const LENGTH: usize = 4;

/// The complete messages at the front of `rest`; what is left after the last one is no complete message.
pub(super) struct Cut<'b> {
    pub(super) framing: Framing,
    pub(super) rest: &'b [u8],
    /// How much of it is known to hold no delimiter.
    pub(super) searched: usize,
    /// The largest message.
    pub(super) max: usize,
    /// The delimiter belongs to the message.
    pub(super) keep: bool,
    /// Why it stopped before the end of what is complete.
    pub(super) too_long: Option<String>,
}

impl<'b> Iterator for &mut Cut<'b> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        match self.framing {
            Framing::Lines => self.delimited(b'\n', "a line"),
            Framing::Nul => self.delimited(0, "a record"),
            Framing::Length => {
                let (prefix, rest) = self.rest.split_first_chunk::<LENGTH>()?;
                let len = u32::from_le_bytes(*prefix) as usize;
                if len > self.max {
                    self.too_long = Some(format!("a record of {len} bytes"));
                    return None;
                }
                let (message, rest) = rest.split_at_checked(len)?;
                self.rest = rest;
                Some(message)
            }
            Framing::Stream => {
                let len = self.rest.len().min(self.max);
                let (message, rest) = self.rest.split_at_checked(len).filter(|_| len > 0)?;
                self.rest = rest;
                Some(message)
            }
            Framing::Chunk(size) => {
                let (message, rest) = self.rest.split_at_checked(usize::try_from(size).ok()?)?;
                self.rest = rest;
                Some(message)
            }
        }
    }
}

impl<'b> Cut<'b> {
    #[inline]
    fn delimited(&mut self, delimiter: u8, what: &str) -> Option<&'b [u8]> {
        let mut ahead = &self.rest[self.searched..];
        // On a slice this is a memchr and cannot fail.
        let len = self.searched + ahead.skip_until(delimiter).unwrap_or(0);
        let complete = len > self.searched && self.rest[len - 1] == delimiter;
        let payload = if complete && !self.keep { len - 1 } else { len };
        if payload > self.max {
            let at_least = if complete { "" } else { "at least " };
            self.too_long = Some(format!("{what} of {at_least}{payload} bytes"));
            return None;
        }
        if !complete {
            self.searched = len;
            return None;
        }
        self.searched = 0;
        let (message, rest) = self.rest.split_at(len);
        self.rest = rest;
        Some(&message[..payload])
    }
}
