//! Sizes in bytes, as people write them: `4096`, `64KiB`, `1MiB`, `2GiB`.
//!
//! `K`, `M` and `G` always mean 1024, 1024² and 1024³ bytes; `64K`, `64KB` and `64KiB` are the same size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// ```
/// use shm_proto::Bytes;
/// let size: Bytes = "64KiB".parse()?;
/// assert_eq!(size.get(), 65_536);
/// assert_eq!(size.to_string(), "64KiB");
/// # Ok::<(), shm_proto::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

/// Text that is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is not a size: write bytes or KiB, MiB, GiB, such as 4096, 64KiB, 1MiB or 2GiB")]
pub struct BadSize {
    /// The text as given.
    pub input: String,
}

impl Bytes {
    /// One kibibyte.
    pub const KIB: u64 = 1 << 10;
    /// One mebibyte.
    pub const MIB: u64 = 1 << 20;
    /// One gibibyte.
    pub const GIB: u64 = 1 << 30;

    /// The number of bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl FromStr for Bytes {
    type Err = BadSize;

    fn from_str(input: &str) -> Result<Self, BadSize> {
        let bad = || BadSize { input: input.to_owned() };
        let text = input.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 = text[..digits].parse().map_err(|_| bad())?;
        let unit = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => Self::KIB,
            "m" | "mb" | "mib" => Self::MIB,
            "g" | "gb" | "gib" => Self::GIB,
            _ => return Err(bad()),
        };
        number.checked_mul(unit).map(Bytes).ok_or_else(bad)
    }
}

impl fmt::Display for Bytes {
    /// The largest unit that divides the size, so that the text parses back to the same number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            0 => "0".to_owned(),
            n if n % Self::GIB == 0 => format!("{}GiB", n / Self::GIB),
            n if n % Self::MIB == 0 => format!("{}MiB", n / Self::MIB),
            n if n % Self::KIB == 0 => format!("{}KiB", n / Self::KIB),
            n => n.to_string(),
        };
        f.pad(&text)
    }
}

/// On the wire and in JSON a size is the plain number of bytes.
impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// Accepts a number of bytes or text with a unit, because configuration files have both.
impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 4096, \"64KiB\", \"1MiB\" or \"2GiB\"")
            }
            fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<Bytes, E> {
                Ok(Bytes(n))
            }
            fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<Bytes, E> {
                u64::try_from(n).map(Bytes).map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(n), &self))
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bytes, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024_in_any_spelling() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KiB", 65_536),
            ("64k", 65_536),
            ("64 KB", 65_536),
            ("1MiB", 1 << 20),
            ("2GiB", 2 << 30),
            ("2g", 2 << 30),
        ] {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes), "{text}");
        }
    }

    #[test]
    fn a_refused_size_is_repeated_with_the_accepted_form() {
        for text in ["", "KiB", "1.5MiB", "-1", "64KiBs", "1TiB", "99999999999GiB"] {
            let message = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}")), "{message}");
            assert!(message.contains("64KiB"), "{message}");
        }
    }

    #[test]
    fn display_parses_back() {
        for n in [0, 1, 1023, 1024, 1536, 4096, 1 << 20, 3 << 30, u64::MAX] {
            assert_eq!(Bytes(n).to_string().parse::<Bytes>().unwrap(), Bytes(n));
        }
    }
}
