//! A FIFO. What is written between the first open and the last close is one input: at its end an unfinished line is a
//! message, a record cut short is an error, and nothing is left for the next. A writer that claims a long message and does not
//! send it takes only the memory of what it has sent.
//!
//! Its permissions decide who may write: the daemon's user, and the one group or everybody that `write` names. A FIFO
//! that is there already keeps its own, and stays when the daemon goes.
//!
//! A writer may have the FIFO open longer than a daemon lives. So the source notes in the channel's segment whether the next byte begins
//! a message, and the next daemon throws the rest of a message away whose beginning has died with this one. While there is
//! something to read, nobody knows, and the note says so.
//!
//! A daemon that is killed leaves the FIFO that it made. The next one knows it by the sticky bit, which means nothing on a
//! FIFO and which nobody else sets, and treats it as one that it made itself.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use nix::unistd::{Gid, fchown, geteuid};
use serde::{Deserialize, Serialize};
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::input::{NonBlocking, is_wide, widen};
use shm_proto::internal::framing::{Framing, Pump};
use shm_proto::internal::os::file_id::FileId;
use shm_proto::internal::ring::SourceNote;
use shm_proto::{Error, FramingError, Result};

use super::feed::{Feed, Stepped, is_ready};
use super::file_id::{Made, REPLACED, wrong_kind};
use super::packed_pump::PackedPump;
use super::{Cutting, Input, PackedInput};
use crate::access::FileAccess;
use crate::handover::{Luggage, Parcel};
use crate::operation_log::{LogEvent, operation};

/// How often the source checks the FIFO's name while no program writes, and tries to open a FIFO that cannot be opened.
const LOOK: Duration = Duration::from_secs(1);
/// The sticky bit marks a FIFO that a daemon made.
const MADE: u32 = 0o1000;
/// What [`SourceNote::offset`] says of a FIFO: the next byte begins a message, or perhaps not.
const BEGINS: u64 = 1;
const INSIDE: u64 = 2;

/// The FIFO, open for reading.
#[derive(Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    access: FileAccess,
    file: File,
    made: Option<Made>,
    at: At,
    /// Of the present input.
    pump: Option<Pump>,
    /// A daemon has died that had perhaps read the beginning of what comes next.
    is_inside: bool,
}

/// How far it is with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum At {
    /// No program writes.
    Waiting,
    Reading,
    /// All of it is published.
    End,
}

/// What is left to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedFifo {
    file: i32,
    made: bool,
    at: At,
    pump: Option<PackedPump>,
}

impl Fifo {
    /// Opens the FIFO, and makes it if there is nothing. `left` is what the daemon before this one has noted.
    ///
    /// # Errors
    /// When the path is something else, or the system refuses.
    pub(super) fn open(path: &Path, access: FileAccess, left: &SourceNote) -> Result<Self> {
        let (file, made, was_open) = open_or_make(path, access, Marked::IsLeft)?;
        let is_same = FileId::of(&file).is_ok_and(|id| id == FileId { device: left.device, inode: left.inode });
        // What was in a FIFO that nobody had open is gone, and its next writer begins anew.
        let is_inside = was_open && is_same && left.offset == INSIDE;
        Ok(Self { path: path.to_owned(), access, file, made, at: At::Waiting, pump: None, is_inside })
    }

    /// Goes on with what the program before this one has left.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn unpack(
        path: &Path,
        access: FileAccess,
        packed: PackedFifo,
        cutting: Cutting,
        luggage: &Luggage,
    ) -> io::Result<Self> {
        let file = File::from(luggage.fd(packed.file)?);
        let made = if packed.made { Some(Made::known(path, &file.metadata()?)) } else { None };
        let new = || cutting.pump_of_many().map_err(io::Error::other);
        let pump = packed.pump.map(|pump| pump.unpack(new()?, luggage)).transpose()?;
        Ok(Self { path: path.to_owned(), access, file, made, at: packed.at, pump, is_inside: false })
    }

    /// For the daemon that comes after this one.
    fn note(file: &File, feed: &mut Feed<'_>, at: u64) {
        if let Ok(FileId { device, inode }) = FileId::of(file) {
            feed.note(SourceNote { device, inode, offset: at, ..SourceNote::default() });
        }
    }

    /// Begins where another daemon has died, if it has read a part of a message.
    fn begin(&mut self, feed: &mut Feed<'_>, pump: &mut Pump) -> Result<()> {
        // In a stream, a message begins wherever a read does.
        if std::mem::take(&mut self.is_inside) && feed.cutting().framing != Framing::Stream {
            let knows_end = pump.pass_over();
            let until = if knows_end { "its end" } else { "the writers close the FIFO" };
            let reason = format!(
                "the daemon before this one died inside a message, or while it was reading; what comes is passed over until {until}"
            );
            feed.trouble(reason, || None);
            return Ok(());
        }
        feed.set(SourceState::AwaitingWriter);
        Self::note(&self.file, feed, BEGINS);
        // A FIFO that nobody has opened yet reads as ended, and only poll knows better.
        self.await_writer(feed)?;
        Self::note(&self.file, feed, INSIDE);
        Ok(())
    }

    /// Whether the path still leads to the FIFO that is open.
    fn is_in_place(&self) -> bool {
        match (self.file.metadata(), fs::metadata(&self.path)) {
            (Ok(open), Ok(named)) => FileId::from(&open) == FileId::from(&named),
            _ => false,
        }
    }

    /// Opens the FIFO again, and closes the old descriptor afterwards, so that a writer always finds a reader.
    fn reopen(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        let mut before = None;
        loop {
            match open_or_make(&self.path, self.access, Marked::IsOwn) {
                Ok((file, made, _)) => {
                    self.file = file;
                    if made.is_some() {
                        operation(LogEvent::Recreate).on(feed.channel()).text("fifo", self.path.display()).warn();
                        self.made = made;
                    }
                    return Ok(());
                }
                Err(e) => {
                    let reason = e.to_string();
                    if before.as_ref() != Some(&reason) {
                        feed.trouble(&reason, || None);
                        before = Some(reason);
                    }
                    feed.set(SourceState::Retrying);
                    feed.pause(LOOK)?;
                }
            }
        }
    }

    /// Reads one input to its end.
    fn read(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        let Some(pump) = &mut self.pump else { return Ok(()) };
        feed.set(if pump.is_passing_over() { SourceState::PassingOver } else { SourceState::Open });
        loop {
            match feed.step(pump, &mut NonBlocking(&self.file))? {
                Stepped::Moved => {}
                Stepped::Idle => {
                    let is_begun = pump.unfinished() > 0 || pump.is_passing_over();
                    Self::note(&self.file, feed, if is_begun { INSIDE } else { BEGINS });
                    feed.wait_for(&self.file, pump.flush_in())?;
                    Self::note(&self.file, feed, INSIDE);
                }
                Stepped::Short(e) => feed.wait_for_memory(&e)?,
                Stepped::End => return Ok(()),
                Stepped::Broken(e) => {
                    feed.trouble(&e, || None);
                    if !matches!(e, Error::Framing(FramingError::BadInput { .. })) {
                        return feed.pause(LOOK);
                    }
                    if !pump.pass_over() {
                        feed.set(SourceState::PassingOver);
                    }
                }
            }
        }
    }

    /// Waits until there is something to read, or a writer has come and gone.
    fn await_writer(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        loop {
            let mut fds = feed.fds();
            fds.push(nix::poll::PollFd::new(self.file.as_fd(), nix::poll::PollFlags::POLLIN));
            feed.wait(&mut fds, Some(LOOK))?;
            if is_ready(&fds[1]) {
                return Ok(());
            }
            if !self.is_in_place() {
                self.reopen(feed)?;
                feed.set(SourceState::AwaitingWriter);
            }
        }
    }
}

impl Input for Fifo {
    fn run(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        loop {
            match self.at {
                At::Waiting => {
                    let mut pump = feed.pump()?;
                    self.begin(feed, &mut pump)?;
                    (self.pump, self.at) = (Some(pump), At::Reading);
                }
                At::Reading => {
                    self.read(feed)?;
                    (self.pump, self.at) = (None, At::End);
                }
                At::End => {
                    self.reopen(feed)?;
                    self.at = At::Waiting;
                }
            }
        }
    }

    fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedInput> {
        Ok(PackedInput::Fifo(PackedFifo {
            file: parcel.fd(&self.file)?,
            made: self.made.is_some(),
            at: self.at,
            pump: self.pump.as_ref().map(|pump| PackedPump::pack(pump, parcel)).transpose()?,
        }))
    }
}

/// What a FIFO with the mark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marked {
    /// Left by a daemon that was killed.
    IsLeft,
    /// This source's own.
    IsOwn,
}

/// The FIFO, whether it was made here, and whether somebody has had it open since another daemon had it open.
fn open_or_make(path: &Path, access: FileAccess, marked: Marked) -> Result<(File, Option<Made>, bool)> {
    let failed = |what: &str| {
        let action = format!("{what} the FIFO {}", path.display());
        move |e: io::Error| Error::system(action, e)
    };
    let mut made = None;
    match fs::metadata(path) {
        Ok(found) if !found.file_type().is_fifo() => return Err(wrong_kind(path, found.file_type(), "a FIFO")),
        Ok(found) if marked == Marked::IsLeft && is_marked(&found) => {
            // Where a link leads to is another's, whose permissions and name are left alone.
            let named = fs::symlink_metadata(path).map_err(failed("look at"))?;
            made = (FileId::from(&named) == FileId::from(&found)).then(|| Made::known(path, &found));
        }
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // With the mark from the beginning: a daemon that is killed before it sets the mode has left its own.
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_ISVTX).map_err(|e| failed("make")(e.into()))?;
            made = Some(Made::at(path).map_err(failed("look at"))?);
        }
        Err(e) => return Err(failed("look at")(e)),
    }
    // Not waiting, so that opening does not wait for a writer.
    let mut flags = OFlag::O_NONBLOCK;
    flags.set(OFlag::O_NOFOLLOW, made.is_some());
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(failed("open"))?;
    let found = file.metadata().map_err(failed("look at"))?;
    if !found.file_type().is_fifo() {
        return Err(wrong_kind(path, found.file_type(), "a FIFO"));
    }
    let was_open = is_wide(&file);
    widen(&file);
    if let Some(made) = &made {
        if !made.is(&found) {
            return Err(failed("open")(io::Error::other(REPLACED)));
        }
        let mode = match access {
            FileAccess::Owner => 0o600,
            FileAccess::Group(gid) => {
                fchown(&file, None, Some(Gid::from_raw(gid))).map_err(|e| {
                    let way = "shmd must run as root or be a member of that group: SupplementaryGroups= in its unit, \
                               and a restart";
                    failed(&format!("give group {gid}, which `write` names,"))(io::Error::other(format!("{e}; {way}")))
                })?;
                0o620
            }
            FileAccess::Everyone => 0o622,
        };
        // Exactly this, whatever the umask.
        file.set_permissions(Permissions::from_mode(MADE | mode)).map_err(failed("set the mode of"))?;
    }
    Ok((file, made, was_open))
}

fn is_marked(found: &Metadata) -> bool {
    found.mode() & MADE != 0 && found.uid() == geteuid().as_raw()
}
