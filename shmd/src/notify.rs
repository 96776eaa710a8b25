//! What the daemon tells systemd. Without a service manager, all of this does nothing, and wakes nobody.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::internal::os::service_manager::ServiceManager;

use crate::event_loop::{EventLoop, Timer};

/// The shortest time between two status lines.
const STATUS: Duration = Duration::from_secs(1);

/// The service manager, if there is one, and what it was told.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    to: Option<ServiceManager>,
    /// Half of the time after which the manager takes the daemon for hung.
    beat: Option<Duration>,
    shown: String,
    sent: Option<Instant>,
}

impl Notifier {
    /// The manager that the environment names.
    pub(crate) fn from_env() -> Self {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let number = |name| var(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let to = ServiceManager::from_env();
        let meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let beat = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && meant && to.is_some());
        Self { to, beat: beat.map(|usec| Duration::from_micros(usec) / 2), ..Self::default() }
    }

    /// All channels are served.
    pub(crate) fn ready(&mut self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}"));
        status.clone_into(&mut self.shown);
        self.sent = Some(Instant::now());
    }

    /// The configuration is being read again; [`ready`](Self::ready) ends it.
    pub(crate) fn reloading(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Reading the configuration", monotonic_ns() / 1000));
    }

    /// The daemon's file is being executed anew; [`ready`](Self::ready) ends it, in the next program or in this one.
    pub(crate) fn executing(&self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=Executing the program anew", monotonic_ns() / 1000));
    }

    /// The end has begun.
    pub(crate) fn stopping(&self, why: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", why.replace('\n', " ")));
    }

    /// The event loop runs. Sets the time of the next such message.
    pub(crate) fn watchdog(&self, events: &mut EventLoop, now: Instant) {
        if let Some(beat) = self.beat {
            self.send("WATCHDOG=1");
            events.set_timer(Timer::Watchdog, Some(now + beat));
        }
    }

    /// Shows another status, now or when the last one is old enough.
    pub(crate) fn status(&mut self, events: &mut EventLoop, now: Instant, status: impl FnOnce() -> String) {
        if self.to.is_none() {
            return;
        }
        let status = status();
        if status == self.shown {
            return;
        }
        match self.sent.map(|sent| sent + STATUS).filter(|next| *next > now) {
            Some(next) => events.start_timer(Timer::Status, next),
            None => {
                self.send(&format!("STATUS={status}"));
                self.shown = status;
                self.sent = Some(now);
            }
        }
    }

    fn send(&self, message: &str) {
        if let Some(manager) = &self.to {
            manager.send(message);
        }
    }
}

/// A start in the place of another program, whose watchdog goes on. There is no event loop yet.
static START: Mutex<Option<Start>> = Mutex::new(None);

#[derive(Debug)]
struct Start {
    manager: Notifier,
    beat: Duration,
    next: Instant,
}

fn start() -> MutexGuard<'static, Option<Start>> {
    START.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Such a start, until this is dropped: [`alive`] tells the manager something.
#[derive(Debug)]
pub(crate) struct Starting(());

impl Starting {
    /// It begins.
    pub(crate) fn begin() -> Self {
        let manager = Notifier::from_env();
        *start() = manager.beat.map(|beat| Start { manager, beat, next: Instant::now() });
        Self(())
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        *start() = None;
    }
}

/// The start goes on. To be called again and again by whatever takes time, such as the check of a large ring: the manager kills a
/// program from which it hears nothing.
pub(crate) fn alive() {
    let (mut start, now) = (start(), Instant::now());
    if let Some(Start { manager, beat, next }) = start.as_mut().filter(|start| start.next <= now) {
        manager.send("WATCHDOG=1");
        *next = now + *beat;
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use shm_test_support::TempDir;

    use super::*;

    fn manager(address: &SocketAddr, name: &str) -> (UnixDatagram, Notifier) {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        (socket, Notifier { to: Some(ServiceManager::at(name.as_ref()).unwrap()), ..Notifier::default() })
    }

    fn next(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 4096];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_is_reached_by_path_and_by_abstract_name() {
        let dir = TempDir::new();
        let path = dir.path().join("notify");
        let abstract_name = format!("shmd-notify-{}", std::process::id());
        for (address, name) in [
            (SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (SocketAddr::from_abstract_name(&abstract_name).unwrap(), format!("@{abstract_name}")),
        ] {
            let (socket, mut notifier) = manager(&address, &name);
            notifier.ready("1 channel");
            assert_eq!(next(&socket), "READY=1\nSTATUS=1 channel");
            notifier.reloading();
            let text = next(&socket);
            assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC=") && !text.contains("USEC=0\n"), "{text}");
            notifier.stopping("SIGTERM");
            assert_eq!(next(&socket), "STOPPING=1\nSTATUS=SIGTERM");
        }
    }

    #[test]
    fn a_status_is_sent_when_it_changes_and_not_more_often_than_once_a_second() {
        let dir = TempDir::new();
        let path = dir.path().join("notify");
        let (socket, mut notifier) = manager(&SocketAddr::from_pathname(&path).unwrap(), path.to_str().unwrap());
        let mut events = EventLoop::new().unwrap();
        let now = Instant::now();
        notifier.status(&mut events, now, || "a".to_owned());
        assert_eq!(next(&socket), "STATUS=a");
        notifier.status(&mut events, now, || "b".to_owned());
        notifier.status(&mut events, now + STATUS, || "c".to_owned());
        notifier.status(&mut events, now + STATUS * 9, || "c".to_owned());
        assert_eq!(next(&socket), "STATUS=c");
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0]).is_err());
    }

    #[test]
    fn without_a_manager_no_timer_is_set_and_nothing_is_put_together() {
        let mut notifier = Notifier::default();
        let mut events = EventLoop::new().unwrap();
        notifier.watchdog(&mut events, Instant::now());
        notifier.status(&mut events, Instant::now(), || unreachable!());
        notifier.ready("x");
    }
}
