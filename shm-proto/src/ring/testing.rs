//! A channel without a daemon: the tests play its part.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};

use nix::sys::memfd::{MFdFlags, memfd_create};

use super::geometry::{Geometry, Start};
use super::layout::{DATA_OFFSET, LeasePage, OVER, ReaderPage, control};
use super::link::{FromReader, LinkError, ReaderLink, ToDaemon, ToReader, ToWriter};
use super::published::Place;
use super::thread_link::{Line, ThreadLink};
use super::{
    Beginning, Owner, Reader, ReaderError, Walk, WalkFrom, Walked, Writer, WriterError, begin_segment, create_segment,
};
use crate::client::SocketLink;
use crate::control::{Conn, MAX_REPLY, MAX_REQUEST, Received, decode};
use crate::os::bell::Bell;
use crate::os::page::SharedPage;
use crate::os::sem::Semaphore;
use crate::os::{barrier, reserve};

/// Called in the writer's thread with each line that the writer sends, in the middle of the writer's work.
#[derive(Clone)]
pub(super) struct Overheard(pub(super) Arc<dyn Fn(&ToDaemon) + Send + Sync>);

impl fmt::Debug for Overheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Overheard")
    }
}

/// The daemon's side of a lease.
#[derive(Debug)]
struct Lease {
    page: SharedPage<LeasePage>,
    lines: Sender<Line>,
    from_writer: Receiver<ToDaemon>,
}

/// A reader, seen from the daemon.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) id: u32,
    pub(super) page: SharedPage<ReaderPage>,
    pub(super) page_fd: OwnedFd,
    bell: Bell,
    /// The daemon's end of its connection.
    conn: Option<Conn>,
}

/// The objects that the daemon would hold.
#[derive(Debug)]
pub(super) struct TestChannel {
    pub(super) segment: OwnedFd,
    pub(super) geometry: Geometry,
    pub(super) capacity: u64,
    pub(super) readers: Vec<Attached>,
    lease: Option<Lease>,
    /// The shrink that the writer was told last, if no other line about the capacity followed.
    shrinking: Option<u32>,
    next_id: u32,
    /// Given to the next writer.
    pub(super) overheard: Option<Overheard>,
    /// What is wrong with the segment that the channel leaves.
    pub(super) broken: Option<String>,
}

pub(super) fn geometry(max_capacity: u64) -> Geometry {
    Geometry {
        // Longer than any reader needs. A reader whose thread has failed must not block the writer forever.
        evict_after_ms: 60_000,
        asymmetric: barrier::available(),
        ..Geometry::new(
            "test".parse().unwrap(),
            42,
            max_capacity,
            super::record::Strides::new(super::record::LEAST_ALIGN, 0).largest_message(max_capacity),
        )
    }
}

impl TestChannel {
    pub(super) fn new(capacity: u64, geometry: Geometry) -> TestChannel {
        let segment = memfd_create("test-segment", MFdFlags::MFD_CLOEXEC).unwrap();
        let owner = Owner { pid: std::process::id(), start: 0, boot_id: [0; 2], home: 0 };
        create_segment(segment.as_fd(), &geometry, capacity, owner).unwrap();
        TestChannel {
            segment,
            geometry,
            capacity,
            readers: Vec::new(),
            lease: None,
            shrinking: None,
            next_id: 1,
            overheard: None,
            broken: None,
        }
    }

    pub(super) fn writer(&mut self) -> Writer {
        self.try_writer().unwrap()
    }

    pub(super) fn try_writer(&mut self) -> Result<Writer, WriterError> {
        let (page, page_fd) = SharedPage::<LeasePage>::create("test-lease").unwrap();
        let (lines, receiver) = channel();
        let (out, from_writer) = channel();
        self.lease = Some(Lease { page, lines, from_writer });
        for reader in &self.readers {
            self.send(ToWriter::ReaderJoined { reader: reader.id }, reader.descriptors());
        }
        let lease = SharedPage::open(page_fd.as_fd()).unwrap();
        let overheard = self.overheard.clone();
        let link = ThreadLink::new(receiver, move |line| {
            if matches!(line, ToDaemon::Taken { .. }) {
                return Ok(());
            }
            if let Some(overheard) = &overheard {
                overheard.0(&line);
            }
            out.send(line).map_err(|_| LinkError::Disconnected)
        });
        Writer::open(self.segment.as_fd(), lease, Box::new(link), self.geometry.clone(), self.capacity)
    }

    pub(super) fn send(&self, line: ToWriter, fds: Vec<OwnedFd>) {
        let Some(lease) = &self.lease else { return };
        if lease.lines.send((line, fds)).is_err() {
            return;
        }
        lease.page.generation.value.fetch_add(1, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        if lease.page.waiting.value.swap(0, Ordering::Relaxed) != 0 {
            Semaphore::new(&lease.page.wake).post();
        }
        for reader in &self.readers {
            if reader.page.space_wanted.value.load(Ordering::Relaxed) != 0 {
                Semaphore::new(&reader.page.space).post();
            }
        }
    }

    /// The daemon is killed.
    pub(super) fn die(&mut self) {
        self.lease = None;
    }

    /// The daemon closes the writer's connection.
    pub(super) fn end_lease(&mut self) {
        if let Some(lease) = self.lease.take() {
            lease.page.generation.value.fetch_or(OVER, Ordering::SeqCst);
            barrier::heavy();
        }
    }

    pub(super) fn reader(&mut self, start: Start) -> Reader {
        self.reader_on(start, None)
    }

    /// A reader that is told of moves.
    pub(super) fn connected_reader(&mut self, start: Start) -> Reader {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let reader = self.reader_on(start, Some(Conn::new(theirs, MAX_REPLY)));
        if let Some(attached) = self.readers.last_mut() {
            attached.conn = Some(Conn::new(ours, MAX_REQUEST));
        }
        reader
    }

    /// A reader whose attachment is this connection.
    pub(super) fn reader_on(&mut self, start: Start, conn: Option<Conn>) -> Reader {
        let link = conn.map(|conn| Box::new(SocketLink::new(conn)) as ReaderLink);
        self.try_reader_over(start, link).unwrap()
    }

    /// A reader whose attachment is this link.
    pub(super) fn reader_over(&mut self, start: Start, link: ReaderLink) -> Reader {
        self.try_reader_over(start, Some(link)).unwrap()
    }

    /// A reader that may find the segment broken.
    pub(super) fn try_reader(&mut self, start: Start) -> Result<Reader, ReaderError> {
        self.try_reader_over(start, None)
    }

    fn try_reader_over(&mut self, start: Start, link: Option<ReaderLink>) -> Result<Reader, ReaderError> {
        let (page, page_fd) = SharedPage::<ReaderPage>::create("test-reader").unwrap();
        let (bell, bell_fd) = Bell::new().unwrap();
        let attached = Attached { id: self.next_id, page, page_fd, bell, conn: None };
        self.next_id += 1;
        self.send(ToWriter::ReaderJoined { reader: attached.id }, attached.descriptors());
        barrier::heavy();
        let segment = self.segment.as_fd();
        let reader = Reader::open(segment, attached.page_fd.as_fd(), bell_fd, self.geometry.clone(), start, link)?;
        self.readers.push(attached);
        Ok(reader)
    }

    /// The daemon holds back this many lines, and says so.
    pub(super) fn hold_back(&self, lines: u64) {
        let Some(lease) = &self.lease else { return };
        lease.page.pending.value.store(lines, Ordering::SeqCst);
        lease.page.generation.value.fetch_add(1, Ordering::SeqCst);
    }

    /// A reader that gets its answer while the line that names it is held back. The line comes with
    /// [`name`](Self::name).
    pub(super) fn unnamed_reader(&mut self, start: Start) -> Reader {
        let lease = self.lease.take();
        let reader = self.reader(start);
        self.lease = lease;
        self.hold_back(1);
        barrier::heavy();
        reader
    }

    /// Names the newest reader, which is the last line that was held back.
    pub(super) fn name(&self) {
        let Some(reader) = self.readers.last() else { return };
        self.send(ToWriter::ReaderJoined { reader: reader.id }, reader.descriptors());
        self.hold_back(0);
    }

    /// What readers have told the daemon.
    pub(super) fn lines_of_readers(&mut self) -> Vec<FromReader> {
        let mut lines = Vec::new();
        for conn in self.readers.iter_mut().filter_map(|reader| reader.conn.as_mut()) {
            while let Received::Line(line, _) = conn.receive().unwrap() {
                lines.push(decode(&line).unwrap());
            }
        }
        lines
    }

    /// Shows readers that the channel moves.
    pub(super) fn mark_moved(&self) {
        for reader in &self.readers {
            reader.page.control.value.fetch_add(control::MOVE, Ordering::SeqCst);
        }
        barrier::heavy();
    }

    /// The first half of a move: readers see it, and the end of the old segment is settled.
    pub(super) fn begin_move(&mut self) -> Place {
        self.mark_moved();
        let mut walk = Walk::begin(self.segment.as_fd(), WalkFrom::Mark).unwrap();
        match walk.go_on(self.segment.as_fd(), &self.geometry, u64::MAX).unwrap() {
            Walked::Tail(end) => end,
            other => panic!("{other:?}"),
        }
    }

    /// The second half of a move: the new segment exists, and readers are told.
    pub(super) fn finish_move(&mut self, end: Place, capacity: u64) {
        let Place { pos, seq, bytes, .. } = end;
        self.geometry.instance += 1;
        self.capacity = capacity;
        self.segment = memfd_create("test-segment", MFdFlags::MFD_CLOEXEC).unwrap();
        reserve::now(self.segment.as_fd(), DATA_OFFSET + capacity).unwrap();
        let owner = Owner { pid: std::process::id(), start: 0, boot_id: [0; 2], home: 0 };
        let beginning = Beginning { pos, seq, bytes, ..Beginning::default() };
        begin_segment(self.segment.as_fd(), &self.geometry, capacity, owner, &beginning).unwrap();
        for reader in &mut self.readers {
            if let Some(conn) = &mut reader.conn {
                let line = ToReader::Moved { geometry: self.geometry.clone(), pos, seq, broken: self.broken.clone() };
                conn.queue(&line, vec![self.segment.try_clone().unwrap()]).unwrap();
                assert!(conn.flush().unwrap());
            }
            Semaphore::new(&reader.page.wake).post();
            reader.bell.ring();
        }
    }

    /// Tells readers of a move, but without the descriptor.
    pub(super) fn tell_of_a_move_without_descriptor(&mut self) {
        for conn in self.readers.iter_mut().filter_map(|reader| reader.conn.as_mut()) {
            let line = ToReader::Moved { geometry: self.geometry.clone(), pos: 16, seq: 1, broken: None };
            conn.send(&line, &[]).unwrap();
        }
    }

    /// Ends the writer's role and continues the channel in a new segment.
    pub(super) fn move_on(&mut self) {
        self.end_lease();
        let end = self.begin_move();
        self.finish_move(end, self.capacity);
    }

    pub(super) fn detach(&mut self, id: u32) {
        self.readers.retain(|reader| reader.id != id);
        self.send(ToWriter::ReaderLeft { reader: id }, Vec::new());
    }

    pub(super) fn close(&self) {
        for reader in &self.readers {
            reader.page.control.value.fetch_or(control::CLOSING, Ordering::SeqCst);
            Semaphore::new(&reader.page.wake).post();
            reader.bell.ring();
        }
    }

    pub(super) fn grow(&mut self, capacity: u64) {
        reserve::now(self.segment.as_fd(), DATA_OFFSET + capacity).unwrap();
        self.capacity = capacity;
        self.shrinking = None;
        self.send(ToWriter::Grown { capacity, done: true }, Vec::new());
    }

    pub(super) fn shrink(&mut self, capacity: u64) {
        self.next_id += 1;
        self.shrinking = Some(self.next_id);
        self.send(ToWriter::Shrink { capacity, id: self.next_id, yields: false }, Vec::new());
    }

    /// The lines that the writer has sent.
    pub(super) fn hear(&self) -> Vec<ToDaemon> {
        self.lease.as_ref().map_or_else(Vec::new, |lease| lease.from_writer.try_iter().collect())
    }

    /// The lines that the writer has sent, carried out as the daemon would.
    pub(super) fn obey(&mut self) -> Vec<ToDaemon> {
        let lines = self.hear();
        for line in &lines {
            match line {
                ToDaemon::Grow { capacity } => {
                    let to = capacity.next_power_of_two().max(self.capacity * 2).min(self.geometry.max_capacity);
                    self.grow(to);
                }
                ToDaemon::Shrunk { id, .. } if self.shrinking != Some(*id) => {}
                ToDaemon::Shrunk { capacity, after, .. } => {
                    self.shrinking = None;
                    for reader in &self.readers {
                        assert!(
                            reader.page.line.cursor.load(Ordering::SeqCst) >= *after,
                            "a reader stands on cut memory"
                        );
                    }
                    reserve::truncate(self.segment.as_fd(), DATA_OFFSET + capacity).unwrap();
                    self.capacity = *capacity;
                }
                ToDaemon::Evicted { reader, .. } | ToDaemon::Refused { reader, .. } => {
                    self.readers.retain(|r| r.id != *reader);
                }
                ToDaemon::Taken { .. } | ToDaemon::Broken { .. } | ToDaemon::Overflow { .. } | ToDaemon::Unknown => {}
            }
        }
        lines
    }
}

impl Attached {
    /// The reader's page again.
    pub(super) fn page_again(&self) -> SharedPage<ReaderPage> {
        SharedPage::open(self.page_fd.as_fd()).unwrap()
    }

    pub(super) fn descriptors(&self) -> Vec<OwnedFd> {
        vec![self.page_fd.try_clone().unwrap(), self.bell.try_clone_fd().unwrap()]
    }
}
