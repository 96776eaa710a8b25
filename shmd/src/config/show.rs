//! The resolved configuration as TOML: what `--check` prints, and what may be used as a configuration again.

use std::fmt::Write;
use std::time::Duration;

use shm_proto::handoff::Names;
use shm_proto::{Bytes, duration};

use super::{ChannelConfig, Config};
use crate::access::Access;

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
        out.push_str("# --exit-on-eof: ends after standard input's end when the readers have drained.\n");
    }
    line(&mut out, format_args!("runtime_dir = {}", text(&config.runtime_dir.display().to_string())));
    line(&mut out, format_args!("prefix = {}", text(config.prefix.as_str())));
    line(&mut out, format_args!("log = {}", text(&config.log.as_str().to_ascii_lowercase())));
    line(&mut out, format_args!("max_clients = {}", config.max_clients));
    for channel in &config.channels {
        show_channel(&mut out, channel);
    }
    out
}

fn show_channel(out: &mut String, channel: &ChannelConfig) {
    let size = |bytes: u64| text(&Bytes(bytes).to_string());
    let time = |time: Option<Duration>| text(&duration::show(time.unwrap_or_default()));
    out.push_str("\n[[channel]]\n");
    line(out, format_args!("name = {}", text(channel.name.as_str())));
    line(out, format_args!("capacity = {}", size(channel.capacity)));
    line(out, format_args!("min = {}", size(channel.min)));
    line(out, format_args!("max = {}", size(channel.max)));
    line(out, format_args!("max_message = {}", size(channel.max_message)));
    line(out, format_args!("align = {}", channel.align));
    line(out, format_args!("on_full = {}", text(&channel.on_full.to_string())));
    line(out, format_args!("max_readers = {}", channel.max_readers));
    line(out, format_args!("evict_after = {}", time(channel.evict_after)));
    line(out, format_args!("shrink_after = {}", time(channel.shrink_after)));
    line(out, format_args!("ack = {}", channel.ack));
    line(out, format_args!("ack_timeout = {}", time(Some(channel.ack_timeout))));
    line(out, format_args!("wait_readers = {}", channel.wait_readers));
    line(out, format_args!("group = {}", text(channel.group.as_ref().map_or("", |(name, _)| name))));
    line(out, format_args!("permissions = {}", text(&format!("{:04o}", channel.mode))));
    line(out, format_args!("mode = {}", text(if channel.handoff.is_some() { "handoff" } else { "ring" })));
    if let Some(Names { segment, avail, done }) = &channel.handoff {
        line(out, format_args!("segment = {}", text(segment)));
        line(out, format_args!("avail = {}", text(avail)));
        line(out, format_args!("done = {}", text(done)));
    }
    line(out, format_args!("read = {}", list(&channel.read)));
    line(out, format_args!("write = {}", list(&channel.write)));
    line(out, format_args!("admin = {}", list(&channel.admin)));
    line(out, format_args!("source = {}", text(channel.source.as_str())));
    line(out, format_args!("framing = {}", text(&channel.framing.to_string())));
    line(out, format_args!("keep_delimiter = {}", channel.keep_delimiter));
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{line}");
}

/// A TOML string with its quotes.
fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(access: &Access) -> String {
    let names: Vec<String> = access.names().map(|name| text(&name)).collect();
    format!("[{}]", names.join(", "))
}
