//! `shmd(8)`.

use clap::CommandFactory;
use clap_mangen::roff::bold;
use shm_cli::EXIT_CODES;

use super::page::{Page, about, help};

const SIGNALS: &[(&str, &str)] = &[
    ("SIGTERM, SIGINT", "stop: readers and writers are told, and nothing is left in `/dev/shm`"),
    ("SIGHUP", "read the configuration again, as `shmctl reload` does, and open the log file again"),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/shmd/shmd.toml", "the configuration, see `shmd.toml`(5)"),
    ("/etc/shmd/shmd.d/*.toml", "more of it, in the order of the names"),
    ("/run/shmd/shmd.sock", "the control socket. The directory of a user's own daemon is `$XDG_RUNTIME_DIR/shmd`"),
    ("/run/shmd/shmd.lock", "the running daemon's lock. A second daemon with this directory is refused"),
    ("/run/shmd/shmd.operations", "the operation log, for the daemon that comes after a crash"),
    ("/run/shmd/shmd.channels/", "channels that were created at run time, for the daemon that comes after a crash"),
    ("/var/lib/shmd/", "channels that were created with `--keep`. The key `state_dir` names another directory"),
    ("/dev/shm/PREFIX.CHANNEL", "the segment of a channel"),
];

pub(super) fn page() -> Page {
    let mut command = shm_cli::Args::command();
    command.build();
    let help = help(&command);
    let mut page = Page::new("shmd", 8, &about(&command));
    page.synopsis(&command);
    page.description(&command, &help);
    page.options(&command);
    for (heading, items) in [("SIGNALS", SIGNALS), ("FILES", FILES)] {
        page.heading(heading);
        for (term, text) in items {
            page.item(vec![bold(*term)], text);
        }
    }
    page.exit_status(EXIT_CODES);
    page.examples(&help);
    page.see_also(&[("shmctl", 1), ("shmd.toml", 5)]);
    page
}
