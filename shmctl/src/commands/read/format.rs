//! How a message is written.

use clap::ValueEnum;
use serde::Serialize;
use shm_proto::Message;

/// What stands in the output for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Its bytes, and nothing between messages.
    Raw,
    /// Its bytes and a newline.
    Lines,
    /// A line with two hexadecimal digits a byte.
    Hex,
    /// A line with a JSON object.
    Json,
}

#[derive(Serialize)]
struct Line<'a> {
    seq: u64,
    lost: u64,
    len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl Format {
    /// Appends the message to `out`; `lost` messages before it were lost. `scratch` is room to work in.
    pub(super) fn append(self, message: &Message<'_>, lost: u64, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        match self {
            Format::Raw => message.append_to(out),
            Format::Lines => {
                message.append_to(out);
                out.push(b'\n');
            }
            Format::Hex | Format::Json => {
                message.copy_to_vec(scratch);
                self.append_bytes(message.seq(), lost, scratch, out);
            }
        }
    }

    /// As [`append`](Self::append), for a message that was copied already.
    pub(super) fn append_bytes(self, seq: u64, lost: u64, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Format::Raw | Format::Lines => out.extend_from_slice(bytes),
            Format::Hex => hex(bytes, out),
            Format::Json => json(seq, lost, bytes, out),
        }
        if self != Format::Raw {
            out.push(b'\n');
        }
    }
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len());
    out.extend(bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]));
}

fn json(seq: u64, lost: u64, bytes: &[u8], out: &mut Vec<u8>) {
    let data = str::from_utf8(bytes).ok();
    let digits = data.is_none().then(|| {
        let mut digits = Vec::new();
        hex(bytes, &mut digits);
        String::from_utf8(digits).unwrap_or_default()
    });
    let line = Line { seq, lost, len: bytes.len(), data, hex: digits };
    // Numbers and text: there is nothing in it that JSON cannot express, and a vector takes everything.
    let written = serde_json::to_writer(&mut *out, &line);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn hex_has_two_digits_a_byte() {
        assert_eq!(text(|out| hex(&[0, 0x1f, 0xff], out)), "001fff");
    }

    #[test]
    fn json_has_text_where_the_bytes_are_text_and_hex_where_they_are_not() {
        assert_eq!(text(|out| json(7, 2, b"h\"i\n", out)), r#"{"seq":7,"lost":2,"len":4,"data":"h\"i\n"}"#);
        assert_eq!(text(|out| json(0, 0, b"", out)), r#"{"seq":0,"lost":0,"len":0,"data":""}"#);
        assert_eq!(text(|out| json(8, 0, &[0xff, 0], out)), r#"{"seq":8,"lost":0,"len":2,"hex":"ff00"}"#);
    }
}
