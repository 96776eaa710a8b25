//! What the messages of a channel are: their encoding and their schema.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use shm_proto::Geometry;
use shmctl::companion::{Failure, Result};

use super::announced::Announced;

/// The largest schema file that is read.
const LARGEST: u64 = 16 << 20;

/// What is known from the end of a schema's file name: the encoding of the schema, and the encoding of messages that such schemas
/// usually describe. The names are those of <https://mcap.dev/spec/registry>.
const ENDINGS: [(&str, &str, &str); 7] = [
    ("desc", "protobuf", "protobuf"),
    ("binpb", "protobuf", "protobuf"),
    ("bfbs", "flatbuffer", "flatbuffer"),
    ("json", "jsonschema", "json"),
    ("msg", "ros2msg", "cdr"),
    ("idl", "ros2idl", "cdr"),
    ("omgidl", "omgidl", "cdr"),
];

/// A schema and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) name: String,
    pub(crate) encoding: String,
    pub(crate) text: Vec<u8>,
}

/// What a channel's messages are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Description {
    /// `json`, `protobuf` and so on; empty if it is not known.
    pub(crate) encoding: String,
    pub(crate) schema: Option<Schema>,
    /// Other facts about the channel.
    pub(crate) facts: BTreeMap<String, String>,
}

/// What the command line says about channels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Declared {
    encodings: BTreeMap<String, String>,
    schemas: BTreeMap<String, (Schema, &'static str)>,
}

impl Declared {
    /// Reads the schema files.
    pub(crate) fn new(encodings: &[Encoding], schemas: &[SchemaFile]) -> Result<Self> {
        let mut declared = Declared::default();
        for Encoding { channel, encoding } in encodings {
            if declared.encodings.insert(channel.clone(), encoding.clone()).is_some() {
                return Err(Failure::Usage(format!("channel {channel} has two encodings: give one --encoding for it")));
            }
        }
        for file in schemas {
            if declared.schemas.insert(file.channel.clone(), file.read()?).is_some() {
                return Err(Failure::Usage(format!(
                    "channel {0} has two schemas: give one --schema for it",
                    file.channel
                )));
            }
        }
        Ok(declared)
    }

    /// The channels that are named.
    pub(crate) fn channels(&self) -> impl Iterator<Item = &str> {
        self.encodings.keys().chain(self.schemas.keys()).map(String::as_str)
    }
}

/// What a channel's messages are: by what the command line says, and otherwise by what the channel declares.
pub(crate) fn channel_description(geometry: &Geometry, announced: &Announced, declared: &Declared) -> Description {
    let channel = geometry.channel.as_str();
    let mut description = Description::default();
    if let Some(content) = &announced.content {
        description.encoding.clone_from(&content.encoding);
        description.schema = content.schema.as_ref().map(|schema| Schema {
            name: schema.name.clone(),
            encoding: schema.encoding.clone(),
            // MCAP has no text in a language that is not named.
            text: if schema.encoding.is_empty() { Vec::new() } else { announced.text.clone() },
        });
    }
    if let Some((schema, encoding)) = declared.schemas.get(channel) {
        (*encoding).clone_into(&mut description.encoding);
        description.schema = Some(schema.clone());
    }
    if let Some(encoding) = declared.encodings.get(channel) {
        description.encoding.clone_from(encoding);
    }
    let times = if geometry.has_publish_times() { "published" } else { "received" };
    description.facts = [("shmd.on_full", geometry.on_full.to_string()), ("shmd.times", times.to_owned())]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
    description
}

/// `--encoding CHANNEL=NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Encoding {
    channel: String,
    encoding: String,
}

impl std::str::FromStr for Encoding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((channel, encoding)) if !channel.is_empty() && !encoding.is_empty() => {
                Ok(Encoding { channel: channel.to_owned(), encoding: encoding.to_owned() })
            }
            _ => Err("write the channel and the encoding of its messages, such as cam=protobuf or imu=json".to_owned()),
        }
    }
}

/// `--schema CHANNEL=NAME:FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SchemaFile {
    channel: String,
    name: String,
    encoding: &'static str,
    of_messages: &'static str,
    file: PathBuf,
}

impl std::str::FromStr for SchemaFile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let told =
            || "write the channel, the schema's name and its file, such as cam=sensor.Image:image.desc".to_owned();
        let (channel, rest) = text.split_once('=').ok_or_else(told)?;
        let (name, file) = rest.split_once(':').ok_or_else(told)?;
        if channel.is_empty() || name.is_empty() || file.is_empty() {
            return Err(told());
        }
        let ending = Path::new(file).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let known = ENDINGS.iter().find(|(known, ..)| *known == ending).ok_or_else(|| {
            let known: Vec<_> = ENDINGS.iter().map(|(ending, encoding, _)| format!(".{ending} ({encoding})")).collect();
            format!("the end of the file's name does not say what kind of schema it is; known are {}", known.join(", "))
        })?;
        let &(_, encoding, of_messages) = known;
        Ok(SchemaFile { channel: channel.to_owned(), name: name.to_owned(), encoding, of_messages, file: file.into() })
    }
}

impl SchemaFile {
    fn read(&self) -> Result<(Schema, &'static str)> {
        let failed = |why: String| Failure::Other(format!("cannot read the schema {}: {why}", self.file.display()));
        let facts = self.file.metadata().map_err(|e| failed(e.to_string()))?;
        if facts.len() > LARGEST {
            return Err(failed(format!("it has {} bytes, and at most {LARGEST} are taken", facts.len())));
        }
        let text = std::fs::read(&self.file).map_err(|e| failed(e.to_string()))?;
        let schema = Schema { name: self.name.clone(), encoding: self.encoding.to_owned(), text };
        Ok((schema, self.of_messages))
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::Content;
    use shm_test_support::TempDir;

    use super::*;

    fn geometry(channel: &str) -> Geometry {
        Geometry::new(channel.parse().unwrap(), 1, 4096, 1024)
    }

    #[test]
    fn a_schema_says_what_it_is_by_its_files_name_and_the_encoding_may_say_otherwise() {
        let dir = TempDir::new();
        let file = dir.join("point.json");
        std::fs::write(&file, "{}").unwrap();
        let schema: SchemaFile = format!("imu=Point:{}", file.display()).parse().unwrap();
        let declared = Declared::new(&[], std::slice::from_ref(&schema)).unwrap();
        let found = channel_description(&geometry("imu"), &Announced::default(), &declared);
        assert_eq!(found.encoding, "json");
        let wanted = Schema { name: "Point".into(), encoding: "jsonschema".into(), text: b"{}".to_vec() };
        assert_eq!(found.schema, Some(wanted));
        assert_eq!(found.facts["shmd.times"], "received");
        let other = channel_description(&geometry("cam"), &Announced::default(), &declared);
        assert_eq!((other.encoding.as_str(), other.schema), ("", None));
        let declared = Declared::new(&["imu=cbor".parse().unwrap()], &[schema]).unwrap();
        assert_eq!(channel_description(&geometry("imu"), &Announced::default(), &declared).encoding, "cbor");
        assert_eq!(declared.channels().collect::<Vec<_>>(), ["imu", "imu"]);
    }

    #[test]
    fn what_a_channel_declares_counts_unless_the_command_line_says_otherwise() {
        let text = b"message Frame {}".to_vec();
        let mut content = Content::new("protobuf".to_owned());
        content.schema = Some(shm_proto::Schema::new("cam.Frame".to_owned(), "proto".to_owned(), &text));
        let announced = Announced { content: Some(content.clone()), text: text.clone() };
        let found = channel_description(&geometry("cam"), &announced, &Declared::default());
        let wanted = Schema { name: "cam.Frame".into(), encoding: "proto".into(), text };
        assert_eq!((found.encoding.as_str(), found.schema), ("protobuf", Some(wanted)));
        let declared = Declared::new(&["cam=cbor".parse().unwrap()], &[]).unwrap();
        assert_eq!(channel_description(&geometry("cam"), &announced, &declared).encoding, "cbor");
        content.schema.as_mut().unwrap().encoding.clear();
        let unnamed = Announced { content: Some(content), ..announced };
        let found = channel_description(&geometry("cam"), &unnamed, &Declared::default()).schema.unwrap();
        assert_eq!((found.name.as_str(), found.encoding.as_str(), found.text), ("cam.Frame", "", Vec::new()));
    }

    #[test]
    fn what_says_nothing_is_refused_with_an_example() {
        for text in ["cam", "=json", "cam="] {
            assert!(text.parse::<Encoding>().unwrap_err().contains("cam=protobuf"), "{text}");
        }
        for text in ["cam", "cam=x", "cam=:x.json", "=n:x.json", "cam=n:"] {
            assert!(text.parse::<SchemaFile>().unwrap_err().contains("image.desc"), "{text}");
        }
        assert!("cam=n:x.proto".parse::<SchemaFile>().unwrap_err().contains(".desc (protobuf)"));
        let missing: SchemaFile = "cam=n:/none/such.json".parse().unwrap();
        assert!(Declared::new(&[], &[missing]).unwrap_err().to_string().contains("/none/such.json"));
        let twice = ["cam=json".parse().unwrap(), "cam=cbor".parse().unwrap()];
        assert_eq!(Declared::new(&twice, &[]).unwrap_err().exit_code(), 2);
    }
}
