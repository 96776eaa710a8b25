//! `shmctl list`: the channels.

use clap::Args as ClapArgs;
use shm_proto::internal::control::stat::{CreatedBy, Right, Summary};
use shm_proto::{Done, Request};

use super::{note_if_none, unexpected};
use crate::error::Result;
use crate::global::Global;
use crate::human::{bytes, printable};
use crate::output::{print, print_json};
use crate::table::{Align, Table};
use crate::target::Target;
use crate::terminal::stdout_columns;

const EXAMPLES: &str = "\
ORIGIN is there if a channel was created with shmctl create: it is the user's name then, and \"kept\" if the channel is made again \
when the daemon is started after a stop.

CONTENT is there if a channel declares what its messages are: an encoding, and after a colon the name of a schema.

On a narrow terminal, shmctl shortens long names and writers, and then leaves out MODE, READERS, ORIGIN, CONTENT and ALLOWED, in \
this order.

Examples:
  shmctl list
  shmctl list --json | jq -r '.[].channel'";

/// List the channels, and what you may do with them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Print one line of JSON: an array with an object per channel. Sizes are in bytes.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    let mut channels = ask(global)?;
    if channels.is_empty() && global.channel.is_some() {
        // The daemon refuses this request in the words that every other command has for a missing channel. If it does not, the
        // channel was created in between.
        global.ask(&Request::Stat { channel: global.channel.clone() })?;
        channels = ask(global)?;
    }
    note_if_none(&channels);
    if args.json { print_json(&channels) } else { print(&table(&channels, stdout_columns())) }
}

/// All channels, or only the channel that the command line names.
fn ask(global: &Global) -> Result<Vec<Summary>> {
    match global.ask(&Request::List)? {
        Done::List(mut channels) => {
            channels.retain(|summary| global.channel.as_ref().is_none_or(|name| summary.channel == *name));
            Ok(channels)
        }
        other => Err(unexpected("list", &other)),
    }
}

fn table(channels: &[Summary], columns: Option<usize>) -> String {
    let mut headings = vec![
        ("CHANNEL", Align::Left),
        ("MODE", Align::Left),
        ("CAPACITY", Align::Right),
        ("READERS", Align::Right),
        ("WRITER", Align::Left),
        ("ALLOWED", Align::Left),
    ];
    let has_content = channels.iter().any(|summary| summary.content.is_some());
    if has_content {
        headings.push(("CONTENT", Align::Left));
    }
    let has_origins = channels.iter().any(|summary| summary.created.is_some());
    if has_origins {
        headings.push(("ORIGIN", Align::Left));
    }
    let mut table = Table::new(&headings)
        .shortening(&["CHANNEL", "WRITER", "CONTENT", "ORIGIN"])
        .leaving_out(&["MODE", "READERS", "ORIGIN", "CONTENT", "ALLOWED"]);
    for summary in channels {
        let mut row = vec![
            summary.channel.to_string(),
            printable(&summary.mode),
            bytes(summary.capacity),
            summary.readers.to_string(),
            printable(&summary.writer),
            match summary.allowed.as_slice() {
                [] => "nothing".to_owned(),
                rights => printable(rights.iter().map(Right::as_str).collect::<Vec<_>>().join(",")),
            },
        ];
        if has_content {
            row.push(summary.content.as_ref().map_or_else(|| "-".to_owned(), printable));
        }
        if has_origins {
            row.push(origin(summary.created.as_ref()));
        }
        table.row(row);
    }
    table.render("", columns)
}

/// Where a channel comes from.
fn origin(created: Option<&CreatedBy>) -> String {
    match created {
        None => "configuration".to_owned(),
        Some(created) if created.kept => format!("{}, kept", printable(&created.user)),
        Some(created) => printable(&created.user),
    }
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::Mode;

    use super::*;

    #[test]
    fn a_line_a_channel() {
        let summary = |name: &str, allowed: &[Right]| {
            let mut summary = Summary::new(name.parse().unwrap(), Mode::Ring, "camd (4711)".to_owned().into());
            (summary.capacity, summary.readers) = (1 << 20, 2);
            summary.allowed = allowed.to_vec();
            summary
        };
        let channels = [summary("main", &[Right::Read, Right::Write]), summary("cam.front", &[])];
        let text = table(&channels, None);
        assert_eq!(
            text,
            "\
CHANNEL    MODE  CAPACITY  READERS  WRITER       ALLOWED
main       ring      1MiB        2  camd (4711)  read,write
cam.front  ring      1MiB        2  camd (4711)  nothing
"
        );
        let (mut configured, mut created) = (summary("main", &[Right::Read]), summary("cam", &[]));
        configured.writer = "none".to_owned().into();
        created.created = Some(CreatedBy::new("al\x1bice".into(), 1, true));
        assert_eq!(
            table(&[configured, created], None),
            "\
CHANNEL  MODE  CAPACITY  READERS  WRITER       ALLOWED  ORIGIN
main     ring      1MiB        2  none         read     configuration
cam      ring      1MiB        2  camd (4711)  nothing  al\\u{1b}ice, kept
"
        );
        let mut declared = channels.clone();
        declared[0].content = Some(serde_json::from_str(r#"{"encoding":"cdr","schema":{"name":"a/b"}}"#).unwrap());
        assert_eq!(
            table(&declared, None),
            "\
CHANNEL    MODE  CAPACITY  READERS  WRITER       ALLOWED     CONTENT
main       ring      1MiB        2  camd (4711)  read,write  cdr:a/b
cam.front  ring      1MiB        2  camd (4711)  nothing     -
"
        );
        let narrow = table(&channels, Some(40));
        assert!(narrow.starts_with("CHANNEL   CAPACITY  WRITER    ALLOWED\n"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    }
}
