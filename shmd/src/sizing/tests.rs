use super::waiters::{HELP_COMES, HELPED_REPLY, SHRINK_REPLY};
use super::*;
use crate::policy::PAGE;
use proptest::prelude::*;
use std::collections::VecDeque;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BOUNDS: Bounds = Bounds { min: 64 * KIB, max: 4 * MIB };
const PLENTY: &Free = &Free::UNLIMITED;

fn channel(writer: bool) -> Sizing {
    let mut sizing = Sizing::new(BOUNDS, MIB);
    sizing.writer(Instant::now(), writer);
    sizing
}

#[test]
fn a_size_outside_the_bounds_is_refused_with_both_of_them() {
    let out = channel(true).ask(Instant::now(), 7, 1 << 30, PLENTY);
    let [Action::Refuse { client: 7, kind: ErrorKind::OutOfRange, message }] = &out[..] else { panic!("{out:?}") };
    assert_eq!(message, "asked 1GiB, allowed 64KiB to 4MiB: the channel's min and max");
}

#[test]
fn a_growth_tells_the_writer_after_every_step_and_answers_at_the_end() {
    let mut sizing = channel(true);
    let now = Instant::now();
    assert_eq!(sizing.ask(now, 1, 3 * MIB, PLENTY), [Action::Reserve { from: MIB, to: 3 * MIB }]);
    assert_eq!(sizing.pending(), Some(3 * MIB));
    assert_eq!(sizing.reserved(2 * MIB), [Action::Tell(ToWriter::Grown { capacity: 2 * MIB, done: false })]);
    assert_eq!(
        sizing.finished(now, PLENTY),
        [
            Action::Tell(ToWriter::Grown { capacity: 3 * MIB, done: true }),
            Action::Grew { old: MIB, new: 3 * MIB, by: By::Operator },
            Action::Done { client: 1, old: MIB, asked: 3 * MIB, new: 3 * MIB, pending: false },
        ]
    );
    assert_eq!((sizing.capacity(), sizing.pending()), (3 * MIB, None));
}

#[test]
fn a_failed_growth_gives_back_what_was_not_announced_and_is_not_tried_again_for_a_second() {
    let mut sizing = channel(true);
    let now = Instant::now();
    assert_eq!(sizing.writer_asks(now, MIB + 1, PLENTY), [Action::Reserve { from: MIB, to: 2 * MIB }]);
    let out = sizing.failed(now, "No space left on device", &Free::in_shm(4096));
    let [
        Action::Cut { to: MIB, after: None },
        Action::NotGrown { asked, reason },
        Action::Tell(ToWriter::NotGrown { .. }),
    ] = &out[..]
    else {
        panic!("{out:?}")
    };
    assert_eq!(*asked, 2 * MIB);
    assert!(reason.contains("asked 2MiB, present 1MiB, free 4KiB"), "{reason}");
    assert!(matches!(sizing.writer_asks(now, MIB + 1, PLENTY)[..], [Action::Tell(ToWriter::NotGrown { .. })]));
    assert!(matches!(sizing.writer_asks(now + RETRY_AFTER, MIB + 1, PLENTY)[..], [Action::Reserve { .. }]));
}

#[test]
fn an_operators_failed_growth_does_not_keep_the_writer_from_a_smaller_one() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.ask(now, 1, 4 * MIB, PLENTY);
    assert_eq!(sizing.writer_asks(now, MIB + 1, PLENTY), []);
    let out = sizing.failed(now, "killed", &Free::in_shm(2 * MIB));
    assert_eq!(out.last(), Some(&Action::Reserve { from: MIB, to: 2 * MIB }), "{out:?}");
}

#[test]
fn a_wish_that_another_growth_has_met_meanwhile_is_granted_and_grows_nothing() {
    for grown in [2 * MIB, BOUNDS.max] {
        let mut sizing = channel(true);
        let now = Instant::now();
        sizing.ask(now, 1, grown, PLENTY);
        sizing.finished(now, PLENTY);
        let out = sizing.writer_asks(now, MIB + 1, PLENTY);
        assert_eq!(out, [Action::Tell(ToWriter::Grown { capacity: grown, done: false })]);
    }
}

#[test]
fn a_refusal_is_forgotten_when_the_channel_has_become_smaller() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.writer_asks(now, MIB + 1, PLENTY);
    sizing.failed(now, "No space left on device", &Free::in_shm(0));
    sizing.ask(now, 1, 64 * KIB, PLENTY);
    sizing.shrunk(1, 9);
    assert!(matches!(sizing.writer_asks(now, MIB, PLENTY)[..], [Action::Reserve { .. }]));
}

#[test]
fn growth_that_cannot_fit_is_refused_before_any_memory_is_taken() {
    let out = channel(false).ask(Instant::now(), 1, 2 * MIB, &Free::in_shm(MIB / 2));
    assert!(matches!(&out[..], [Action::Refuse { kind: ErrorKind::NoSpace, .. }, Action::NotGrown { .. }]), "{out:?}");
}

#[test]
fn a_shrink_is_answered_when_the_writer_is_below() {
    let mut sizing = channel(true);
    let now = Instant::now();
    let target = 64 * KIB;
    assert_eq!(
        sizing.ask(now, 1, target, PLENTY),
        [Action::Tell(ToWriter::Shrink { capacity: target, id: 1, yields: false })]
    );
    assert_eq!(
        sizing.shrunk(1, 9),
        [
            Action::Cut { to: target, after: Some(9) },
            Action::Shrank { old: MIB, new: target, by: By::Operator },
            Action::Done { client: 1, old: MIB, asked: target, new: target, pending: false },
        ]
    );
}

#[test]
fn a_shrink_that_has_to_wait_for_readers_is_answered_as_pending() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.ask(now, 1, 64 * KIB, PLENTY);
    assert_eq!(sizing.deadline(), Some(now + SHRINK_REPLY));
    assert_eq!(
        sizing.tick(now + SHRINK_REPLY, PLENTY),
        [Action::Done { client: 1, old: MIB, asked: 64 * KIB, new: 64 * KIB, pending: true }]
    );
    assert_eq!((sizing.capacity(), sizing.pending()), (MIB, Some(64 * KIB)));
}

#[test]
fn a_shrink_without_a_writer_waits_for_the_next_one() {
    let mut sizing = channel(false);
    let now = Instant::now();
    let out = sizing.ask(now, 1, 64 * KIB, PLENTY);
    assert!(matches!(out[..], [Action::Done { pending: true, .. }]), "{out:?}");
    assert_eq!(sizing.writer(now, true), [Action::Tell(ToWriter::Shrink { capacity: 64 * KIB, id: 1, yields: false })]);
}

#[test]
fn a_shrink_waits_longer_for_a_writer_that_is_being_started() {
    let mut sizing = channel(false);
    let now = Instant::now();
    sizing.expect_writer();
    assert_eq!(sizing.ask(now, 1, 64 * KIB, PLENTY), []);
    assert_eq!(sizing.deadline(), Some(now + HELP_COMES));
    assert_eq!(sizing.tick(now + SHRINK_REPLY * 2, PLENTY), []);
    // It has come, and the time that the readers have begins.
    let came = now + HELP_COMES / 2;
    sizing.writer(came, true);
    let pending = [Action::Done { client: 1, old: MIB, asked: 64 * KIB, new: 64 * KIB, pending: true }];
    assert_eq!(sizing.tick(came + HELPED_REPLY / 2, PLENTY), []);
    assert_eq!(sizing.tick(came + HELPED_REPLY, PLENTY), pending);

    let mut sizing = channel(false);
    sizing.expect_writer();
    sizing.ask(now, 1, 64 * KIB, PLENTY);
    assert_eq!(sizing.expect_nobody(), pending);
    assert_eq!(sizing.pending(), Some(64 * KIB));
}

#[test]
fn a_pressed_writer_takes_back_a_policy_shrink_at_once_and_an_operators_after_a_while() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.low_use(now, 64 * KIB);
    let out = sizing.writer_asks(now, MIB, PLENTY);
    assert_eq!(out, [Action::Tell(ToWriter::Grown { capacity: MIB, done: false })]);

    sizing.ask(now, 1, 128 * KIB, PLENTY);
    assert_eq!(sizing.writer_asks(now, MIB, PLENTY), []);
    assert_eq!(sizing.pending(), Some(128 * KIB));
    let out = sizing.tick(now + SHRINK_HOLD, PLENTY);
    assert!(out.contains(&Action::Tell(ToWriter::Grown { capacity: MIB, done: false })), "{out:?}");
    assert_eq!(sizing.pending(), None);
}

#[test]
fn a_wish_during_an_operators_shrink_is_put_again_at_the_new_size() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.ask(now, 1, 64 * KIB, PLENTY);
    sizing.writer_asks(now, MIB + 1, PLENTY);
    let out = sizing.shrunk(1, 9);
    assert_eq!(out.last(), Some(&Action::Tell(ToWriter::Grown { capacity: 64 * KIB, done: false })));
    assert_eq!(sizing.capacity(), 64 * KIB);
}

#[test]
fn a_later_request_replaces_an_earlier_one_and_says_so() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.ask(now, 1, 4 * MIB, PLENTY);
    sizing.reserved(2 * MIB);
    let out = sizing.ask(now, 2, 64 * KIB, PLENTY);
    // The writer may have asked for the growth, and would wait for an answer.
    assert_eq!(out[0], Action::Tell(ToWriter::Grown { capacity: 2 * MIB, done: false }));
    assert_eq!(out[1], Action::CancelReservation);
    assert_eq!(out[2], Action::Cut { to: 2 * MIB, after: None });
    assert!(matches!(&out[4], Action::Refuse { client: 1, kind: ErrorKind::Busy, .. }), "{out:?}");
    assert_eq!(sizing.pending(), Some(64 * KIB));
}

#[test]
fn the_report_of_a_shrink_taken_back_is_not_mistaken_for_the_next_one() {
    let mut sizing = channel(true);
    let now = Instant::now();
    sizing.low_use(now, 64 * KIB);
    sizing.writer_asks(now, MIB, PLENTY);
    let out = sizing.ask(now, 1, 64 * KIB, PLENTY);
    assert_eq!(out, [Action::Tell(ToWriter::Shrink { capacity: 64 * KIB, id: 2, yields: false })]);
    assert_eq!(sizing.shrunk(1, 9), [], "the first shrink's report");
    assert_eq!(sizing.capacity(), MIB);
    assert!(sizing.shrunk(2, 9).contains(&Action::Cut { to: 64 * KIB, after: Some(9) }));
}

#[test]
fn a_new_segment_grows_to_the_size_that_the_old_one_had_or_was_to_have() {
    let (now, small) = (Instant::now(), 256 * KIB);
    let grow_to = |to| Action::Reserve { from: small, to };
    let mut sizing = channel(false);
    assert_eq!(sizing.replaced(now, small, MIB, PLENTY), [grow_to(MIB)]);
    assert_eq!((sizing.capacity(), sizing.pending()), (small, Some(MIB)));
    // In the middle of a growth.
    let mut sizing = channel(false);
    sizing.ask(now, 1, 3 * MIB, PLENTY);
    assert_eq!(sizing.replaced(now, small, 3 * MIB, PLENTY), [Action::CancelReservation, grow_to(3 * MIB)]);
    let out = sizing.finished(now, PLENTY);
    assert!(
        out.contains(&Action::Done { client: 1, old: MIB, asked: 3 * MIB, new: 3 * MIB, pending: false }),
        "{out:?}"
    );
    // In the middle of a shrink, which is done by that.
    let mut sizing = channel(true);
    sizing.ask(now, 1, 64 * KIB, PLENTY);
    sizing.writer(now, false);
    let out = sizing.replaced(now, 64 * KIB, 64 * KIB, PLENTY);
    let [Action::Shrank { old: MIB, .. }, Action::Done { client: 1, pending: false, .. }] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!((sizing.capacity(), sizing.pending()), (64 * KIB, None));
    // Without memory it stays small, and the next writer asks for more.
    let mut sizing = channel(false);
    assert!(matches!(
        &sizing.replaced(now, small, MIB, &Free::in_shm(4096))[..],
        [Action::NotGrown { asked: MIB, .. }]
    ));
    assert_eq!((sizing.capacity(), sizing.pending()), (small, None));
}

/// A writer that reads its link in order, late, and reports a shrink when its readers let it.
#[derive(Default)]
struct Model {
    limit: u64,
    target: Option<(u64, u32)>,
    to_writer: VecDeque<ToWriter>,
    to_daemon: VecDeque<u32>,
    reserved: u64,
    job: Option<(u64, u64)>,
    answered: Vec<ClientId>,
}

impl Model {
    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Tell(line) => self.to_writer.push_back(line),
                Action::Reserve { from, to } => {
                    assert!(self.job.is_none() && from < to && to <= BOUNDS.max);
                    self.job = Some((from, to));
                }
                Action::CancelReservation => self.job = None,
                Action::Cut { to, .. } => {
                    assert!(self.limit <= to, "cut to {to} under a writer that may use {}", self.limit);
                    for line in &self.to_writer {
                        if let ToWriter::Grown { capacity, .. } = line {
                            assert!(*capacity <= to, "cut to {to} with a promise of {capacity} on its way");
                        }
                    }
                    self.reserved = to;
                    self.job = None;
                }
                Action::Done { client, .. } | Action::Refuse { client, .. } => {
                    assert!(!self.answered.contains(&client), "answered twice");
                    self.answered.push(client);
                }
                Action::Grew { .. } | Action::NotGrown { .. } | Action::Shrank { .. } => {}
            }
        }
    }

    /// A new segment with so much memory, and a writer that is told of it.
    fn move_on(&mut self, capacity: u64) {
        let answered = std::mem::take(&mut self.answered);
        *self = Model { limit: capacity, reserved: capacity, answered, ..Model::default() };
    }

    fn writer_step(&mut self) {
        match self.to_writer.pop_front() {
            Some(ToWriter::Grown { capacity, .. }) => {
                assert!(capacity <= self.reserved, "promised {capacity}, there are {}", self.reserved);
                self.limit = capacity;
                self.target = None;
            }
            Some(ToWriter::Shrink { capacity, id, .. }) => self.target = Some((capacity, id)),
            _ => {}
        }
    }

    fn readers_pass(&mut self) {
        if let Some((target, id)) = self.target.take() {
            self.limit = target;
            self.to_daemon.push_back(id);
        }
    }
}

proptest! {
    #[test]
    fn no_memory_is_ever_cut_under_a_writer_and_every_request_is_answered_once(
        steps in proptest::collection::vec((0u8..10, 0u64..80), 1..120)
    ) {
        let mut sizing = channel(true);
        let mut model = Model { limit: MIB, reserved: MIB, ..Model::default() };
        let mut now = Instant::now();
        let mut asked = 0;
        for (kind, n) in steps {
            let actions = match kind {
                0 => {
                    asked += 1;
                    sizing.ask(now, asked, n * 64 * KIB, PLENTY)
                }
                1 => sizing.writer_asks(now, n * 64 * KIB, PLENTY),
                2 => sizing.low_use(now, BOUNDS.min.max(sizing.capacity() / 2)),
                3 => { model.writer_step(); Vec::new() }
                4 => { model.readers_pass(); Vec::new() }
                5 => model.to_daemon.pop_front().map_or_else(Vec::new, |id| sizing.shrunk(id, 9)),
                6 => match model.job {
                    Some((from, to)) if n % 2 == 0 => {
                        let half = from + (to - from) / 2 / PAGE * PAGE;
                        model.reserved = model.reserved.max(half);
                        model.job = Some((half, to));
                        sizing.reserved(half)
                    }
                    Some((_, to)) => {
                        model.reserved = model.reserved.max(to);
                        model.job = None;
                        sizing.finished(now, PLENTY)
                    }
                    None => Vec::new(),
                },
                7 if model.job.is_some() => sizing.failed(now, "no", &Free::in_shm(0)),
                8 => {
                    // Another writer, and another segment.
                    sizing.writer(now, false);
                    let goal = sizing.pending().unwrap_or(sizing.capacity());
                    model.move_on((128 * KIB).min(goal));
                    let mut actions = sizing.replaced(now, (128 * KIB).min(goal), goal, PLENTY);
                    actions.extend(sizing.writer(now, true));
                    actions
                }
                _ => {
                    now += Duration::from_millis(n * 10);
                    sizing.tick(now, PLENTY)
                }
            };
            model.apply(actions);
            prop_assert!(sizing.capacity() <= model.reserved);
        }
        for _ in 0..300 {
            while !model.to_writer.is_empty() { model.writer_step(); }
            model.readers_pass();
            while let Some(id) = model.to_daemon.pop_front() {
                let actions = sizing.shrunk(id, 9);
                model.apply(actions);
            }
            if let Some((_, to)) = model.job.take() {
                model.reserved = to;
                let actions = sizing.finished(now, PLENTY);
                model.apply(actions);
            }
            now += SHRINK_REPLY;
            let actions = sizing.tick(now, PLENTY);
            model.apply(actions);
        }
        prop_assert_eq!(model.answered.len() as u64, asked);
        prop_assert_eq!(sizing.pending(), None);
        prop_assert_eq!(sizing.capacity(), model.limit);
    }
}
