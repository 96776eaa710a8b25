//! What a channel declares about its messages: the keys `content`, `schema`, `schema_encoding`, `schema_text` and `schema_file`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use nix::fcntl::OFlag;
use shm_proto::internal::os::sealed;
use shm_proto::internal::ring::content::{MAX_SCHEMA, check_encoding, check_name};
use shm_proto::{Content, Schema, SystemError};

use super::origin::{Error, Located};
use super::raw::Channel;

/// What a channel declares.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Declared {
    /// What programs are told; nothing if the channel declares nothing.
    pub(crate) content: Option<Content>,
    /// The text of the schema, if it has one.
    pub(crate) text: Option<Arc<SchemaText>>,
}

/// The text of a schema, for those who ask for it.
#[derive(Debug)]
pub(crate) struct SchemaText {
    bytes: Vec<u8>,
    /// The file that it was read from; nothing if the configuration has it.
    file: Option<String>,
    /// The same in a memfd, which all who ask get.
    memfd: OnceLock<OwnedFd>,
}

impl PartialEq for SchemaText {
    fn eq(&self, other: &Self) -> bool {
        (&self.bytes, &self.file) == (&other.bytes, &other.file)
    }
}

impl SchemaText {
    /// The text, if the configuration has it.
    pub(crate) fn inline(&self) -> Option<&str> {
        // It was text when it was read.
        if self.file.is_none() { str::from_utf8(&self.bytes).ok() } else { None }
    }

    /// The file that it was read from.
    pub(crate) fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// A descriptor of the text for a client.
    ///
    /// # Errors
    /// When there is no memory or no descriptor.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, SystemError> {
        let memfd = match self.memfd.get() {
            Some(memfd) => memfd,
            None => {
                let made = sealed::create("shmd-schema", &self.bytes)?;
                self.memfd.get_or_init(|| made)
            }
        };
        memfd.try_clone().map_err(|e| SystemError::new("duplicate a schema's descriptor", e))
    }
}

impl Declared {
    /// Whether what programs rely on is the same: the text of the schema may differ.
    pub(crate) fn names_are_those_of(&self, other: &Self) -> bool {
        let names = |declared: &Self| {
            let content = declared.content.clone()?;
            let schema = content.schema.map(|schema| (schema.name, schema.encoding));
            Some((content.encoding, schema))
        };
        names(self) == names(other)
    }

    /// Length and hash of the text, for the log.
    pub(crate) fn digest(&self) -> String {
        match self.content.as_ref().and_then(|content| content.schema.as_ref()) {
            Some(schema) if schema.bytes > 0 => format!("{} bytes, {}", schema.bytes, schema.hash),
            _ => "no text".to_owned(),
        }
    }
}

/// An empty text says the same as none.
fn given(written: &Option<Located<String>>) -> Option<&Located<String>> {
    written.as_ref().filter(|written| !written.value.is_empty())
}

/// Checks the keys, and reads the file.
pub(super) fn check(raw: &Channel) -> Result<Declared, Error> {
    let (encoding, schema) = (given(&raw.content), given(&raw.schema));
    let (text, file) = (given(&raw.schema_text), given(&raw.schema_file));
    let Some(encoding) = encoding else {
        return match schema.or(given(&raw.schema_encoding)).or(text).or(file) {
            Some(written) => {
                Err(written.bad("a schema needs content, the encoding of the messages: such as content = \"json\""))
            }
            None => Ok(Declared::default()),
        };
    };
    check_encoding(&encoding.value).map_err(|e| encoding.bad(e))?;
    let mut content = Content::new(encoding.value.clone());
    let Some(schema) = schema else {
        return match given(&raw.schema_encoding).or(text).or(file) {
            Some(written) => {
                Err(written.bad("this belongs to a schema: name it, such as schema = \"telemetry.Frame\""))
            }
            None => Ok(Declared { content: Some(content), text: None }),
        };
    };
    check_name("a schema", &schema.value).map_err(|e| schema.bad(e))?;
    let language = given(&raw.schema_encoding);
    language.map_or(Ok(()), |written| check_encoding(&written.value).map_err(|e| written.bad(e)))?;
    let text = match (text, file) {
        (Some(_), Some(file)) => return Err(file.bad("schema_text has the schema already; leave one of them out")),
        (Some(text), None) => {
            too_long(text, text.value.len() as u64)?;
            Some(SchemaText { bytes: text.value.clone().into_bytes(), file: None, memfd: OnceLock::new() })
        }
        (None, Some(file)) => {
            Some(SchemaText { bytes: read(file)?, file: Some(file.value.clone()), memfd: OnceLock::new() })
        }
        (None, None) => None,
    };
    let language = language.map_or_else(String::new, |written| written.value.clone());
    let bytes = text.as_ref().map_or(&[][..], |text| &text.bytes);
    content.schema = Some(Schema::new(schema.value.clone(), language, bytes));
    Ok(Declared { content: Some(content), text: text.filter(|text| !text.bytes.is_empty()).map(Arc::new) })
}

fn too_long(written: &Located<String>, bytes: u64) -> Result<(), Error> {
    if bytes <= MAX_SCHEMA {
        return Ok(());
    }
    Err(written.bad(format!("the schema has {bytes} bytes, at most {MAX_SCHEMA} are allowed")))
}

/// The text in a file. Nothing is waited for, whatever has the name.
fn read(written: &Located<String>) -> Result<Vec<u8>, Error> {
    let path = Path::new(&written.value);
    if !path.is_absolute() {
        return Err(written.bad(format!("schema_file {:?} must be an absolute path", written.value)));
    }
    let failed = |e: io::Error| written.bad(format!("schema_file {:?}: {e}", written.value));
    let file: File = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(written.bad(format!("schema_file {:?} is not a regular file", written.value)));
    }
    too_long(written, found.len())?;
    let mut bytes = Vec::new();
    file.take(MAX_SCHEMA + 1).read_to_end(&mut bytes).map_err(failed)?;
    too_long(written, bytes.len() as u64)?;
    if bytes.is_empty() {
        return Err(written.bad(format!("schema_file {:?} is empty", written.value)));
    }
    Ok(bytes)
}
