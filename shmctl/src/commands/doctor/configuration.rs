//! The configuration files of the daemon: whether they are TOML, and whether the daemon may give its objects to the groups that they
//! name. Everything else in them is for `shmd --check`.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, User, getgrouplist};
use serde::Deserialize;
use toml::Spanned;

use super::finding::{Finding, Severity};

/// The system's configuration, which a daemon reads that was given no other.
const CONFIG: &str = "/etc/shmd/shmd.toml";

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

/// Looks at the files of the running daemon, or at those that the system's daemon would read.
pub(super) fn look(daemon: Option<u32>) -> Vec<Finding> {
    let arguments = daemon.and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok());
    let config = arguments.as_deref().and_then(config_of).unwrap_or_else(|| CONFIG.into());
    let has = groups_of(daemon);
    let texts = files(&config).into_iter().filter_map(|file| fs::read_to_string(&file).ok().map(|text| (file, text)));
    texts.flat_map(|(file, text)| look_at(&file, &text, has.as_deref())).collect()
}

/// The file after `--config`, in a command line as `/proc` shows it.
fn config_of(arguments: &[u8]) -> Option<PathBuf> {
    let mut words = arguments.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words
        .find_map(|word| word.strip_prefix("--config=").map(PathBuf::from).or((word == "--config").then(PathBuf::new)))
        .map(|path| if path.as_os_str().is_empty() { words.next().unwrap_or_default().as_ref().into() } else { path })
}

/// The file, and those beside it in `X.d`.
fn files(config: &Path) -> Vec<PathBuf> {
    let more = fs::read_dir(config.with_extension("d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut more: Vec<PathBuf> = more.filter(|path| path.extension().is_some_and(|end| end == "toml")).collect();
    more.sort_unstable();
    [config.to_owned()].into_iter().chain(more).collect()
}

/// The groups of the running daemon, or those that the system's daemon would have; nothing for root, who may use every group.
fn groups_of(daemon: Option<u32>) -> Option<Vec<u32>> {
    let Some(pid) = daemon else {
        let user = User::from_name("shmd").ok()??;
        let name = CString::new("shmd").ok()?;
        let mut has: Vec<u32> = getgrouplist(&name, user.gid).ok()?.into_iter().map(Gid::as_raw).collect();
        has.extend(supplementary(Path::new("/etc/systemd/system/shmd.service.d")));
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
fn look_at(file: &Path, text: &str, has: Option<&[u32]>) -> Vec<Finding> {
    let place = |offset: usize| {
        let before = &text.as_bytes()[..offset.min(text.len())];
        format!("{}:{}", file.display(), 1 + before.iter().filter(|byte| **byte == b'\n').count())
    };
    match toml::from_str::<Raw>(text) {
        Ok(raw) => {
            let groups = raw.channel.into_iter().filter_map(|channel| channel.group);
            let groups = groups.map(|group| (place(group.span().start), group.into_inner()));
            groups.filter_map(|(place, name)| missing(&place, &name, has?)).collect()
        }
        Err(e) => vec![Finding::new(
            Severity::Critical,
            "config",
            format!("{}: {}", place(e.span().map_or(0, |span| span.start)), e.message().trim().replace('\n', ", ")),
            "a daemon with this configuration does not start, and refuses a reload",
            format!("correct the file, then: shmd --config {} --check", file.display()),
        )],
    }
}

/// A group that is not among these.
fn missing(place: &str, name: &str, has: &[u32]) -> Option<Finding> {
    match gid_of(name) {
        _ if name.is_empty() => None,
        None => Some(Finding::new(
            Severity::Critical,
            "group",
            format!("{place}: there is no group {name}"),
            "the daemon refuses a configuration that names it",
            format!("groupadd --system {name}"),
        )),
        Some(gid) if !has.contains(&gid) => {
            let dir = "/etc/systemd/system/shmd.service.d";
            Some(Finding::new(
                Severity::Critical,
                "group",
                format!("{place}: the daemon is not in group {name}"),
                "only a member may give objects to a group: the daemon does not start, and refuses a reload",
                format!(
                    "mkdir -p {dir} && printf '[Service]\\nSupplementaryGroups={name}\\n' >{dir}/{name}.conf && systemctl \
                     daemon-reload && systemctl restart shmd"
                ),
            ))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use shm_test_support::TempDir;

    use super::*;

    #[test]
    fn groups_of_the_configuration_are_compared_with_the_daemons() {
        let text = "[[channel]]\n# group = \"1\"\ngroup = \"4242\"\n[[channel]]\n  group='4243' # a note\n[[channel]]\ngroup = \"\"\n\
                    [[channel]]\nread = [\"@9\"]\nsource = \"\"\"exec:x\ngroup = 8\"\"\"\n[[channel]]\ngroup = \"no such\"\n";
        let findings = look_at(Path::new("/etc/x.toml"), text, Some(&[4243]));
        let [one, two] = findings.as_slice() else { panic!("{findings:?}") };
        assert_eq!(one.what, "/etc/x.toml:3: the daemon is not in group 4242");
        assert!(
            one.command.contains("SupplementaryGroups=4242") && one.command.ends_with("systemctl restart shmd"),
            "{one:?}"
        );
        assert_eq!(
            (two.what.as_str(), two.command.as_str()),
            ("/etc/x.toml:13: there is no group no such", "groupadd --system no such")
        );
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
    fn the_daemons_configuration_is_found_on_its_command_line() {
        for (line, config) in [
            ("/usr/bin/shmd\0", None),
            ("shmd\0--log\0off\0--config\0/x/y.toml\0", Some("/x/y.toml")),
            ("shmd\0--config=/x/y.toml\0--log\0off\0", Some("/x/y.toml")),
        ] {
            assert_eq!(config_of(line.as_bytes()), config.map(PathBuf::from), "{line:?}");
        }
        let dir = TempDir::new();
        fs::create_dir(dir.join("shmd.d")).unwrap();
        for name in ["b.toml", "a.toml", "c.txt"] {
            fs::write(dir.join("shmd.d").join(name), "").unwrap();
        }
        let names = ["shmd.toml", "shmd.d/a.toml", "shmd.d/b.toml"].map(|name| dir.join(name));
        assert_eq!(files(&dir.join("shmd.toml")), names);
    }
}
