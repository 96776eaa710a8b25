//! The daemon that is examined, as commands name it. Another daemon of this machine may have channels of the same names, and a command
//! that was copied must not reach that one.

use std::fmt::Display;
use std::path::{Path, PathBuf};

/// The configuration of the system's daemon, and of one that was given no other.
const CONFIG: &str = "/etc/shmd/shmd.toml";
/// Where an administrator puts what adds to units.
const UNITS: &str = "/etc/systemd/system";

/// Which daemon it is.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// What leads a command to it, if the user has named its directory: ` --runtime-dir /run/shmd-cam`.
    option: String,
    /// The system's unit that starts it. None for a user's own daemon.
    unit: Option<String>,
}

impl Site {
    /// The daemon with this socket. `named`: its directory, if the user has named it.
    pub(super) fn new(socket: &Path, named: Option<&Path>) -> Self {
        let option = named.map(|dir| format!(" --runtime-dir {}", quoted(dir))).unwrap_or_default();
        let unit = socket.parent().and_then(|dir| unit_of(dir.strip_prefix("/run").ok()?.to_str()?));
        Site { option, unit }
    }

    /// A command for this daemon, such as `shmctl evict -c cam --reader 3`.
    pub(super) fn shmctl(&self, words: impl Display) -> String {
        format!("shmctl{} {words}", self.option)
    }

    /// What starts it.
    pub(super) fn start(&self) -> String {
        match &self.unit {
            Some(unit) => format!("systemctl start {unit}; journalctl -u {unit} -n 20"),
            None => format!("shmd{} --daemonize", self.option),
        }
    }

    /// What ends it and starts it again.
    pub(super) fn restart(&self) -> String {
        match &self.unit {
            Some(unit) => format!("systemctl restart {unit}"),
            None => {
                "end this shmd and start it again (systemctl --user restart shmd, if systemd started it)".to_owned()
            }
        }
    }

    /// What shows its log.
    pub(super) fn journal(&self) -> String {
        match &self.unit {
            Some(unit) => format!("journalctl -u {unit} -n 20"),
            None => "journalctl --user -u shmd -n 20".to_owned(),
        }
    }

    /// What checks its configuration and makes the daemon read it again.
    pub(super) fn check_and_reload(&self) -> String {
        let config = match self.config() {
            config if config == Path::new(CONFIG) => String::new(),
            config => format!(" --config {}", quoted(&config)),
        };
        format!("shmd{config} --check && {}", self.shmctl("reload"))
    }

    /// What gives it a setting of its unit.
    pub(super) fn edit(&self, setting: &str) -> Option<String> {
        self.unit.as_ref().map(|unit| format!("systemctl edit {unit} ({setting} in [Service])"))
    }

    /// What adds a group to those of its unit.
    pub(super) fn add_group(&self, group: &str) -> Option<String> {
        let unit = self.unit.as_ref()?;
        let dir = format!("{UNITS}/{unit}.service.d");
        Some(format!(
            "mkdir -p {dir} && printf '[Service]\\nSupplementaryGroups={group}\\n' >{dir}/{group}.conf && systemctl daemon-reload && \
             systemctl restart {unit}"
        ))
    }

    /// The file that its unit gives it, or that of a daemon that was given none.
    pub(super) fn config(&self) -> PathBuf {
        match self.instance() {
            Some(instance) => format!("/etc/shmd/{instance}.toml").into(),
            None => CONFIG.into(),
        }
    }

    /// Directories with what adds to its unit; to that of the system's daemon for a daemon without a unit.
    pub(super) fn drop_ins(&self) -> Vec<PathBuf> {
        let template = self.instance().map(|_| "shmd@");
        let unit = self.unit.as_deref().unwrap_or("shmd");
        template.into_iter().chain([unit]).map(|unit| format!("{UNITS}/{unit}.service.d").into()).collect()
    }

    fn instance(&self) -> Option<&str> {
        self.unit.as_deref()?.strip_prefix("shmd@")
    }
}

/// The system's unit for a runtime directory below `/run`, or a prefix, of this name: `shmd`, or `shmd-NAME` for an instance. A number in
/// place of NAME is a user's, whose own daemon that is.
pub(super) fn unit_of(name: &str) -> Option<String> {
    let rest = name.strip_prefix("shmd")?;
    if rest.is_empty() {
        return Some("shmd".to_owned());
    }
    let instance = rest.strip_prefix('-').filter(|instance| !instance.is_empty())?;
    let is_user = instance.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = instance.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    (is_word && !is_user).then(|| format!("shmd@{instance}"))
}

/// A path as a word of a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_word = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c));
    if is_word { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(dir: &str, is_named: bool) -> Site {
        let dir = Path::new(dir);
        Site::new(&dir.join("shmd.sock"), is_named.then_some(dir))
    }

    #[test]
    fn a_command_reaches_the_daemon_that_was_examined() {
        let system = site("/run/shmd", false);
        assert_eq!(system.shmctl("reload"), "shmctl reload");
        assert_eq!(system.restart(), "systemctl restart shmd");
        assert!(system.start().starts_with("systemctl start shmd; "), "{system:?}");
        assert_eq!(system.check_and_reload(), "shmd --check && shmctl reload");
        let cam = site("/run/shmd-cam", true);
        assert_eq!(cam.shmctl("evict 3"), "shmctl --runtime-dir /run/shmd-cam evict 3");
        assert_eq!(
            (cam.restart(), cam.journal()),
            ("systemctl restart shmd@cam".into(), "journalctl -u shmd@cam -n 20".into())
        );
        assert_eq!(cam.config(), Path::new("/etc/shmd/cam.toml"));
        assert_eq!(
            cam.check_and_reload(),
            "shmd --config /etc/shmd/cam.toml --check && shmctl --runtime-dir /run/shmd-cam reload"
        );
        assert!(cam.add_group("video").unwrap().contains("shmd@cam.service.d/video.conf"), "{cam:?}");
        assert_eq!(cam.drop_ins().len(), 2, "{cam:?}");
        let own = site("/run/user/7/shmd", false);
        assert_eq!((own.start(), own.add_group("video"), own.edit("x")), ("shmd --daemonize".into(), None, None));
        assert!(own.restart().contains("--user") && !own.journal().contains("-u shmd@"), "{own:?}");
        let odd = site("/tmp/o'neill dir", true);
        assert_eq!(odd.start(), "shmd --runtime-dir '/tmp/o'\\''neill dir' --daemonize");
    }

    #[test]
    fn a_number_is_a_users_own_daemon_and_no_instance() {
        for (name, unit) in [
            ("shmd", Some("shmd")),
            ("shmd-cam", Some("shmd@cam")),
            ("shmd-1000", None),
            ("shmd-", None),
            ("shmdx", None),
            ("shmd-a;b", None),
            ("shmd/x", None),
        ] {
            assert_eq!(unit_of(name).as_deref(), unit, "{name}");
        }
    }
}
