//! The daemon's life: the owner of everything, from the lock to the last unlink.
//!
//! Start: lock, segments, socket, sources. Stop: socket, writers, readers, segments, lock. Whatever was made is removed by
//! the one who made it when it is dropped, so a start that fails halfway leaves no more behind than an end that was asked for.

use std::time::{Duration, Instant};

use log::{debug, info, warn};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use shm_proto::control::{ErrorKind, Received, Request, SOCKET_NAME, decode};
use shm_proto::os::process;
use shm_proto::ring::link::ToDaemon;
use shm_proto::{Error, Prefix};

use crate::channel::{Channel, this_process};
use crate::config::Config;
use crate::event_loop::{ChannelId, ClientId, Event, Timer, Token};
use crate::exit::Failure;
use crate::hub::Hub;
use crate::process::Instance;
use crate::requests;
use crate::server::Role;
use crate::signals::{self, Signals};
use crate::socket::Socket;

/// How long writers have to give their role back when the daemon stops.
const STOP: Duration = Duration::from_secs(1);
/// How long the daemon goes on sending its farewell to readers.
const FAREWELL: Duration = Duration::from_millis(200);
/// While channels are in use, rates are taken and unused memory is looked for this often.
const TICK: Duration = Duration::from_secs(1);
/// How often the cursors are looked at while the end of a source is waited for.
const DRAIN: Duration = Duration::from_millis(20);
/// Lines taken from one client before others get their turn.
const LINES_AT_ONCE: usize = 64;

/// Serves the channels until told to stop.
///
/// # Errors
/// When it cannot start, when waiting fails, and when a source failed and `--exit-on-eof` ends the daemon for it.
pub(crate) fn run(config: Config) -> Result<(), Failure> {
    Daemon::start(config)?.serve()
}

/// Everything. The order of the fields is the order in which they go.
#[derive(Debug)]
struct Daemon {
    socket: Option<Socket>,
    channels: Vec<Channel>,
    hub: Hub,
    signals: Signals,
    prefix: Prefix,
    exit_on_eof: bool,
    /// The end of the source is reached: stop when the readers are through.
    draining: bool,
    /// Why the daemon is ending, once it is.
    stopping: Option<String>,
    /// Nobody is waited for any more.
    stopped: bool,
    failure: Option<Error>,
    _instance: Instance,
}

impl Daemon {
    fn start(config: Config) -> Result<Self, Failure> {
        let mut hub = Hub::new(config.max_clients, config.runtime_dir.clone())?;
        let signals = Signals::hear(&hub.events)?;
        raise_descriptor_limit();
        let instance = Instance::take(&config.runtime_dir)?;
        info!(
            "event=start pid={} runtime_dir={} prefix={} channels={}",
            std::process::id(),
            config.runtime_dir.display(),
            config.prefix,
            config.channels.len()
        );
        let owner = this_process()?;
        let user = process::user_name(nix::unistd::geteuid().as_raw());
        let mut channels = Vec::with_capacity(config.channels.len());
        for (id, channel) in (0..).zip(config.channels) {
            channels.push(Channel::create(id, channel, &config.prefix, owner, &user)?);
        }
        let socket = Socket::bind(config.runtime_dir.join(SOCKET_NAME))?;
        hub.listen(&socket.listener)?;
        let mut daemon = Self {
            socket: Some(socket),
            channels,
            hub,
            signals,
            prefix: config.prefix,
            exit_on_eof: config.exit_on_eof,
            draining: false,
            stopping: None,
            stopped: false,
            failure: None,
            _instance: instance,
        };
        for channel in &mut daemon.channels {
            channel.start_source(&mut daemon.hub)?;
        }
        daemon.keep_ticking();
        if let Some(socket) = &daemon.socket {
            info!("event=ready pid={} socket={}", std::process::id(), socket.path.display());
        }
        Ok(daemon)
    }

    fn serve(mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        while !self.stopped {
            self.hub.events.wait(&mut events)?;
            for event in events.drain(..) {
                self.dispatch(event);
                self.bury();
            }
        }
        self.finish();
        match self.failure.take() {
            None => Ok(()),
            Some(error) => Err(error.into()),
        }
    }

    fn dispatch(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Readable(Token::Listener) => {
                if let Some(socket) = &self.socket {
                    self.hub.accept(&socket.listener, now);
                }
            }
            Event::Readable(Token::Signal(signal)) => self.signal(signal),
            Event::Readable(Token::Client(id)) => self.listen_to(id),
            Event::Writable(Token::Client(id)) => self.flush(id),
            // What was sent before the end still counts: a last word about a shrink, say.
            Event::Gone(Token::Client(id)) | Event::Readable(Token::Process(id)) | Event::Gone(Token::Process(id)) => {
                self.listen_to(id);
                self.hub.doom(id);
            }
            Event::Readable(Token::Reservation(channel)) | Event::Gone(Token::Reservation(channel)) => {
                if let Some(channel) = self.channels.get_mut(channel as usize) {
                    channel.reservation_ready(&mut self.hub);
                }
            }
            Event::Readable(Token::Source(channel)) | Event::Gone(Token::Source(channel)) => self.source_ready(channel),
            Event::Readable(Token::Handoff(channel)) | Event::Gone(Token::Handoff(channel)) => {
                if let Some(channel) = self.channels.get_mut(channel as usize) {
                    channel.handoff_ready(&mut self.hub);
                }
            }
            Event::Due(timer) => self.due(timer, now),
            Event::Gone(Token::Listener | Token::Signal(_)) | Event::Writable(_) => {}
        }
    }

    fn due(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Stop => {
                warn!("event=stop-late reason=\"a writer did not give its role back within {} s\"", STOP.as_secs());
                self.stopped = true;
            }
            Timer::Tick => {
                for channel in &mut self.channels {
                    channel.tick(&mut self.hub, now);
                }
                self.keep_ticking();
            }
            Timer::Accept => {
                if let Some(socket) = &self.socket
                    && let Err(e) = self.hub.listen(&socket.listener)
                {
                    debug!("event=accept-paused reason={:?}", e.to_string());
                    self.hub.events.set_timer(Timer::Accept, Some(now + TICK));
                }
            }
            Timer::Drain => self.drain(),
            Timer::Client(id) => self.hub.overdue(id, now),
            Timer::Resize(channel) => {
                if let Some(channel) = self.channels.get_mut(channel as usize) {
                    channel.resize_due(&mut self.hub);
                }
            }
        }
    }

    fn signal(&mut self, signal: i32) {
        if !self.signals.take(signal) {
            return;
        }
        if !signals::ends(signal) {
            info!(
                "event=signal signal={} reason=\"nothing is reloaded; restart to apply changes\"",
                signals::name(signal)
            );
        } else if self.stopping.is_some() {
            self.stopped = true;
        } else {
            self.stop(&format!("the daemon is stopping on {}", signals::name(signal)));
        }
    }

    /// Takes the lines that a client has sent, so many at once.
    fn listen_to(&mut self, id: ClientId) {
        let mut more = true;
        for _ in 0..LINES_AT_ONCE {
            more = more && self.take_one(id);
        }
        if more {
            // What is left may lie in the buffer already, where epoll does not see it.
            self.hub.events.post(Event::Readable(Token::Client(id)));
        }
        self.hub.settle(id);
    }

    /// Takes one line; false when there is none now.
    fn take_one(&mut self, id: ClientId) -> bool {
        let Some(client) = self.hub.client(id).filter(|client| client.listens()) else { return false };
        let role = client.role;
        match client.receive() {
            Ok(Received::Line(line, _)) => {
                self.take_line(id, role, &line);
                return true;
            }
            Ok(Received::Nothing) => {}
            Ok(Received::Closed) if role == Role::Asking => {}
            Ok(Received::Closed) => self.hub.doom(id),
            Err(e) => self.hub.dismiss(id, ErrorKind::BadRequest, &e.to_string(), Instant::now()),
        }
        false
    }

    fn take_line(&mut self, id: ClientId, role: Role, line: &str) {
        let now = Instant::now();
        match role {
            Role::Asking => match decode::<Request>(line) {
                Ok(_) if self.stopping.is_some() => {
                    self.hub.dismiss(id, ErrorKind::Busy, "the daemon is stopping", now);
                }
                Ok(request) => {
                    requests::handle(&mut self.hub, &mut self.channels, &self.prefix, id, request);
                    self.keep_ticking();
                }
                Err(e @ Error::Version { .. }) => self.hub.dismiss(id, ErrorKind::BadVersion, &e.to_string(), now),
                Err(e) => self.hub.dismiss(id, ErrorKind::BadRequest, &e.to_string(), now),
            },
            Role::Writer(channel) => match decode::<ToDaemon>(line) {
                Ok(line) => {
                    if let Some(channel) = self.channels.get_mut(channel as usize) {
                        channel.obey(&mut self.hub, line);
                    }
                }
                Err(e) => self.hub.dismiss(id, ErrorKind::BadRequest, &e.to_string(), now),
            },
            Role::Reader(..) => {
                self.hub.dismiss(
                    id,
                    ErrorKind::BadRequest,
                    "an attached reader has nothing to ask on its connection",
                    now,
                );
            }
            Role::Waiting(_) => {}
        }
    }

    fn flush(&mut self, id: ClientId) {
        let Some(client) = self.hub.client(id) else { return };
        if !client.flush() {
            self.hub.doom(id);
            return;
        }
        if let Role::Writer(channel) = client.role
            && let Some(channel) = self.channels.get(channel as usize)
        {
            channel.announce();
        }
        // Requests that came while the last reply was on its way lie in the buffer.
        self.listen_to(id);
    }

    /// Buries connections that are of no more use, with what they stood for.
    fn bury(&mut self) {
        while let Some(id) = self.hub.next_doomed() {
            let Some(client) = self.hub.remove(id) else { continue };
            let channel = match client.role {
                Role::Asking => None,
                Role::Waiting(channel) | Role::Reader(channel, _) | Role::Writer(channel) => Some(channel),
            };
            let Some(channel) = channel.and_then(|channel| self.channels.get_mut(channel as usize)) else { continue };
            match client.role {
                Role::Reader(_, number) => channel.detach(&mut self.hub, number),
                Role::Writer(_) => channel.writer_gone(&mut self.hub, id),
                Role::Waiting(_) => channel.forget(id),
                Role::Asking => {}
            }
            if self.draining {
                self.drain();
            }
            self.check_stopped();
        }
    }

    fn source_ready(&mut self, channel: ChannelId) {
        let Some(channel) = self.channels.get_mut(channel as usize) else { return };
        let Some(outcome) = channel.source_ready(&mut self.hub) else { return };
        if self.exit_on_eof && self.stopping.is_none() {
            self.failure = outcome.err();
            self.draining = true;
            self.drain();
        }
        self.check_stopped();
    }

    /// After the end of the source: stops as soon as every reader has read everything.
    fn drain(&mut self) {
        let now = Instant::now();
        if self.stopping.is_some() {
            return;
        }
        let Self { channels, hub, .. } = self;
        let mut drained = true;
        for channel in channels.iter_mut().filter(|channel| channel.is_fed()) {
            drained &= channel.is_drained(hub, now);
        }
        if drained {
            self.stop("the source has ended");
        } else {
            self.hub.events.set_timer(Timer::Drain, Some(now + DRAIN));
        }
    }

    fn keep_ticking(&mut self) {
        if self.channels.iter().any(Channel::wants_ticks) {
            self.hub.events.start_timer(Timer::Tick, Instant::now() + TICK);
        }
    }

    /// Begins to end: nobody else comes in, and writers give their role back first, so that everything published before
    /// the readers are told is in their reach.
    fn stop(&mut self, reason: &str) {
        info!("event=stop reason={reason:?}");
        self.stopping = Some(reason.to_owned());
        if let Some(socket) = self.socket.take() {
            self.hub.events.remove(&socket.listener);
        }
        self.hub.events.set_timer(Timer::Accept, None);
        for channel in &mut self.channels {
            channel.revoke(&mut self.hub, reason);
        }
        self.hub.events.set_timer(Timer::Stop, Some(Instant::now() + STOP));
        self.check_stopped();
    }

    fn check_stopped(&mut self) {
        if self.stopping.is_some() && !self.channels.iter().any(Channel::has_writer) {
            self.stopped = true;
        }
    }

    /// Tells the readers; what is left goes by itself.
    fn finish(&mut self) {
        let reason = self.stopping.take().unwrap_or_default();
        for channel in &mut self.channels {
            channel.close(&mut self.hub, &reason);
        }
        let until = Instant::now() + FAREWELL;
        while self.hub.is_sending() && Instant::now() < until {
            self.hub.flush_all();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A reader costs four descriptors; the usual soft limit of 1024 is for programs that use `select`.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
        && let Err(e) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        debug!("event=limit descriptors={soft} reason=\"{e}\"");
    }
}
