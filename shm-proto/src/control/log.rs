//! The daemon's operation log, as data: what `log` answers, and the text of the daemon's log lines.

mod event;

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::event::LogEvent;
use super::words::words;
use crate::name::ChannelName;

words! {
    /// The severity of an entry.
    pub enum Severity {
        /// Something failed.
        Error = "error",
        /// Something unusual happened.
        Warn = "warn",
        /// The ordinary course of things.
        Info = "info",
    }
}

/// One operation of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct LogEntry {
    /// Its number: 1 for the daemon's first entry, and so on, also after a crash. Numbers of entries that the asking peer may
    /// not see are missing.
    pub seq: u64,
    /// Wall clock, milliseconds since 1970-01-01 00:00 UTC.
    pub time_ms: u64,
    /// The severity.
    pub severity: Severity,
    /// What happened.
    pub event: LogEvent,
    /// The channel, if the operation concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// The particulars.
    #[serde(default)]
    pub fields: Fields,
}

impl LogEntry {
    /// An entry without number, time, channel and particulars.
    #[must_use]
    pub fn new(severity: Severity, event: LogEvent) -> Self {
        LogEntry { seq: 0, time_ms: 0, severity, event, channel: None, fields: Fields::default() }
    }
}

impl fmt::Display for LogEntry {
    /// `event=attach channel=main reader=3`, without number, time and severity.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event={}", self.event)?;
        if let Some(channel) = &self.channel {
            write!(f, " channel={channel}")?;
        }
        self.fields.0.iter().try_for_each(|(key, value)| write!(f, " {key}={value}"))
    }
}

/// Keys and values in reading order; in JSON an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields(pub Vec<(String, Value)>);

impl Fields {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }
}

/// One particular.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Value {
    /// A count, a size in bytes, a process number.
    Number(u64),
    /// Anything else.
    Text(String),
}

impl fmt::Display for Value {
    /// Text with spaces or special characters is quoted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => {
                let plain = |c: char| !(c.is_whitespace() || c.is_control() || "\"\\=".contains(c));
                if !text.is_empty() && text.chars().all(plain) { f.write_str(text) } else { write!(f, "{text:?}") }
            }
        }
    }
}

impl Serialize for Fields {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FieldsVisitor;
        impl<'de> Visitor<'de> for FieldsVisitor {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of numbers and texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(FieldsVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        let text = |text: &str| Value::Text(text.to_owned());
        let fields = [
            ("reader", Value::Number(3)),
            ("by", text("writer")),
            ("reason", text("no \"room\"\nleft")),
            ("none", text("")),
        ];
        LogEntry {
            seq: 7,
            time_ms: 1_700_000_000_123,
            severity: Severity::Info,
            event: LogEvent::Evict,
            channel: Some("main".parse().unwrap()),
            fields: Fields(fields.map(|(key, value)| (key.to_owned(), value)).into()),
        }
    }

    #[test]
    fn an_entry_is_one_line_whatever_its_texts_hold() {
        let line = entry().to_string();
        assert_eq!(line, r#"event=evict channel=main reader=3 by=writer reason="no \"room\"\nleft" none="""#);
    }

    #[test]
    fn json_keeps_the_order_of_the_fields() {
        let json = serde_json::to_string(&entry()).unwrap();
        assert!(json.contains(r#""fields":{"reader":3,"by":"writer","reason":"#), "{json}");
        assert_eq!(serde_json::from_str::<LogEntry>(&json).unwrap(), entry());
    }
}
