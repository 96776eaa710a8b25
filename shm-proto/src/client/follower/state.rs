//! What a follower does when an attachment begins, fails or ends: a pure state machine, `(state, event) -> (state, action)`.

use std::time::Duration;

use crate::ring::geometry::Start;

/// The pause before the first attempt to attach again. Each further pause is twice as long.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The longest pause, unless the daemon asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A daemon that asks for a longer pause than this is asked again nevertheless.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Whether attaching again may succeed after an attachment has failed or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Return {
    /// It may.
    Possible,
    /// It may if there was an attachment before. Otherwise the name of the channel is probably wrong.
    IfKnown,
    /// It fails in the same way.
    Never,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A ring was attached. Its reader stands at message `seq`.
    Ring { lineage: u64, seq: u64 },
    /// A handoff channel was attached. Its messages have no numbers.
    Handoff,
    /// The attachment has ended, or attaching has failed. `next`: the message that a ring's reader would have received next.
    Ended { back: Return, retry_after: Option<Duration>, next: Option<u64> },
    /// The reader has found its segment broken, at message `seq`, and the daemon may replace the segment.
    Broken { instance: u64, seq: u64 },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Receive from where the attachment has begun.
    Begin,
    /// Receive message `next` and what follows. Pass over earlier messages, and count later ones that are missing as lost.
    GoOn { next: u64 },
    /// Leave the attachment, and attach again after the pause. `tell`: the program does not know yet.
    Pause { pause: Duration, tell: bool },
    /// Keep the attachment, and tell the program that messages may be missing.
    Stay,
    /// Return the error to the program.
    Fail,
}

/// Where reading goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    /// Messages are numbered on from one segment to the next of the same lineage.
    lineage: u64,
    /// The number of the message to be received next.
    next: u64,
}

/// The state between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    follows: bool,
    start: Start,
    /// The next pause, if the daemon does not ask for a longer one.
    pause: Duration,
    /// `None` before the first attachment to a ring.
    place: Option<Place>,
    /// The instance and message at which a segment was found broken last.
    broken: Option<(u64, u64)>,
}

impl State {
    /// Before the first attachment, which begins at `start`.
    pub(super) fn new(start: Start) -> Self {
        State { follows: true, start, pause: SHORTEST_PAUSE, place: None, broken: None }
    }

    /// The first end of an attachment is the end.
    pub(super) fn once(self) -> Self {
        State { follows: false, ..self }
    }

    /// Where the next attachment begins. Whatever is in a segment that was not there before was published while this reading
    /// was going on.
    pub(super) fn start(&self) -> Start {
        if self.place.is_some() { Start::Oldest } else { self.start }
    }

    /// Whether a ring has been attached.
    pub(super) fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// What follows from an event.
    pub(super) fn after(self, event: Event) -> (Self, Action) {
        match event {
            Event::Handoff => (State { pause: SHORTEST_PAUSE, ..self }, Action::Begin),
            Event::Ring { lineage, seq } => {
                let known = self.place.filter(|place| place.lineage == lineage);
                let place = known.unwrap_or(Place { lineage, next: seq });
                let action = known.map_or(Action::Begin, |place| Action::GoOn { next: place.next });
                (State { pause: SHORTEST_PAUSE, place: Some(place), ..self }, action)
            }
            Event::Ended { back, retry_after, next } => self.ended(back, retry_after, next),
            // The daemon looks at a segment for which it gets this report. If the reader finds the same place broken once
            // more, the daemon has not replaced the segment.
            Event::Broken { instance, seq } => {
                let here = Some((instance, seq));
                let action = if self.broken == here { Action::Fail } else { Action::Stay };
                (State { broken: here, ..self }, action)
            }
        }
    }

    fn ended(self, back: Return, retry_after: Option<Duration>, next: Option<u64>) -> (Self, Action) {
        let may_return = match back {
            Return::Possible => true,
            Return::IfKnown => self.place.is_some(),
            Return::Never => false,
        };
        if !self.follows || !may_return {
            return (self, Action::Fail);
        }
        let asked = retry_after.unwrap_or_default().min(LONGEST_WAIT);
        let pause = asked.max(self.pause);
        let tell = self.pause == SHORTEST_PAUSE || asked >= LONGEST_PAUSE;
        let place = self.place.map(|place| Place { next: next.unwrap_or(place.next), ..place });
        let longer = (2 * self.pause).min(LONGEST_PAUSE);
        (State { pause: longer, place, ..self }, Action::Pause { pause, tell })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An end that may be followed by another attachment.
    const GONE: Event = Event::Ended { back: Return::Possible, retry_after: None, next: None };

    fn ended_before(next: u64) -> Event {
        Event::Ended { back: Return::Possible, retry_after: None, next: Some(next) }
    }

    /// The actions that follow from events.
    fn actions(mut state: State, events: &[Event]) -> Vec<Action> {
        let step = |event: &Event| {
            let (next, action) = state.after(*event);
            state = next;
            action
        };
        events.iter().map(step).collect()
    }

    fn pause(ms: u64, tell: bool) -> Action {
        Action::Pause { pause: Duration::from_millis(ms), tell }
    }

    #[test]
    fn pauses_double_up_to_a_second_and_the_program_is_told_once() {
        let told = actions(State::new(Start::New), &[GONE; 7]);
        let silent = [100, 200, 400, 800, 1000, 1000].map(|ms| pause(ms, false));
        assert_eq!(told[0], pause(50, true));
        assert_eq!(told[1..], silent);
    }

    #[test]
    fn an_attachment_makes_the_next_pause_short_again() {
        let ring = Event::Ring { lineage: 1, seq: 0 };
        for attached in [ring, Event::Handoff] {
            let told = actions(State::new(Start::New), &[GONE, GONE, attached, GONE]);
            assert_eq!(told[2..], [Action::Begin, pause(50, true)]);
        }
    }

    #[test]
    fn the_daemon_says_how_long_to_wait_and_no_longer_than_an_hour() {
        let refused = |ms| {
            let retry_after = Some(Duration::from_millis(ms));
            Event::Ended { back: Return::Possible, retry_after, next: None }
        };
        let told =
            actions(State::new(Start::New), &[GONE, refused(20), refused(999), refused(1500), refused(u64::MAX)]);
        let wanted = [pause(50, true), pause(100, false), pause(999, false), pause(1500, true), pause(3_600_000, true)];
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_name_that_is_unknown_is_a_mistake_before_the_first_attachment_only() {
        let unknown = Event::Ended { back: Return::IfKnown, retry_after: None, next: None };
        let told = actions(State::new(Start::New), &[unknown, Event::Ring { lineage: 1, seq: 7 }, unknown]);
        assert_eq!(told, [Action::Fail, Action::Begin, pause(50, true)]);
    }

    #[test]
    fn what_never_succeeds_is_not_tried_again_and_without_following_nothing_is() {
        let never = Event::Ended { back: Return::Never, retry_after: None, next: Some(3) };
        assert_eq!(actions(State::new(Start::New), &[never]), [Action::Fail]);
        assert_eq!(actions(State::new(Start::New).once(), &[GONE, Event::Handoff, GONE]).last(), Some(&Action::Fail));
    }

    #[test]
    fn a_lineage_goes_on_with_its_next_number_and_a_new_one_begins_at_its_oldest_message() {
        let events = [
            Event::Ring { lineage: 1, seq: 5 },
            ended_before(9),
            // Before it has received anything.
            GONE,
            Event::Ring { lineage: 1, seq: 2 },
            ended_before(12),
            Event::Ring { lineage: 2, seq: 0 },
            ended_before(4),
            Event::Ring { lineage: 2, seq: 6 },
        ];
        let told = actions(State::new(Start::New), &events);
        let begun: Vec<_> = told.into_iter().filter(|action| !matches!(action, Action::Pause { .. })).collect();
        assert_eq!(begun, [Action::Begin, Action::GoOn { next: 9 }, Action::Begin, Action::GoOn { next: 4 }]);
    }

    #[test]
    fn only_the_first_attachment_begins_where_the_program_said() {
        let new = State::new(Start::New);
        assert_eq!(new.start(), Start::New);
        assert_eq!(new.after(GONE).0.start(), Start::New);
        assert_eq!(new.after(Event::Ring { lineage: 1, seq: 5 }).0.start(), Start::Oldest);
    }

    #[test]
    fn a_broken_segment_is_waited_for_once() {
        let at = |instance, seq| Event::Broken { instance, seq };
        for state in [State::new(Start::New), State::new(Start::New).once()] {
            let told = actions(state, &[at(1, 7), at(2, 7), at(2, 9), at(2, 9)]);
            assert_eq!(told, [Action::Stay, Action::Stay, Action::Stay, Action::Fail]);
        }
    }
}
