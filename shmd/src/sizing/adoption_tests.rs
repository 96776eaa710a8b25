use super::*;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BOUNDS: Bounds = Bounds { min: 64 * KIB, max: 4 * MIB };
const PLENTY: &Free = &Free::UNLIMITED;

#[test]
fn a_writer_that_lived_through_its_daemons_death_gets_the_shrink_again_unless_it_is_done() {
    let now = Instant::now();
    let left = || {
        let mut sizing = Sizing::new(BOUNDS, MIB);
        sizing.take_up_shrink(now, 64 * KIB, By::Operator);
        assert_eq!(sizing.pending(), Some(64 * KIB));
        sizing
    };
    let mut sizing = left();
    assert_eq!(sizing.resumed(2 * MIB), [Action::Cut { to: 2 * MIB, after: None }]);
    assert_eq!(sizing.writer(now, true), [Action::Tell(ToWriter::Shrink { capacity: 64 * KIB, id: 1, yields: false })]);
    assert_eq!((sizing.capacity(), sizing.wish()), (2 * MIB, Some((64 * KIB, By::Operator))));
    let mut sizing = left();
    let shrank = Action::Shrank { old: MIB, new: 64 * KIB, by: By::Operator };
    assert_eq!(sizing.resumed(64 * KIB), [Action::Cut { to: 64 * KIB, after: None }, shrank]);
    assert_eq!((sizing.writer(now, true), sizing.pending()), (Vec::new(), None));
}

#[test]
fn a_growth_of_a_dead_daemon_is_taken_up_unless_something_else_is_under_way() {
    let now = Instant::now();
    let mut sizing = Sizing::new(BOUNDS, MIB);
    let reserve = Action::Reserve { from: MIB, to: 3 * MIB };
    assert_eq!(sizing.take_up_growth(now, 3 * MIB, By::Writer, PLENTY), [reserve]);
    assert_eq!(sizing.take_up_growth(now, 4 * MIB, By::Writer, PLENTY), []);
    assert_eq!(sizing.wish(), Some((3 * MIB, By::Writer)));
    let mut sizing = Sizing::new(BOUNDS, MIB);
    assert_eq!(sizing.take_up_growth(now, MIB, By::Writer, PLENTY), []);
    for by in [By::Writer, By::LowUse, By::Operator, By::Move, By::Adoption] {
        assert_eq!(By::of_number(by.number()), Some(by));
    }
    assert_eq!(By::of_number(0), None);
}

#[test]
fn a_growth_whose_memory_is_there_is_not_pending_though_its_reservation_has_not_ended() {
    let now = Instant::now();
    let mut sizing = Sizing::new(BOUNDS, MIB);
    sizing.writer(now, true);
    sizing.ask(now, 1, 3 * MIB, PLENTY);
    assert_eq!(
        sizing.reserved(3 * MIB),
        [
            Action::Tell(ToWriter::Grown { capacity: 3 * MIB, done: true }),
            Action::Grew { old: MIB, new: 3 * MIB, by: By::Operator },
            Action::Done { client: 1, old: MIB, asked: 3 * MIB, new: 3 * MIB, pending: false },
        ]
    );
    assert_eq!((sizing.capacity(), sizing.pending(), sizing.wish(), sizing.growing()), (3 * MIB, None, None, true));
    assert_eq!(sizing.finished(now, PLENTY), [], "it is counted once");
    assert!(!sizing.growing());
}
