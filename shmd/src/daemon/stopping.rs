//! The daemon's stop.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::channels::GIVE_BACK;
use crate::event_loop::Timer;
use crate::operation_log::{LogEvent, operation};

/// How long the daemon tries to send readers the news of its end.
const FAREWELL: Duration = Duration::from_millis(200);

impl Daemon {
    /// Begins to stop: no more clients are admitted, and writers give their role back first, so that everything published before
    /// the readers are told is in their reach.
    pub(super) fn stop(&mut self, reason: &str) {
        // From here on, nothing new is begun.
        self.stopping = Some(reason.to_owned());
        self.give_reload_up(reason);
        self.give_reexec_up(reason);
        self.give_creations_up(reason);
        operation(LogEvent::Stop).reason(reason).info();
        self.manager.stopping(reason);
        if let Some(socket) = self.socket.take() {
            self.connections.events.remove(&socket.listener);
        }
        self.connections.events.set_timer(Timer::Accept, None);
        for channel in self.channels.iter_mut() {
            channel.ring_mut().revoke(&mut self.connections, reason);
        }
        self.connections.events.set_timer(Timer::Stop, Some(Instant::now() + GIVE_BACK));
        self.check_stopped();
    }

    /// Nothing is waited for any more once all writers are gone.
    pub(super) fn check_stopped(&mut self) {
        if self.stopping.is_some() && !self.channels.have_writers() {
            self.stopped = true;
        }
    }

    /// Tells the readers; the rest ends by itself.
    pub(super) fn finish(&mut self) {
        let reason = self.stopping.take().unwrap_or_default();
        self.channels.close(&mut self.connections, &reason);
        self.inform_followers();
        let until = Instant::now() + FAREWELL;
        while self.connections.is_sending() && Instant::now() < until {
            self.connections.flush_all();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
