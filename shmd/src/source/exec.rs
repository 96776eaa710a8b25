//! A program whose standard output is the input. Each run is an input of its own; when it ends, however that is, the program
//! is started again after a wait that grows with runs that are short.
//!
//! The words of the command are split as a shell splits them, and nothing more is done: no variables, no patterns, no pipes,
//! so that nothing in the configuration means more than it says. For a shell, name it: `exec:/bin/sh -c '…'`.
//!
//! While the ring is full, neither the child's output nor its standard error is read: the child waits.

use std::io::{self, Read};
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing::input::NonBlocking;
use shm_proto::internal::framing::{self, Pump};
use shm_proto::{Error, FramingError, Result, WriterError};

use super::backoff::Backoff;
use super::child::{Complaints, PackedComplaints, PackedRunning, Running};
use super::feed::{Feed, Stepped, is_ready};
use super::packed_pump::PackedPump;
use super::{Cutting, Input, PackedInput};
use crate::config::CommandLine;
use crate::handover::{Luggage, Parcel};
use crate::operation_log::{LogEvent, operation};

/// A child that has closed its output is ended if it does not end by itself within this time.
const AFTER_END: Duration = Duration::from_secs(1);
/// How many reads of the output go before a look at the complaints.
const READS: u32 = 16;

/// A pipe of which no more than `left` is read, if that says something: then it has ended.
struct Rest<'r> {
    pipe: NonBlocking<BorrowedFd<'r>>,
    left: Option<usize>,
}

impl Read for Rest<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left.unwrap_or(usize::MAX));
        let n = if most == 0 { 0 } else { self.pipe.read(&mut buffer[..most])? };
        self.left = self.left.map(|left| left - n);
        Ok(n)
    }
}

impl framing::Input for Rest<'_> {
    fn readable(&self) -> Option<usize> {
        self.pipe.readable().map(|there| there.min(self.left.unwrap_or(usize::MAX)))
    }
}

/// The program.
#[derive(Debug)]
pub(super) struct Exec {
    command: CommandLine,
    complaints: Complaints,
    backoff: Backoff,
    run: Option<Run>,
    /// When it is started again.
    again: Option<Instant>,
}

/// One run of it.
#[derive(Debug)]
struct Run {
    running: Running,
    pump: Pump,
    /// Once the child has ended: what it has left in the pipe.
    left: Option<usize>,
    /// Everything that it has written is read.
    is_read: bool,
    started: Instant,
}

/// What is left to the next program.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PackedExec {
    run: Option<PackedRun>,
    backoff: Backoff,
    /// Until it is started again.
    wait: Option<Duration>,
}

#[derive(Debug, Serialize, Deserialize)]
struct PackedRun {
    running: PackedRunning,
    pump: PackedPump,
    left: Option<usize>,
    is_read: bool,
    ran: Duration,
    complaints: PackedComplaints,
}

impl Exec {
    /// Not started yet.
    pub(super) fn new(command: CommandLine) -> Self {
        Self { command, complaints: Complaints::new(), backoff: Backoff::new(), run: None, again: None }
    }

    /// Goes on with what the program before this one has left.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn unpack(
        command: CommandLine,
        packed: PackedExec,
        cutting: Cutting,
        luggage: &Luggage,
    ) -> io::Result<Self> {
        let mut this = Self { backoff: packed.backoff, ..Self::new(command) };
        let now = Instant::now();
        this.again = packed.wait.map(|wait| now + wait);
        if let Some(PackedRun { running, pump, left, is_read, ran, complaints }) = packed.run {
            let running = Running::unpack(&running, luggage)?;
            let pump = pump.unpack(cutting.pump_of_many().map_err(io::Error::other)?, luggage)?;
            this.complaints = Complaints::unpack(complaints);
            this.run = Some(Run { running, pump, left, is_read, started: now.checked_sub(ran).unwrap_or(now) });
        }
        Ok(this)
    }

    /// One run, from the start to the end of what the child has written; it may still be alive then.
    fn follow(&mut self, feed: &mut Feed<'_>, run: &mut Run) -> Result<()> {
        let Run { running, pump, left, .. } = run;
        let mut reads = 0;
        loop {
            let mut input = Rest { pipe: NonBlocking(running.stdout()), left: *left };
            let stepped = feed.step(pump, &mut input);
            *left = input.left;
            match stepped? {
                Stepped::Moved => {
                    reads += 1;
                    if reads % READS == 0 {
                        self.complaints.take(running.stderr(), feed.channel(), running.pid());
                        // One of its own that goes on writing is not read for ever: the next run waits for this end.
                        *left = left.or_else(|| running.left());
                    }
                }
                Stepped::Idle if left.is_some() => return self.end(feed, pump),
                Stepped::Idle => {
                    let mut fds = feed.fds();
                    let daemon = fds.len();
                    let inputs = [Some(running.stdout()), Some(running.ended()), self.stderr(running)];
                    fds.extend(inputs.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
                    feed.wait(&mut fds, pump.flush_in())?;
                    self.complaints.take(running.stderr(), feed.channel(), running.pid());
                    // The end counts when what is left has been read. A child of its own that holds the pipe open does not. What
                    // was polled of the pipe is no sign: the child may have written between the looks at its pipe and at its end.
                    if is_ready(&fds[daemon + 1]) {
                        *left = running.left();
                    }
                }
                Stepped::Short(e) => feed.wait_for_memory(&e)?,
                Stepped::End => return Ok(()),
                Stepped::Broken(e) => {
                    feed.trouble(&e, || None);
                    if !matches!(e, Error::Framing(FramingError::BadInput { .. })) || !pump.pass_over() {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn stderr<'r>(&self, running: &'r Running) -> Option<BorrowedFd<'r>> {
        (!self.complaints.have_ended()).then(|| running.stderr())
    }

    /// What was begun and not finished is dealt with as at the end of any input.
    fn end(&self, feed: &mut Feed<'_>, pump: &mut Pump) -> Result<()> {
        loop {
            match feed.step(pump, &mut io::empty())? {
                Stepped::Short(e) => feed.wait_for_memory(&e)?,
                Stepped::Broken(e) => {
                    feed.trouble(&e, || None);
                    return Ok(());
                }
                Stepped::Moved | Stepped::Idle | Stepped::End => return Ok(()),
            }
        }
    }

    /// Starts a run; `None` if the program cannot be started.
    fn start(&mut self, feed: &mut Feed<'_>) -> Result<Option<Run>> {
        let running = match feed.start(&self.command) {
            Ok(running) => running,
            Err(e) => {
                let program = self.command.words.first().map_or("", String::as_str);
                let way = match e.kind() {
                    io::ErrorKind::NotFound if !program.contains('/') => {
                        "; put it into shmd's PATH, or give its absolute path"
                    }
                    io::ErrorKind::NotFound => {
                        "; check that the file exists, and the interpreter that its first line names"
                    }
                    io::ErrorKind::PermissionDenied => "; let the daemon's user execute it",
                    _ => "",
                };
                feed.trouble(format!("cannot start {program}: {e}{way}; the daemon tries again"), || None);
                return Ok(None);
            }
        };
        let pid = running.pid();
        operation(LogEvent::ChildStart)
            .on(feed.channel())
            .number("pid", pid)
            .text("command", &self.command.text)
            .info();
        self.complaints.begin();
        let pump = feed.pump()?;
        Ok(Some(Run { running, pump, left: None, is_read: false, started: Instant::now() }))
    }

    /// One run, to the end of the child. The run stays if the source is to rest.
    fn run_once(&mut self, feed: &mut Feed<'_>, mut run: Run) -> Result<()> {
        let pid = run.running.pid();
        feed.set(SourceState::Running { pid });
        let mut followed = Ok(());
        if !run.is_read {
            followed = self.follow(feed, &mut run);
            run.is_read = followed.is_ok();
        }
        let followed = followed.and_then(|()| await_end(feed, &run.running));
        if matches!(followed, Err(Error::Writer(WriterError::Interrupted { .. }))) {
            self.run = Some(run);
            return followed;
        }
        let Run { mut running, started, .. } = run;
        let status = running.finish();
        // Nobody of the group is left to write, so this is all of it.
        self.complaints.take(running.stderr(), feed.channel(), pid);
        self.complaints.end_line(feed.channel(), pid);
        let good = status.is_some_and(|status| status.success());
        let status = status.map_or_else(|| "it does not end".to_owned(), |status| status.to_string());
        let ended = operation(LogEvent::ChildExit).on(feed.channel()).number("pid", pid).text("status", &status);
        let ended = ended.number("ran_ms", started.elapsed().as_millis());
        // A child that the daemon ends is not to blame for how.
        if good || followed.is_err() {
            ended.info();
        } else {
            ended.warn();
            feed.count(format!("{}: {status}", self.command.text));
        }
        followed
    }
}

/// Gives a child that has nothing more to say the time to end by itself.
fn await_end(feed: &mut Feed<'_>, running: &Running) -> Result<()> {
    let until = Instant::now() + AFTER_END;
    while !running.has_ended(Duration::ZERO) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        feed.wait_for(&running.ended(), Some(left))?;
    }
    Ok(())
}

impl Input for Exec {
    fn run(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        loop {
            if let Some(at) = self.again {
                feed.restarts(at);
                feed.pause(at.saturating_duration_since(Instant::now()))?;
                self.again = None;
            }
            let begun = Instant::now();
            let run = match self.run.take() {
                Some(run) => Some(run),
                None => self.start(feed)?,
            };
            let started = run.as_ref().map_or(begun, |run| run.started);
            if let Some(run) = run {
                self.run_once(feed, run)?;
            }
            self.again = Some(Instant::now() + self.backoff.after(started.elapsed()));
        }
    }

    fn pack(&self, parcel: &mut Parcel) -> io::Result<PackedInput> {
        let now = Instant::now();
        let mut packed = PackedExec { run: None, backoff: self.backoff, wait: None };
        packed.wait = self.again.map(|at| at.saturating_duration_since(now));
        if let Some(run) = &self.run {
            packed.run = Some(PackedRun {
                running: run.running.pack(parcel)?,
                pump: PackedPump::pack(&run.pump, parcel)?,
                left: run.left,
                is_read: run.is_read,
                ran: now.saturating_duration_since(run.started),
                complaints: self.complaints.pack(),
            });
        }
        Ok(PackedInput::Exec(packed))
    }
}
