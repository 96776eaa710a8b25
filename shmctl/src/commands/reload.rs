//! `shmctl reload`: makes the daemon read its configuration again.

use std::fmt::Write;
use std::time::Duration;

use clap::Args as ClapArgs;
use shm_proto::internal::control::{Change, Reloaded};
use shm_proto::{Done, Request};

use super::unexpected;
use crate::error::{Failure, Result};
use crate::global::Global;
use crate::human::printable;
use crate::output::{print, print_json};

/// Memory for new channels is reserved at some gigabytes per second.
const ANSWER: Duration = Duration::from_secs(300);

const EXAMPLES: &str = "\
The daemon creates new channels, removes channels that are gone from the files (their readers are told), and applies changed \
limits, policies and permissions. Other channels are not disturbed. Permissions are checked when a program attaches: attached \
programs stay attached. If a key cannot change while its channel exists, the output names the key and the exit code is 3. A \
configuration with a mistake changes nothing, and the exit code is 78.

Example:
  shmctl reload";

/// Make the daemon read its configuration again (root and the daemon's own user only).
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Print one line of JSON: created, removed, changed, kept.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args, global: &Global) -> Result<()> {
    match global.ask_within(&Request::Reload, ANSWER)? {
        Done::Reload(done) => {
            if args.json {
                print_json(&done)?
            } else {
                print(&text(&done))?
            }
            if done.kept.is_empty() { Ok(()) } else { Err(Failure::Kept(done.kept.len())) }
        }
        other => Err(unexpected("reload", &other)),
    }
}

fn text(done: &Reloaded) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{line}");
    };
    done.created.iter().for_each(|name| line(format!("{name}: created")));
    done.removed.iter().for_each(|name| line(format!("{name}: removed")));
    let subject = |change: &Change| match &change.channel {
        Some(name) => format!("{name}: {}", change.key),
        None => change.key.clone(),
    };
    for change in &done.changed {
        line(format!("{}: {} -> {}", subject(change), printable(&change.old), printable(&change.new)));
    }
    for change in &done.kept {
        let why = change.why.as_deref().unwrap_or("it cannot change now");
        let (old, new) = (printable(&change.old), printable(&change.new));
        line(format!("{}: stays {old}, not {new}: {}", subject(change), printable(why)));
    }
    if text.is_empty() { "nothing has changed\n".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_and_what_stays_is_a_line_each() {
        let change = |channel: Option<&str>, key: &str, why: Option<&str>| {
            let channel = channel.map(|name| name.parse().unwrap());
            Change::new(channel, key, "1".to_owned(), "2".to_owned(), why.map(str::to_owned))
        };
        let mut done = Reloaded::default();
        done.created.push("new".parse().unwrap());
        done.removed.push("old".parse().unwrap());
        done.changed.extend([change(Some("main"), "max_readers", None), change(None, "max_clients", None)]);
        done.kept.push(change(Some("main"), "align", Some("it is fixed")));
        assert_eq!(
            text(&done),
            "\
new: created
old: removed
main: max_readers: 1 -> 2
max_clients: 1 -> 2
main: align: stays 1, not 2: it is fixed
"
        );
        assert_eq!(text(&Reloaded::default()), "nothing has changed\n");
    }
}
