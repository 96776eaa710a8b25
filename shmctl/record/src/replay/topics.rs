//! Which messages go to which channels.

use std::collections::BTreeMap;
use std::str::FromStr;

use shm_proto::ChannelName;
use shmctl::companion::human::printable;
use shmctl::companion::{Failure, Result, nearest};

use crate::format::input::Input;

/// `--map TOPIC=CHANNEL`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    topic: String,
    channel: ChannelName,
}

impl FromStr for Mapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A channel's name has no `=`, and a topic may.
        let Some((topic, channel)) = text.rsplit_once('=') else {
            return Err("write the topic in the file and the channel, such as cam=cam2 or /camera/front=cam".to_owned());
        };
        let channel = channel.parse().map_err(|e: shm_proto::internal::name::BadName| e.to_string())?;
        Ok(Mapping { topic: topic.to_owned(), channel })
    }
}

/// The topics that are published, and their channels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Topics {
    /// Each channel once.
    pub(crate) channels: Vec<ChannelName>,
    /// The place of each topic's channel.
    by_topic: BTreeMap<String, usize>,
}

impl Topics {
    /// `target`: the channel for everything, if the files have only one topic.
    pub(crate) fn new(
        inputs: &[Input],
        map: &[Mapping],
        only: &[String],
        target: Option<&ChannelName>,
    ) -> Result<Self> {
        // A topic without messages needs no channel.
        let filled = inputs.iter().flat_map(|input| {
            let channels = input.summary.channels.values();
            channels.filter(|channel| input.count(channel.id) != Some(0)).map(|channel| channel.topic.as_str())
        });
        let known = inputs.iter().flat_map(|input| input.summary.channels.values()).map(|c| c.topic.as_str());
        Topics::of(&filled.collect::<Vec<_>>(), &known.collect::<Vec<_>>(), map, only, target)
    }

    fn of(
        filled: &[&str],
        known: &[&str],
        map: &[Mapping],
        only: &[String],
        target: Option<&ChannelName>,
    ) -> Result<Self> {
        for (option, topic) in
            map.iter().map(|map| ("--map", &map.topic)).chain(only.iter().map(|topic| ("--only", topic)))
        {
            if !known.contains(&topic.as_str()) {
                return Err(unknown(option, topic, known));
            }
        }
        let mut topics = Topics::default();
        let mut wanted: Vec<&str> =
            filled.iter().copied().filter(|topic| only.is_empty() || only.iter().any(|o| o == topic)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        if let (Some(target), true) = (target, wanted.len() > 1) {
            return Err(Failure::Usage(format!(
                "--channel {target} is for a recording of one topic, and there are {}; use --map TOPIC=CHANNEL, or --only TOPIC",
                printable(wanted.join(", "))
            )));
        }
        for topic in wanted {
            let mapped = map.iter().rev().find(|map| map.topic == topic).map(|map| &map.channel).or(target);
            let channel = match mapped {
                Some(channel) => channel.clone(),
                None => topic.parse().map_err(|e| {
                    Failure::Usage(printable(format!(
                        "{e}; give topic {topic} a channel with --map {topic}=CHANNEL, or use --only"
                    )))
                })?,
            };
            let place = topics.channels.iter().position(|other| *other == channel).unwrap_or_else(|| {
                topics.channels.push(channel);
                topics.channels.len() - 1
            });
            topics.by_topic.insert(topic.to_owned(), place);
        }
        Ok(topics)
    }

    /// The place of a topic's channel, if the topic is published.
    pub(crate) fn place(&self, topic: &str) -> Option<usize> {
        self.by_topic.get(topic).copied()
    }
}

fn unknown(option: &str, topic: &str, known: &[&str]) -> Failure {
    let mut all = known.to_vec();
    all.sort_unstable();
    all.dedup();
    let meant = nearest(topic, all.iter().copied()).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
    Failure::Usage(printable(format!("{option}: there is no topic {topic}; the topics are {}{meant}", all.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str], map: &[&str], only: &[&str], target: Option<&str>) -> Result<Vec<(String, String)>> {
        let map: Vec<Mapping> = map.iter().map(|text| text.parse().unwrap()).collect();
        let only: Vec<String> = only.iter().map(ToString::to_string).collect();
        let target: Option<ChannelName> = target.map(|name| name.parse().unwrap());
        let topics = Topics::of(names, &[names, &["empty"]].concat(), &map, &only, target.as_ref())?;
        let pairs = topics.by_topic.iter().map(|(topic, place)| (topic.clone(), topics.channels[*place].to_string()));
        Ok(pairs.collect())
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(topic, channel)| (topic.to_string(), channel.to_string())).collect()
    }

    #[test]
    fn a_topic_goes_to_its_namesake_or_where_it_is_mapped_to() {
        assert_eq!(topics(&["cam", "imu", "cam"], &[], &[], None).unwrap(), pairs(&[("cam", "cam"), ("imu", "imu")]));
        let mapped = topics(&["/a=b", "imu"], &["/a=b=x", "imu=x"], &[], None).unwrap();
        assert_eq!(mapped, pairs(&[("/a=b", "x"), ("imu", "x")]));
        assert_eq!(topics(&["cam", "/odd"], &[], &["cam"], None).unwrap(), pairs(&[("cam", "cam")]));
        assert_eq!(topics(&["cam"], &[], &["empty"], None).unwrap(), pairs(&[]));
        assert_eq!(topics(&["cam"], &[], &[], Some("x")).unwrap(), pairs(&[("cam", "x")]));
        assert_eq!(topics(&["cam", "imu"], &[], &["imu"], Some("x")).unwrap(), pairs(&[("imu", "x")]));
    }

    #[test]
    fn a_topic_does_not_tell_the_terminal_what_to_do() {
        let topic = "a\x1b]0;b";
        for (only, target) in [(&[][..], None), (&["other"], None), (&[], Some("x"))] {
            let told = topics(&[topic, "imu"], &[], only, target).unwrap_err().to_string();
            assert!(!told.contains('\x1b') && told.contains("u{1b}"), "{told:?}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_a_usage_error_that_says_what_can() {
        for (names, map, only, target, parts) in [
            (&["cam", "imu"][..], &["cma=x"][..], &[][..], None, &["--map", "cma", "cam, empty, imu", "mean cam?"][..]),
            (&["cam"], &[], &["lidar"], None, &["--only", "lidar", "cam, empty"]),
            (&["/camera/front"], &[], &[], None, &["/camera/front", "--map /camera/front=CHANNEL", "A-Z"]),
            (&["cam", "imu"], &[], &[], Some("x"), &["--channel x", "cam, imu", "--map"]),
        ] {
            let refused = topics(names, map, only, target).unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{refused}");
            let told = refused.to_string();
            assert!(parts.iter().all(|part| told.contains(part)), "{parts:?}: {told}");
        }
        for text in ["cam", "cam=", "cam=a/b"] {
            assert!(text.parse::<Mapping>().is_err(), "{text}");
        }
    }
}
