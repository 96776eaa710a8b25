//! Reads the files and puts environment and command line on top of them.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use shm_cli::did_you_mean;

use super::origin::{Error, Located, Origin};
use super::raw::{Channel, RawChannel, RawFile, Top};

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "/etc/shmd/shmd.toml";

/// What the environment and the command line ask for; the command line has already won over the environment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Given {
    /// The main file; missing is an error when it is named.
    pub(crate) config: Option<Located<PathBuf>>,
    /// Keys outside channels.
    pub(crate) top: Vec<Setting>,
    /// Keys of the only channel.
    pub(crate) channel: Vec<Setting>,
    /// Keys of a channel by its name.
    pub(crate) set: Vec<(String, Setting)>,
    /// Where [`Config::exit_on_eof`](super::Config::exit_on_eof) was asked for, if it was.
    pub(crate) exit_on_eof: Option<Origin>,
}

/// One key given as text outside the files.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The key as the files spell it.
    pub(crate) key: String,
    /// The value as text.
    pub(crate) text: Located<String>,
}

/// The files and everything above them, not yet checked.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) top: Top,
    /// Each with the place of its table; `None` for the channel that exists because no file has one.
    pub(super) channels: Vec<(Option<Origin>, Channel)>,
    pub(super) files: Vec<PathBuf>,
    pub(super) exit_on_eof: Option<Origin>,
}

/// Reads the files, and puts what was given on top.
///
/// # Errors
/// [`Error`] names the file and line, flag or variable at fault.
pub(super) fn load(given: &Given) -> Result<Loaded, Error> {
    let mut loaded = Loaded { exit_on_eof: given.exit_on_eof.clone(), ..Loaded::default() };
    match &given.config {
        Some(file) => loaded.read_with_parts(&file.value, true)?,
        None => loaded.read_with_parts(Path::new(DEFAULT_FILE), false)?,
    }
    if loaded.channels.is_empty() {
        loaded.channels.push((None, Channel::default()));
    }
    loaded.apply(given)?;
    Ok(loaded)
}

impl Loaded {
    /// Reads `x.toml`, then every `x.d/*.toml` in the order of their names.
    pub(super) fn read_with_parts(&mut self, file: &Path, required: bool) -> Result<(), Error> {
        self.read(file, required)?;
        let parts = file.with_extension("d");
        let fail = |e: io::Error| Error::File { path: parts.clone(), reason: e.to_string() };
        let entries = match fs::read_dir(&parts) {
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
            entries => entries.map_err(fail)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry.map_err(fail)?.path();
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
                found.push(path);
            }
        }
        found.sort();
        found.iter().try_for_each(|path| self.read(path, true))
    }

    fn read(&mut self, file: &Path, required: bool) -> Result<(), Error> {
        let bytes = match fs::read(file) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && !required => return Ok(()),
            bytes => bytes.map_err(|e| Error::File { path: file.to_owned(), reason: e.to_string() })?,
        };
        let path: Arc<Path> = file.into();
        let at = |offset: usize| {
            let before = &bytes[..offset.min(bytes.len())];
            Origin::File { path: path.clone(), line: 1 + before.iter().filter(|b| **b == b'\n').count() }
        };
        let text = str::from_utf8(&bytes)
            .map_err(|e| Error::Bad { origin: at(e.valid_up_to()), reason: "this is not UTF-8 text".to_owned() })?;
        let mut raw: RawFile = toml::from_str(text).map_err(|e| {
            let span = e.span().unwrap_or(0..0);
            Error::Bad { origin: at(span.start), reason: reason(&e, text) }
        })?;
        let locate = |span: Range<usize>| at(span.start);
        for table in std::mem::take(&mut raw.channel) {
            let origin = locate(table.span());
            self.channels.push((Some(origin), table.into_inner().locate(&locate)));
        }
        self.top.overlay(raw.locate(&locate));
        self.files.push(file.to_owned());
        Ok(())
    }

    fn apply(&mut self, given: &Given) -> Result<(), Error> {
        for setting in &given.top {
            let at = |_| setting.text.origin.clone();
            self.top.overlay(parse::<RawFile>(setting, Top::KEYS)?.locate(&at));
        }
        for setting in &given.channel {
            if self.channels.len() > 1 {
                return Err(setting.text.bad(format!(
                    "this is for the only channel, but the files have {}: {}; say --set CHANNEL.{}={}",
                    self.channels.len(),
                    self.names().join(", "),
                    setting.key,
                    setting.text.value,
                )));
            }
            set(&mut self.channels[0].1, setting)?;
        }
        for (name, setting) in &given.set {
            let Some(index) = self.names().iter().position(|known| known == name) else {
                let known = self.names();
                let meant = did_you_mean(name, known.iter().map(String::as_str));
                let known = known.join(", ");
                return Err(setting.text.bad(format!("there is no channel {name:?}; known are {known}{meant}")));
            };
            set(&mut self.channels[index].1, setting)?;
        }
        Ok(())
    }

    fn names(&self) -> Vec<String> {
        self.channels.iter().map(|(_, channel)| channel.name().to_owned()).collect()
    }
}

/// Sets one key of a channel.
pub(super) fn set(channel: &mut Channel, setting: &Setting) -> Result<(), Error> {
    let at = |_| setting.text.origin.clone();
    channel.overlay(parse::<RawChannel>(setting, Channel::KEYS)?.locate(&at));
    Ok(())
}

/// Reads `KEY = TEXT`, where the text may be a string without its quotes or any TOML value.
fn parse<T: serde::de::DeserializeOwned>(setting: &Setting, keys: &[&str]) -> Result<T, Error> {
    let Setting { key, text } = setting;
    if !keys.contains(&key.as_str()) {
        let (known, meant) = (keys.join(", "), did_you_mean(key, keys.iter().copied()));
        return Err(text.bad(format!("unknown key {key:?}; known are {known}{meant}")));
    }
    let read = |value: toml::Value| toml::from_str::<T>(&format!("{key} = {value}")).map_err(|e| message(&e));
    let as_string = read(toml::Value::String(text.value.clone()));
    match (as_string, text.value.trim().parse::<toml::Value>()) {
        (_, Ok(value)) if value.is_str() || value.is_array() => read(value).map_err(|reason| text.bad(reason)),
        (Ok(table), _) => Ok(table),
        (Err(_), Ok(value)) => read(value).map_err(|reason| text.bad(reason)),
        (Err(reason), _) => Err(text.bad(reason)),
    }
}

/// The parser's reason on one line, with the word that is probably meant.
fn message(error: &toml::de::Error) -> String {
    let message = error.message().trim().replace('\n', ", ");
    // "unknown field `capcity`, expected one of `name`, `capacity`": serde's words for keys and for values from a list.
    let meant = match message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `")) {
        Some(rest) => {
            let mut words = rest.split('`');
            let unknown = words.next().unwrap_or_default();
            did_you_mean(unknown, words.skip(1).step_by(2))
        }
        None => String::new(),
    };
    message + &meant
}

/// The reason, after the key it is about where the line shows one: serde knows types but not their keys.
fn reason(error: &toml::de::Error, text: &str) -> String {
    let message = message(error);
    let start = error.span().map_or(0, |span| span.start);
    let line = text.get(..start).map_or("", |before| before.rsplit('\n').next().unwrap_or(""));
    let key = line.split_once('=').map_or("", |(key, _)| key.trim());
    if !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        format!("{key}: {message}")
    } else {
        message
    }
}
