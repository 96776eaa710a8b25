//! What messages hold: a number in the first word, known bytes in the rest, so that a sum over all of them is a check.

/// On the number of the first message that counts.
pub(in crate::commands::bench) const START: u64 = 1 << 62;
/// On the number of the last message.
pub(in crate::commands::bench) const END: u64 = 1 << 63;
/// Of a message that carries the time it was sent: after the number.
pub(super) const STAMP: std::ops::Range<usize> = 8..16;

/// A message with number 0: word *n* is *n*, a rest of less than a word is of one value.
pub(in crate::commands::bench) fn template(size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    fill(&mut bytes, 0);
    bytes
}

/// Writes every byte of message `number`.
#[inline(always)]
pub(super) fn fill(into: &mut [u8], number: u64) {
    // The usual size is known to the compiler, as it is in a program for one type of message.
    match <&mut [u8; 64]>::try_from(&mut *into) {
        Ok(line) => fill_words(line, number),
        Err(_) => fill_words(into, number),
    }
}

#[inline(always)]
fn fill_words(into: &mut [u8], number: u64) {
    let mut words = into.chunks_exact_mut(8);
    for (n, word) in words.by_ref().enumerate() {
        word.copy_from_slice(&(n as u64).to_le_bytes());
    }
    words.into_remainder().fill(0xa5);
    set(into, number);
}

/// Gives a message its number.
#[inline(always)]
pub(in crate::commands::bench) fn set(message: &mut [u8], number: u64) {
    if let Some(word) = message.first_chunk_mut::<8>() {
        *word = number.to_le_bytes();
    }
}

/// All bytes as little-endian words, added up; the last padded with zeroes.
#[inline]
pub(super) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u64::from_le_bytes(last))
}

/// The time in a message that carries one.
#[inline]
pub(super) fn stamp(message: &[u8]) -> u64 {
    message[STAMP].try_into().map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_message_less_that_of_the_template_is_its_number() {
        for size in [8, 9, 16, 64, 100, 4096] {
            let base = sum(&template(size));
            let mut message = template(size);
            for number in [0, 1, END | 7] {
                set(&mut message, number);
                assert_eq!(sum(&message).wrapping_sub(base), number, "{size}");
            }
            let mut filled = vec![0xff; size as usize];
            fill(&mut filled, END | 7);
            assert_eq!(filled, message, "{size}");
            message[size as usize - 1] ^= 1;
            assert_ne!(sum(&message).wrapping_sub(base), END | 7, "a byte that is wrong shows");
        }
    }

    #[test]
    fn words_of_the_ring_are_added_up_the_same_way() {
        assert_eq!(sum(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 1]), 1 + 2 + 256);
    }
}
