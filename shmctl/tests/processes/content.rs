//! Messages that follow from their number, cheap to make and cheap to check: slices of one random-looking block.

/// The largest message, in bytes.
pub(crate) const LARGEST: usize = 1 << 20;

/// The messages of one test.
#[derive(Debug)]
pub(crate) struct Content {
    block: Vec<u8>,
    large_one_in: u64,
}

impl Content {
    /// Mixed sizes from 0 bytes to [`LARGEST`]: most up to 200 bytes, one in a hundred up to 16 KiB, and one in
    /// `large_one_in` up to the largest.
    pub(crate) fn new(large_one_in: u64) -> Self {
        let words = (0..2 * LARGEST as u64 / 8).map(mix);
        Content { block: words.flat_map(u64::to_le_bytes).collect(), large_one_in }
    }

    /// Message number `n`.
    pub(crate) fn message(&self, n: u64) -> &[u8] {
        let random = mix(!n);
        let len = if n.is_multiple_of(self.large_one_in) {
            // The first one has the largest size.
            LARGEST - if n == 0 { 0 } else { random as usize % (LARGEST + 1) }
        } else if n.is_multiple_of(100) {
            random as usize % (16 << 10)
        } else {
            random as usize % 201
        };
        let start = (random >> 32) as usize % (LARGEST + 1);
        &self.block[start..start + len]
    }
}

/// A bijection that looks random: the finalizer of SplitMix64.
pub(crate) fn mix(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[test]
fn sizes_are_mixed_from_nothing_to_the_largest() {
    let content = Content::new(1000);
    let sizes: Vec<_> = (0..100_000).map(|n| content.message(n).len()).collect();
    assert_eq!(sizes.iter().max(), Some(&LARGEST));
    assert_eq!(sizes.iter().min(), Some(&0));
    assert!(sizes.iter().filter(|&&len| len > 300_000).count() > 40);
    assert_eq!(content.message(77), Content::new(1000).message(77));
}
