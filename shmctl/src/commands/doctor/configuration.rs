//! The configuration files of the daemon: whether they are TOML, and whether the daemon may give its objects to the groups that they
//! name. Everything else in them is for `shmd --check`.

use std::ffi::{CString, OsStr};
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Gid, Group, User, getgrouplist};
use serde::Deserialize;
use toml::Spanned;

use super::finding::{Finding, Severity};
use super::site::Site;
use crate::human::printable;

/// A file that is longer than this, in bytes, is not looked at.
const MOST: u64 = 4 << 20;

/// As much of a file as is looked at.
#[derive(Debug, Deserialize)]
struct Raw {
    #[serde(default)]
    channel: Vec<RawChannel>,
}

#[derive(Debug, Deserialize)]
struct RawChannel {
    group: Option<Spanned<String>>,
}

/// Looks at the files of the running daemon, or at those that it would read.
pub(super) fn look(daemon: Option<u32>, site: &Site) -> Vec<Finding> {
    let config = daemon.and_then(config_of).unwrap_or_else(|| site.config());
    let has = groups_of(daemon, site);
    let texts = files(&config).into_iter().filter_map(|file| text(&file).map(|text| (file, text)));
    texts.flat_map(|(file, text)| look_at(&file, &text, has.as_deref(), site)).collect()
}

/// The file that a process was given, if it was given one. The path is empty if it is relative and this user may not know to what.
fn config_of(pid: u32) -> Option<PathBuf> {
    let read = |name: &str| fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let config = named(&read("cmdline"), &read("environ"))?;
    if config.is_absolute() {
        return Some(config);
    }
    Some(fs::read_link(format!("/proc/{pid}/cwd")).map(|dir| dir.join(config)).unwrap_or_default())
}

/// The file after `--config`, or else in `SHMD_CONFIG`, in a command line and an environment as `/proc` shows them.
fn named(arguments: &[u8], environment: &[u8]) -> Option<PathBuf> {
    let mut words = arguments.split(|byte| *byte == 0);
    let option = words.find_map(|word| match word.strip_prefix(b"--config")? {
        [] => Some(None),
        [b'=', path @ ..] => Some(Some(path)),
        _ => None,
    });
    let option = option.and_then(|path| path.or_else(|| words.next()));
    let variable = environment.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"SHMD_CONFIG="));
    option.or(variable).filter(|path| !path.is_empty()).map(|path| OsStr::from_bytes(path).into())
}

/// The file, and those beside it in `X.d`.
fn files(config: &Path) -> Vec<PathBuf> {
    let more = fs::read_dir(config.with_extension("d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_part = |path: &PathBuf| {
        let is_hidden = path.file_name().is_some_and(|name| name.as_bytes().starts_with(b"."));
        !is_hidden && path.extension().is_some_and(|end| end == "toml")
    };
    let mut more: Vec<PathBuf> = more.filter(is_part).collect();
    more.sort_unstable();
    [config.to_owned()].into_iter().chain(more).collect()
}

/// A file's text. The path is the daemon's word, which may be anybody's: neither a FIFO nor a device holds this command up.
fn text(file: &Path) -> Option<String> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(file).ok()?;
    let found = file.metadata().ok().filter(|found| found.is_file() && found.len() <= MOST)?;
    let mut text = String::new();
    file.take(found.len()).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The groups of the running daemon, or those that the system's daemon would have; nothing for root, who may use every group.
fn groups_of(daemon: Option<u32>, site: &Site) -> Option<Vec<u32>> {
    let Some(pid) = daemon else {
        let user = User::from_name("shmd").ok()??;
        let name = CString::new("shmd").ok()?;
        let mut has: Vec<u32> = getgrouplist(&name, user.gid).ok()?.into_iter().map(Gid::as_raw).collect();
        has.extend(site.drop_ins().iter().flat_map(|dir| supplementary(dir)));
        return Some(has);
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = |key: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().filter_map(|word| word.parse().ok()).collect()
    };
    if numbers("Uid:").get(1) == Some(&0) {
        return None;
    }
    Some([numbers("Groups:"), numbers("Gid:")].concat())
}

/// What drop-ins of the service add.
fn supplementary(dir: &Path) -> Vec<u32> {
    let texts =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let names = texts.flat_map(|text| {
        let values = text.lines().filter_map(|line| line.trim().strip_prefix("SupplementaryGroups="));
        values.flat_map(str::split_whitespace).map(str::to_owned).collect::<Vec<_>>()
    });
    names.filter_map(|name| gid_of(&name)).collect()
}

fn gid_of(name: &str) -> Option<u32> {
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        _ => name.parse().ok(),
    }
}

/// One file. Without `has`, the daemon may use every group.
fn look_at(file: &Path, text: &str, has: Option<&[u32]>, site: &Site) -> Vec<Finding> {
    let place = |offset: usize| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        format!("{}:{}", printable(file.display()), 1 + before.iter().filter(|byte| **byte == b'\n').count())
    };
    match toml::from_str::<Raw>(text) {
        Ok(raw) => {
            let groups = raw.channel.into_iter().filter_map(|channel| channel.group);
            let groups = groups.map(|group| (place(group.span().start), group.into_inner()));
            groups.filter_map(|(place, name)| missing(&place, &name, has?, site)).collect()
        }
        Err(e) => vec![Finding::new(
            Severity::Critical,
            "config",
            format!(
                "{}: {}",
                place(e.span().map_or(0, |span| span.start)),
                printable(e.message().trim().replace('\n', ", "))
            ),
            "a daemon with this configuration does not start, and refuses a reload",
            format!("correct the file, then: shmd --config {} --check", printable(file.display())),
        )],
    }
}

/// A group that is not among these.
fn missing(place: &str, name: &str, has: &[u32], site: &Site) -> Option<Finding> {
    // The file may be anybody's, and the command is to be copied into a shell.
    let is_word = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    match gid_of(name) {
        _ if name.is_empty() => None,
        None => Some(Finding::new(
            Severity::Critical,
            "group",
            format!("{place}: there is no group {}", printable(name)),
            "the daemon refuses a configuration that names it",
            if is_word { format!("groupadd --system {name}") } else { format!("correct the name in {place}") },
        )),
        Some(gid) if !has.contains(&gid) => Some(Finding::new(
            Severity::Critical,
            "group",
            format!("{place}: the daemon is not in group {name}"),
            "only a member may give objects to a group: the daemon does not start, and refuses a reload",
            site.add_group(name).unwrap_or_else(|| {
                format!("add the daemon's user to the group (usermod -aG {name} USER), and start the daemon in a new session")
            }),
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use shm_test_support::TempDir;

    use super::*;

    fn look_at(file: &Path, text: &str, has: Option<&[u32]>) -> Vec<Finding> {
        super::look_at(file, text, has, &Site::new(Path::new("/run/shmd/shmd.sock"), None))
    }

    #[test]
    fn groups_of_the_configuration_are_compared_with_the_daemons() {
        let text = "[[channel]]\n# group = \"1\"\ngroup = \"4242\"\n[[channel]]\n  group='4243' # a note\n[[channel]]\ngroup = \"\"\n\
                    [[channel]]\nread = [\"@9\"]\nsource = \"\"\"exec:x\ngroup = 8\"\"\"\n[[channel]]\ngroup = \"no such\"\n\
                    [[channel]]\ngroup = \"no-such\"\n";
        let findings = look_at(Path::new("/etc/x.toml"), text, Some(&[4243]));
        let [one, two, three] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!(one.what, "/etc/x.toml:3: the daemon is not in group 4242");
        assert!(
            one.command.contains("SupplementaryGroups=4242") && one.command.ends_with("systemctl restart shmd"),
            "{one:?}"
        );
        assert_eq!(
            (two.what.as_str(), two.command.as_str()),
            ("/etc/x.toml:13: there is no group no such", "correct the name in /etc/x.toml:13")
        );
        assert_eq!(three.command, "groupadd --system no-such");
        assert_eq!(look_at(Path::new("/etc/x.toml"), text, None), []);
    }

    #[test]
    fn a_file_that_is_no_toml_is_found_with_its_line() {
        let findings = look_at(Path::new("/etc/x.toml"), "log = \"info\"\n[[channel]\n", Some(&[]));
        let [found] = findings.as_slice() else { panic!("{findings:?}") };
        assert!(found.check == "config" && found.what.starts_with("/etc/x.toml:2: "), "{found:?}");
        assert!(found.command.ends_with("shmd --config /etc/x.toml --check"), "{found:?}");
    }

    #[test]
    fn the_daemons_configuration_is_found_on_its_command_line_and_in_its_environment() {
        for (line, environment, config) in [
            ("/usr/bin/shmd\0", "", None),
            ("shmd\0--log\0off\0--config\0/x/y.toml\0", "", Some("/x/y.toml")),
            ("shmd\0--config=/x/y.toml\0--log\0off\0", "SHMD_CONFIG=/z.toml\0", Some("/x/y.toml")),
            ("shmd\0", "HOME=/\0SHMD_CONFIG=z.toml\0", Some("z.toml")),
            ("shmd\0--check\0", "SHMD_CONFIG=\0", None),
        ] {
            assert_eq!(named(line.as_bytes(), environment.as_bytes()), config.map(PathBuf::from), "{line:?}");
        }
        let dir = TempDir::new();
        fs::create_dir(dir.join("shmd.d")).unwrap();
        for name in ["b.toml", "a.toml", "c.txt", ".d.toml"] {
            fs::write(dir.join("shmd.d").join(name), "").unwrap();
        }
        let names = ["shmd.toml", "shmd.d/a.toml", "shmd.d/b.toml"].map(|name| dir.join(name));
        assert_eq!(files(&dir.join("shmd.toml")), names);
    }

    #[test]
    fn only_regular_files_are_read() {
        let dir = TempDir::new();
        fs::write(dir.join("file"), "log = 1").unwrap();
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(text(&dir.join("file")).as_deref(), Some("log = 1"));
        for path in [dir.join("fifo"), dir.join("none"), dir.to_path_buf(), "/dev/zero".into(), PathBuf::new()] {
            assert_eq!(text(&path), None, "{}", path.display());
        }
    }
}
