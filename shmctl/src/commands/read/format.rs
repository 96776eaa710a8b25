//! How a message is written.

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use serde::Serialize;
use shm_cli::did_you_mean;
use shm_proto::Message;

use super::about::{About, hex};
use super::hexdump;
use super::template::Template;
use crate::error::{Failure, Result};

/// Bytes of the number before a message in [`Format::Length`].
const LENGTH: usize = size_of::<u32>();

/// What stands in the output for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Its bytes, and nothing between messages.
    Raw,
    /// Its bytes and a newline.
    Lines,
    /// A line with two hexadecimal digits a byte.
    Hex,
    /// A line about the message, and lines with offsets, bytes and text.
    Hexdump,
    /// A line with a JSON object.
    Json,
    /// Its length in 4 bytes, little-endian, and its bytes.
    Length,
    /// A line that the user has made up.
    Template(Template),
}

/// The formats that have a name.
const NAMED: [(&str, Format); 6] = [
    ("lines", Format::Lines),
    ("raw", Format::Raw),
    ("hex", Format::Hex),
    ("hexdump", Format::Hexdump),
    ("json", Format::Json),
    ("length", Format::Length),
];

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('{') {
            return Template::parse(text).map(Format::Template);
        }
        let named = NAMED.into_iter().find(|(name, _)| *name == text).map(|(_, format)| format);
        named.ok_or_else(|| {
            let names = NAMED.map(|(name, _)| name);
            let (list, meant) = (names.join(", "), did_you_mean(text, names));
            format!("no format has this name; write {list}, or a template such as '{{seq}} {{text}}'{meant}")
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Template(template) => template.fmt(f),
            named => f.write_str(NAMED.iter().find(|(_, format)| format == named).map_or("", |(name, _)| name)),
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<&'a str>,
    seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    lost: u64,
    len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

/// Writes messages in one format, of one channel or of several.
#[derive(Debug)]
pub(super) struct Printer {
    format: Format,
    /// Every message shows its channel.
    several: bool,
}

impl Printer {
    /// # Errors
    /// A usage error if the format has no place for the channel, and there are several.
    pub(super) fn new(format: Format, several: bool) -> Result<Self> {
        if several && matches!(format, Format::Raw | Format::Length) {
            return Err(Failure::Usage(format!(
                "--format {format} has no place for a channel's name, so nothing would tell the messages of several \
                 channels apart: read each channel by a command of its own, or use --format lines, hex, hexdump, json \
                 or a template with {{channel}}"
            )));
        }
        Ok(Printer { format, several })
    }

    /// Why a message of this length cannot be written.
    pub(super) fn obstacle(&self, about: &About<'_>, len: usize) -> Option<String> {
        (self.format == Format::Length && u32::try_from(len).is_err()).then(|| {
            format!(
                "channel {}: message {} has {len} bytes, and --format length has {LENGTH} bytes for the length, for up to {} \
                 bytes; use another format",
                about.channel,
                about.seq,
                u32::MAX
            )
        })
    }

    /// Appends the message to `out`. `scratch` is room to work in.
    pub(super) fn append(&self, about: &About<'_>, message: &Message<'_>, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        match self.format {
            Format::Raw | Format::Lines | Format::Length => {
                self.before(about, message.len(), out);
                message.append_to(out);
                self.behind(out);
            }
            _ => {
                message.copy_to_vec(scratch);
                self.append_bytes(about, scratch, out);
            }
        }
    }

    /// As [`append`](Self::append), for a message that was copied already.
    pub(super) fn append_bytes(&self, about: &About<'_>, bytes: &[u8], out: &mut Vec<u8>) {
        self.before(about, bytes.len(), out);
        match &self.format {
            Format::Raw | Format::Lines | Format::Length => out.extend_from_slice(bytes),
            Format::Hex => hex(bytes, out),
            Format::Hexdump => hexdump::append(bytes, out),
            Format::Json => json(self.several.then_some(about.channel), about, bytes, out),
            Format::Template(template) => template.append(about, bytes, out),
        }
        self.behind(out);
    }

    fn before(&self, about: &About<'_>, len: usize, out: &mut Vec<u8>) {
        match self.format {
            Format::Length => out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()),
            Format::Lines | Format::Hex | Format::Hexdump if self.several => {
                out.extend_from_slice(about.channel.as_bytes());
                out.extend_from_slice(b": ");
            }
            _ => {}
        }
        if self.format == Format::Hexdump {
            let unit = if len == 1 { "byte" } else { "bytes" };
            // A vector takes everything.
            let _ = write!(out, "message {}, {len} {unit}", about.seq);
            if about.lost > 0 {
                let _ = write!(out, ", {} lost before it", about.lost);
            }
            out.push(b'\n');
        }
    }

    fn behind(&self, out: &mut Vec<u8>) {
        if !matches!(self.format, Format::Raw | Format::Length | Format::Hexdump) {
            out.push(b'\n');
        }
    }
}

fn json(channel: Option<&str>, about: &About<'_>, bytes: &[u8], out: &mut Vec<u8>) {
    let data = str::from_utf8(bytes).ok();
    let digits = data.is_none().then(|| {
        let mut digits = Vec::new();
        hex(bytes, &mut digits);
        String::from_utf8(digits).unwrap_or_default()
    });
    let (seq, time, lost, len) = (about.seq, about.date(), about.lost, bytes.len());
    let line = Line { channel, seq, time, lost, len, data, hex: digits };
    // Numbers and text: there is nothing in it that JSON cannot express, and a vector takes everything.
    let written = serde_json::to_writer(&mut *out, &line);
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About { channel: "cam", seq: 7, lost: 2, published_ns: None };

    fn shown(format: &str, several: bool, bytes: &[u8]) -> String {
        let printer = Printer::new(format.parse().unwrap(), several).unwrap();
        let mut out = Vec::new();
        printer.append_bytes(&ABOUT, bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_format_has_its_own_form_and_several_channels_show_which() {
        for (format, one, several) in [
            ("lines", "hi\n", "cam: hi\n"),
            ("hex", "6869\n", "cam: 6869\n"),
            ("{seq}", "7\n", "7\n"),
            ("{channel} {text}", "cam hi\n", "cam hi\n"),
        ] {
            assert_eq!([shown(format, false, b"hi"), shown(format, true, b"hi")], [one, several], "{format}");
        }
        let dump = "message 7, 1 byte, 2 lost before it\n00000000  61";
        assert!(shown("hexdump", false, b"a").starts_with(dump));
        assert!(shown("hexdump", true, b"a").starts_with(&format!("cam: {dump}")));
        assert_eq!(shown("raw", false, b"hi"), "hi");
        assert_eq!(shown("length", false, b"hi"), "\u{2}\0\0\0hi");
    }

    #[test]
    fn json_has_text_where_the_bytes_are_text_and_hex_where_they_are_not() {
        assert_eq!(shown("json", false, b"h\"i\n"), "{\"seq\":7,\"lost\":2,\"len\":4,\"data\":\"h\\\"i\\n\"}\n");
        assert_eq!(shown("json", false, b""), "{\"seq\":7,\"lost\":2,\"len\":0,\"data\":\"\"}\n");
        assert_eq!(shown("json", false, b"\xff\0"), "{\"seq\":7,\"lost\":2,\"len\":2,\"hex\":\"ff00\"}\n");
        assert_eq!(
            shown("json", true, b"hi"),
            "{\"channel\":\"cam\",\"seq\":7,\"lost\":2,\"len\":2,\"data\":\"hi\"}\n"
        );
    }

    #[test]
    fn what_cannot_tell_channels_apart_is_refused_for_several() {
        for format in ["raw", "length"] {
            let refused = Printer::new(format.parse().unwrap(), true).unwrap_err();
            assert_eq!(refused.exit_code(), 2);
            assert!(refused.to_string().contains(&format!("--format {format}")), "{refused}");
        }
    }

    #[test]
    fn a_length_of_4_bytes_has_its_limit() {
        let printer = Printer::new(Format::Length, false).unwrap();
        assert_eq!(printer.obstacle(&ABOUT, u32::MAX as usize), None);
        let told = printer.obstacle(&ABOUT, 1 << 32).unwrap();
        assert!(told.contains("channel cam: message 7 has 4294967296 bytes"), "{told}");
        assert_eq!(Printer::new(Format::Lines, false).unwrap().obstacle(&ABOUT, 1 << 32), None);
    }

    #[test]
    fn names_parse_back_and_unknown_ones_are_refused_with_the_known() {
        for (name, format) in NAMED {
            assert_eq!((name.parse(), format.to_string().as_str()), (Ok(format.clone()), name));
        }
        let told = "xml".parse::<Format>().unwrap_err();
        assert!(told.contains("lines, raw, hex, hexdump, json, length") && told.contains("'{seq} {text}'"), "{told}");
        assert!("jsno".parse::<Format>().unwrap_err().ends_with("; did you mean json?"));
        assert!("{x}".parse::<Format>().unwrap_err().contains("the fields are"));
    }
}
