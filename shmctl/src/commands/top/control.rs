//! What the person at the keyboard has chosen: order, channel, reader, and what stands in the footer.

use std::cmp::Reverse;

use shm_proto::{ChannelName, Request};

use super::figures::{Channel, Figures, Reader};
use crate::condition::Condition;

/// The choices. Channels and readers are chosen by name, so that a choice stays when the order changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Control {
    pub(super) sort: Sort,
    pub(super) is_paused: bool,
    pub(super) footer: Footer,
    /// None: the first one.
    pub(super) channel: Option<ChannelName>,
    /// None: the one that holds the writer up, or the first one.
    pub(super) reader: Option<u32>,
}

/// What the footer is for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Footer {
    /// The keys.
    #[default]
    Keys,
    /// A size is typed for this channel, whose capacity is `now`.
    Size { channel: ChannelName, now: u64, typed: String },
    /// A request is sent if the answer to the question is yes.
    Confirm { question: String, request: Request, doing: String },
    /// A request is under way.
    Waiting { doing: String },
    /// What has become of it, until the next key.
    Outcome { text: String, is_bad: bool },
}

/// The order of channels, and of a channel's readers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Readers by their numbers.
    #[default]
    Name,
    /// The worst first.
    State,
    /// Messages per second, the most first.
    Rate,
    /// The fullest first; readers as by lag.
    Fill,
    /// Unread messages, the most first.
    Lag,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Sort::Name => Sort::State,
            Sort::State => Sort::Rate,
            Sort::Rate => Sort::Fill,
            Sort::Fill => Sort::Lag,
            Sort::Lag => Sort::Name,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Sort::Name => "name",
            Sort::State => "state",
            Sort::Rate => "rate",
            Sort::Fill => "fill",
            Sort::Lag => "lag",
        }
    }
}

impl Control {
    /// The channels in order.
    pub(super) fn channels<'f>(&self, figures: &'f Figures) -> Vec<&'f Channel> {
        let mut channels: Vec<_> = figures.channels.iter().collect();
        channels.sort_by(|a, b| a.stat.channel.cmp(&b.stat.channel));
        match self.sort {
            Sort::Name => {}
            Sort::State => channels.sort_by_key(|channel| Condition::of(&channel.stat)),
            Sort::Rate => channels.sort_by(|a, b| rate(b).total_cmp(&rate(a))),
            Sort::Fill => channels.sort_by(|a, b| fill(b).total_cmp(&fill(a))),
            Sort::Lag => channels.sort_by_key(|channel| Reverse(lag(channel))),
        }
        channels
    }

    /// A channel's readers in order.
    pub(super) fn readers<'f>(&self, channel: &'f Channel) -> Vec<&'f Reader> {
        let mut readers: Vec<_> = channel.readers.iter().collect();
        readers.sort_by_key(|reader| reader.stat.reader);
        match self.sort {
            Sort::Name => {}
            Sort::State => readers.sort_by_key(|reader| !is_in_trouble(reader)),
            Sort::Rate => readers.sort_by(|a, b| b.rate.unwrap_or(0.0).total_cmp(&a.rate.unwrap_or(0.0))),
            Sort::Fill | Sort::Lag => {
                readers.sort_by_key(|reader| Reverse((reader.stat.lag_messages, reader.stat.lag_bytes)));
            }
        }
        readers
    }

    /// The chosen channel, with its place in the order.
    pub(super) fn chosen<'f>(&self, figures: &'f Figures) -> Option<(usize, &'f Channel)> {
        let channels = self.channels(figures);
        let is_it = |channel: &&Channel| Some(&channel.stat.channel) == self.channel.as_ref();
        let place = channels.iter().position(is_it).unwrap_or(0);
        channels.get(place).map(|channel| (place, *channel))
    }

    /// The chosen reader of a channel, with its place in the order.
    pub(super) fn chosen_reader<'f>(&self, channel: &'f Channel) -> Option<(usize, &'f Reader)> {
        let readers = self.readers(channel);
        let place = |number: u32| readers.iter().position(|reader| reader.stat.reader == number);
        let culprit = || channel.held.as_ref().and_then(|held| held.reader).and_then(place);
        let place = self.reader.and_then(place).or_else(culprit).unwrap_or(0);
        readers.get(place).map(|reader| (place, *reader))
    }
}

fn rate(channel: &Channel) -> f64 {
    channel.rate.map_or(0.0, |rate| rate.messages_per_s)
}

fn fill(channel: &Channel) -> f64 {
    channel.stat.used as f64 / channel.stat.capacity.max(1) as f64
}

fn lag(channel: &Channel) -> u64 {
    channel.readers.iter().map(|reader| reader.stat.lag_messages).max().unwrap_or(0)
}

fn is_in_trouble(reader: &Reader) -> bool {
    crate::condition::colour_of(reader.stat.state.as_str()).is_some()
}

#[cfg(test)]
mod tests {
    use super::super::figures::tests::{after, channel, full, reader};
    use super::*;

    fn figures() -> Figures {
        let look = |messages: u64| {
            let (mut a, mut b) = (channel("a", 10), channel("b", 2 * messages));
            a.readers.push(reader(9, 10, 0));
            (b.used, b.capacity) = (500, 1000);
            b.readers.extend([reader(2, 10, 7), reader(1, 11, 5)]);
            vec![b, full("c", messages, reader(3, 1, 2)), a]
        };
        after([look(100), look(200)])
    }

    fn names(sort: Sort) -> String {
        let control = Control { sort, ..Control::default() };
        let figures = figures();
        control.channels(&figures).iter().map(|channel| channel.stat.channel.as_str()).collect()
    }

    #[test]
    fn channels_have_the_order_that_was_chosen_and_their_names_decide_between_equals() {
        for (sort, order) in
            [(Sort::Name, "abc"), (Sort::State, "cab"), (Sort::Rate, "bca"), (Sort::Fill, "cba"), (Sort::Lag, "bca")]
        {
            assert_eq!(names(sort), order, "{sort:?}");
        }
        let mut sort = Sort::default();
        let words: Vec<_> = (0..5).map(|_| (sort.word(), sort = sort.next()).0).collect();
        assert_eq!((words.join(" ").as_str(), sort), ("name state rate fill lag", Sort::default()));
    }

    #[test]
    fn readers_have_it_too() {
        let figures = figures();
        let order = |sort| {
            let control = Control { sort, channel: Some("b".parse().unwrap()), ..Control::default() };
            let channel = control.chosen(&figures).unwrap().1;
            control.readers(channel).iter().map(|reader| reader.stat.reader).collect::<Vec<_>>()
        };
        assert_eq!([order(Sort::Name), order(Sort::Lag)], [[1, 2], [2, 1]]);
    }

    #[test]
    fn a_choice_stays_with_its_name_and_without_one_the_culprit_is_chosen() {
        let figures = figures();
        let mut control = Control { channel: Some("c".parse().unwrap()), ..Control::default() };
        for (sort, place) in [(Sort::Name, 2), (Sort::State, 0), (Sort::Rate, 1)] {
            control.sort = sort;
            assert_eq!(control.chosen(&figures).unwrap().0, place);
        }
        assert_eq!(control.chosen_reader(control.chosen(&figures).unwrap().1).unwrap().1.stat.reader, 3);
        // A channel that has gone.
        control.channel = Some("gone".parse().unwrap());
        control.sort = Sort::Name;
        assert_eq!(control.chosen(&figures).unwrap().1.stat.channel.as_str(), "a");
        assert!(control.chosen(&after([])).is_none());
    }
}
