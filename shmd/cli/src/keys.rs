//! Every key of the configuration: the manual's table, shmd.toml(5) and the completions come from here. Tests hold it to the keys
//! that the daemon reads, and to `etc/shmd.toml`. Texts are in Markdown.

use Kind::{Flag, Names, Number, Size, Text, Time};

/// What a value looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A string.
    Text,
    /// Bytes, as a number or a string with a unit.
    Size,
    /// A string with a number and its unit.
    Time,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Flag,
    /// Users and groups: a list of strings.
    Names,
}

impl Kind {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Text => "text",
            Size => "size",
            Time => "time",
            Number => "number",
            Flag => "true or false",
            Names => "list of names",
        }
    }
}

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As files and `--set` spell it.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// The value without the key, or what it depends on.
    pub default: &'static str,
    /// What it does, and which values there are.
    pub meaning: &'static str,
}

const fn key(name: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Key {
    Key { name, kind, default, meaning }
}

/// The keys outside of `[[channel]]`.
pub const TOP: &[Key] = &[
    key(
        "runtime_dir",
        Text,
        "`/run/shmd` for root, else `$XDG_RUNTIME_DIR/shmd`, else `/tmp/shmd-UID`",
        "directory of `shmd.sock` and `shmd.lock`",
    ),
    key("prefix", Text, "`shmd` for root, else `shmd-UID`", "first part of the object names in `/dev/shm`"),
    key("log", Text, "`info`", "`off`, `error`, `warn`, `info`, `debug` or `trace`"),
    key(
        "max_clients",
        Number,
        "1024",
        "most connections at a time, including readers and writers. One user has at most half of them",
    ),
    key("log_entries", Number, "1000", "operations that `shmctl log` can show"),
    key(
        "create",
        Names,
        "nobody",
        "who else may create channels at run time: see [Channels at run time](#channels-at-run-time)",
    ),
    key("max_created", Number, "64", "most of these channels. One user has at most half of them"),
    key(
        "max_created_memory",
        Size,
        "1GiB",
        "the most that the `max` of these channels may add up to, at most half of `/dev/shm` by default. One user has at most half of it",
    ),
    key(
        "state_dir",
        Text,
        "`$STATE_DIRECTORY` (systemd), else `/var/lib/shmd` for root, else `$XDG_STATE_HOME/shmd`, else `~/.local/state/shmd`",
        "directory for channels that are kept, or `\"\"` for none",
    ),
];

/// The table of a channel.
pub const TABLE: Key = key("[[channel]]", Text, "one, `main`", "one table per channel");

/// The keys of a channel.
pub const CHANNEL: &[Key] = &[
    key("name", Text, "`main`", "1 to 64 of `A-Z a-z 0-9 . _ -`"),
    key("capacity", Size, "1MiB", "bytes at the start, rounded up to whole pages"),
    key("min", Size, "64KiB", "smallest capacity"),
    key("max", Size, "256MiB", "largest capacity"),
    key("max_message", Size, "what fits into `max`", "largest message in bytes"),
    key(
        "align",
        Number,
        "16",
        "every message starts at a multiple of this number of bytes: a power of two from 16 to 4096",
    ),
    key(
        "on_full",
        Text,
        "`block`",
        "what happens when the channel is full and cannot grow: `block`, `drop` or `overwrite`",
    ),
    key(
        "max_readers",
        Number,
        "64",
        "most readers at a time, 1 to 1024. One user has at most half of the places, and at least one",
    ),
    key(
        "evict_after",
        Time,
        "30s",
        "a reader is evicted if it passes no message for this long while publishing waits for it (for space, or with `ack`) or while \
         messages are dropped because of it. `\"0\"`: never",
    ),
    key(
        "shrink_after",
        Time,
        "60s",
        "memory is given back, down to `min`, when less than a quarter has been in use for this long. `\"0\"`: never",
    ),
    key(
        "stalled_after",
        Time,
        "5s",
        "a reader with something to read, or a program that writes, counts as stalled after this time without a sign of life. \
         `shmctl stat` shows it, and it is logged once. `\"0\"`: never",
    ),
    key(
        "ack",
        Flag,
        "false",
        "publishing returns when every attached reader has read the message, or fails after `ack_timeout`. The message is published in \
         both cases",
    ),
    key("ack_timeout", Time, "1s", "longest wait for acknowledgement"),
    key("wait_readers", Number, "0", "publishing waits until this number of readers is attached"),
    key(
        "timestamps",
        Flag,
        "false",
        "each message has the time at which it was published: see [publish times](#publish-times)",
    ),
    key(
        "prefault",
        Flag,
        "false",
        "a program that attaches enters the memory into its page table at once. There are no page faults later, but the start is slower",
    ),
    key(
        "content",
        Text,
        "none",
        "how messages are encoded: a media type or a word such as `json`. See [Content](#content)",
    ),
    key("schema", Text, "none", "name of the messages' schema"),
    key("schema_encoding", Text, "none", "the language that the schema is in"),
    key("schema_text", Text, "none", "the schema"),
    key("schema_file", Text, "none", "a file with the schema, at most 1 MiB, read at the start and at each reload"),
    key("group", Text, "none", "group of the object in `/dev/shm`. Its members may read"),
    key(
        "permissions",
        Text,
        "`\"0640\"`",
        "permissions of the object. Handoff: of all three objects, default `\"0600\"`, or `\"0660\"` with a group",
    ),
    key("mode", Text, "`ring`", "`ring` or [`handoff`](#handoff-channels)"),
    key("segment", Text, "`/PREFIX.NAME`", "handoff: name of the segment"),
    key("avail", Text, "`/PREFIX.NAME.avail`", "handoff: name of the semaphore that the writer posts"),
    key("done", Text, "`/PREFIX.NAME.done`", "handoff: name of the semaphore that the reader posts"),
    key("read", Names, "nobody", "who else may read: user names or numbers, `@group`, `*`"),
    key("write", Names, "nobody", "who else may borrow the writer role"),
    key("admin", Names, "nobody", "who else may resize and evict"),
    key(
        "source",
        Text,
        "`none`",
        "what feeds the channel: `none`, `stdin`, `fifo:/PATH`, `unix:/PATH`, `unix-seqpacket:/PATH`, `exec:PROGRAM ARGUMENTS` or \
         `tail:/PATH`, see [Sources](#sources). Without any configuration: `stdin` if that is a pipe, a file or a socket",
    ),
    key(
        "framing",
        Text,
        "`lines`",
        "where the source's messages end: `lines`, `nul`, `length` (4 bytes little-endian before each message), `chunk=64KiB`, or `stream` \
         (what has arrived is a message at once, up to 256 KiB)",
    ),
    key(
        "keep_delimiter",
        Flag,
        "false",
        "the newline or zero byte stays in the message, and is added to a last message that lacks it. With `framing = \"nul\"` messages are \
         C strings",
    ),
    key(
        "flush",
        Time,
        "0",
        "with `framing = \"chunk=SIZE\"`: a chunk that is not full is published this long after its first byte, and so is what is left at the \
         end of an input. `\"0\"`: never",
    ),
];

/// The table in the manual, with its heading.
#[must_use]
pub fn manual_table() -> String {
    let row = |name: String, key: &Key| format!("| {name} | {} | {} |\n", key.default, key.meaning);
    let named = |key: &Key| row(format!("`{}`", key.name), key);
    let mut text = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    text.extend(TOP.iter().map(named));
    text += &row(format!("**`{}`**", TABLE.name), &TABLE);
    text.extend(CHANNEL.iter().map(named));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_there_twice_and_each_says_what_it_does() {
        for table in [TOP, CHANNEL] {
            for (place, key) in table.iter().enumerate() {
                assert!(!table[..place].iter().any(|earlier| earlier.name == key.name), "{}", key.name);
                assert!(!key.meaning.is_empty() && !key.default.is_empty(), "{}", key.name);
                assert!(!key.meaning.contains(['|', '\n']) && !key.default.contains(['|', '\n']), "{}", key.name);
            }
        }
    }

    #[test]
    fn the_manuals_table_has_a_row_for_each_key() {
        let table = manual_table();
        assert_eq!(table.lines().count(), 2 + TOP.len() + 1 + CHANNEL.len());
        assert!(table.contains("| `min` | 64KiB | smallest capacity |\n| `max` | "), "{table}");
        assert!(table.contains("| **`[[channel]]`** | one, `main` | one table per channel |\n"), "{table}");
    }
}
