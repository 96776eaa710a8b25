//! `shmd.toml(5)`, from the table of keys.

use clap_mangen::roff::{bold, italic, roman};
use shm_cli::keys::{self, Key};

use super::markup::inlines;
use super::page::Page;

const DESCRIPTION: &[&str] = &[
    "The daemon reads `/etc/shmd/shmd.toml`, then `/etc/shmd/shmd.d/*.toml` in the order of their names. With `--config X.toml` it reads that \
     file, then `X.d/*.toml`. A key in a later file wins, and channels add up. The environment (`SHMD_CAPACITY=4MiB`) wins over the files, and \
     the command line (`--capacity 4MiB`, `--set cam.align=64`) wins over the environment.",
    "The files are TOML. `shmd --check` prints the resulting configuration. Unknown keys and impossible values are refused with file, line and \
     reason: the daemon does not start, and a reload changes nothing.",
];

const VALUES: &[(&str, &str)] = &[
    ("size", "bytes: `65536`, `\"64KiB\"`, `\"1MiB\"`, `\"2GiB\"`. K, M and G mean 1024, 1024\u{b2} and 1024\u{b3}"),
    ("time", "a number with its unit: `\"500ms\"`, `\"30s\"`, `\"5m\"`, `\"1h\"`"),
    ("list of names", "user names or numbers, `@` and a group, or `*` for everybody: `[\"alice\", \"@video\"]`"),
];

const EXAMPLE: &str = "\
[[channel]]
name = \"cam\"
max = \"64MiB\"
align = 64
on_full = \"overwrite\"
read = [\"*\"]

[[channel]]
name = \"log\"
source = \"unix:/run/shmd/log.sock\"
framing = \"chunk=4KiB\"
flush = \"100ms\"
";

pub(super) fn page() -> Page {
    let mut page = Page::new("shmd.toml", 5, "configuration of shmd");
    page.heading("SYNOPSIS");
    page.paragraph("`/etc/shmd/shmd.toml`, `/etc/shmd/shmd.d/*.toml`");
    page.heading("DESCRIPTION");
    DESCRIPTION.iter().for_each(|text| page.paragraph(text));
    page.heading("VALUES");
    VALUES.iter().for_each(|(term, text)| page.item(vec![bold(*term)], text));
    page.heading("KEYS OF THE DAEMON");
    keys::TOP.iter().for_each(|key| item(&mut page, key));
    page.heading("KEYS OF A CHANNEL");
    page.paragraph("Each channel is a table `[[channel]]`. Without any there is one channel, `main`.");
    keys::CHANNEL.iter().for_each(|key| item(&mut page, key));
    page.heading("EXAMPLES");
    page.paragraph("A camera whose frames everybody may read, and a channel that the daemon feeds from a socket:");
    page.code(EXAMPLE);
    page.heading("FILES");
    let manual = "the manual, with the sections that are named above: sources, publish times, content and so on";
    page.item(vec![bold("/usr/share/doc/shmd/MANUAL.md")], manual);
    page.see_also(&[("shmd", 8), ("shmctl", 1)]);
    page
}

fn item(page: &mut Page, key: &Key) {
    let mut term = vec![bold(key.name), roman(" = "), italic(key.kind.word()), roman(", default ")];
    term.extend(inlines(key.default));
    page.item(term, key.meaning);
}
