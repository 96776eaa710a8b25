//! Names for readers that stay short and few: the program's, with a number where a channel has several of that program.

use std::collections::BTreeMap;
use std::mem::take;

use shm_proto::ChannelName;
use shm_proto::internal::control::stat::{ChannelStat, ReaderStat};

/// The names that readers have now. A reader keeps its name while it is attached, also from one daemon to the next, and the next reader
/// may get the name. A process number or a reader's number as the name would make a new time series of every attachment.
#[derive(Debug, Default)]
pub(super) struct ReaderNames(BTreeMap<(ChannelName, u32), Known>);

/// What is known of a reader with a number.
#[derive(Debug)]
struct Known {
    pid: u32,
    name: String,
}

impl ReaderNames {
    /// The names of the readers of each channel, in the order of the channels and of their readers. Readers that are not among these have
    /// gone.
    pub(super) fn of(&mut self, channels: &[ChannelStat]) -> Vec<Vec<String>> {
        let mut before = take(&mut self.0);
        channels.iter().map(|stat| self.of_channel(stat, &mut before)).collect()
    }

    fn of_channel(&mut self, stat: &ChannelStat, before: &mut BTreeMap<(ChannelName, u32), Known>) -> Vec<String> {
        let is_same =
            |reader: &ReaderStat, known: &Known| known.pid == reader.pid && is_name_of(&known.name, &reader.program);
        let key = |reader: &ReaderStat| (stat.channel.clone(), reader.reader);
        let mut names: Vec<Option<String>> = Vec::new();
        for reader in &stat.readers {
            let found = before.get(&key(reader)).is_some_and(|known| is_same(reader, known));
            names.push(before.remove(&key(reader)).filter(|_| found).map(|known| known.name));
        }
        // The next daemon gives other numbers to the readers that it goes on with.
        for (reader, name) in stat.readers.iter().zip(&mut names).filter(|(_, name)| name.is_none()) {
            let of_channel = before.iter().filter(|((channel, _), _)| *channel == stat.channel);
            let found = of_channel.filter(|(_, known)| is_same(reader, known)).map(|(key, _)| key.clone()).next();
            *name = found.and_then(|key| before.remove(&key)).map(|known| known.name);
        }
        for place in 0..names.len() {
            if names[place].is_none() {
                names[place] = Some(free(&names, &stat.readers[place].program));
            }
        }
        let names: Vec<String> = names.into_iter().flatten().collect();
        for (reader, name) in stat.readers.iter().zip(&names) {
            self.0.insert(key(reader), Known { pid: reader.pid, name: name.clone() });
        }
        names
    }
}

/// The first name for this program that is not among these.
fn free(names: &[Option<String>], program: &str) -> String {
    let candidates = (1..).map(|n: u32| if n == 1 { program.to_owned() } else { format!("{program}#{n}") });
    let is_free = |name: &String| !names.iter().flatten().any(|taken| taken == name);
    candidates.into_iter().find(is_free).unwrap_or_else(|| program.to_owned())
}

/// Whether the name was made for this program.
fn is_name_of(name: &str, program: &str) -> bool {
    name.strip_prefix(program).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('#').is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{Mode, ReaderState};

    use super::*;

    fn channel(name: &str, readers: &[(u32, &str)]) -> ChannelStat {
        let mut stat = ChannelStat::new(name.parse().unwrap(), Mode::Ring, format!("/shmd.{name}"));
        let reader = |&(number, program): &(u32, &str)| {
            ReaderStat::new(number, 1000 + number, program.to_owned(), "me".into(), ReaderState::Reading)
        };
        stat.readers = readers.iter().map(reader).collect();
        stat
    }

    #[test]
    fn programs_get_numbers_within_their_channel() {
        let mut names = ReaderNames::default();
        let channels = [channel("cam", &[(1, "view"), (2, "view"), (7, "log")]), channel("imu", &[(1, "view")])];
        assert_eq!(names.of(&channels), [vec!["view", "view#2", "log"], vec!["view"]]);
    }

    #[test]
    fn a_reader_keeps_its_name_and_a_later_one_takes_the_free_name() {
        let mut names = ReaderNames::default();
        names.of(&[channel("cam", &[(1, "view"), (2, "view")])]);
        assert_eq!(names.of(&[channel("cam", &[(2, "view")])]), [["view#2"]]);
        assert_eq!(names.of(&[channel("cam", &[(2, "view"), (3, "view")])]), [["view#2", "view"]]);
        // After a restart of the daemon, a number may belong to another program.
        assert_eq!(names.of(&[channel("cam", &[(2, "log"), (3, "view")])]), [["log", "view"]]);
        assert_eq!(names.of(&[]), Vec::<Vec<String>>::new());
        assert_eq!(names.0.len(), 0);
    }

    #[test]
    fn the_next_daemon_gives_other_numbers_and_the_names_stay() {
        let mut names = ReaderNames::default();
        assert_eq!(
            names.of(&[channel("cam", &[(4, "view"), (7, "view"), (9, "view")])]),
            [["view", "view#2", "view#3"]]
        );
        let mut after = channel("cam", &[(1, "view"), (2, "view"), (4, "view")]);
        // Number 9 has come back first, a reader has come, and number 7 has the number that another one had.
        (after.readers[0].pid, after.readers[1].pid, after.readers[2].pid) = (1009, 5000, 1007);
        assert_eq!(names.of(&[after]), [["view#3", "view", "view#2"]]);
    }

    #[test]
    fn a_program_whose_name_looks_numbered_takes_nobodys_name() {
        let mut names = ReaderNames::default();
        let channels = [channel("cam", &[(1, "view#2"), (2, "view"), (3, "view")])];
        assert_eq!(names.of(&channels), [["view#2", "view", "view#3"]]);
    }
}
