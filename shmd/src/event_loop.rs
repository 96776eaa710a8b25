//! Descriptors and deadlines become events: one epoll instance, one list of timers.
//!
//! Everything the daemon waits for is here: clients, pidfds, signals, reservations, sources. An event names what it is
//! about by number, never by reference, so a late event matches nothing and is ignored.

mod timers;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use shm_proto::{Error, Result};

use self::timers::Timers;

/// A connection's number; never used twice in a daemon's life.
pub(crate) type ClientId = u64;
/// A channel's place in the daemon's list.
pub(crate) type ChannelId = u32;

/// What a descriptor belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// The control socket.
    Listener,
    /// The pipe of this signal.
    Signal(i32),
    /// A client's connection.
    Client(ClientId),
    /// A client's process.
    Process(ClientId),
    /// A channel's reservation of memory.
    Reservation(ChannelId),
    /// The bell that a channel's in-process writer rings.
    Source(ChannelId),
    /// The bell of a channel's handoff.
    Handoff(ChannelId),
    /// The process that shrinks a channel.
    Helper(ChannelId),
    /// The bell of the thread that makes new channels' objects.
    Preparation,
    /// The bell of the thread that makes the objects of a channel that a program has asked for.
    Creation(u32),
    /// The bell of the thread that looks at a new program.
    Probe,
}

impl Token {
    fn pack(self) -> u64 {
        let (kind, number) = match self {
            Token::Listener => (0, 0),
            Token::Signal(signal) => (1, u64::from(signal.unsigned_abs())),
            Token::Client(id) => (2, id),
            Token::Process(id) => (3, id),
            Token::Reservation(channel) => (4, u64::from(channel)),
            Token::Source(channel) => (5, u64::from(channel)),
            Token::Handoff(channel) => (6, u64::from(channel)),
            Token::Helper(channel) => (7, u64::from(channel)),
            Token::Preparation => (8, 0),
            Token::Probe => (9, 0),
            Token::Creation(number) => (10, u64::from(number)),
        };
        kind << 56 | number
    }

    #[allow(clippy::cast_possible_truncation)] // The packed numbers fit.
    fn unpack(word: u64) -> Self {
        let number = word & ((1 << 56) - 1);
        match word >> 56 {
            0 => Token::Listener,
            1 => Token::Signal(number as i32),
            2 => Token::Client(number),
            3 => Token::Process(number),
            4 => Token::Reservation(number as u32),
            5 => Token::Source(number as u32),
            6 => Token::Handoff(number as u32),
            7 => Token::Helper(number as u32),
            8 => Token::Preparation,
            9 => Token::Probe,
            _ => Token::Creation(number as u32),
        }
    }
}

/// What a deadline is for. Each has at most one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Timer {
    /// The daemon is stopping and has waited long enough.
    Stop,
    /// Once a second while some channel has a writer or a reader.
    Tick,
    /// Accept again after the descriptors ran out.
    Accept,
    /// Look whether the readers are through.
    Drain,
    /// Tell the service manager that the loop runs.
    Watchdog,
    /// Send the service manager a status that had to wait.
    Status,
    /// The sources are waited for that are to rest.
    Reexec,
    /// A client's time is up.
    Client(ClientId),
    /// The writer of a channel that is being removed has waited long enough.
    Leave(ChannelId),
    /// A channel's change of size is waited for.
    Resize(ChannelId),
    /// Programs wait for the writer role of a channel until its former writer has let go of the segment.
    Claim(ChannelId),
    /// Stop waiting for the readers of the daemon before this one.
    Returning(ChannelId),
    /// Go on with a check of all records of a channel.
    Inspect(ChannelId),
    /// Try again to start a channel's source.
    Source(ChannelId),
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A descriptor can be read, or its other side is gone.
    Readable(Token),
    /// A descriptor takes output again.
    Writable(Token),
    /// Both directions of a connection are shut, or it failed.
    Gone(Token),
    /// A deadline has passed.
    Due(Timer),
}

/// What a descriptor is watched for; [`Event::Gone`] comes in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    /// [`Event::Readable`].
    pub(crate) read: bool,
    /// [`Event::Writable`].
    pub(crate) write: bool,
}

impl Interest {
    /// Reading only.
    pub(crate) const READ: Self = Self { read: true, write: false };

    fn flags(self) -> EpollFlags {
        let mut flags = EpollFlags::empty();
        flags.set(EpollFlags::EPOLLIN, self.read);
        flags.set(EpollFlags::EPOLLOUT, self.write);
        flags
    }
}

/// The one place where the daemon waits.
#[derive(Debug)]
pub(crate) struct EventLoop {
    epoll: Epoll,
    timers: Timers,
    posted: VecDeque<Event>,
}

/// Most descriptor events, most posted events, and most deadlines at a time: a descriptor that has just become ready waits
/// for no more than these.
const BATCH: usize = 64;

impl EventLoop {
    /// An empty loop.
    ///
    /// # Errors
    /// When the system gives no epoll instance.
    pub(crate) fn new() -> Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|e| Error::system("epoll_create1", e))?;
        Ok(Self { epoll, timers: Timers::default(), posted: VecDeque::new() })
    }

    /// A descriptor that is always open.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Watches a descriptor.
    ///
    /// # Errors
    /// When the system refuses, for want of memory or watches.
    pub(crate) fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> Result<()> {
        self.epoll
            .add(fd, EpollEvent::new(interest.flags(), token.pack()))
            .map_err(|e| Error::system(format!("epoll_ctl: watch {token:?}"), e))
    }

    /// Watches a descriptor for something else.
    pub(crate) fn modify(&self, fd: impl AsFd, token: Token, interest: Interest) -> Result<()> {
        self.epoll
            .modify(fd, &mut EpollEvent::new(interest.flags(), token.pack()))
            .map_err(|e| Error::system(format!("epoll_ctl: change {token:?}"), e))
    }

    /// Stops watching a descriptor.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        // Fails only for a descriptor that is not watched, which is the wanted state.
        let _ = self.epoll.delete(fd);
    }

    /// Sets or clears a deadline.
    pub(crate) fn set_timer(&mut self, timer: Timer, at: Option<Instant>) {
        self.timers.set(timer, at);
    }

    /// Sets a deadline unless it has one already.
    pub(crate) fn start_timer(&mut self, timer: Timer, at: Instant) {
        if !self.timers.is_set(timer) {
            self.timers.set(timer, Some(at));
        }
    }

    /// Makes the next wait end at once. The event comes when its turn has come.
    pub(crate) fn post(&mut self, event: Event) {
        self.posted.push_back(event);
    }

    /// Waits for what happens next and appends it to `events`. That a descriptor's other side is gone comes before what it
    /// has still to give, and before what others say: a program that was told of a writer's end may ask for its role.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub(crate) fn wait(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let timeout = match self.timers.next() {
            _ if !self.posted.is_empty() => EpollTimeout::ZERO,
            None => EpollTimeout::NONE,
            Some(at) => {
                // Rounded up: waking a little early would only spin until the deadline.
                let left = at.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
                EpollTimeout::try_from(left).unwrap_or(EpollTimeout::MAX)
            }
        };
        events.extend(self.posted.drain(..self.posted.len().min(BATCH)));
        let mut ready = [EpollEvent::empty(); BATCH];
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(Error::system("epoll_wait", io::Error::from(e))),
        };
        let ready = || ready[..count].iter().map(|event| (event.events(), Token::unpack(event.data())));
        let is_end = |flags: EpollFlags| flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        events.extend(ready().filter(|(flags, _)| is_end(*flags)).map(|(_, token)| Event::Gone(token)));
        for (flags, token) in ready() {
            if flags.contains(EpollFlags::EPOLLIN) {
                events.push(Event::Readable(token));
            }
            if flags.contains(EpollFlags::EPOLLOUT) {
                events.push(Event::Writable(token));
            }
        }
        let now = Instant::now();
        // The others are still due at the next look.
        let due = std::iter::from_fn(|| self.timers.pop_due(now)).take(BATCH);
        events.extend(due.map(Event::Due));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn tokens_survive_the_kernel() {
        for token in [
            Token::Listener,
            Token::Signal(15),
            Token::Client(1 << 40),
            Token::Process(7),
            Token::Reservation(u32::MAX),
            Token::Source(0),
            Token::Handoff(1),
            Token::Helper(9),
            Token::Preparation,
            Token::Creation(u32::MAX),
            Token::Probe,
        ] {
            assert_eq!(Token::unpack(token.pack()), token);
        }
    }

    #[test]
    fn what_is_posted_keeps_its_order_and_leaves_room_for_others() {
        let mut events = EventLoop::new().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        events.add(&there, Token::Client(0), Interest::READ).unwrap();
        here.write_all(b"x").unwrap();
        let posted: Vec<Event> = (1..=100).map(|id| Event::Readable(Token::Client(id))).collect();
        posted.iter().for_each(|event| events.post(*event));
        let mut seen = Vec::new();
        events.wait(&mut seen).unwrap();
        assert_eq!(seen[..BATCH], posted[..BATCH]);
        assert_eq!(seen[BATCH..], [Event::Readable(Token::Client(0))]);
        seen.clear();
        events.wait(&mut seen).unwrap();
        assert_eq!(seen[..100 - BATCH], posted[BATCH..]);
    }

    #[test]
    fn many_deadlines_at_once_leave_room_for_others() {
        let mut events = EventLoop::new().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        events.add(&there, Token::Client(0), Interest::READ).unwrap();
        let past = Instant::now();
        (1..=100).for_each(|id| events.set_timer(Timer::Client(id), Some(past)));
        let mut seen = Vec::new();
        events.wait(&mut seen).unwrap();
        assert_eq!(seen, (1..=BATCH as u64).map(|id| Event::Due(Timer::Client(id))).collect::<Vec<_>>());
        here.write_all(b"x").unwrap();
        seen.clear();
        events.wait(&mut seen).unwrap();
        assert_eq!(seen[0], Event::Readable(Token::Client(0)));
        assert_eq!(seen.len(), 1 + 100 - BATCH);
    }

    #[test]
    fn who_is_gone_is_known_to_be_before_the_last_words_are_read() {
        let mut events = EventLoop::new().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        events.add(&there, Token::Client(3), Interest::READ).unwrap();
        here.write_all(b"x").unwrap();
        drop(here);
        let mut seen = Vec::new();
        events.wait(&mut seen).unwrap();
        assert_eq!(seen, [Event::Gone(Token::Client(3)), Event::Readable(Token::Client(3))]);
    }

    #[test]
    fn who_is_gone_is_known_before_others_are_heard() {
        let mut events = EventLoop::new().unwrap();
        let (mut asking, server) = UnixStream::pair().unwrap();
        let (ending, other) = UnixStream::pair().unwrap();
        events.add(&server, Token::Client(1), Interest::READ).unwrap();
        events.add(&other, Token::Client(2), Interest::READ).unwrap();
        asking.write_all(b"x").unwrap();
        drop(ending);
        let mut seen = Vec::new();
        events.wait(&mut seen).unwrap();
        let readable = |id| Event::Readable(Token::Client(id));
        assert_eq!(seen, [Event::Gone(Token::Client(2)), readable(1), readable(2)]);
    }

    #[test]
    fn data_and_deadlines_become_events() {
        let mut events = EventLoop::new().unwrap();
        let (mut here, there) = UnixStream::pair().unwrap();
        events.add(&there, Token::Client(3), Interest::READ).unwrap();
        events.set_timer(Timer::Accept, Some(Instant::now()));
        here.write_all(b"x").unwrap();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            events.wait(&mut seen).unwrap();
        }
        assert!(seen.contains(&Event::Readable(Token::Client(3))));
        assert!(seen.contains(&Event::Due(Timer::Accept)));
    }
}
