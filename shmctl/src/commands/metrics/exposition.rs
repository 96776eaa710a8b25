//! The text format of Prometheus, version 0.0.4.

use std::fmt;

/// The media type of the format, for HTTP.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric's value does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The value only rises, except when the process that counts starts anew.
    Counter,
    /// The value rises and falls.
    Gauge,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        })
    }
}

/// A value of a sample. Counts keep all of their digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A count.
    Count(u64),
    /// Shown in seconds.
    Millis(u64),
    /// Shown in seconds.
    Nanos(u64),
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Value::Count(count as u64)
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        Value::Count(is.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Count(count) => count.fmt(f),
            Value::Nanos(nanos) => write!(f, "{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000),
            Value::Millis(millis) => write!(f, "{}.{:03}", millis / 1000, millis % 1000),
        }
    }
}

/// A label's name and its value, which may be any text.
pub type Label<'a> = (&'static str, &'a str);

/// Appends the two comments that introduce a metric.
pub fn introduce(text: &mut String, name: &str, kind: Kind, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    text.extend(["# HELP ", name, " ", &help, "\n# TYPE ", name, " ", &kind.to_string(), "\n"]);
}

/// Appends a sample.
pub fn sample(text: &mut String, name: &str, labels: &[Label<'_>], value: Value) {
    text.push_str(name);
    for (place, (label, value)) in labels.iter().enumerate() {
        text.push_str(if place == 0 { "{" } else { "," });
        text.extend([label, "=\"", &escaped(value), "\""]);
    }
    if !labels.is_empty() {
        text.push('}');
    }
    text.extend([" ", &value.to_string(), "\n"]);
}

/// A label's value as it stands between quotation marks.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_may_hold_any_text() {
        let mut text = String::new();
        sample(&mut text, "a_total", &[("x", "a\\b\"c\nd"), ("y", "\u{e4}")], Value::Count(u64::MAX));
        sample(&mut text, "b_seconds", &[], Value::Millis(1_050));
        assert_eq!(text, "a_total{x=\"a\\\\b\\\"c\\nd\",y=\"\u{e4}\"} 18446744073709551615\nb_seconds 1.050\n");
    }

    #[test]
    fn a_metric_is_introduced_by_its_help_and_its_type() {
        let mut text = String::new();
        introduce(&mut text, "a_total", Kind::Counter, "One\\two\nthree.");
        assert_eq!(text, "# HELP a_total One\\\\two\\nthree.\n# TYPE a_total counter\n");
    }
}
