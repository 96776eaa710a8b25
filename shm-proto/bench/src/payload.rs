//! What messages hold: a number in the first word, known bytes in the rest, so that a sum over all of them is a check.

/// Marks the number of the first message that counts.
pub const START: u64 = 1 << 62;
/// Marks the number of the last message.
pub const END: u64 = 1 << 63;
/// The place of the time, in a message that carries it.
const STAMP: std::ops::Range<usize> = 8..16;

/// The message with number 0: word *n* is *n*, and the bytes of an incomplete last word are all the same.
pub fn template(size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    fill(&mut bytes, 0);
    bytes
}

/// Writes every byte of message `number`.
#[inline(always)]
pub fn fill(into: &mut [u8], number: u64) {
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
pub fn set(message: &mut [u8], number: u64) {
    if let Some(word) = message.first_chunk_mut::<8>() {
        *word = number.to_le_bytes();
    }
}

/// All bytes as little-endian words, added up; the last padded with zeroes.
#[inline]
pub fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    sum.wrapping_add(u64::from_le_bytes(last))
}

/// The sum of message 0.
pub fn base(size: u64) -> u64 {
    sum(&template(size))
}

/// Gives a message its number and the time.
#[inline(always)]
pub fn stamp(message: &mut [u8], number: u64, time: u64) {
    set(message, number);
    message[STAMP].copy_from_slice(&time.to_le_bytes());
}

/// The time in a message that carries one.
#[inline]
pub fn time(message: &[u8]) -> u64 {
    message[STAMP].try_into().map_or(0, u64::from_le_bytes)
}

/// The number of a message that carries the time, from its sum. The template has a 1 in the place of the time.
#[inline]
pub fn number(sum: u64, base: u64, time: u64) -> u64 {
    sum.wrapping_sub(base).wrapping_add(1).wrapping_sub(time)
}

/// The number of a message; `base` is the sum of message 0.
#[inline]
pub fn read(message: &[u8], base: u64) -> u64 {
    sum(message).wrapping_sub(base)
}

/// The number of a message that carries the time, and the time.
#[inline]
pub fn read_stamped(message: &[u8], base: u64) -> (u64, u64) {
    let time = time(message);
    (number(sum(message), base, time), time)
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
    fn a_byte_that_is_wrong_shows_in_a_message_that_carries_the_time() {
        let mut message = template(64);
        stamp(&mut message, END | 7, 99);
        for byte in 0..64 {
            message[byte] ^= 1;
            let seen = number(sum(&message), base(64), time(&message));
            // A wrong time cannot be seen, because any time is possible.
            assert_eq!(seen == END | 7, (8..16).contains(&byte), "byte {byte}");
            message[byte] ^= 1;
            assert_eq!(number(sum(&message), base(64), time(&message)), END | 7);
        }
    }

    #[test]
    fn words_of_the_ring_are_added_up_the_same_way() {
        assert_eq!(sum(&[1, 0, 0, 0, 0, 0, 0, 0, 2, 1]), 1 + 2 + 256);
    }
}
