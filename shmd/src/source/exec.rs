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
use shm_proto::internal::control::stat::SourceState;
use shm_proto::internal::framing;
use shm_proto::internal::framing::input::NonBlocking;
use shm_proto::internal::os::unread::readable_bytes;
use shm_proto::{Error, FramingError, Result};

use super::Input;
use super::backoff::Backoff;
use super::child::{Complaints, Running};
use super::feed::{Feed, Stepped, is_ready};
use crate::config::CommandLine;
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
}

impl Exec {
    /// Not started yet.
    pub(super) fn new(command: CommandLine) -> Self {
        Self { command, complaints: Complaints::new() }
    }

    /// One run, from the start to the end of what the child has written; it may still be alive then.
    fn follow(&mut self, feed: &mut Feed<'_>, running: &Running) -> Result<()> {
        let mut pump = feed.pump()?;
        let mut reads = 0;
        // Once the child has ended: what it has left in the pipe.
        let mut left = None;
        loop {
            let mut input = Rest { pipe: NonBlocking(running.stdout()), left };
            let stepped = feed.step(&mut pump, &mut input)?;
            left = input.left;
            match stepped {
                Stepped::Moved => {
                    reads += 1;
                    if reads % READS == 0 {
                        self.complaints.take(running.stderr(), feed.channel(), running.pid());
                        // One of its own that goes on writing is not read for ever: the next run waits for this end.
                        if left.is_none() && running.has_ended(Duration::ZERO) {
                            left = Some(readable_bytes(running.stdout()).unwrap_or(0));
                        }
                    }
                }
                Stepped::Idle if left.is_some() => return self.end(feed, &mut pump),
                Stepped::Idle => {
                    let mut fds = feed.fds();
                    let daemon = fds.len();
                    let inputs = [Some(running.stdout()), Some(running.ended()), self.stderr(running)];
                    fds.extend(inputs.into_iter().flatten().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
                    feed.wait(&mut fds, None)?;
                    self.complaints.take(running.stderr(), feed.channel(), running.pid());
                    // The end counts when nothing is left to read. A child of its own that holds the pipe open does not.
                    if is_ready(&fds[daemon + 1]) && !is_ready(&fds[daemon]) {
                        return self.end(feed, &mut pump);
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
    fn end(&self, feed: &mut Feed<'_>, pump: &mut shm_proto::internal::framing::Pump) -> Result<()> {
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

    fn run_once(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        let started = Instant::now();
        let mut running = match Running::start(&self.command) {
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
                return Ok(());
            }
        };
        let pid = running.pid();
        feed.set(SourceState::Running { pid });
        operation(LogEvent::ChildStart)
            .on(feed.channel())
            .number("pid", pid)
            .text("command", &self.command.text)
            .info();
        self.complaints.begin();
        let followed = self.follow(feed, &running).and_then(|()| await_end(feed, &running));
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
    fn run(mut self: Box<Self>, feed: &mut Feed<'_>) -> Result<()> {
        let mut backoff = Backoff::new();
        loop {
            let started = Instant::now();
            self.run_once(feed)?;
            let wait = backoff.after(started.elapsed());
            feed.restarts(Instant::now() + wait);
            feed.pause(wait)?;
        }
    }
}
