//! Which clients to admit, and when: limits for each user. Pure: no clock, no descriptor, no user database.
//!
//! The limits do not apply to root and the daemon's own user, the *masters*: what others have taken never keeps them out,
//! and they never wait.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What a user may do a number of times at once, and then at a limited rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Paced {
    /// Becoming a reader, of any channel.
    Attach,
    /// Asking for the writer role. It costs descriptors and a page, and perhaps the channel a move to a new segment.
    Borrow,
    /// Asking for the text of a schema. It costs a descriptor that is on its way until the user takes it, and there is a limit for
    /// all of these of the daemon together.
    Schema,
    /// Asking for another capacity. It costs a child of the daemon, and time in which the channel cannot be resized otherwise.
    Resize,
    /// Making a channel. It costs a thread and a child of the daemon, a file, and look-ups of users and groups.
    Create,
}

impl Paced {
    /// How often, and the time after which it may be done once more. A shell loop that starts a program each time stays below
    /// the first three, and an operator below the others.
    fn allowance(self) -> (u32, Duration) {
        match self {
            Paced::Attach | Paced::Borrow | Paced::Schema => (500, Duration::from_millis(4)),
            Paced::Resize => (30, Duration::from_millis(200)),
            Paced::Create => (20, Duration::from_secs(1)),
        }
    }

    /// The text for a user who has to wait.
    pub(crate) fn too_often(self, user: &str, wait: Duration) -> String {
        let what = match self {
            Paced::Attach => "attaches",
            Paced::Borrow => "asks for the writer role",
            Paced::Schema => "asks for schemas",
            Paced::Resize => "asks for another capacity",
            Paced::Create => "creates channels",
        };
        let (burst, every) = self.allowance();
        let per_second = match 1000 / every.as_millis() {
            1 => "once".to_owned(),
            times => format!("{times} times"),
        };
        format!(
            "user {user} {what} too often: one user may {burst} times at once, and {per_second} a second from then on; try again \
             in {}",
            told(wait)
        )
    }
}

/// How long a user waits after the first eviction, and after many if the channel's readers are evicted quickly.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// The longest wait is at least this many times `evict_after`, which is how long a reader may hold a channel up: a user whose
/// readers do nothing else holds it up for a tenth of the time. But there is an end to that.
const TIMES_HELD_UP: u32 = 10;
const NO_LONGER_THAN: Duration = Duration::from_secs(3600);
/// After this many times the longest wait without another eviction, the earlier ones are forgotten.
const TIMES_WAITED: u32 = 10;
/// Most users that are remembered; the user who has been idle longest is forgotten first.
const MOST_USERS: usize = 1024;

/// A time for people, rounded up.
pub(crate) fn told(time: Duration) -> String {
    match time.as_nanos().div_ceil(1_000_000) {
        millis @ ..1000 => format!("{millis} ms"),
        millis => format!("{} s", millis.div_ceil(1000)),
    }
}

/// How many places are taken, and by whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// By all users together.
    pub(crate) all: usize,
    /// By the masters.
    pub(crate) masters: usize,
    /// By the user who asks.
    pub(crate) own: usize,
}

impl Held {
    /// Counts places by the users who have them.
    pub(crate) fn count(users: impl Iterator<Item = u32>, asking: u32, is_master: impl Fn(u32) -> bool) -> Self {
        users.fold(Held::default(), |held, uid| Held {
            all: held.all + 1,
            masters: held.masters + usize::from(is_master(uid)),
            own: held.own + usize::from(uid == asking),
        })
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// All are taken.
    All,
    /// The user has as many as one user may have.
    Share(usize),
}

/// How many of `most` places one user may have who is not a master: half of them, and at least one.
fn share(most: u32) -> usize {
    (most as usize / 2).max(1)
}

/// Whether there is a place for one more. A master is refused only when the masters themselves have `most`.
///
/// # Errors
/// Why not.
pub(crate) fn place(held: Held, most: u32, is_master: bool) -> Result<(), Full> {
    let share = share(most);
    match is_master {
        true if held.masters >= most as usize => Err(Full::All),
        true => Ok(()),
        false if held.own >= share => Err(Full::Share(share)),
        false if held.all >= most as usize => Err(Full::All),
        false => Ok(()),
    }
}

/// How often each user does what is [`Paced`].
#[derive(Debug, Default)]
pub(crate) struct Rate {
    /// When the user's actions of a kind so far would be over if they had come at intervals.
    through: HashMap<(u32, Paced), Instant>,
}

impl Rate {
    /// The user does this now.
    ///
    /// # Errors
    /// How long to wait before the next attempt; a refused attempt does not count.
    pub(crate) fn admit(&mut self, user: u32, paced: Paced, now: Instant) -> Result<(), Duration> {
        if self.through.len() >= MOST_USERS {
            self.through.retain(|_, through| *through > now);
        }
        let (burst, every) = paced.allowance();
        let through = self.through.get(&(user, paced)).map_or(now, |&through| through.max(now));
        let early = through.saturating_duration_since(now).saturating_sub(every * (burst - 1));
        if !early.is_zero() {
            return Err(early);
        }
        self.through.insert((user, paced), through + every);
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    evictions: u32,
    last: Instant,
    until: Instant,
    forgotten: Instant,
}

/// Users whose readers were evicted from a channel.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    users: HashMap<u32, Record>,
}

/// A user has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// For this time.
    pub(crate) left: Duration,
    /// Evictions that are not forgotten.
    pub(crate) evictions: u32,
    /// How long ago the last one was.
    pub(crate) ago: Duration,
}

impl Conduct {
    /// A reader of this user was evicted; where that takes `evict_after`, which is how long it held the channel up. Gives how
    /// long the user has to wait.
    pub(crate) fn evicted(&mut self, user: u32, now: Instant, evict_after: Option<Duration>) -> Duration {
        self.users.retain(|_, record| record.forgotten > now);
        if self.users.len() >= MOST_USERS
            && let Some(oldest) = self.users.iter().min_by_key(|(_, record)| record.last).map(|(&user, _)| user)
        {
            self.users.remove(&oldest);
        }
        let evictions = self.users.get(&user).map_or(0, |record| record.evictions).saturating_add(1);
        let held_up = evict_after.unwrap_or_default().saturating_mul(TIMES_HELD_UP);
        let longest = held_up.clamp(LONGEST_WAIT, NO_LONGER_THAN);
        let doubled = 1u32.checked_shl(evictions - 1).unwrap_or(u32::MAX);
        let wait = FIRST_WAIT.saturating_mul(doubled).min(longest);
        let (until, forgotten) = (now + wait, now + longest * TIMES_WAITED);
        self.users.insert(user, Record { evictions, last: now, until, forgotten });
        wait
    }

    /// The user attaches.
    ///
    /// # Errors
    /// How long it has to wait first, and why.
    pub(crate) fn attach(&self, user: u32, now: Instant) -> Result<(), Wait> {
        match self.users.get(&user) {
            Some(record) if record.until > now => {
                let (left, ago) = (record.until.duration_since(now), now.saturating_duration_since(record.last));
                Err(Wait { left, evictions: record.evictions, ago })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const USER: u32 = 1000;
    const OTHER: u32 = 1001;

    #[test]
    fn one_user_gets_half_of_the_places_and_all_users_together_all_of_them() {
        let held = |all, own| Held { all, masters: 0, own };
        assert_eq!(place(held(31, 31), 64, false), Ok(()));
        assert_eq!(place(held(32, 32), 64, false), Err(Full::Share(32)));
        assert_eq!(place(held(63, 31), 64, false), Ok(()));
        assert_eq!(place(held(64, 0), 64, false), Err(Full::All));
        assert_eq!(place(held(0, 0), 1, false), Ok(()));
        assert_eq!(place(held(1, 1), 1, false), Err(Full::Share(1)));
        assert_eq!(place(held(1, 1), 3, false), Err(Full::Share(1)));
    }

    #[test]
    fn masters_get_in_whatever_others_have_taken_and_have_no_more_than_there_are() {
        for most in [1, 2, 64] {
            let held = |masters| Held { all: most as usize + masters, masters, own: masters };
            assert_eq!(place(held(0), most, true), Ok(()));
            assert_eq!(place(held(most as usize - 1), most, true), Ok(()));
            assert_eq!(place(held(most as usize), most, true), Err(Full::All));
        }
    }

    #[test]
    fn places_are_counted_by_user() {
        let held = Held::count([0, USER, OTHER, USER, 5].into_iter(), USER, |uid| uid == 0 || uid == 5);
        assert_eq!(held, Held { all: 5, masters: 2, own: 2 });
    }

    const ALL: [Paced; 5] = [Paced::Attach, Paced::Borrow, Paced::Schema, Paced::Resize, Paced::Create];

    #[test]
    fn a_burst_is_let_through_and_then_so_many_in_a_time_and_one_kind_does_not_count_for_another() {
        let now = Instant::now();
        let mut rate = Rate::default();
        for paced in ALL {
            let (burst, every) = paced.allowance();
            (0..burst).for_each(|n| assert_eq!(rate.admit(USER, paced, now), Ok(()), "{n}"));
            assert_eq!(rate.admit(USER, paced, now), Err(every));
            assert_eq!(rate.admit(USER, paced, now + every / 2), Err(every / 2));
            assert_eq!(rate.admit(OTHER, paced, now), Ok(()));
            assert_eq!(rate.admit(USER, paced, now + every), Ok(()));
            assert_eq!(rate.admit(USER, paced, now + every), Err(every));
            // An hour of rest allows no more than one burst.
            let later = now + SECOND * 3600;
            assert_eq!((0..2 * burst).filter(|_| rate.admit(USER, paced, later).is_ok()).count(), burst as usize);
        }
    }

    #[test]
    fn each_deed_at_its_time_is_never_refused() {
        for paced in ALL {
            let mut now = Instant::now();
            let mut rate = Rate::default();
            let (burst, every) = paced.allowance();
            for _ in 0..10 * burst {
                assert_eq!(rate.admit(USER, paced, now), Ok(()));
                now += every;
            }
        }
    }

    #[test]
    fn users_who_have_rested_are_not_remembered() {
        let mut now = Instant::now();
        let mut rate = Rate::default();
        for user in 0..10 * MOST_USERS as u32 {
            assert_eq!(rate.admit(user, Paced::Attach, now), Ok(()));
            now += Paced::Attach.allowance().1;
        }
        assert!(rate.through.len() <= MOST_USERS);
    }

    #[test]
    fn a_user_waits_longer_after_each_eviction_and_others_do_not() {
        let mut now = Instant::now();
        let mut conduct = Conduct::default();
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(conduct.attach(USER, now), Ok(()));
            assert_eq!(conduct.evicted(USER, now, Some(SECOND)), SECOND * wait);
            let refused = conduct.attach(USER, now + SECOND / 2).unwrap_err();
            assert_eq!((refused.left, refused.ago), (SECOND * wait - SECOND / 2, SECOND / 2));
            assert_eq!(conduct.attach(OTHER, now), Ok(()));
            now += SECOND * wait;
        }
        assert_eq!(conduct.attach(USER, now), Ok(()));
    }

    #[test]
    fn where_a_reader_may_hold_the_channel_up_for_long_the_longest_wait_is_longer() {
        let mut now = Instant::now();
        let mut conduct = Conduct::default();
        let waits = (0..40).map(|_| {
            let wait = conduct.evicted(USER, now, Some(SECOND * 30));
            now += wait + SECOND * 30;
            wait
        });
        assert_eq!(waits.max(), Some(SECOND * 300));
        assert_eq!(conduct.evicted(USER, now, Some(Duration::MAX)), NO_LONGER_THAN);
    }

    #[test]
    fn good_conduct_is_rewarded_with_forgetting() {
        let now = Instant::now();
        let mut conduct = Conduct::default();
        conduct.evicted(USER, now, None);
        assert_eq!(conduct.evicted(USER, now, None), SECOND * 2);
        let later = now + LONGEST_WAIT * TIMES_WAITED;
        assert_eq!(conduct.evicted(USER, later, None), SECOND);
    }

    #[test]
    fn no_number_of_users_takes_more_memory_than_the_most() {
        let mut now = Instant::now();
        let mut conduct = Conduct::default();
        for user in 0..2 * MOST_USERS as u32 {
            conduct.evicted(user, now, None);
            now += Duration::from_micros(1);
        }
        assert_eq!(conduct.users.len(), MOST_USERS);
        assert!(conduct.attach(2 * MOST_USERS as u32 - 1, now).is_err(), "the newest are remembered");
    }
}
