//! One attached reader as the daemon sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use shm_proto::internal::control::stat::{Latency, ReaderStat, ReaderState};
use shm_proto::internal::control::{Conn, Received, decode};
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::sem::Semaphore;
use shm_proto::internal::ring::delays::Delays;
use shm_proto::internal::ring::layout::{CURSOR_JOINING, ReaderPage, control, waiting};
use shm_proto::internal::ring::link::{FromReader, MOST_STATUS, ToReader};
use shm_proto::internal::ring::publish_time;
use shm_proto::internal::ring::wake::ask_for_cursor;
use shm_proto::{Result, WaitStrategy};

use super::eviction::Standing;
use crate::connections::Connections;
use crate::event_loop::ClientId;
use crate::liveness::{Found, Pulse};
use crate::operation_log::{LogEvent, Operation, operation};
use crate::peer::Peer;

/// How the daemon tells a reader something. The attachment ends with it.
#[derive(Debug)]
pub(super) enum To {
    /// A program, over its connection.
    Client(ClientId),
    /// The thread of a handoff, which reads the feed.
    Thread(Conn),
}

/// A reader: its page, its bell, and the connection that is its attachment.
#[derive(Debug)]
pub(super) struct Reader {
    to: To,
    peer: Peer,
    standing: Standing,
    pulse: Pulse,
    /// How many times the channel had moved when it attached.
    joined: u64,
    page: SharedPage<ReaderPage>,
    page_fd: OwnedFd,
    bell: Bell,
    /// What it says about itself.
    status: String,
}

impl Reader {
    /// A page and a bell for a new reader, and the reader's end of the bell.
    ///
    /// # Errors
    /// When there is no memory or no descriptor left.
    pub(super) fn new(to: To, peer: Peer, joined: u64) -> Result<(Self, OwnedFd)> {
        let (page, page_fd) = SharedPage::create("shmd-reader")?;
        let (bell, sleeper) = Bell::new()?;
        let pulse = Pulse::new(Instant::now());
        let (standing, status) = (Standing::default(), String::new());
        Ok((Self { to, peer, standing, pulse, joined, page, page_fd, bell, status }, sleeper))
    }

    /// A reader of a dead daemon, which shows its page, and its end of a new bell. The caller checks whether the reader was
    /// evicted, or told that the channel closes.
    ///
    /// # Errors
    /// When the descriptor is not such a page, and when there is no memory or no descriptor left.
    pub(super) fn resumed(to: To, peer: Peer, joined: u64, page_fd: OwnedFd) -> Result<(Self, OwnedFd)> {
        let page = SharedPage::open(page_fd.as_fd())?;
        let (bell, sleeper) = Bell::new()?;
        let pulse = Pulse::new(Instant::now());
        let (standing, status) = (Standing::default(), String::new());
        Ok((Self { to, peer, standing, pulse, joined, page, page_fd, bell, status }, sleeper))
    }

    /// Whether its page says that it does not read any more.
    pub(super) fn is_through(&self) -> bool {
        self.page.control.value.load(Ordering::SeqCst) & (control::EVICTED | control::CLOSING) != 0
    }

    /// Which page it has: device and number of the file.
    pub(super) fn page_id(&self) -> FileId {
        page_id(&self.page_fd)
    }

    /// There are `count` moves to be made by a reader that has made those which `made` counts.
    pub(super) fn set_moves(&self, made: u32, count: usize) {
        let moves = made.wrapping_add(control::MOVE.wrapping_mul(count as u32)) & control::MOVES;
        let set = |bits: u32| Some(bits & !control::MOVES | moves);
        let _ = self.page.control.value.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set);
    }

    /// Who it is.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether it was evicted by the daemon.
    pub(super) fn is_evicted(&self) -> bool {
        self.standing.is_evicted()
    }

    /// How it stands.
    pub(super) fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }

    /// How many times the channel had moved when it attached.
    pub(super) fn joined(&self) -> u64 {
        self.joined
    }

    /// Takes what it says about itself.
    pub(super) fn set_status(&mut self, status: &str) {
        self.status = status.chars().take(MOST_STATUS).collect();
    }

    /// Sends the reader a line, unless it is gone.
    pub(super) fn tell(&mut self, connections: &mut Connections, line: &ToReader, fds: Vec<OwnedFd>) {
        match &mut self.to {
            To::Client(client) => drop(connections.send(*client, line, fds)),
            To::Thread(conn) => {
                if conn.queue(line, fds).is_ok() {
                    let _ = conn.flush();
                }
            }
        }
    }

    /// Closes its connection as soon as everything is sent. A thread goes by itself.
    pub(super) fn let_go(&self, connections: &mut Connections) {
        if let To::Client(client) = self.to {
            connections.end(client);
        }
    }

    /// Whether a thread that reads has found the ring broken. A program says so to the daemon.
    pub(super) fn has_complained(&mut self) -> bool {
        let To::Thread(conn) = &mut self.to else { return false };
        let mut complained = false;
        while let Ok(Received::Line(line, _)) = conn.receive() {
            complained |= matches!(decode(&line), Ok(FromReader::Broken { .. }));
        }
        complained
    }

    /// The page's descriptor, to hand on.
    ///
    /// # Errors
    /// When the descriptors have run out.
    pub(super) fn page_fd(&self) -> Result<OwnedFd> {
        self.page_fd.try_clone().map_err(|e| shm_proto::Error::system("duplicate a page's descriptor", e))
    }

    /// What the writer gets: the page and the ringing end of the bell.
    ///
    /// # Errors
    /// When the descriptors have run out.
    pub(super) fn for_writer(&self) -> Result<Vec<OwnedFd>> {
        Ok(vec![self.page_fd()?, self.bell.try_clone_fd()?])
    }

    /// The position up to which it has read, as it says; `None` before it has chosen its start.
    pub(super) fn cursor(&self) -> Option<u64> {
        // Acquire: pairs with the reader's Release; it is done with what lies before.
        let cursor = self.page.line.cursor.load(Ordering::Acquire);
        (cursor != CURSOR_JOINING).then_some(cursor)
    }

    /// The number of the message at its cursor, as it says.
    pub(super) fn seq(&self) -> u64 {
        self.page.line.seq.load(Ordering::Relaxed)
    }

    /// Messages that it has received, as it says.
    pub(super) fn received(&self) -> u64 {
        self.page.line.received.load(Ordering::Relaxed)
    }

    /// Messages that it has lost, as it says.
    pub(super) fn lost(&self) -> u64 {
        self.page.line.lost.load(Ordering::Relaxed)
    }

    /// When it gave its last sign of life, as it says; 0 before the first.
    pub(super) fn heartbeat(&self) -> u64 {
        self.page.line.heartbeat.load(Ordering::Relaxed)
    }

    /// Makes the reader publish its cursor after its current message. A slow reader in a large ring would otherwise seem to
    /// stand still. Call this after a look at the [`cursor`](Self::cursor), so that the next one published is a later one.
    pub(super) fn ask(&self) {
        ask_for_cursor(&self.page.space_wanted.give_at);
    }

    /// Whether it cannot stand before this position any more.
    pub(super) fn is_past(&self, position: u64) -> bool {
        !self.is_evicted() && self.cursor().is_some_and(|cursor| cursor >= position)
    }

    /// Lets a writer that sleeps for this reader go on.
    pub(super) fn release_writer(&self) {
        if self.page.space_wanted.value.load(Ordering::SeqCst) != 0 {
            Semaphore::new(&self.page.space).post();
        }
    }

    /// Sets control bits and wakes the reader, however it sleeps.
    pub(super) fn signal(&self, bits: u32) {
        // SeqCst: the reader looks at the bits after it has raised its waiting flag and before it sleeps.
        self.page.control.value.fetch_or(bits, Ordering::SeqCst);
        Semaphore::new(&self.page.wake).post();
        self.bell.ring();
    }

    /// Wakes the reader if it sleeps in a poll loop.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    /// One more move is to be made.
    pub(super) fn move_once(&self) {
        self.page.control.value.fetch_add(control::MOVE, Ordering::SeqCst);
    }

    /// One move less.
    pub(super) fn stay(&self) {
        self.page.control.value.fetch_sub(control::MOVE, Ordering::SeqCst);
    }

    /// How it waits, if it does: one of [`waiting`].
    pub(super) fn waiting(&self) -> u32 {
        self.page.waiting.value.load(Ordering::Relaxed)
    }

    /// Looks for a sign of life: its heartbeat or its position, if there should be one.
    pub(super) fn look(&mut self, now: Instant, position: u64, due: bool, patience: Option<Duration>) -> Found {
        let heartbeat = self.heartbeat();
        self.pulse.look(now, position, heartbeat, due, patience)
    }

    /// For `stat`, as it reports itself: it can have received at most `most` messages. One that has not `started` is joining.
    pub(super) fn stat(&self, number: u32, started: bool, most: u64) -> ReaderStat {
        let Peer { pid, user, program, .. } = self.peer.clone();
        let mut stat = ReaderStat::new(number, pid, program, user, self.state(started));
        stat.received = self.received().min(most);
        stat.heartbeat_ms = if self.heartbeat() == 0 { 0 } else { age_ms(self.heartbeat()) };
        stat.status.clone_from(&self.status);
        stat.wait = WaitStrategy::of_word(self.page.line.wait.load(Ordering::Relaxed)).to_string();
        stat
    }

    /// In a channel with publish times: how long ago the oldest message was published that the reader has not read, if it stands
    /// in the segment behind `fd` and has not read everything.
    pub(super) fn oldest_unread_ns(&self, fd: BorrowedFd<'_>) -> Option<u64> {
        self.cursor()?;
        let published = publish_time(fd, self.page.times.off.load(Ordering::Relaxed), self.seq())?;
        Some(monotonic_ns().saturating_sub(published))
    }

    /// In a channel with publish times: how long messages took to reach it.
    pub(super) fn latency(&self) -> Option<Latency> {
        Latency::of(&Delays::of(&self.page.times.delays))
    }

    fn state(&self, started: bool) -> ReaderState {
        if self.is_evicted() || self.page.control.value.load(Ordering::Relaxed) & control::EVICTED != 0 {
            ReaderState::Evicted
        } else if self.pulse.is_stalled() {
            ReaderState::Stalled
        } else if !started {
            ReaderState::Joining
        } else if self.waiting() != waiting::NO {
            ReaderState::Sleeping
        } else {
            ReaderState::Reading
        }
    }

    /// Begins an entry about it.
    pub(super) fn about(&self, event: LogEvent, channel: &shm_proto::ChannelName, number: u32) -> Operation {
        operation(event).on(channel).number("reader", number).peer(&self.peer)
    }
}

/// Which page a descriptor is of: device and number of the file; zeroes if the kernel does not tell.
pub(super) fn page_id(page: &OwnedFd) -> FileId {
    FileId::of(page).unwrap_or_default()
}

/// Says that a peer has fallen silent, or that it is back.
pub(super) fn report(found: Found, about: impl Fn(LogEvent) -> Operation) {
    match found {
        Found::Same => {}
        Found::Stalled(still) => about(LogEvent::Stalled).number("silent_ms", still.as_millis()).warn(),
        Found::Recovered => about(LogEvent::Recovered).info(),
    }
}

/// How long ago a sign of life was given.
pub(super) fn age_ms(heartbeat_ns: u64) -> u64 {
    monotonic_ns().saturating_sub(heartbeat_ns) / 1_000_000
}
