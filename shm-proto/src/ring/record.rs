//! The 8-byte header in front of every payload.
//!
//! | bits | field |
//! |---|---|
//! | 0..2 | kind: 0 nothing yet, 1 data, 2 jump |
//! | 2..40 | data: payload bytes; jump: offset of the next header in the data area, in units of 16 bytes, rounded down |
//! | 40..64 | low 24 bits of the sequence number of this message, or of the next one for a jump |
//!
//! A header is placed so that the payload behind it is aligned: at offsets that are `align - 8` modulo `align`. A
//! record takes `align` bytes or a multiple. The header after the newest record is always zero. The lowest header of a
//! data area is at offset 56, or at `align - 8` if that is more: see `first_header`.
//!
//! In a channel with publish times ([`PUBLISH_TIMES`]), the word before a header has the time at which its message was
//! published. A record then has space for the time of the next one, so that places for headers stay the same. A jump has
//! no time.

/// Bytes of a header.
pub const HEADER: u64 = 8;
/// Bytes of a publish time, which is directly before the header of its record.
pub const TIME: u64 = 8;
/// The feature that each record has a publish time, a bit of a segment's features.
pub const PUBLISH_TIMES: u64 = 1;
/// The features of records, as bits, in a channel with these options.
#[must_use]
pub const fn features(publish_times: bool) -> u64 {
    if publish_times { PUBLISH_TIMES } else { 0 }
}

/// The smallest alignment of payloads, and therefore the smallest size of a record, in bytes.
pub const LEAST_ALIGN: u64 = 16;
/// The largest alignment of payloads in bytes.
pub const MOST_ALIGN: u64 = 4096;
/// Largest payload a header can describe, in bytes (256 GiB less one).
pub const MAX_PAYLOAD: u64 = (1 << VALUE_BITS) - 1;
/// The largest data area that a jump can address, in bytes (4 TiB).
pub const MAX_CAPACITY: u64 = (MAX_PAYLOAD + 1) * LEAST_ALIGN;

/// No payload begins before this offset.
const LOWEST_PAYLOAD: u64 = 64;

const KIND_BITS: u32 = 2;
const VALUE_BITS: u32 = 38;
const SEQ_SHIFT: u32 = KIND_BITS + VALUE_BITS;
const KIND_DATA: u64 = 1;
const KIND_JUMP: u64 = 2;

const _: () = {
    assert!(KIND_BITS + VALUE_BITS < u64::BITS);
    assert!(KIND_DATA < 1 << KIND_BITS && KIND_JUMP < 1 << KIND_BITS);
    assert!(MAX_CAPACITY == LEAST_ALIGN << VALUE_BITS);
    // Every header is at this offset modulo the smallest alignment, so a jump need not store it.
    assert!(align_header(0, LEAST_ALIGN) == LEAST_ALIGN - HEADER);
    // So there is a word before every header, and between two places for headers there is space for both of its words.
    assert!(LEAST_ALIGN >= HEADER + TIME);
};

/// Whether `align` is a valid alignment of payloads.
#[must_use]
pub const fn is_alignment(align: u64) -> bool {
    align.is_power_of_two() && align >= LEAST_ALIGN && align <= MOST_ALIGN
}

/// A header word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub u64);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing has been committed here yet.
    Empty,
    /// A message follows.
    Data {
        /// Payload bytes.
        len: u64,
    },
    /// The next header is elsewhere.
    Jump {
        /// Its offset in the data area.
        target: u64,
    },
    /// A writer of this version never stores such a word.
    Bad,
}

impl Header {
    /// Nothing yet.
    pub const EMPTY: Header = Header(0);

    /// A message of `len` bytes with sequence number `seq`.
    #[inline]
    #[must_use]
    pub fn data(len: u64, seq: u64) -> Header {
        debug_assert!(len <= MAX_PAYLOAD);
        Header(KIND_DATA | len << KIND_BITS | seq << SEQ_SHIFT)
    }

    /// The next header is at `target`, and the next message has sequence number `seq`.
    #[must_use]
    pub fn jump(target: u64, seq: u64) -> Header {
        debug_assert!(align_header(target, LEAST_ALIGN) == target && target < MAX_CAPACITY);
        Header(KIND_JUMP | (target / LEAST_ALIGN) << KIND_BITS | seq << SEQ_SHIFT)
    }

    /// What the header says.
    #[inline]
    #[must_use]
    pub fn kind(self) -> Kind {
        let value = self.0 >> KIND_BITS & MAX_PAYLOAD;
        match self.0 & ((1 << KIND_BITS) - 1) {
            0 if self.0 == 0 => Kind::Empty,
            KIND_DATA => Kind::Data { len: value },
            KIND_JUMP => Kind::Jump { target: align_header(value * LEAST_ALIGN, LEAST_ALIGN) },
            _ => Kind::Bad,
        }
    }

    /// Payload bytes, if this is message `seq`: [`kind`](Self::kind) and [`is_for`](Self::is_for) in one comparison.
    #[inline(always)]
    #[must_use]
    pub(crate) fn len_of(self, seq: u64) -> Option<u64> {
        let rest = self.0 ^ Header::data(0, seq).0;
        (rest & !(MAX_PAYLOAD << KIND_BITS) == 0).then_some(rest >> KIND_BITS)
    }

    /// Whether the header carries the low bits of this sequence number.
    #[inline]
    #[must_use]
    pub(crate) fn is_for(self, seq: u64) -> bool {
        self.0 >> SEQ_SHIFT == seq << SEQ_SHIFT >> SEQ_SHIFT
    }
}

/// How many bytes records take in the ring, with the constants computed in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    add: u64,
    mask: u64,
}

impl Strides {
    /// For payloads at multiples of `align`, an [alignment](is_alignment), in records with these
    /// features, of which only [`PUBLISH_TIMES`] counts.
    #[must_use]
    pub const fn new(align: u64, features: u64) -> Strides {
        debug_assert!(is_alignment(align));
        let words = if features & PUBLISH_TIMES == 0 { HEADER } else { HEADER + TIME };
        Strides { add: words + align - 1, mask: !(align - 1) }
    }

    /// Bytes of a record that are not payload, padding aside: the header, and the publish time of the next record.
    const fn words(self) -> u64 {
        self.add - (self.align() - 1)
    }

    /// The difference between the capacity and the largest message, in bytes, if the capacity is a multiple of the largest
    /// alignment.
    #[must_use]
    pub const fn overhead(self) -> u64 {
        first_header(self.align()) + HEADER + self.words()
    }

    /// The largest message that fits into an empty ring of this capacity, in bytes.
    #[must_use]
    pub fn largest_message(self, capacity: u64) -> u64 {
        let usable = capacity.saturating_sub(first_header(self.align()) + HEADER) & self.mask;
        usable.saturating_sub(self.words()).min(MAX_PAYLOAD)
    }

    /// Bytes that a message of `len` bytes takes in the ring. For a length that no message can have, the result is
    /// arbitrary; the caller refuses such a length anyway.
    #[inline(always)]
    #[must_use]
    pub const fn of(self, len: u64) -> u64 {
        len.wrapping_add(self.add) & self.mask
    }

    /// The alignment.
    #[must_use]
    pub const fn align(self) -> u64 {
        self.mask.wrapping_neg()
    }
}

/// The first place at or after `off` where a header may stand.
#[inline]
#[must_use]
pub(crate) const fn align_header(off: u64, align: u64) -> u64 {
    ((off + HEADER + align - 1) & !(align - 1)) - HEADER
}

/// The lowest place for a header, where the first record of every lap goes. Its payload begins at a cache line, but not
/// in the first bytes of a page. The reason: on some processors, a copy takes more than ten times as long if the
/// destination is 1 to 31 bytes further in its page than the source, and large buffers of programs begin at the start
/// of a page, or 16 bytes later.
#[inline]
#[must_use]
pub(crate) const fn first_header(align: u64) -> u64 {
    align_header(LOWEST_PAYLOAD - HEADER, align)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_back_what_it_was_made_of() {
        for len in [0, 1, 64, 1 << 20, MAX_PAYLOAD] {
            for seq in [0, 1, 0xff_ffff, 0x100_0000, u64::MAX] {
                let header = Header::data(len, seq);
                assert_eq!(header.kind(), Kind::Data { len });
                assert!(header.is_for(seq));
                assert_eq!(header.len_of(seq), Some(len));
                assert_eq!(header.len_of(seq.wrapping_add(1)), None);
                assert!(!header.is_for(seq.wrapping_add(1)));
            }
        }
        let jump = Header::jump((64 << 30) + 8, 7);
        assert_eq!(jump.kind(), Kind::Jump { target: (64 << 30) + 8 });
        assert!(jump.is_for(7));
        assert_eq!(jump.len_of(7), None);
        assert_eq!(Header::EMPTY.len_of(0), None);
    }

    #[test]
    fn only_the_zero_word_is_empty() {
        assert_eq!(Header::EMPTY.kind(), Kind::Empty);
        assert_eq!(Header(1 << 44).kind(), Kind::Bad);
        assert_eq!(Header(3).kind(), Kind::Bad);
    }

    #[test]
    fn payloads_stay_aligned_along_a_chain() {
        for align in [16, 64, 4096] {
            let mut off = first_header(align);
            assert_eq!(off + HEADER, align.max(64));
            for (features, words) in [(0, HEADER), (PUBLISH_TIMES, HEADER + TIME)] {
                let strides = Strides::new(align, features);
                assert_eq!(strides.align(), align);
                for len in [0, 1, 8, 63, 64, 4097] {
                    assert_eq!((off + HEADER) % align, 0);
                    assert_eq!(strides.of(len), (len + words).next_multiple_of(align));
                    off += strides.of(len);
                }
            }
        }
    }

    #[test]
    fn the_largest_message_fits_exactly() {
        for align in [16, 64, 4096] {
            for (capacity, features) in [8192u64, 12288, 65536, 1 << 20]
                .into_iter()
                .flat_map(|capacity| [(capacity, 0), (capacity, PUBLISH_TIMES)])
            {
                let strides = Strides::new(align, features);
                let len = strides.largest_message(capacity);
                let first = first_header(align);
                assert!(first + strides.of(len) + HEADER <= capacity);
                assert!(first + strides.of(len + 1) + HEADER > capacity);
                assert_eq!(len, capacity - strides.overhead());
            }
        }
    }
}
