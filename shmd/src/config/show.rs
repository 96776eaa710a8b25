//! The resolved configuration as TOML: what `--check` prints, and what may be used as a configuration again.

use std::fmt::Write;
use std::time::Duration;

use shm_proto::Bytes;
use shm_proto::internal::duration;
use shm_proto::internal::handoff::Names;

use super::{ChannelConfig, Config};
use crate::access::Access;

/// Keys that a handoff channel does not take.
const RINGS_OWN: [&str; 6] = ["align", "evict_after", "ack", "wait_readers", "timestamps", "prefault"];

/// The whole configuration, every key, with the files it came from in a comment.
pub(crate) fn show(config: &Config) -> String {
    let mut out = String::new();
    match config.files.as_slice() {
        [] => out.push_str("# No configuration file: built-in defaults, the environment and the command line.\n"),
        files => {
            out.push_str("# From, in this order:\n");
            for file in files {
                // A file name may hold anything, a comment no control characters.
                line(&mut out, format_args!("#   {}", file.display().to_string().escape_debug()));
            }
        }
    }
    if config.exit_on_eof {
        out.push_str(
            "# --exit-on-eof: the daemon ends when standard input has ended and its readers have read everything.\n",
        );
    }
    line(&mut out, format_args!("runtime_dir = {}", text(&config.runtime_dir.display().to_string())));
    line(&mut out, format_args!("prefix = {}", text(config.prefix.as_str())));
    line(&mut out, format_args!("log = {}", text(&config.log.as_str().to_ascii_lowercase())));
    line(&mut out, format_args!("max_clients = {}", config.max_clients));
    line(&mut out, format_args!("log_entries = {}", config.log_entries));
    line(&mut out, format_args!("create = {}", list(&config.creation.may)));
    line(&mut out, format_args!("max_created = {}", config.creation.most));
    line(&mut out, format_args!("max_created_memory = {}", text(&Bytes(config.creation.most_memory).to_string())));
    let state_dir = config.state_dir.as_ref().map_or_else(String::new, |dir| dir.display().to_string());
    line(&mut out, format_args!("state_dir = {}", text(&state_dir)));
    for channel in &config.channels {
        out.push_str("\n[[channel]]\n");
        for (key, value) in values(channel) {
            line(&mut out, format_args!("{key} = {value}"));
        }
    }
    out
}

/// Every key of a channel with its value as the configuration writes it.
pub(crate) fn values(channel: &ChannelConfig) -> Vec<(&'static str, String)> {
    let size = |bytes: u64| text(&Bytes(bytes).to_string());
    let time = |time: Option<Duration>| text(&duration::show(time.unwrap_or_default()));
    let content = channel.declared.content.as_ref();
    let schema = content.and_then(|content| content.schema.as_ref());
    let schema_text = channel.declared.text.as_ref();
    let mut values = vec![
        ("name", text(channel.name.as_str())),
        ("capacity", size(channel.capacity)),
        ("min", size(channel.min)),
        ("max", size(channel.max)),
        ("max_message", size(channel.max_message)),
        ("align", channel.align.to_string()),
        ("on_full", text(&channel.on_full.to_string())),
        ("max_readers", channel.max_readers.to_string()),
        ("evict_after", time(channel.evict_after)),
        ("shrink_after", time(channel.shrink_after)),
        ("stalled_after", time(channel.stalled_after)),
        ("ack", channel.ack.to_string()),
        ("ack_timeout", time(Some(channel.ack_timeout))),
        ("wait_readers", channel.wait_readers.to_string()),
        ("timestamps", channel.timestamps.to_string()),
        ("prefault", channel.prefault.to_string()),
        ("content", text(content.map_or("", |content| &content.encoding))),
        ("schema", text(schema.map_or("", |schema| &schema.name))),
        ("schema_encoding", text(schema.map_or("", |schema| &schema.encoding))),
        ("schema_text", text(schema_text.and_then(|text| text.inline()).unwrap_or(""))),
        ("schema_file", text(schema_text.and_then(|text| text.file()).unwrap_or(""))),
        ("group", text(channel.group.as_ref().map_or("", |(name, _)| name))),
        ("permissions", text(&format!("{:04o}", channel.mode))),
        ("mode", text(if channel.handoff.is_some() { "handoff" } else { "ring" })),
        ("read", list(&channel.read)),
        ("write", list(&channel.write)),
        ("admin", list(&channel.admin)),
        ("source", text(&channel.source.to_string())),
    ];
    // Packets are messages, and a configuration that says otherwise is refused.
    if channel.source.is_framed() {
        values.push(("framing", text(&channel.framing.to_string())));
        values.push(("keep_delimiter", channel.keep_delimiter.to_string()));
        values.push(("flush", time(channel.flush)));
    }
    if let Some(Names { segment, avail, done }) = &channel.handoff {
        values.retain(|(key, _)| !RINGS_OWN.contains(key));
        values.extend([("segment", text(segment)), ("avail", text(avail)), ("done", text(done))]);
    }
    values
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

/// A TOML string with its quotes.
fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A list of users and groups as TOML.
pub(crate) fn list(access: &Access) -> String {
    let names: Vec<String> = access.names().map(|name| text(&name)).collect();
    format!("[{}]", names.join(", "))
}
