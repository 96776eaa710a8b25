//! Names for readers that stay short and few: the program's, with a number where a channel has several of that program.

use std::collections::BTreeMap;

use shm_proto::ChannelName;
use shm_proto::internal::control::stat::ChannelStat;

/// The names that readers have now. A reader keeps its name while it is attached, and the next reader may get the name. A process
/// number or a reader's number as the name would make a new time series of every attachment.
#[derive(Debug, Default)]
pub(super) struct ReaderNames(BTreeMap<(ChannelName, u32), String>);

impl ReaderNames {
    /// The names of the readers of each channel, in the order of the channels and of their readers.
    pub(super) fn of(&mut self, channels: &[ChannelStat]) -> Vec<Vec<String>> {
        self.0.retain(|(channel, number), name| {
            let readers = channels.iter().filter(|stat| stat.channel == *channel).flat_map(|stat| &stat.readers);
            readers.into_iter().any(|reader| reader.reader == *number && is_name_of(name, &reader.program))
        });
        let mut all = Vec::new();
        for stat in channels {
            let mut names = Vec::new();
            for reader in &stat.readers {
                let key = (stat.channel.clone(), reader.reader);
                let name = match self.0.get(&key) {
                    Some(name) => name.clone(),
                    None => self.free(&stat.channel, &reader.program),
                };
                self.0.insert(key, name.clone());
                names.push(name);
            }
            all.push(names);
        }
        all
    }

    /// The first name that no reader of the channel has.
    fn free(&self, channel: &ChannelName, program: &str) -> String {
        let candidates = (1..).map(|n| if n == 1 { program.to_owned() } else { format!("{program}#{n}") });
        let is_free = |name: &String| !self.0.iter().any(|((of, _), taken)| of == channel && taken == name);
        candidates.into_iter().find(is_free).unwrap_or_else(|| program.to_owned())
    }
}

/// Whether the name was made for this program.
fn is_name_of(name: &str, program: &str) -> bool {
    name.strip_prefix(program).is_some_and(|rest| {
        rest.is_empty() || rest.strip_prefix('#').is_some_and(|number| number.parse::<u32>().is_ok())
    })
}

#[cfg(test)]
mod tests {
    use shm_proto::internal::control::stat::{Mode, ReaderStat, ReaderState};

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
    fn a_program_whose_name_looks_numbered_takes_nobodys_name() {
        let mut names = ReaderNames::default();
        let channels = [channel("cam", &[(1, "view#2"), (2, "view"), (3, "view")])];
        assert_eq!(names.of(&channels), [["view#2", "view", "view#3"]]);
    }
}
