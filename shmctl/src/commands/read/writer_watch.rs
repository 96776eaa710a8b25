//! Detects that a handoff writer was killed: no message says so, and without a timeout the reader would wait silently.

use std::time::{Duration, Instant};

use shm_proto::internal::handoff::WriterSign;

/// The time between two looks while the writer holds its lock, and otherwise, when a look examines every process.
const NEAR: Duration = Duration::from_secs(1);
const FAR: Duration = Duration::from_secs(5);

/// What was seen of the writer.
#[derive(Debug, Default)]
pub(super) struct WriterWatch {
    seen: Option<WriterSign>,
    next: Option<Instant>,
    /// It was looked when a message came, and no writer has gone since.
    has_met: bool,
    told: bool,
}

impl WriterWatch {
    /// A message has come: there is a writer, or was a moment ago.
    pub(super) fn rest(&mut self) {
        self.told = false;
    }

    /// Whether this is the moment to say that the writer is gone, which is said once. `look` says what there is
    /// to be seen, or nothing without objects. Looks now and then while no message comes, and with the first message
    /// of a writer: an earlier look may have found no writer, and a later one may come after its death. A look that comes
    /// after its death, too, finds a message whose writer is nowhere.
    pub(super) fn notices(
        &mut self,
        now: Instant,
        has_message: bool,
        look: impl FnOnce() -> Option<WriterSign>,
    ) -> bool {
        let meets = has_message && !std::mem::replace(&mut self.has_met, true);
        if !meets && (has_message || self.next.is_some_and(|next| now < next)) {
            return false;
        }
        let sign = look();
        self.next = Some(now + if sign == Some(WriterSign::Lock) { NEAR } else { FAR });
        let before = self.seen;
        self.seen = sign.or(before);
        match (before, sign) {
            (_, Some(WriterSign::Lock)) => {
                self.told = false;
                return false;
            }
            // Its lock is gone, or nobody has the segment any more.
            (Some(WriterSign::Lock), Some(_)) | (Some(WriterSign::Mapped), Some(WriterSign::Nothing)) => {}
            (_, Some(WriterSign::Nothing)) if meets => {}
            _ => return false,
        }
        self.has_met = false;
        !std::mem::replace(&mut self.told, true)
    }
}

#[cfg(test)]
mod tests {
    use super::WriterSign::{Hidden, Lock, Mapped, Nothing};
    use super::*;

    /// At which of these looks something is said.
    fn told(signs: &[Option<WriterSign>]) -> Vec<usize> {
        let (mut watch, mut now) = (WriterWatch::default(), Instant::now());
        let mut at = Vec::new();
        for (number, &sign) in signs.iter().enumerate() {
            if watch.notices(now, false, || sign) {
                at.push(number);
            }
            now += FAR;
        }
        at
    }

    #[test]
    fn the_end_of_every_writer_is_told_once() {
        assert_eq!(told(&[None, Some(Lock), Some(Lock), Some(Nothing), Some(Nothing)]), [3]);
        // Other readers have the segment mapped as well.
        assert_eq!(told(&[Some(Lock), Some(Mapped), Some(Mapped), Some(Nothing)]), [1]);
        assert_eq!(told(&[Some(Lock), Some(Nothing), Some(Lock), Some(Nothing)]), [1, 3]);
        assert_eq!(told(&[Some(Mapped), Some(Nothing), None, Some(Nothing)]), [1]);
    }

    #[test]
    fn what_was_never_seen_has_not_gone() {
        assert!(told(&[None, Some(Nothing), Some(Nothing), None]).is_empty());
        assert!(told(&[Some(Nothing), Some(Mapped), Some(Mapped)]).is_empty());
    }

    #[test]
    fn it_is_looked_now_and_then() {
        let (mut watch, now) = (WriterWatch::default(), Instant::now());
        watch.notices(now, false, || Some(Lock));
        watch.notices(now + NEAR / 2, false, || unreachable!("too early"));
        assert!(watch.notices(now + NEAR, false, || Some(Nothing)));
        watch.rest();
        watch.notices(now + NEAR + FAR / 2, false, || unreachable!("too early"));
    }

    #[test]
    fn the_first_message_of_each_writer_shows_the_writer() {
        let (mut watch, now) = (WriterWatch::default(), Instant::now());
        assert!(!watch.notices(now, false, || None), "there are no objects yet");
        for writer in 1..3 {
            assert!(!watch.notices(now, true, || Some(Lock)));
            watch.rest();
            watch.notices(now, true, || unreachable!("its second message"));
            assert!(watch.notices(now + NEAR, false, || Some(Nothing)), "the death of writer {writer}");
        }
    }

    #[test]
    fn a_writer_that_is_dead_when_its_message_comes_is_gone_unless_it_may_be_hidden() {
        for (sign, is_gone) in [(Some(Nothing), true), (Some(Hidden), false), (Some(Mapped), false), (None, false)] {
            let (mut watch, now) = (WriterWatch::default(), Instant::now());
            assert!(!watch.notices(now, false, || None), "there are no objects yet");
            assert_eq!(watch.notices(now, true, || sign), is_gone, "{sign:?}");
            watch.rest();
            assert!(!watch.notices(now + FAR, false, || sign), "{sign:?} is not told again");
        }
    }
}
