use std::path::Path;

use proptest::prelude::*;
use shm_test_support::{TempDir, unique};

use super::*;
use crate::envelope::{Builder, Head, Part, part};

/// One message of 100 bytes, which takes 128.
fn envelope(seq: u64) -> Envelope {
    envelope_of(7, seq)
}

fn envelope_of(lineage: u64, seq: u64) -> Envelope {
    let mut builder = Builder::new(1000);
    builder.append(Head { lineage, seq, time: None }, |out| out.resize(out.len() + 100, seq as u8));
    Envelope::open(builder.finish().unwrap()).unwrap()
}

/// A third of message `seq`.
fn third(seq: u64, n: u64) -> Envelope {
    let bytes = part(&Head { lineage: 7, seq, time: None }, Part { offset: 40 * n, total: 120 }, 40, |_| {});
    Envelope::open(bytes).unwrap()
}

/// A queue with memory for four such messages. The link always stands still.
fn queue(policy: Policy) -> Queue {
    Queue::new(policy, 4 * 128, Duration::ZERO, Rc::new(Status::new("out", Some("cam"), "CAM")))
}

fn spool(dir: &Path, limit: u64) -> Policy {
    Policy::Spool(Box::new(Spool::open(dir, limit).unwrap()))
}

fn mark(queue: &Queue) -> u64 {
    queue.mark.borrow().map_or(0, |mark| mark.seq)
}

#[test]
fn a_full_queue_gives_envelopes_back_and_the_channel_forgets_what_is_released() {
    let queue = queue(Policy::Wait);
    let refused: Vec<_> = (0..6).map(|seq| queue.offer(envelope(seq)).is_some()).collect();
    assert_eq!(refused, [false, false, false, false, true, true]);
    for seq in 0..3 {
        assert_eq!(queue.peek().unwrap().unwrap(), envelope(seq));
        queue.take();
    }
    assert_eq!(mark(&queue), 0);
    queue.release(2);
    assert_eq!(mark(&queue), 2);
    queue.rewind("the link was lost");
    assert_eq!(queue.peek().unwrap().unwrap(), envelope(2));
    assert_eq!((queue.status.messages.get(), queue.status.bytes.get()), (2, 200));
}

#[test]
fn the_parts_of_a_message_stay_together() {
    let queue = queue(Policy::Drop);
    for seq in 0..3 {
        assert!(queue.offer(envelope(seq)).is_none());
    }
    // The first part fits, and so the others have to.
    assert!((0..3).all(|n| queue.offer(third(3, n)).is_none()));
    assert_eq!((queue.inner.borrow().memory.len(), queue.status.dropped.get()), (6, 0));
    // The first part of this one does not.
    assert!((0..3).all(|n| queue.offer(third(4, n)).is_none()));
    assert_eq!((queue.inner.borrow().memory.len(), queue.status.dropped.get(), mark(&queue)), (6, 1, 5));
    queue.release(5);
    assert_eq!(queue.status.messages.get(), 3, "a message counts when all of its parts are there");
    queue.release(1);
    assert_eq!(queue.status.messages.get(), 4);
}

/// With the mark at the instance of before, nobody would hold the present one.
#[test]
fn what_is_released_after_others_were_dropped_does_not_take_the_mark_back_to_another_instance() {
    let queue = queue(Policy::Drop);
    (0..4).for_each(|seq| assert!(queue.offer(envelope(seq)).is_none()));
    assert!(queue.offer(envelope_of(8, 0)).is_none());
    let mark = || *queue.mark.borrow();
    assert_eq!((queue.status.dropped.get(), mark()), (1, Some(Mark { lineage: 8, seq: 1 })));
    queue.release(3);
    assert_eq!(mark(), Some(Mark { lineage: 8, seq: 1 }));
    assert!(queue.offer(envelope_of(8, 1)).is_none());
    queue.release(2);
    assert_eq!(mark(), Some(Mark { lineage: 8, seq: 2 }));
}

#[test]
fn a_spool_is_sent_before_what_the_channel_still_has() {
    let dir = TempDir::named(&unique("queue"));
    let first = queue(spool(&dir, 1 << 20));
    for seq in 0..10 {
        assert!(first.offer(envelope(seq)).is_none());
    }
    assert_eq!(mark(&first), 10, "the channel may forget what is in the spool");
    assert!(first.is_safe());
    drop(first);
    // A relay that is started again reads the channel from its oldest message on.
    let second = queue(spool(&dir, 1 << 20));
    assert_eq!(mark(&second), 10);
    for seq in 5..12 {
        assert!(second.offer(envelope(seq)).is_none());
    }
    for seq in 0..12 {
        assert_eq!(second.peek().unwrap().unwrap(), envelope(seq));
        second.take();
        second.release(1);
    }
    assert!(second.peek().unwrap().is_none());
    assert_eq!((second.status.spooled.get(), mark(&second)), (0, 12));
}

#[test]
fn a_message_comes_out_of_the_spool_whole_even_if_its_parts_are_more_than_memory_holds() {
    let dir = TempDir::named(&unique("queue"));
    let first = queue(spool(&dir, 1 << 20));
    (0..4).for_each(|seq| assert!(first.offer(envelope(seq)).is_none()));
    assert!((0..3).all(|n| first.offer(third(4, n)).is_none()));
    drop(first);
    let second = Queue::new(spool(&dir, 1 << 20), 1, Duration::ZERO, Rc::new(Status::new("out", None, "CAM")));
    for _ in 0..4 {
        assert!(second.peek().unwrap().is_some());
        second.take();
        assert!(second.peek().unwrap().is_none(), "memory is full");
        second.release(1);
    }
    for n in 0..3 {
        assert_eq!(second.peek().unwrap().unwrap(), third(4, n));
        second.take();
    }
    second.release(3);
    assert!(second.peek().unwrap().is_none());
}

proptest! {
    /// Whatever is offered, sent, released and sent again, with whatever policy: what is released was offered, in order and once,
    /// except what was dropped, and the channel keeps everything that is nowhere else.
    #[test]
    fn order_is_kept_and_nothing_is_forgotten(
        steps in prop::collection::vec(0u8..8, 1..200),
        policy in 0u8..3,
        limit in prop_oneof![Just(300u64), Just(1500), Just(1 << 20)],
    ) {
        let dir = TempDir::named(&unique("queue"));
        let make = || match policy {
            0 => Policy::Wait,
            1 => Policy::Drop,
            _ => spool(&dir, limit),
        };
        let mut queue = queue(make());
        let (mut next, mut taken, mut released) = (0, 0, Vec::new());
        for step in steps {
            match step {
                0..=3 => next += u64::from(queue.offer(envelope(next)).is_none()),
                4 | 5 => {
                    if queue.peek().unwrap().is_some() {
                        queue.take();
                        taken += 1;
                    }
                }
                6 => {
                    if taken > 0 {
                        released.push(queue.inner.borrow().memory[0].envelope.start().seq);
                        queue.release(1);
                        taken -= 1;
                    }
                }
                _ => {
                    queue.rewind("");
                    taken = 0;
                }
            }
            let kept: Vec<u64> = queue.inner.borrow().memory.iter().map(|entry| entry.envelope.start().seq).collect();
            prop_assert!(kept.is_sorted());
            if policy == 0 {
                prop_assert_eq!(mark(&queue), released.len() as u64);
            }
        }
        if policy == 2 {
            // The relay is killed. The next one has the spool, and the channel from the mark on.
            let from = mark(&queue);
            drop(queue);
            queue = super::tests::queue(make());
            let again = (from.min(next)..next).find(|seq| queue.offer(envelope(*seq)).is_some()).unwrap_or(next);
            next = again;
        }
        queue.rewind("");
        while queue.peek().unwrap().is_some() {
            released.push(queue.inner.borrow().memory[0].envelope.start().seq);
            queue.take();
            queue.release(1);
        }
        released.dedup();
        if policy == 1 {
            prop_assert!(released.is_sorted());
            prop_assert_eq!(released.len() as u64 + queue.status.dropped.get(), next);
        } else {
            // After the death, envelopes of a file that has others come again, and the sender passes over them.
            let mut seen = Vec::new();
            for seq in released {
                if seen.last().is_none_or(|last| seq > *last) {
                    seen.push(seq);
                }
            }
            prop_assert_eq!(seen, (0..next).collect::<Vec<_>>());
        }
    }
}
