//! What feeds a channel: the key `source`, and what it allows in `framing` and `write`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shm_proto::internal::control::stat;
use shm_proto::internal::framing::Framing;

use super::origin::{Error, Located, Origin};
use super::raw::Channel;
use crate::access::{Access, FileAccess};

/// `sockaddr_un` has 108 bytes, the last of them zero.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// What feeds a channel inside the daemon. Paths are absolute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SourceKind {
    /// Nothing: the writer role is lent.
    #[default]
    None,
    /// The daemon's standard input.
    Stdin,
    /// A FIFO, which those may write to.
    Fifo(PathBuf, FileAccess),
    /// A listening socket.
    Unix(PathBuf, Packets),
    /// A child's standard output.
    Exec(CommandLine),
    /// A file that grows.
    Tail(PathBuf),
}

/// Whether a socket keeps what was sent in one call together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packets {
    /// A stream, cut by the framing.
    Joined,
    /// Each packet is a message.
    Kept,
}

/// A program and its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// As written.
    pub(crate) text: String,
    /// A name to look up in `PATH`, or an absolute path; then the arguments.
    pub(crate) words: Vec<String>,
}

impl SourceKind {
    /// The kind as `list` and the log have it.
    pub(crate) fn kind(&self) -> stat::SourceKind {
        match self {
            SourceKind::None => stat::SourceKind::None,
            SourceKind::Stdin => stat::SourceKind::Stdin,
            SourceKind::Fifo(..) => stat::SourceKind::Fifo,
            SourceKind::Unix(_, Packets::Joined) => stat::SourceKind::Unix,
            SourceKind::Unix(_, Packets::Kept) => stat::SourceKind::UnixSeqpacket,
            SourceKind::Exec(_) => stat::SourceKind::Exec,
            SourceKind::Tail(_) => stat::SourceKind::Tail,
        }
    }

    /// What it is fed from, where there are several.
    pub(crate) fn object(&self) -> Option<String> {
        match self {
            SourceKind::None | SourceKind::Stdin => None,
            SourceKind::Fifo(path, _) | SourceKind::Unix(path, _) | SourceKind::Tail(path) => {
                Some(path.display().to_string())
            }
            SourceKind::Exec(command) => Some(command.text.clone()),
        }
    }

    /// Whether the input is cut into messages by `framing`.
    pub(crate) fn is_framed(&self) -> bool {
        !matches!(self, SourceKind::Unix(_, Packets::Kept))
    }

    /// What only one channel can be fed from.
    pub(crate) fn exclusive(&self) -> bool {
        matches!(self, SourceKind::Stdin | SourceKind::Fifo(..) | SourceKind::Unix(..))
    }
}

impl fmt::Display for SourceKind {
    /// As the configuration writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.object() {
            None => self.kind().fmt(f),
            Some(object) => write!(f, "{}:{object}", self.kind()),
        }
    }
}

/// The source of a channel, if the configuration names one, checked against the keys that it needs to go with.
pub(super) fn check(raw: &Channel, framing: Framing, write: &Access) -> Result<Option<SourceKind>, Error> {
    let Some(written) = &raw.source else { return Ok(None) };
    let kind = parse(written, write)?;
    if !kind.is_framed() {
        let given = raw.framing.as_ref().map(|v| v.bad("every packet is a message here: leave framing out"));
        let kept = raw.keep_delimiter.as_ref().filter(|v| v.value);
        let kept = kept.map(|v| v.bad("packets have no delimiters: leave keep_delimiter out"));
        if let Some(error) = given.or(kept) {
            return Err(error);
        }
    }
    if let (SourceKind::Tail(_), Framing::Length | Framing::Chunk(_) | Framing::Stream) = (&kind, framing) {
        let why = if framing == Framing::Stream {
            "where a message ends would depend on when the daemon has read the file, and be another place after a restart"
        } else {
            "the end of a file, where following begins, need not be the beginning of a record"
        };
        let place = raw.framing.as_ref().map_or(&written.origin, |framing| &framing.origin);
        return Err(Error::Bad {
            origin: place.clone(),
            reason: format!("framing {framing} does not go with source tail: {why}; use lines or nul"),
        });
    }
    Ok(Some(kind))
}

/// The time after which the beginning of a chunk is published, `None` for never, checked against what it needs to go with.
pub(super) fn flush(
    raw: &Channel,
    source: &SourceKind,
    framing: Framing,
    after: Option<Duration>,
) -> Result<Option<Duration>, Error> {
    let Some(written) = raw.flush.as_ref().filter(|_| after.is_some()) else { return Ok(None) };
    if !source.is_framed() {
        return Err(written.bad("packets are published as they arrive: leave flush out"));
    }
    match framing.refuses_flush() {
        None => Ok(after),
        Some(reason) => Err(written.bad(format!(
            "flush does not go with framing {framing}: {reason}; leave flush out, or use framing = \"chunk=SIZE\""
        ))),
    }
}

fn parse(written: &Located<String>, write: &Access) -> Result<SourceKind, Error> {
    let text = written.value.as_str();
    if let Some(control) = text.chars().find(|c| c.is_control()) {
        return Err(written.bad(format!("source {text:?} contains the control character {control:?}")));
    }
    match (text, text.split_once(':')) {
        ("none", _) => Ok(SourceKind::None),
        ("stdin", _) => Ok(SourceKind::Stdin),
        (_, Some(("fifo", at))) => {
            let access = write.for_file().map_err(|who| {
                written.bad(format!(
                    "a FIFO's permissions can let one group or everybody write, and `write` names {who}; use one @group, \
                     \"*\", or source = \"unix:…\", which looks at each client"
                ))
            })?;
            Ok(SourceKind::Fifo(path(written, at)?, access))
        }
        (_, Some(("unix", at))) => Ok(SourceKind::Unix(socket_path(written, at)?, Packets::Joined)),
        (_, Some(("unix-seqpacket", at))) => Ok(SourceKind::Unix(socket_path(written, at)?, Packets::Kept)),
        (_, Some(("exec", line))) => Ok(SourceKind::Exec(command(written, line)?)),
        (_, Some(("tail", at))) => Ok(SourceKind::Tail(path(written, at)?)),
        _ => Err(written.bad(format!(
            "source {text:?} is unknown: use none, stdin, fifo:/PATH, unix:/PATH, unix-seqpacket:/PATH, \
             exec:PROGRAM ARGUMENTS or tail:/PATH"
        ))),
    }
}

fn path(written: &Located<String>, text: &str) -> Result<PathBuf, Error> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(written.bad(format!("source {:?}: {text:?} must be an absolute path", written.value)));
    }
    if path.file_name().is_none() || text.ends_with('/') {
        return Err(written.bad(format!("source {:?} names a directory: add the file's name", written.value)));
    }
    Ok(path.to_owned())
}

fn socket_path(written: &Located<String>, text: &str) -> Result<PathBuf, Error> {
    let path = path(written, text)?;
    if text.len() > MAX_SOCKET_PATH {
        return Err(
            written.bad(format!(
                "the socket's path {text:?} has {} bytes, the kernel allows {MAX_SOCKET_PATH}: choose a shorter one, in /run \
                 say",
                text.len()
            ))
        );
    }
    Ok(path)
}

fn command(written: &Located<String>, line: &str) -> Result<CommandLine, Error> {
    let Some(words) = shlex::split(line) else {
        return Err(written.bad(format!("source {:?}: a quote is not closed", written.value)));
    };
    match words.first().map(String::as_str) {
        None | Some("") => Err(written.bad("source exec names no program: write exec:PROGRAM ARGUMENTS")),
        Some(program) if program.contains('/') && !program.starts_with('/') => {
            Err(written
                .bad(format!("the program {program:?} must be an absolute path, or a name to be looked up in PATH")))
        }
        Some(_) => Ok(CommandLine { text: line.trim().to_owned(), words }),
    }
}

/// Standard input, a FIFO and a socket feed one channel each.
pub(super) fn one_of_each<'c>(channels: impl Iterator<Item = (&'c Channel, &'c SourceKind)>) -> Result<(), Error> {
    let mut seen: Vec<(&SourceKind, &str, &Origin)> = Vec::new();
    for (raw, kind) in channels {
        let Some(written) = raw.source.as_ref().filter(|_| kind.exclusive()) else { continue };
        let same = |earlier: &SourceKind| kind.object() == earlier.object();
        if let Some((_, name, origin)) = seen.iter().find(|(earlier, ..)| same(earlier)) {
            let what = kind.object().map_or_else(|| "standard input".to_owned(), |object| format!("{object:?}"));
            return Err(written.bad(format!(
                "{what} feeds channel {name:?} already ({origin}); only one channel can have source \"{kind}\""
            )));
        }
        seen.push((kind, raw.name(), &written.origin));
    }
    Ok(())
}
