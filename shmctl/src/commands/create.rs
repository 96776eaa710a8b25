//! `shmctl create`: makes a channel at run time.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args as ClapArgs;
use shm_proto::internal::control::{Created, MAX_REQUEST, encode};
use shm_proto::{Bytes, ChannelName, Done, ErrorKind, Request};

use super::unexpected;
use crate::error::{Failure, Result, note};
use crate::global::Global;
use crate::output::{print, print_json};
use crate::target::Target;

/// Most bytes of a schema: a request has 64 KiB, with escapes for newlines and quotes.
const MOST_SCHEMA: usize = 48 << 10;
/// Memory is reserved at some gigabytes per second; asking for more than fits into this is a mistake.
const ANSWER: Duration = Duration::from_secs(300);

const EXAMPLES: &str = "\
Root and the daemon's own user may create channels, and those whom create = [...] in shmd.toml names, within max_created and \
max_created_memory. Whoever creates a channel may read, write, resize and remove it; --read, --write and --admin let others in. \
Options are keys of the channel in shmd.toml; etc/shmd.toml in the sources and the manual describe all of them, and --set has those \
that have no option. Only root and the daemon's own user may set source and mode.

A channel goes when the daemon is stopped, unless it is created with --keep. A daemon that crashed or was replaced (shmctl reexec) \
goes on with every channel.

Examples:
  shmctl create cam                        with the defaults
  shmctl create frames --max 64MiB --on-full overwrite --read @video
  shmctl create imu --keep --set timestamps=true --set align=64
  shmctl remove cam";

/// Create a channel while the daemon runs.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Capacity at the start, such as 4096, 64KiB or 1MiB.
    #[arg(long, value_name = "SIZE")]
    capacity: Option<String>,
    /// Smallest capacity.
    #[arg(long, value_name = "SIZE")]
    min: Option<String>,
    /// Largest capacity.
    #[arg(long, value_name = "SIZE")]
    max: Option<String>,
    /// What happens when the channel is full and cannot grow: block, drop or overwrite.
    #[arg(long, value_name = "POLICY")]
    on_full: Option<String>,
    /// Group of the object in /dev/shm, whose members may read.
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Who else may read: users and @groups with commas between them, or '*'.
    #[arg(long, value_name = "LIST")]
    read: Option<String>,
    /// Who else may borrow the writer role.
    #[arg(long, value_name = "LIST")]
    write: Option<String>,
    /// Who else may resize and remove the channel, and evict readers.
    #[arg(long, value_name = "LIST")]
    admin: Option<String>,
    /// How messages are encoded: a media type or a word, such as json. Programs may state what they expect.
    #[arg(long, value_name = "TYPE")]
    content: Option<String>,
    /// Name of the messages' schema, such as telemetry.Frame.
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
    /// The language that the schema is in, such as jsonschema or protobuf.
    #[arg(long, value_name = "TYPE")]
    schema_encoding: Option<String>,
    /// A file of yours with the schema, a text of at most 48 KiB, which is sent to the daemon.
    #[arg(long, value_name = "FILE")]
    schema_file: Option<PathBuf>,
    /// Set any key of the channel, for example --set timestamps=true. May be given several times.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Make the channel again, empty, when the daemon is started after a stop.
    #[arg(long)]
    keep: bool,
    /// Print one line of JSON: channel, capacity, max, kept.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// The keys that were given, each once.
    fn keys(&self) -> Result<BTreeMap<String, String>> {
        let schema_text = self.schema_file.as_deref().map(schema_text).transpose()?;
        let options = [
            ("capacity", &self.capacity),
            ("min", &self.min),
            ("max", &self.max),
            ("on_full", &self.on_full),
            ("group", &self.group),
            ("read", &self.read),
            ("write", &self.write),
            ("admin", &self.admin),
            ("content", &self.content),
            ("schema", &self.schema),
            ("schema_encoding", &self.schema_encoding),
            ("schema_text", &schema_text),
        ];
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        for (key, value) in options {
            keys.extend(value.clone().map(|value| (key.to_owned(), value)));
        }
        for text in &self.set {
            let Some((key, value)) = text.split_once('=') else {
                return Err(Failure::Usage(format!("--set {text:?} is not KEY=VALUE, such as timestamps=true")));
            };
            if keys.insert(key.trim().to_owned(), value.to_owned()).is_some() {
                return Err(Failure::Usage(format!("key {} is given twice: give it once", key.trim())));
            }
        }
        Ok(keys)
    }
}

/// The schema in a file. A request has no place for more.
fn schema_text(file: &Path) -> Result<String> {
    let failed = |e: &dyn Display| Failure::Usage(format!("--schema-file {}: {e}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|e| failed(&e))?;
    match text.len() {
        0 => Err(failed(&"it is empty")),
        1..=MOST_SCHEMA => Ok(text),
        bytes => Err(failed(&format!(
            "it has {bytes} bytes, and at most {MOST_SCHEMA} can be sent; root and the daemon's own user can name a file for the \
             daemon to read: --set schema_file=/PATH"
        ))),
    }
}

/// The channel that is named on the command line. One that is only named in the environment is not meant.
pub(super) fn named(global: &Global, command: &str) -> Result<ChannelName> {
    let name = global.channel.clone().filter(|_| global.is_given);
    name.ok_or_else(|| Failure::Usage(format!("name the channel: shmctl {command} CHANNEL")))
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let (channel, keys) = (named(global, "create")?, args.keys()?);
    let request = Request::Create { channel, keys, keep: args.keep };
    if encode(&request).is_ok_and(|line| line.len() > MAX_REQUEST) {
        let why = format!(
            "the keys are too long: a request has at most {MAX_REQUEST} bytes, with escapes; shorten the schema"
        );
        return Err(Failure::Usage(why));
    }
    let done = match global.ask_within(&request, ANSWER) {
        // The keys are on the command line.
        Err(Failure::Library(e)) if e.refusal() == Some(ErrorKind::BadConfig) => {
            return Err(Failure::Usage(e.to_string()));
        }
        done => done?,
    };
    match done {
        Done::Create(created) => {
            if let Some(why) = &created.source_waits {
                note(&format!("the source waits: {why}; the daemon tries again every second"));
            }
            if args.json { print_json(&created) } else { print(&told(&created)) }
        }
        other => Err(unexpected("create", &other)),
    }
}

fn told(created: &Created) -> String {
    let Created { channel, capacity, max, kept, .. } = created;
    let until = if *kept { "kept when the daemon is stopped" } else { "until the daemon is stopped" };
    format!("{channel}: created, {} (max {}), {until}\n", Bytes(*capacity), Bytes(*max))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn keys(line: &str) -> Result<Vec<(String, String)>> {
        let args = args::Args::from_line(line.split_whitespace()).unwrap();
        let args::Command::Create(args) = args.command else { panic!("{line}") };
        args.keys().map(|keys| keys.into_iter().collect())
    }

    #[test]
    fn options_and_set_are_keys_and_each_is_given_once() {
        let found =
            keys("shmctl create cam --max 1MiB --on-full drop --set align=64 --set read=@a,b --set x=y=z").unwrap();
        let wanted = [("align", "64"), ("max", "1MiB"), ("on_full", "drop"), ("read", "@a,b"), ("x", "y=z")];
        assert_eq!(found, wanted.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for line in ["--max 1MiB --set max=2MiB", "--set align=64 --set align=64", "--set align"] {
            let refused = keys(&format!("shmctl create cam {line}")).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{line}: {refused}");
        }
    }

    #[test]
    fn what_was_created_and_for_how_long_is_told() {
        let mut created = Created::new("cam".parse().unwrap(), 1 << 20, 64 << 20);
        assert_eq!(told(&created), "cam: created, 1MiB (max 64MiB), until the daemon is stopped\n");
        created.kept = true;
        assert_eq!(told(&created), "cam: created, 1MiB (max 64MiB), kept when the daemon is stopped\n");
    }
}
