//! What is done when a deadline has passed.

use std::time::Instant;

use log::debug;

use super::{Daemon, TICK};
use crate::channels::GIVE_BACK;
use crate::event_loop::Timer;
use crate::operation_log::{LogEvent, operation};

impl Daemon {
    /// A deadline has passed.
    pub(super) fn due(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Stop => {
                let reason = format!("a writer did not give its role back within {} s", GIVE_BACK.as_secs());
                operation(LogEvent::StopLate).reason(reason).warn();
                self.stopped = true;
            }
            Timer::Tick => {
                for channel in self.channels.iter_mut() {
                    channel.tick(&mut self.connections, now);
                }
                self.keep_ticking();
            }
            Timer::Accept => {
                if let Some(socket) = &self.socket
                    && let Err(e) = self.connections.listen(&socket.listener)
                {
                    debug!("event=accept-paused reason={:?}", e.to_string());
                    self.connections.events.set_timer(Timer::Accept, Some(now + TICK));
                }
            }
            Timer::Drain => self.drain(),
            Timer::Reexec => self.go_on_reexec(),
            Timer::Leave(channel) => self.channels.release(&mut self.connections, Some(channel)),
            Timer::Watchdog => self.manager.watchdog(&mut self.connections.events, now),
            // Looked at after every round of events anyway.
            Timer::Status => {}
            Timer::Client(id) => self.connections.overdue(id, now),
            Timer::Source(channel) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().retry_source(&mut self.connections);
                }
                self.keep_ticking();
            }
            Timer::Inspect(channel) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().inspect(&mut self.connections);
                }
            }
            Timer::Claim(channel) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().claim_due(&mut self.connections);
                }
                self.keep_ticking();
            }
            Timer::Returning(channel) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().give_up_missing(&mut self.connections);
                }
            }
            Timer::Resize(channel) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().resize_due(&mut self.connections);
                }
            }
        }
    }
}
