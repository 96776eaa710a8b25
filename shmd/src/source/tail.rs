//! A file that is followed as it grows, from its end at the start of the daemon, across rotation. After the daemon's death it is
//! followed from where it was: see [`place`].
//!
//! | what happens to the file | what comes of it |
//! |---|---|
//! | it is not there | waited for; then read from its beginning |
//! | it is renamed, and a new one made | read on until it has nothing more *and* the new one has something: writers that have not opened the new one yet lose nothing |
//! | it is deleted | read to its end, and closed |
//! | it is cut shorter than what was read | read from its beginning; what was cut before it was read is lost |
//!
//! Each of these is the end of an input: a last line without its newline is a message. A file that is cut and has grown past
//! the old place within a second cannot be told from one that only grew.
//!
//! inotify says when there is something to read; names are looked at once a second besides, which also serves file systems
//! that have no inotify.

mod followed;
mod place;
mod turn;

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::debug;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use serde::{Deserialize, Serialize};
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::Pump;
use shm_proto::internal::ring::{SourceNote, note_source};
use shm_proto::{Error, FramingError, Result};

use self::followed::{Followed, Left, Stop};
use self::place::Begin;
use self::turn::{Turn, look};
use super::feed::{Feed, Stepped};
use super::file_id::wrong_kind;
use super::packed_pump::PackedPump;
use super::{Cutting, Input, PackedInput};
use crate::handover::{Luggage, Parcel};
use crate::operation_log::{LogEvent, operation};

/// How often the name is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// One step publishes no more messages than the pump's buffer has bytes: `max_message` and less than this.
const STEP: u64 = 1 << 20;

/// The file, if it is there.
#[derive(Debug)]
pub(super) struct Tail {
    path: PathBuf,
    begin: Begin,
    file: Option<Followed>,
    /// Where the file before this one was left.
    left: Option<Left>,
    watch: Option<Inotify>,
    /// The file that inotify watches.
    watched: Option<WatchDescriptor>,
    /// None before the first message was looked for.
    pump: Option<Pump>,
    /// The file is to be begun again when it has been read to where it was cut.
    rewind: bool,
    /// So many of the next messages are published already, when the source rests.
    passes: u64,
}

/// What is left to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedTail {
    /// The file, the place in it, and when it ends.
    file: Option<(i32, u64, Stop)>,
    left: Option<Left>,
    pump: Option<PackedPump>,
    rewind: bool,
    passes: u64,
}

impl Tail {
    /// Opens the file at its end, if it is there; or the file that the note is about, at the place where the next message begins.
    ///
    /// # Errors
    /// When it is there and is no regular file, or may not be read.
    pub(super) fn open(path: &Path, cutting: Cutting, left: SourceNote) -> Result<Self> {
        let (mut file, begin) = place::find(left, path, cutting, open(path)?)?;
        if let (Some(file), Begin::Fresh) = (&mut file, &begin) {
            file.go_to_end(path)?;
        }
        Ok(Self::at(path, begin, file))
    }

    fn at(path: &Path, begin: Begin, file: Option<Followed>) -> Self {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        let watch = Inotify::init(flags).inspect_err(|e| debug!("event=no-inotify reason={e}")).ok();
        let (pump, rewind, passes) = (None, false, 0);
        Self { path: path.to_owned(), begin, file, left: None, watch, watched: None, pump, rewind, passes }
    }

    /// Goes on with what the program before this one has left.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn unpack(path: &Path, packed: PackedTail, cutting: Cutting, luggage: &Luggage) -> io::Result<Self> {
        let PackedTail { file, left, pump, rewind, passes } = packed;
        let file = file.map(|(file, at, stop)| Followed::known(luggage.fd(file)?.into(), at, stop)).transpose()?;
        let new = || cutting.pump_of_many().map_err(io::Error::other);
        let pump = pump.map(|pump| pump.unpack(new()?, luggage)).transpose()?;
        // Without a pump the first message was not looked for: the end of the file is followed, as at a start.
        Ok(Self { left, pump, rewind, passes, ..Self::at(path, Begin::Fresh, file) })
    }

    /// Notes where it begins, unless the segment says so already.
    ///
    /// # Errors
    /// When the segment cannot be written.
    pub(super) fn note(
        &self,
        segment: BorrowedFd<'_>,
        cutting: Cutting,
        (seq, dropped, bytes): (u64, u64, u64),
    ) -> Result<()> {
        let is_passing = match self.begin {
            Begin::Noted { .. } => return Ok(()),
            Begin::Fresh => !self.file.as_ref().is_none_or(|file| file.is_at_beginning_of_message(cutting.framing)),
            Begin::Anew(_) => false,
        };
        let at = self.file.as_ref().map_or(0, |file| file.at);
        let place = place::note_at(self.file.as_ref(), at, is_passing, &self.path, cutting);
        Ok(note_source(segment, SourceNote { seq, dropped, bytes, ..place })?)
    }

    /// Has inotify tell when the file grows, or changes its name, and nothing of the file before it.
    fn watch(&mut self) {
        self.unwatch();
        let (Some(watch), Some(followed)) = (&self.watch, &self.file) else { return };
        // The very file, whatever has its name by now.
        let file = format!("/proc/self/fd/{}", followed.file.as_raw_fd());
        let events = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF;
        match watch.add_watch(file.as_str(), events) {
            Ok(watched) => self.watched = Some(watched),
            Err(e) => debug!("event=no-watch file={:?} reason={e}", self.path),
        }
    }

    /// A file that was renamed and is kept would be watched for ever.
    fn unwatch(&mut self) {
        if let (Some(watch), Some(watched)) = (&self.watch, self.watched.take()) {
            // Fails for a file that is gone, whose watch went with it.
            let _ = watch.rm_watch(watched);
        }
    }

    /// Finds the first message.
    fn begin(&mut self, feed: &mut Feed<'_>, pump: &mut Pump) -> Result<()> {
        let Some(followed) = &mut self.file else { return Ok(()) };
        let about = || operation(LogEvent::Follow).on(feed.channel()).text("file", self.path.display());
        match self.begin {
            Begin::Fresh => {}
            Begin::Anew(reason) => {
                about().number("offset", 0u32).reason(reason).warn();
                return Ok(());
            }
            Begin::Noted { note, is_passing, counts } => {
                let len = followed.file.metadata().map_err(|e| failed(&self.path, e))?.len();
                if counts && len < feed.least_end(&note) {
                    followed.at = 0;
                    about().number("offset", 0u32).reason(place::CUT).warn();
                    return Ok(());
                }
                let published = if counts { feed.since(&note) } else { Some(0) };
                let most = feed.max_message() + STEP;
                if let Some(published) = published.filter(|published| *published <= most) {
                    let about = about().number("offset", note.offset).number("published", published);
                    about.reason("the daemon before this one had read to here").info();
                    feed.pass(published);
                    if is_passing {
                        pump.pass_over();
                    }
                    return Ok(());
                }
                about().reason("what the daemon before this one has noted makes no sense; the end is followed").warn();
                followed.go_to_end(&self.path)?;
            }
        }
        if !followed.is_at_beginning_of_message(feed.cutting().framing) {
            pump.pass_over();
        }
        Ok(())
    }

    fn wait(&self, feed: &mut Feed<'_>) -> Result<()> {
        let mut fds = feed.fds();
        fds.extend(self.watch.as_ref().map(|watch| PollFd::new(watch.as_fd(), PollFlags::POLLIN)));
        feed.wait(&mut fds, Some(LOOK))?;
        // What happened does not matter: everything is looked at anyway.
        while self.watch.as_ref().is_some_and(|watch| watch.read_events().is_ok()) {}
        Ok(())
    }

    /// Waits for the file to be there, and opens it at its beginning. One that was left before is opened where it was left.
    fn find(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        let mut before = None;
        loop {
            match open(&self.path) {
                Ok(Some(file)) => {
                    operation(LogEvent::Follow).on(feed.channel()).text("file", self.path.display()).info();
                    let left = self.left.take().filter(|left| left.is_in(&file));
                    let at = left.map_or(0, |left| left.at);
                    self.file = Some(Followed { at, ..file });
                    return Ok(());
                }
                Ok(None) => feed.set(SourceState::AwaitingFile),
                Err(e) => {
                    feed.set(SourceState::Retrying);
                    let reason = e.to_string();
                    if before.as_ref() != Some(&reason) {
                        feed.trouble(&reason, || None);
                        before = Some(reason);
                    }
                }
            }
            self.wait(feed)?;
        }
    }

    /// Follows the open file to its end, which may never come. Returns whether to begin the file again.
    fn follow(&mut self, feed: &mut Feed<'_>, pump: &mut Pump) -> Result<bool> {
        feed.set(SourceState::Following);
        loop {
            let Some(followed) = &mut self.file else { return Ok(false) };
            feed.note(place::note(followed, pump, &self.path, feed.cutting()));
            match feed.step(pump, followed)? {
                Stepped::Moved => {}
                Stepped::Idle => match look(followed, &self.path) {
                    Turn::Stay => self.wait(feed)?,
                    Turn::Leave => followed.stop = Stop::AtEnd,
                    Turn::Rewind => (followed.stop, self.rewind) = (Stop::Now, true),
                },
                Stepped::Short(e) => feed.wait_for_memory(&e)?,
                Stepped::End => return Ok(std::mem::take(&mut self.rewind)),
                Stepped::Broken(e) => {
                    feed.trouble(&e, || None);
                    if matches!(e, Error::Framing(FramingError::BadInput { .. })) {
                        pump.pass_over();
                        continue;
                    }
                    // It is opened again where it was: a descriptor may be stale.
                    feed.pause(LOOK)?;
                    return Ok(false);
                }
            }
        }
    }
}

impl Tail {
    fn go_on(&mut self, feed: &mut Feed<'_>, pump: &mut Pump) -> Result<()> {
        loop {
            if self.file.is_none() {
                self.find(feed)?;
                *pump = feed.pump()?;
            }
            self.watch();
            let rewind = self.follow(feed, pump)?;
            // What was to be passed over was in this file.
            feed.pass(0);
            let Some(followed) = self.file.take() else { continue };
            if rewind {
                operation(LogEvent::Rewind).on(feed.channel()).text("file", self.path.display()).info();
                self.file = Some(followed.rewound());
                *pump = feed.pump()?;
            } else {
                self.left = Some(followed.left(pump.unfinished() as u64));
            }
        }
    }
}

impl Input for Tail {
    fn run(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        let mut pump = match self.pump.take() {
            Some(pump) => {
                feed.pass(self.passes);
                pump
            }
            None => {
                let mut pump = feed.pump()?;
                self.begin(feed, &mut pump)?;
                pump
            }
        };
        let result = self.go_on(feed, &mut pump);
        (self.pump, self.passes) = (Some(pump), feed.passes());
        result
    }

    fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedInput> {
        let file = self.file.as_ref().map(|followed| Ok((parcel.fd(&followed.file)?, followed.at, followed.stop)));
        Ok(PackedInput::Tail(PackedTail {
            file: file.transpose().map_err(|e: io::Error| e)?,
            left: self.left,
            pump: self.pump.as_ref().map(|pump| PackedPump::pack(pump, parcel)).transpose()?,
            rewind: self.rewind,
            passes: self.passes,
        }))
    }
}

fn failed(path: &Path, e: io::Error) -> Error {
    Error::system(format!("open the file {}", path.display()), e)
}

/// At its beginning. Nothing when there is none.
fn open(path: &Path) -> Result<Option<Followed>> {
    open_with(path, OFlag::empty())
}

fn open_with(path: &Path, flags: OFlag) -> Result<Option<Followed>> {
    // Not waiting, in case that it is a FIFO after all.
    let file = match OpenOptions::new().read(true).custom_flags((OFlag::O_NONBLOCK | flags).bits()).open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(path, e)),
    };
    let found = file.metadata().map_err(|e| failed(path, e))?;
    if !found.is_file() {
        return Err(wrong_kind(path, found.file_type(), "a regular file"));
    }
    Followed::known(file, 0, Stop::Never).map(Some).map_err(|e| failed(path, e))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use shm_proto::internal::framing::Framing;

    use super::*;
    use shm_test_support::TempDir;

    #[test]
    fn following_begins_at_a_message() {
        let dir = TempDir::new();
        let path = dir.path().join("log");
        for (text, framing, expected) in [
            ("", Framing::Lines, true),
            ("a\n", Framing::Lines, true),
            ("a\nb", Framing::Lines, false),
            ("a\n", Framing::Nul, false),
            ("a\0", Framing::Nul, true),
        ] {
            fs::write(&path, text).unwrap();
            let cutting = Cutting { framing, keep_delimiter: false, max_message: 100, flush: None };
            let tail = Tail::open(&path, cutting, SourceNote::default()).unwrap().file.unwrap();
            assert_eq!(tail.at, text.len() as u64);
            assert_eq!(tail.is_at_beginning_of_message(framing), expected, "{text:?} {framing}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_and_what_is_not_there_is_not() {
        let dir = TempDir::new();
        let cutting = Cutting { framing: Framing::Lines, keep_delimiter: false, max_message: 100, flush: None };
        let open = |path: &Path| Tail::open(path, cutting, SourceNote::default());
        assert!(open(&dir.path().join("x")).unwrap().file.is_none());
        let refused = open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains("it is a directory and not a regular file"), "{refused}");
    }
}
