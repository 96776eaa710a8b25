//! Whose consumer it is. Two relays with one consumer would get a part of the messages each, and each would overwrite the place of the
//! other.

use std::fmt;
use std::fs;
use std::str::FromStr;

/// What identifies a machine, whatever its name is.
const MACHINE: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// A channel of a daemon on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// A number that follows from the machine's id; 0 if it has none, as in many containers.
    machine: u64,
    host: String,
    /// The daemon's prefix.
    prefix: String,
    channel: String,
}

impl Owner {
    pub(super) fn new(host: &str, prefix: &str, channel: &str) -> Self {
        let id = MACHINE.iter().find_map(|file| fs::read_to_string(file).ok().filter(|id| !id.trim().is_empty()));
        Owner {
            machine: id.map_or(0, |id| number(id.trim())),
            host: escaped(host),
            prefix: escaped(prefix),
            channel: escaped(channel),
        }
    }

    /// The consumer's name, unless the user gives another one. Another daemon's channel of the same name has another consumer.
    pub(super) fn consumer(&self) -> String {
        format!("{}_{}_{}", self.host, self.prefix, self.channel)
    }

    /// Whether both are the same channel. A machine keeps its id when its name is changed. Without an id, the name has to do.
    pub(super) fn is(&self, other: &Owner) -> bool {
        let is_same_machine = if self.machine == 0 || other.machine == 0 {
            self.host == other.host
        } else {
            self.machine == other.machine
        };
        is_same_machine && self.prefix == other.prefix && self.channel == other.channel
    }

    /// In words, for people who see two of them.
    pub(super) fn words(&self) -> String {
        let Owner { machine, host, prefix, channel } = self;
        format!("channel {channel} of the daemon with prefix {prefix} on host {host} (machine {machine:016x})")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { machine, host, prefix, channel } = self;
        write!(f, "{machine:016x} {host} {prefix} {channel}")
    }
}

/// Text that is no owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoOwner;

impl FromStr for Owner {
    type Err = NoOwner;

    fn from_str(text: &str) -> Result<Self, NoOwner> {
        let words: Vec<_> = text.split(' ').collect();
        let [machine, host, prefix, channel] = words[..] else { return Err(NoOwner) };
        let machine = u64::from_str_radix(machine, 16).map_err(|_| NoOwner)?;
        // The words are shown in the log, and anybody with a right to the stream may have written them.
        if [host, prefix, channel].into_iter().any(|word| !word.chars().all(|c| is_allowed(c) || c == '=')) {
            return Err(NoOwner);
        }
        Ok(Owner { machine, host: host.to_owned(), prefix: prefix.to_owned(), channel: channel.to_owned() })
    }
}

/// FNV-1a. A machine's id is not for everybody who may look at a stream, and half as many bits do not tell it.
fn number(id: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    format!("shmctl-relay {id}").bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

/// Names of consumers have no dots, blanks and other characters with a meaning in subjects and paths.
fn escaped(name: &str) -> String {
    name.chars().map(|c| if is_allowed(c) { c.to_string() } else { format!("={:x}", u32::from(c)) }).collect()
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(machine: u64, host: &str, prefix: &str, channel: &str) -> Owner {
        Owner { machine, host: host.to_owned(), prefix: prefix.to_owned(), channel: channel.to_owned() }
    }

    #[test]
    fn consumers_of_different_channels_have_different_names() {
        let name = |channel| Owner::new("far", "shmd-1000", channel).consumer();
        assert_eq!(name("cam.left"), "far_shmd-1000_cam=2eleft");
        assert_ne!(name("cam.a"), name("cam=a"));
    }

    #[test]
    fn a_machine_is_known_by_its_id_and_by_its_name_if_it_has_none() {
        let far = owner(7, "far", "shmd", "cam");
        assert!(far.is(&owner(7, "renamed", "shmd", "cam")) && far.is(&owner(0, "far", "shmd", "cam")));
        for other in [(8, "far", "shmd", "cam"), (7, "far", "other", "cam"), (7, "far", "shmd", "imu")] {
            let (machine, host, prefix, channel) = other;
            assert!(!far.is(&owner(machine, host, prefix, channel)), "{other:?}");
        }
        assert!(!owner(0, "far", "shmd", "cam").is(&owner(0, "near", "shmd", "cam")));
    }

    #[test]
    fn an_owner_can_be_written_down_whatever_its_names_are() {
        for owner in [owner(0xfeed, "far", "shmd-1000", "cam"), Owner::new("a host", "", "cam.left")] {
            assert_eq!(owner.to_string().parse(), Ok(owner));
        }
        for text in
            ["", "7 far shmd", "x far shmd cam", "7 far shmd cam more", "7 far\x1b[31m shmd cam", "7 far shmd ca\nm"]
        {
            assert_eq!(text.parse::<Owner>(), Err(NoOwner), "{text}");
        }
        assert_ne!(number("0123456789abcdef0123456789abcdef"), number("0123456789abcdef0123456789abcdee"));
    }
}
