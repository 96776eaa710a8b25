//! Random inputs without a guide: kept ones, changed a little.

/// Words that often mean something.
const WORDS: [u64; 12] =
    [0, 1, 7, 8, 4095, 4096, 1 << 20, u32::MAX as u64, 1 << 40, i64::MAX as u64, u64::MAX - 7, u64::MAX];
/// The longest input that is made.
const LONGEST: usize = 8 << 10;

/// Makes inputs. The same seed gives the same inputs (xorshift64*).
#[derive(Clone, Debug)]
pub struct Mutator {
    state: u64,
}

impl Mutator {
    /// A sequence of its own for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1 }
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    /// An input that is near one or two of these.
    #[must_use]
    pub fn near(&mut self, kept: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match kept.len() {
            0 => (0..self.below(256)).map(|_| self.next() as u8).collect(),
            several => kept[self.below(several)].clone(),
        };
        for _ in 0..1 + self.below(6) {
            self.change(&mut input, kept);
        }
        input.truncate(LONGEST);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, kept: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        match self.below(8) {
            0 => input.insert(at, self.next() as u8),
            1 if at < input.len() => input[at] = self.next() as u8,
            2 if at < input.len() => input[at] ^= 1 << self.below(8),
            3 if at < input.len() => input[at] = input[at].wrapping_add(self.below(32) as u8).wrapping_sub(16),
            4 => {
                let word = WORDS[self.below(WORDS.len())].to_le_bytes();
                let end = input.len().min(at + word.len());
                input.splice(at..end, word);
            }
            5 => {
                let end = at + self.below(input.len() - at + 1).min(32);
                input.drain(at..end);
            }
            6 => {
                let end = at + self.below(input.len() - at + 1).min(64);
                let twice = input[at..end].to_vec();
                input.splice(at..at, twice);
            }
            _ => {
                // The end of another one.
                if let Some(other) = (!kept.is_empty()).then(|| &kept[self.below(kept.len())]) {
                    let from = self.below(other.len() + 1);
                    input.truncate(at);
                    input.extend_from_slice(&other[from..]);
                }
            }
        }
    }
}
