//! A channel that is made at run time: who has made it, and what its keys come to.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use shm_proto::internal::control::stat::CreatedBy;
use shm_proto::{ChannelName, Prefix};

use super::check::channel;
use super::load::{Setting, set};
use super::origin::{Error, Located, Origin};
use super::raw::Channel;
use super::{ChannelConfig, SourceKind};
use crate::host::Host;

/// Who has made a channel at run time, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Created {
    /// Who.
    pub(crate) uid: u32,
    /// The user's name then.
    pub(crate) user: String,
    /// When, in milliseconds since 1970.
    pub(crate) time_ms: u64,
    /// It is made again when the daemon is started after a stop.
    pub(crate) kept: bool,
    /// The keys that were given, with their values as text.
    pub(crate) keys: BTreeMap<String, String>,
}

impl Created {
    /// As `stat` and `list` have it.
    pub(crate) fn shown(&self) -> CreatedBy {
        CreatedBy::new(self.user.clone(), self.time_ms, self.kept)
    }
}

/// The configuration of a channel that is made at run time.
///
/// The daemon's own rights must not become those of the user who makes it. So only root and the daemon's own user may give it a
/// source, which runs programs and opens files as the daemon, a file to read, or the mode `handoff`, whose peers the daemon has to
/// trust.
///
/// # Errors
/// [`Error::Bad`] names the key at fault.
pub(crate) fn created(
    name: &ChannelName,
    created: Arc<Created>,
    host: &Host,
    prefix: &Prefix,
) -> Result<ChannelConfig, Error> {
    let written = |key: &str, text: &str| Located { value: text.to_owned(), origin: Origin::Key(key.to_owned()) };
    let mut raw = Channel::default();
    for (key, text) in &created.keys {
        match key.as_str() {
            // Any text, also one that could be a string or a list of TOML, such as "string" or ["null", "string"].
            "schema_text" => raw.schema_text = Some(written(key, text)),
            _ => set(&mut raw, &Setting { key: key.clone(), text: written(key, text) })?,
        }
    }
    if let Some(other) = &raw.name {
        return Err(other.bad("the channel's name stands beside its keys"));
    }
    raw.name = Some(written("name", name.as_str()));
    let is_master = created.uid == 0 || created.uid == host.uid;
    // Before it is read.
    if let Some(file) = raw.schema_file.as_ref().filter(|file| !is_master && !file.value.is_empty()) {
        return Err(file.bad(
            "only root and the daemon's own user may name a file for the daemon to read; send the schema itself, as schema_text \
             (shmctl create --schema-file does)",
        ));
    }
    let mut config = channel(&raw, SourceKind::None, prefix, host)?;
    let refuse = |key: &Option<Located<String>>, why: &dyn Display| match key {
        Some(key) => Err(key.bad(why)),
        None => Err(Error::TooMuch(why.to_string())),
    };
    if config.source == SourceKind::Stdin {
        return refuse(&raw.source, &"standard input can only feed a channel of the configuration");
    }
    if !is_master && config.source != SourceKind::None {
        let why = "only root and the daemon's own user may give a channel a source, because the daemon opens it and runs it with \
                   its own rights; publish with a program (shmctl write)";
        return refuse(&raw.source, &why);
    }
    if !is_master && config.handoff.is_some() {
        let why = "only root and the daemon's own user may make a handoff channel, because the daemon has to trust its peers; \
                   leave mode out";
        return refuse(&raw.mode, &why);
    }
    let creator = Some(created.uid);
    config.read = config.read.and_user(creator);
    config.write = config.write.and_user(creator);
    config.admin = config.admin.and_user(creator);
    config.created = Some(created);
    Ok(config)
}
