//! A daemon that works only when it is told to, in the caller's thread: for [fuzzing](crate::fuzzing).

use std::path::Path;

use super::probe::own_program;
use super::{Daemon, Origin};
use crate::config::{self, Given, Located};
use crate::event_loop::{Event, Timer};
use crate::host::Host;

/// After this many rounds of events without a pause, the daemon is in an endless loop.
const MOST_ROUNDS: u32 = 10_000;

/// A complete daemon that never waits.
#[derive(Debug)]
pub struct Stepwise(Daemon);

impl Stepwise {
    /// Starts with the configuration in this file.
    #[must_use]
    pub fn start(file: &Path) -> Self {
        let config = Located { origin: config::Origin::Flag("--config".to_owned()), value: file.to_owned() };
        let given = Given { config: Some(config), ..Given::default() };
        let host = Host { stdin_feeds: false, ..Host::look() };
        let checked = config::load(&given, &host).unwrap_or_else(|e| panic!("{e}"));
        let (program, start_dir) = (own_program(), "/".into());
        let origin = Origin { given, stdin_feeds: false, pid_file: None, program, start_dir, listener: None };
        Self(Daemon::start(checked, origin, None).unwrap_or_else(|e| panic!("{e}")))
    }

    /// Does everything that can be done without waiting.
    pub fn settle(&mut self) {
        let Self(daemon) = self;
        for _ in 0..MOST_ROUNDS {
            // Ends the wait at once; nothing is due by it.
            let last = Event::Due(Timer::Status);
            daemon.connections.events.post(last);
            let mut events = Vec::new();
            daemon.connections.events.wait(&mut events).expect("the daemon can wait");
            let rests = events == [last];
            for event in events {
                daemon.dispatch(event);
                daemon.remove_clients();
            }
            daemon.answer_removals();
            daemon.inform_followers();
            if rests {
                return;
            }
        }
        panic!("the daemon finds something to do in {MOST_ROUNDS} rounds");
    }

    /// Does what is done once a second.
    pub fn tick(&mut self) {
        self.0.dispatch(Event::Due(Timer::Tick));
        self.settle();
    }

    /// The numbers of connections and of attached readers.
    #[must_use]
    pub fn peers(&self) -> (usize, usize) {
        (self.0.connections.len(), self.0.channels.iter().map(|channel| channel.reader_count()).sum())
    }
}
