//! The 8-byte header in front of every payload.
//!
//! | bits | field |
//! |---|---|
//! | 0..4 | kind: 0 nothing yet, 1 data, 2 jump |
//! | 4..44 | data: payload bytes; jump: offset of the next header in the data area, in units of 8 bytes |
//! | 44..64 | low 20 bits of the sequence number of this message, or of the next one for a jump |
//!
//! A header stands where the payload behind it is aligned: at offsets that are `align - 8` modulo `align`. A record takes
//! `align` bytes or a multiple. The header after the newest record is always zero.

/// Bytes of a header.
pub const HEADER: u64 = 8;
/// Largest payload a header can describe, in bytes (1 TiB less one).
pub const MAX_PAYLOAD: u64 = (1 << VALUE_BITS) - 1;
/// Largest data area that a jump can lead through, in bytes (8 TiB).
pub const MAX_CAPACITY: u64 = (MAX_PAYLOAD + 1) * 8;

const KIND_BITS: u32 = 4;
const VALUE_BITS: u32 = 40;
const SEQ_SHIFT: u32 = KIND_BITS + VALUE_BITS;
const KIND_DATA: u64 = 1;
const KIND_JUMP: u64 = 2;

const _: () = {
    assert!(KIND_BITS + VALUE_BITS < u64::BITS);
    assert!(KIND_DATA < 1 << KIND_BITS && KIND_JUMP < 1 << KIND_BITS);
    assert!(MAX_CAPACITY == 8 << VALUE_BITS);
};

/// A header word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header(pub u64);

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing was committed here yet.
    Empty,
    /// A message of so many bytes follows.
    Data {
        /// Payload bytes.
        len: u64,
    },
    /// The next header is elsewhere.
    Jump {
        /// Its offset in the data area.
        target: u64,
    },
    /// No writer of this version stores such a word.
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

    /// The next header stands at `target`, and the next message has sequence number `seq`.
    #[must_use]
    pub fn jump(target: u64, seq: u64) -> Header {
        debug_assert!(target.is_multiple_of(8) && target / 8 <= MAX_PAYLOAD);
        Header(KIND_JUMP | (target / 8) << KIND_BITS | seq << SEQ_SHIFT)
    }

    /// What the header says.
    #[inline]
    #[must_use]
    pub fn kind(self) -> Kind {
        let value = self.0 >> KIND_BITS & MAX_PAYLOAD;
        match self.0 & 0xf {
            0 if self.0 == 0 => Kind::Empty,
            KIND_DATA => Kind::Data { len: value },
            KIND_JUMP => Kind::Jump { target: value * 8 },
            _ => Kind::Bad,
        }
    }

    /// Payload bytes, if this is message `seq`: [`kind`](Self::kind) and [`is_for`](Self::is_for) in one comparison.
    #[inline(always)]
    #[must_use]
    pub fn len_of(self, seq: u64) -> Option<u64> {
        let rest = self.0 ^ Header::data(0, seq).0;
        (rest & !(MAX_PAYLOAD << KIND_BITS) == 0).then_some(rest >> KIND_BITS)
    }

    /// Whether the header carries the low bits of this sequence number.
    #[inline]
    #[must_use]
    pub fn is_for(self, seq: u64) -> bool {
        self.0 >> SEQ_SHIFT == seq << SEQ_SHIFT >> SEQ_SHIFT
    }
}

/// [`stride`] for one alignment, with what it takes worked out beforehand.
#[derive(Clone, Copy, Debug)]
pub struct Strides {
    add: u64,
    mask: u64,
}

impl Strides {
    /// For payloads at multiples of `align`, a power of two of 8 or more.
    #[must_use]
    pub fn new(align: u64) -> Strides {
        debug_assert!(align.is_power_of_two() && align >= HEADER);
        Strides { add: HEADER + align - 1, mask: !(align - 1) }
    }

    /// Bytes a message of `len` bytes takes. Of a length that no message can have, and that is refused for that, some number.
    #[inline(always)]
    #[must_use]
    pub fn of(self, len: u64) -> u64 {
        len.wrapping_add(self.add) & self.mask
    }

    /// The alignment.
    #[must_use]
    pub fn align(self) -> u64 {
        self.mask.wrapping_neg()
    }
}

/// Bytes a message takes in the ring, header and padding included.
#[inline]
#[must_use]
pub fn stride(len: u64, align: u64) -> u64 {
    (len + HEADER + align - 1) & !(align - 1)
}

/// The first place at or after `off` where a header may stand.
#[inline]
#[must_use]
pub fn align_header(off: u64, align: u64) -> u64 {
    ((off + HEADER + align - 1) & !(align - 1)) - HEADER
}

/// The largest message that a ring of this capacity takes when it is empty, in bytes.
#[must_use]
pub fn largest_message(capacity: u64, align: u64) -> u64 {
    let usable = capacity.saturating_sub(align_header(0, align) + HEADER) & !(align - 1);
    usable.saturating_sub(HEADER).min(MAX_PAYLOAD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_back_what_it_was_made_of() {
        for len in [0, 1, 64, 1 << 20, MAX_PAYLOAD] {
            for seq in [0, 1, 0xfffff, 0x100000, u64::MAX] {
                let header = Header::data(len, seq);
                assert_eq!(header.kind(), Kind::Data { len });
                assert!(header.is_for(seq));
                assert_eq!(header.len_of(seq), Some(len));
                assert_eq!(header.len_of(seq.wrapping_add(1)), None);
                assert!(!header.is_for(seq.wrapping_add(1)));
            }
        }
        let jump = Header::jump(64 << 30, 7);
        assert_eq!(jump.kind(), Kind::Jump { target: 64 << 30 });
        assert!(jump.is_for(7));
        assert_eq!(jump.len_of(7), None);
        assert_eq!(Header::EMPTY.len_of(0), None);
    }

    #[test]
    fn only_the_zero_word_is_empty() {
        assert_eq!(Header::EMPTY.kind(), Kind::Empty);
        assert_eq!(Header(1 << 44).kind(), Kind::Bad);
        assert_eq!(Header(15).kind(), Kind::Bad);
    }

    #[test]
    fn payloads_stay_aligned_along_a_chain() {
        for align in [8, 64, 4096] {
            let mut off = align_header(0, align);
            let strides = Strides::new(align);
            assert_eq!(strides.align(), align);
            for len in [0, 1, 8, 63, 64, 4097] {
                assert_eq!((off + HEADER) % align, 0);
                assert_eq!(strides.of(len), stride(len, align));
                off += stride(len, align);
            }
        }
    }

    #[test]
    fn the_largest_message_fits_exactly() {
        for align in [8, 64, 4096] {
            for capacity in [8192u64, 12288, 65536, 1 << 20] {
                let len = largest_message(capacity, align);
                let first = align_header(0, align);
                assert!(first + stride(len, align) + HEADER <= capacity);
                assert!(first + stride(len + 1, align) + HEADER > capacity);
            }
        }
    }
}
