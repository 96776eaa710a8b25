//! The loop that receives.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use shm_proto::Follower;
use shm_proto::internal::os::clock::{self, monotonic_ns};
use shmctl::companion::{Failure, Result, Signals, note, wait_for};

use super::content::Declared;
use super::sink::Sink;
use super::stream::{End, Stream};

/// How often a sleeping reader shows that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long an end waits for a channel from which the recorder was evicted.
const GRACE: Duration = Duration::from_secs(2);
/// What a record takes in a ring, at least.
const RECORD: u64 = 16;

/// Why recording has ended.
#[derive(Debug)]
pub(crate) struct Stop {
    /// For the end of the files.
    pub(crate) reason: String,
    pub(crate) failure: Option<Failure>,
}

impl Stop {
    fn new(reason: impl Into<String>) -> Self {
        Stop { reason: reason.into(), failure: None }
    }

    fn failed(failure: Failure) -> Self {
        Stop { reason: failure.to_string(), failure: Some(failure) }
    }
}

/// The channels, and how long they are recorded.
#[derive(Debug)]
pub(crate) struct Receiver<'a> {
    pub(crate) streams: Vec<Stream>,
    pub(crate) sink: Sink,
    declared: &'a Declared,
    signals: &'a Signals,
    count: Option<u64>,
    until_ns: u64,
    turn: usize,
    /// Why the first channel that failed has ended, while others go on.
    failure: Option<Failure>,
}

impl<'a> Receiver<'a> {
    pub(crate) fn new(
        streams: Vec<Stream>,
        sink: Sink,
        declared: &'a Declared,
        signals: &'a Signals,
        count: Option<u64>,
    ) -> Self {
        Receiver { streams, sink, declared, signals, count, until_ns: u64::MAX, turn: 0, failure: None }
    }

    /// Receives until there is a reason to end, and sends the last chunk.
    pub(crate) fn run(&mut self, duration: Option<Duration>) -> Stop {
        self.until_ns = clock::deadline(duration);
        let mut stop = self.begin().and_then(|()| self.receive()).unwrap_or_else(Stop::failed);
        // A recording without the rest of a channel is not whole, however it ends.
        stop.failure = self.failure.take().or(stop.failure);
        self.sink.flush();
        stop
    }

    /// The first file says at once what is recorded.
    fn begin(&mut self) -> Result<()> {
        for stream in &mut self.streams {
            stream.attach(&mut self.sink, self.declared)?;
        }
        self.sink.flush();
        Ok(())
    }

    fn receive(&mut self) -> Result<Stop> {
        loop {
            if let Some(stop) = self.drain()? {
                return Ok(stop);
            }
            for index in 0..self.streams.len() {
                if let Some(stop) = self.look_after(index)? {
                    return Ok(stop);
                }
            }
            let mut armed = true;
            for index in 0..self.streams.len() {
                match self.streams[index].follower().map(Follower::arm) {
                    Some(Ok(is_armed)) => armed &= is_armed,
                    Some(Err(error)) => {
                        if let Some(stop) = self.fail(index, error.into())? {
                            return Ok(stop);
                        }
                    }
                    None => {}
                }
            }
            if armed {
                self.sleep()?;
            }
            self.sink.flush_old(monotonic_ns());
        }
    }

    /// Takes every message that is there, from each channel in turn.
    fn drain(&mut self) -> Result<Option<Stop>> {
        let mut idle = 0;
        while idle < self.streams.len() {
            if let Some(stop) = self.reason_to_stop()? {
                return Ok(Some(stop));
            }
            let turn = self.turn;
            self.turn = (turn + 1) % self.streams.len();
            idle = match self.streams[turn].take(&mut self.sink, self.declared) {
                Ok(true) => 0,
                Ok(false) => idle + 1,
                Err(failure) => match self.fail(turn, failure)? {
                    Some(stop) => return Ok(Some(stop)),
                    None => idle + 1,
                },
            };
        }
        self.reason_to_stop()
    }

    fn reason_to_stop(&mut self) -> Result<Option<Stop>> {
        if self.has_enough() {
            return Ok(Some(Stop::new("as many messages as were asked for")));
        }
        if self.sink.pipeline.has_failed() {
            return Ok(Some(Stop::new("a write failed")));
        }
        let reason = if self.signals.came() {
            self.signals.name()
        } else if self.sink.last_ns() >= self.until_ns {
            "the time is over"
        } else {
            return Ok(None);
        };
        let stop = self.take_rest()?;
        Ok(Some(stop.unwrap_or_else(|| Stop::new(reason))))
    }

    fn has_enough(&self) -> bool {
        self.count.is_some_and(|count| self.sink.messages() >= count)
    }

    /// Takes what was published before this moment, and no more than the channels can hold: a writer that goes on does not hold up the
    /// end.
    fn take_rest(&mut self) -> Result<Option<Stop>> {
        let grace = clock::after(GRACE);
        for index in 0..self.streams.len() {
            if let Err(failure) = self.take_rest_of(index, grace)
                && let Some(stop) = self.fail(index, failure)?
            {
                return Ok(Some(stop));
            }
        }
        Ok(None)
    }

    fn take_rest_of(&mut self, index: usize, grace: u64) -> Result<()> {
        let stream = &mut self.streams[index];
        // At this moment it may be between two attachments, and what was published since the first would be missing.
        stream.hear(&mut self.sink);
        while stream.is_evicted() && monotonic_ns() < grace {
            std::thread::sleep(Duration::from_millis(5));
            stream.attach(&mut self.sink, self.declared)?;
        }
        let mut left = self.streams[index].capacity();
        while left > 0 && !self.has_enough() && !self.sink.pipeline.has_failed() {
            let before = self.sink.bytes();
            if !self.streams[index].take(&mut self.sink, self.declared)? {
                break;
            }
            left = left.saturating_sub(RECORD.max(self.sink.bytes() - before));
        }
        Ok(())
    }

    /// Attaches a channel again if it is time to, and hears what its follower has to say.
    fn look_after(&mut self, index: usize) -> Result<Option<Stop>> {
        let stream = &mut self.streams[index];
        if let Err(failure) = stream.attach(&mut self.sink, self.declared) {
            return self.fail(index, failure);
        }
        match stream.hear(&mut self.sink) {
            None => Ok(None),
            Some(End::Closed) => {
                let told = format!("channel {} is closed", stream.label());
                Ok(self.go_on_after(told))
            }
            Some(End::Failed(failure)) => self.fail(index, failure),
        }
    }

    /// Ends a channel with an error. The others are recorded on, unless none of them is left.
    ///
    /// # Errors
    /// That the channel was never recorded.
    fn fail(&mut self, index: usize, failure: Failure) -> Result<Option<Stop>> {
        let stream = &mut self.streams[index];
        if !stream.has_begun() {
            return Err(failure);
        }
        let told = failure.to_string();
        stream.end(&mut self.sink, &told);
        self.failure.get_or_insert(failure);
        Ok(self.go_on_after(told))
    }

    /// A channel has ended. If no other is left, that ends the recording.
    fn go_on_after(&self, told: String) -> Option<Stop> {
        let others: Vec<_> = self.streams.iter().filter(|s| s.open().is_some()).map(Stream::label).collect();
        if others.is_empty() {
            return Some(Stop::new(told));
        }
        note(&format!("{told}; going on with {}", others.join(", ")));
        None
    }

    /// Sleeps until there may be something to do.
    fn sleep(&mut self) -> Result<()> {
        let until = self.sink.due_ns().min(self.until_ns);
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.sink.pipeline.as_fd(), PollFlags::POLLIN),
        ];
        let followers = self.streams.iter().filter_map(Stream::open);
        fds.extend(followers.map(|follower| PollFd::new(follower.as_fd(), PollFlags::POLLIN)));
        wait_for(&mut fds, clock::left(until).min(HEARTBEAT))?;
        self.sink.look_at_clock();
        Ok(())
    }
}
