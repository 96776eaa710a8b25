//! What formats have in common: the facts about a message, and hexadecimal digits.

use shm_proto::internal::os::clock;

use crate::human::utc_ns;

/// What there is to say of a message beside its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct About<'a> {
    pub(super) channel: &'a str,
    pub(super) seq: u64,
    /// Messages lost before it.
    pub(super) lost: u64,
    /// When it was published, by the monotonic clock, if the channel has publish times.
    pub(super) published_ns: Option<u64>,
}

impl About<'_> {
    /// The date at which it was published.
    pub(super) fn date(&self) -> Option<String> {
        self.published_ns.map(|ns| utc_ns(clock::date(ns)))
    }
}

/// Appends two hexadecimal digits for each byte.
pub(super) fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len());
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}
