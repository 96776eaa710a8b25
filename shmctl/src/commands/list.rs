//! `shmctl list`: the channels.

use clap::Args as ClapArgs;
use shm_proto::internal::control::stat::{Right, Summary};
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
On a narrow terminal, shmctl shortens long names and writers, and then leaves out MODE, READERS and ALLOWED, in this order.

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
    let mut table = Table::new(&[
        ("CHANNEL", Align::Left),
        ("MODE", Align::Left),
        ("CAPACITY", Align::Right),
        ("READERS", Align::Right),
        ("WRITER", Align::Left),
        ("ALLOWED", Align::Left),
    ])
    .shortening(&["CHANNEL", "WRITER"])
    .leaving_out(&["MODE", "READERS", "ALLOWED"]);
    for summary in channels {
        table.row([
            summary.channel.to_string(),
            printable(&summary.mode),
            bytes(summary.capacity),
            summary.readers.to_string(),
            printable(&summary.writer),
            match summary.allowed.as_slice() {
                [] => "nothing".to_owned(),
                rights => printable(rights.iter().map(Right::as_str).collect::<Vec<_>>().join(",")),
            },
        ]);
    }
    table.render("", columns)
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
        let narrow = table(&channels, Some(40));
        assert!(narrow.starts_with("CHANNEL   CAPACITY  WRITER    ALLOWED\n"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 40), "{narrow}");
    }
}
