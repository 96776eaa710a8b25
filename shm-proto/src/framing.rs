//! How a byte stream is cut into messages.
//!
//! | framing | a message is | at the end of the input |
//! |---|---|---|
//! | `lines` | what stands before a newline, without it | a last line needs no newline |
//! | `nul` | what stands before a zero byte, without it | a last record needs no zero byte |
//! | `length` | the number of bytes that the 4-byte little-endian number before them says | a record cut short is an error |
//! | `chunk=SIZE` | the next SIZE bytes | the last message may be shorter |
//! | `stream` | what one read gives: what has arrived, up to 256 KiB and up to the largest message | nothing is left |

mod cut;
mod error;
pub mod input;
mod pump;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::size::Bytes;

pub use error::{BadFraming, FramingError};
pub use input::Input;
pub use pump::{MessageSink, Pump, PumpState, Slotted, Step};

/// Where one message of a byte stream ends.
///
/// ```
/// use shm_proto::internal::framing::Framing;
/// let framing: Framing = "chunk=64KiB".parse()?;
/// assert_eq!(framing, Framing::Chunk(65_536));
/// assert_eq!(framing.to_string(), "chunk=64KiB");
/// # Ok::<(), shm_proto::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Framing {
    /// At a newline, which is not part of the message.
    #[default]
    Lines,
    /// At a zero byte, which is not part of the message.
    Nul,
    /// Each message follows its length in bytes: 4 bytes, little-endian.
    Length,
    /// After this number of bytes; the last message may be shorter.
    Chunk(u64),
    /// What has arrived, at once: up to the largest message, and up to 256 KiB, which is one read.
    Stream,
}

impl Framing {
    /// Why the beginning of a message cannot be published without the rest; nothing if it can.
    #[must_use]
    pub fn refuses_flush(self) -> Option<&'static str> {
        match self {
            Framing::Chunk(_) => None,
            Framing::Stream => Some("a stream is published as it arrives"),
            Framing::Lines | Framing::Nul | Framing::Length => Some("a part of such a message is no message"),
        }
    }
}

impl FromStr for Framing {
    type Err = BadFraming;

    fn from_str(input: &str) -> Result<Self, BadFraming> {
        match input {
            "lines" => Ok(Framing::Lines),
            "nul" => Ok(Framing::Nul),
            "length" => Ok(Framing::Length),
            "stream" => Ok(Framing::Stream),
            _ => {
                let bad = |reason: &str| Err(BadFraming { input: input.to_owned(), reason: reason.to_owned() });
                match input.strip_prefix("chunk=").map(|size| (size, size.parse())) {
                    Some((_, Ok(Bytes(0)))) => bad("a chunk has at least 1 byte"),
                    Some((_, Ok(Bytes(size)))) => Ok(Framing::Chunk(size)),
                    Some((size, Err(_))) => bad(&format!("{size:?} is not a size")),
                    None => bad("no framing has this name"),
                }
            }
        }
    }
}

impl TryFrom<String> for Framing {
    type Error = BadFraming;
    fn try_from(text: String) -> Result<Self, BadFraming> {
        text.parse()
    }
}

impl From<Framing> for String {
    fn from(framing: Framing) -> String {
        framing.to_string()
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Framing::Lines => f.pad("lines"),
            Framing::Nul => f.pad("nul"),
            Framing::Length => f.pad("length"),
            Framing::Stream => f.pad("stream"),
            Framing::Chunk(size) => f.pad(&format!("chunk={}", Bytes(*size))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_parses_back() {
        for framing in
            [Framing::Lines, Framing::Nul, Framing::Length, Framing::Stream, Framing::Chunk(1), Framing::Chunk(1 << 30)]
        {
            assert_eq!(framing.to_string().parse::<Framing>().unwrap(), framing);
        }
    }

    #[test]
    fn a_refused_framing_is_repeated_with_what_is_known() {
        for text in ["", "line", "chunk", "chunk=", "chunk=0", "chunk=big", "length-be"] {
            let message = text.parse::<Framing>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")) && message.contains("chunk=64KiB"), "{message}");
        }
        assert!("chunk=0".parse::<Framing>().unwrap_err().to_string().contains("a chunk has at least 1 byte"));
        assert!("chunk=big".parse::<Framing>().unwrap_err().to_string().contains("\"big\" is not a size"));
    }
}
