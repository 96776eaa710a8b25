//! Messages on their way from the reading thread to the publishing one.

/// Messages in a batch.
const MESSAGES: usize = 4096;
/// Bytes after which a batch is full.
const BYTES: usize = 1 << 20;

/// A message: the bytes from the end of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// The place of its channel.
    pub(crate) place: usize,
    /// When it was recorded, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// Where it ends in the bytes.
    pub(crate) end: usize,
}

/// Messages in the order in which they are published.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) items: Vec<Item>,
    /// The recording ends here. Another pass may follow.
    pub(crate) ends_pass: bool,
}

impl Batch {
    pub(crate) fn push(&mut self, place: usize, time: u64, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        self.items.push(Item { place, time, end: self.bytes.len() });
    }

    pub(crate) fn is_full(&self) -> bool {
        self.items.len() >= MESSAGES || self.bytes.len() >= BYTES
    }

    /// Bytes of memory that it takes.
    pub(crate) fn size(&self) -> u64 {
        (self.bytes.len() + self.items.len() * size_of::<Item>()) as u64
    }

    pub(crate) fn clear(&mut self) {
        // A message may be much larger than the others.
        if self.bytes.capacity() > 4 * BYTES {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.items.clear();
        self.ends_pass = false;
    }

    /// Each message with its bytes.
    pub(crate) fn messages(&self) -> impl Iterator<Item = (Item, &[u8])> {
        let mut start = 0;
        self.items.iter().map(move |item| {
            let bytes = &self.bytes[start..item.end];
            start = item.end;
            (*item, bytes)
        })
    }
}
