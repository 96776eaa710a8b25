//! The text that `--format` gives for each message, with fields in braces.

use std::borrow::Cow;
use std::fmt;
use std::io::Write;

use super::about::{About, hex};

/// A field, and its name in a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Seq,
    Time,
    Lost,
    Len,
    Text,
    Hex,
    Channel,
}

const FIELDS: [(&str, Field); 7] = [
    ("seq", Field::Seq),
    ("time", Field::Time),
    ("lost", Field::Lost),
    ("len", Field::Len),
    ("text", Field::Text),
    ("hex", Field::Hex),
    ("channel", Field::Channel),
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(Field),
}

/// A line for each message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

impl Template {
    /// A template: text, and the names of fields in braces. Two braces stand for one.
    ///
    /// # Errors
    /// What is wrong, and the fields that there are.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut plain) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain += before;
            if from.starts_with("{{") || from.starts_with("}}") {
                plain.push_str(&from[..1]);
                rest = &from[2..];
                continue;
            }
            let unmatched = |brace: &str, twice: &str| {
                Err(format!("a {brace} without its counterpart; write {twice} for the sign itself"))
            };
            let Some(inside) = from.strip_prefix('{') else { return unmatched("}", "}}") };
            let Some((name, behind)) = inside.split_once('}') else { return unmatched("{", "{{") };
            let Some((_, field)) = FIELDS.iter().find(|(known, _)| *known == name) else {
                return Err(format!("{{{name}}} is not a field; the fields are {}", names()));
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Field(*field));
            rest = behind;
        }
        plain += rest;
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Template(parts))
    }

    /// Appends the text for a message.
    pub(super) fn append(&self, about: &About<'_>, bytes: &[u8], out: &mut Vec<u8>) {
        for part in &self.0 {
            // A vector takes everything.
            let _ = match part {
                Part::Text(text) => out.write_all(text.as_bytes()),
                Part::Field(Field::Seq) => write!(out, "{}", about.seq),
                Part::Field(Field::Time) => out.write_all(about.date().as_deref().unwrap_or("-").as_bytes()),
                Part::Field(Field::Lost) => write!(out, "{}", about.lost),
                Part::Field(Field::Len) => write!(out, "{}", bytes.len()),
                Part::Field(Field::Channel) => out.write_all(about.channel.as_bytes()),
                Part::Field(Field::Text) => out.write_all(text_of(bytes).as_bytes()),
                Part::Field(Field::Hex) => {
                    hex(bytes, out);
                    Ok(())
                }
            };
        }
    }
}

/// Bytes that are no UTF-8 become U+FFFD.
fn text_of(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The fields, for messages and the help.
fn names() -> String {
    FIELDS.map(|(name, _)| format!("{{{name}}}")).join(", ")
}

/// The template as it was written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|part| match part {
            Part::Text(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Field(field) => {
                let name = FIELDS.iter().find(|(_, known)| known == field).map_or("", |(name, _)| name);
                write!(f, "{{{name}}}")
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(template: &str, bytes: &[u8]) -> String {
        let template = Template::parse(template).unwrap();
        let mut out = Vec::new();
        template.append(&About { channel: "cam", seq: 7, lost: 2, published_ns: None }, bytes, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_filled_in_and_two_braces_are_one() {
        assert_eq!(shown("{seq} {lost} {len} {text} {hex} {channel}", b"hi"), "7 2 2 hi 6869 cam");
        assert_eq!(shown("{{{seq}}} {{}} {{text}}", b""), "{7} {} {text}");
        assert_eq!(shown("{text}|", b"a\xffb"), "a\u{fffd}b|");
        assert_eq!(shown("\u{e4}{seq}\u{e4}", b""), "\u{e4}7\u{e4}");
    }

    #[test]
    fn a_template_is_shown_as_it_was_written() {
        for text in ["{seq} {{x}}", "{channel}: {text}"] {
            assert_eq!(Template::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_template_is_refused_with_the_fields() {
        for (text, part) in [
            ("{sec}", "{sec} is not a field; the fields are {seq}, {time}, {lost}, {len}, {text}, {hex}, {channel}"),
            ("{}", "{} is not a field"),
            ("{seq", "write {{"),
            ("seq}", "write }}"),
        ] {
            let told = Template::parse(text).unwrap_err();
            assert!(told.contains(part), "{text}: {told}");
        }
    }
}
