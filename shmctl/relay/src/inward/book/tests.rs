use proptest::prelude::*;

use super::*;

const MARK: Mark = Mark { stream_seq: 3, lineage: 0xab, seq: 100, ring: 0xcd, ring_seq: 7 };

#[test]
fn a_mark_is_read_as_it_was_written() {
    assert_eq!(MARK.to_string(), "shmd-relay 1 3 00000000000000ab 100 00000000000000cd 7");
    assert_eq!(MARK.to_string().parse(), Ok(MARK));
    for other in
        ["", "my consumer", "shmd-relay 2 3 ab 100 cd 7", "shmd-relay 1 3 ab 100 cd", "shmd-relay 1 3 zz 1 cd 7"]
    {
        assert_eq!(other.parse::<Mark>(), Err(NoMark), "{other:?}");
    }
}

#[test]
fn the_number_of_messages_in_the_channel_says_where_to_go_on() {
    let mut book = Book::new(Some(MARK));
    assert_eq!(book.attached(0xcd, 12, false), Attached::GoesOn);
    assert_eq!((book.first(), book.next()), (3, Some((0xab, 105))));
    assert_eq!(book.judge(5, 0xab, 104), Step::Skip);
    assert_eq!(book.judge(5, 0xab, 105), Step::Publish);
    book.published(12);
    assert_eq!(book.judge(5, 0xab, 105), Step::Skip);
    let mark = Mark { stream_seq: 6, lineage: 0xab, seq: 110, ring: 0xcd, ring_seq: 13 };
    assert_eq!(book.judge(6, 0xab, 110), Step::Mark { mark, missing: 4 });
    let mark = Mark { stream_seq: 6, lineage: 0xef, seq: 0, ring: 0xcd, ring_seq: 13 };
    assert_eq!(book.judge(6, 0xef, 0), Step::Mark { mark, missing: 0 });
}

#[test]
fn a_new_segment_and_foreign_messages_need_another_mark() {
    let mut book = Book::new(Some(MARK));
    assert_eq!(book.attached(0x11, 0, false), Attached::Anew);
    assert_eq!(book.next(), None, "nobody knows what is in the segment that is gone");
    let mut book = Book::new(Some(MARK));
    assert_eq!(book.attached(0xcd, 5, false), Attached::Foreign);
    let mut book = Book::new(Some(MARK));
    book.attached(0xcd, 12, false);
    assert!(book.is_plausible(0xab, 105) && book.is_plausible(0xff, 1) && !book.is_plausible(0xab, 104));
    assert!(matches!(book.judge(5, 0xab, 101), Step::Mark { missing: 0, .. }));
}

#[test]
fn a_relay_that_lives_knows_what_it_has_published() {
    let mut book = Book::new(Some(MARK));
    book.attached(0xcd, 7, false);
    book.published(7);
    assert_eq!(book.attached(0xcd, 8, true), Attached::GoesOn);
    assert_eq!(book.judge(4, 0xab, 101), Step::Publish);
    assert_eq!(book.attached(0xcd, 9, true), Attached::GoesOn);
    assert_eq!(book.judge(4, 0xab, 101), Step::Skip);
    assert_eq!(book.attached(0x11, 0, true), Attached::Anew);
    let mark = Mark { stream_seq: 4, lineage: 0xab, seq: 102, ring: 0x11, ring_seq: 0 };
    assert_eq!(book.judge(4, 0xab, 102), Step::Mark { mark, missing: 0 });
    book.marked(mark);
    assert_eq!(book.attached(0x11, 3, false), Attached::Foreign);
    assert!(matches!(book.judge(4, 0xab, 102), Step::Mark { mark: Mark { ring_seq: 3, .. }, missing: 0 }));
}

proptest! {
    /// A source with gaps and new instances is published to a channel that now and then drops a message. The relay is killed before
    /// or after any step, and each time the next one begins anew with what is stored. The channel gets each message once.
    #[test]
    fn whenever_it_is_killed_the_channel_gets_each_message_once(
        source in prop::collection::vec((prop::bool::weighted(0.1), prop_oneof![8 => Just(0u64), 1 => 1u64..5]), 1..60),
        drops in prop::collection::vec(prop::bool::weighted(0.1), 60),
        kills in prop::collection::vec(prop::bool::weighted(0.2), 400),
        acknowledged in any::<prop::sample::Index>(),
    ) {
        let mut messages = Vec::new();
        let (mut lineage, mut seq) = (1, 0);
        for (is_new, gap) in source {
            if is_new {
                (lineage, seq) = (lineage + 1, 0);
            }
            seq += gap;
            messages.push((lineage, seq));
            seq += 1;
        }
        let (mut ring, mut stored, mut kills, mut is_dropped) = (Vec::new(), None, kills.into_iter(), vec![false; 60]);
        let mut killed = || kills.next().unwrap_or(false);
        'relay: loop {
            let mut book = Book::new(stored);
            book.attached(9, ring.len() as u64, false);
            // What is acknowledged is not given again, but acknowledgements may be late.
            let from = book.first().min(acknowledged.index(messages.len()) as u64);
            for (at, (lineage, seq)) in messages.iter().copied().enumerate().skip(from as usize) {
                if (at as u64) < book.first() {
                    continue;
                }
                match book.judge(at as u64, lineage, seq) {
                    Step::Skip => continue,
                    Step::Publish => {}
                    Step::Mark { mark, .. } => {
                        if killed() { continue 'relay }
                        stored = Some(mark);
                        if killed() { continue 'relay }
                        book.marked(mark);
                    }
                }
                if drops[at] && !is_dropped[at] {
                    is_dropped[at] = true;
                    book.dropped();
                    continue;
                }
                ring.push((lineage, seq));
                if killed() { continue 'relay }
                book.published(ring.len() as u64 - 1);
            }
            break;
        }
        // A relay that is killed after a drop may still publish the message.
        let mut wanted = messages.clone();
        wanted.retain(|message| ring.contains(message) || !is_dropped[messages.iter().position(|m| m == message).unwrap()]);
        prop_assert_eq!(ring, wanted);
    }
}
