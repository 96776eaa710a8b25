//! What a channel's messages are: declared by the channel's configuration, and expected by programs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The longest word or name, in bytes.
pub const MAX_WORD: usize = 255;
/// The longest schema, in bytes.
pub const MAX_SCHEMA: u64 = 1 << 20;

/// What a channel's configuration declares about its messages. Nobody checks the messages themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Content {
    /// How messages are encoded: a media type such as `image/jpeg`, or a word such as `json`, `protobuf` or `cdr`.
    pub encoding: String,
    /// What each message is an instance of, if that is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Schema>,
}

impl Content {
    /// Messages that are encoded in this way, without a schema.
    #[must_use]
    pub fn new(encoding: String) -> Self {
        Content { encoding, schema: None }
    }
}

/// `protobuf:telemetry.Frame`, as a program would expect it.
impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.encoding, self.schema.as_ref().map(|schema| &*schema.name))
    }
}

/// The schema of a channel's messages. [`Client::schema`](crate::Client::schema) returns its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Schema {
    /// Its name, such as `telemetry.Frame` or `sensor_msgs/msg/Image`.
    pub name: String,
    /// The language that its text is in, such as `jsonschema`, `protobuf` or `ros2msg`. Empty if that is not declared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub encoding: String,
    /// The length of its text in bytes; 0 if there is none.
    #[serde(default)]
    pub bytes: u64,
    /// The FNV-1a hash of its text, 64 bits in hexadecimal digits, to see whether a text is the same as an earlier one. Empty if
    /// there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

impl Schema {
    /// A schema of this name, in this language, with this text.
    #[must_use]
    pub fn new(name: String, encoding: String, text: &[u8]) -> Self {
        let hash = if text.is_empty() { String::new() } else { hash(text) };
        Schema { name, encoding, bytes: text.len() as u64, hash }
    }
}

/// See [`Schema::hash`].
pub(crate) fn hash(text: &[u8]) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", text.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// What a program expects a channel's messages to be. As text: `TYPE`, or `TYPE:SCHEMA`.
///
/// ```
/// use shm_proto::Expected;
/// let expected: Expected = "protobuf:telemetry.Frame".parse()?;
/// assert_eq!((expected.encoding(), expected.schema()), ("protobuf", Some("telemetry.Frame")));
/// # Ok::<(), shm_proto::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Expected {
    encoding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<String>,
}

/// The same as it arrives from another process.
#[derive(Deserialize)]
struct Unchecked {
    encoding: String,
    #[serde(default)]
    schema: Option<String>,
}

impl TryFrom<Unchecked> for Expected {
    type Error = BadContent;

    fn try_from(unchecked: Unchecked) -> Result<Self, BadContent> {
        Expected::new(&unchecked.encoding, unchecked.schema.as_deref())
    }
}

/// Text that cannot be the name of an encoding or of a schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{input:?} is not the name of {what}: {reason}")]
#[non_exhaustive]
pub struct BadContent {
    /// Which kind of name.
    pub what: &'static str,
    /// The text as given.
    pub input: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Expected {
    /// Messages in this encoding, and of this schema if one is named. Without one, a channel with any schema will do.
    ///
    /// # Errors
    /// That one of them cannot be a name.
    pub fn new(encoding: &str, schema: Option<&str>) -> Result<Self, BadContent> {
        check_encoding(encoding)?;
        schema.map_or(Ok(()), |name| check_name("a schema", name))?;
        Ok(Expected { encoding: encoding.to_owned(), schema: schema.map(str::to_owned) })
    }

    /// The encoding.
    #[must_use]
    pub fn encoding(&self) -> &str {
        &self.encoding
    }

    /// The name of the schema, if it matters.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// Why a channel that declares this is not what is expected, with both names; nothing if it is.
    #[must_use]
    pub fn mismatch(&self, declared: Option<&Content>) -> Option<String> {
        let way = "use another channel, expect what it declares, or change its configuration";
        let Some(content) = declared else {
            return Some(format!("it declares no content, and the program expects {self}; {way}"));
        };
        let name = content.schema.as_ref().map(|schema| &*schema.name);
        let fits = content.encoding == self.encoding && (self.schema.is_none() || self.schema() == name);
        (!fits).then(|| format!("its content is {content}, and the program expects {self}; {way}"))
    }
}

impl FromStr for Expected {
    type Err = BadContent;

    fn from_str(text: &str) -> Result<Self, BadContent> {
        // A media type has no colon, the name of a schema may have one.
        match text.split_once(':') {
            Some((encoding, schema)) => Expected::new(encoding, Some(schema)),
            None => Expected::new(text, None),
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(f, &self.encoding, self.schema())
    }
}

fn show(f: &mut fmt::Formatter<'_>, encoding: &str, schema: Option<&str>) -> fmt::Result {
    f.write_str(encoding)?;
    schema.map_or(Ok(()), |name| write!(f, ":{name}"))
}

/// That this can be the name of an encoding: visible ASCII without a colon.
///
/// # Errors
/// What is wrong with it.
pub fn check_encoding(encoding: &str) -> Result<(), BadContent> {
    const WHAT: &str = "an encoding";
    check_name(WHAT, encoding)?;
    let is_word = encoding.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':');
    if is_word {
        return Ok(());
    }
    let reason = "write a media type such as application/json, or a word such as json, without blanks and colons";
    Err(BadContent { what: WHAT, input: encoding.to_owned(), reason })
}

/// That this can be the name of something.
///
/// # Errors
/// What is wrong with it.
pub fn check_name(what: &'static str, name: &str) -> Result<(), BadContent> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > MAX_WORD {
        "it has more than 255 bytes"
    } else if name.chars().any(char::is_control) {
        "it contains a control character"
    } else {
        return Ok(());
    };
    Err(BadContent { what, input: name.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(encoding: &str, schema: Option<&str>) -> Content {
        let schema = schema.map(|name| Schema::new(name.to_owned(), "protobuf".to_owned(), b"text"));
        Content { encoding: encoding.to_owned(), schema }
    }

    #[test]
    fn what_is_expected_is_text_and_the_text_means_it() {
        for (text, encoding, schema) in [
            ("json", "json", None),
            ("image/jpeg", "image/jpeg", None),
            ("text/plain;charset=utf-8", "text/plain;charset=utf-8", None),
            ("cdr:sensor_msgs/msg/Image", "cdr", Some("sensor_msgs/msg/Image")),
            ("x:a::B c", "x", Some("a::B c")),
        ] {
            let expected: Expected = text.parse().unwrap();
            assert_eq!((expected.encoding(), expected.schema()), (encoding, schema));
            assert_eq!(expected.to_string(), text);
            assert_eq!(expected.mismatch(Some(&content(encoding, schema))), None, "{text}");
        }
        let long = "x".repeat(MAX_WORD + 1);
        for text in ["", ":x", "x:", "a b", "ä", "x:a\nb", "x:\u{7f}", &long, &format!("x:{long}")] {
            assert!(text.parse::<Expected>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn another_encoding_or_schema_is_told_with_both_names_and_a_schema_matters_only_if_it_is_named() {
        let told =
            |expected: &str, declared: Option<&Content>| expected.parse::<Expected>().unwrap().mismatch(declared);
        let frame = content("protobuf", Some("Frame"));
        assert_eq!(told("protobuf", Some(&frame)), None);
        assert_eq!(told("protobuf:Frame", Some(&frame)), None);
        for (expected, declared, parts) in [
            ("protobuf:Other", Some(&frame), ["is protobuf:Frame,", "expects protobuf:Other;"]),
            ("json", Some(&frame), ["is protobuf:Frame,", "expects json;"]),
            ("json:Frame", Some(&content("json", None)), ["is json,", "expects json:Frame;"]),
            ("json", None, ["declares no content", "expects json;"]),
        ] {
            let why = told(expected, declared).unwrap();
            assert!(parts.iter().all(|part| why.contains(part)), "{why}");
        }
    }

    #[test]
    fn a_schema_has_the_length_and_the_hash_of_its_text() {
        let schema = |text: &[u8]| Schema::new("a".to_owned(), String::new(), text);
        assert_eq!((schema(b"foobar").bytes, &*schema(b"foobar").hash), (6, "85944171f73967e8"));
        assert_eq!((schema(b"").bytes, &*schema(b"").hash), (0, ""));
        let json = serde_json::to_string(&Content { encoding: "json".to_owned(), schema: Some(schema(b"")) }).unwrap();
        assert_eq!(json, r#"{"encoding":"json","schema":{"name":"a","bytes":0}}"#);
        for (json, is_good) in [
            (r#"{"encoding":"json"}"#, true),
            (r#"{"encoding":"json","schema":"a","later":1}"#, true),
            (r#"{"encoding":"js on"}"#, false),
            (r#"{"encoding":"json","schema":"a\u001b[2J"}"#, false),
            (r#"{"schema":"a"}"#, false),
        ] {
            assert_eq!(serde_json::from_str::<Expected>(json).is_ok(), is_good, "{json}");
        }
    }
}
