//! The daemon's life: the owner of everything, from the lock to the last unlink.
//!
//! Start: lock, segments, socket, sources. Stop: socket, writers, readers, segments, lock. Each object removes what it has
//! made when it is dropped, so a start that fails halfway leaves no more behind than an ordinary stop.

mod clients;
mod create;
mod creations;
pub(crate) mod fuzzing;
pub(crate) mod left;
mod operation_log;
mod preparation;
pub(crate) mod probe;
mod reexec;
mod reload;
mod remove;
mod stopping;
mod timers;
mod work;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use shm_proto::internal::client::SOCKET_NAME;
use shm_proto::internal::os::{barrier, process, shm};
use shm_proto::internal::ring::Owner;
use shm_proto::{Error, Prefix};

use crate::background::PidFile;
use crate::channel::{Channel, Prepared, remove_orphans, this_process};
use crate::channels::Channels;
use crate::cleanup;
use crate::closing;
use crate::config::{Config, Given, SourceKind};
use crate::connections::Connections;
use crate::descriptors;
use crate::event_loop::{ChannelId, Event, Timer, Token};
use crate::exit::Failure;
use crate::handover::Luggage;
use crate::notify::{self, Notifier, Starting};
use crate::operation_log::{LogEvent, Saved, operation, save_in};
use crate::process::Instance;
use crate::signals::{self, Signals};
use crate::socket::Socket;
use creations::Creations;
use left::Handover;
use operation_log::Follower;
use preparation::{PATIENCE, Preparation, Wanted};
use reexec::{DRAINING, Reexec};

/// While channels are in use, rates are taken and unused memory is looked for this often.
const TICK: Duration = Duration::from_secs(1);
/// How often the cursors are looked at while the end of a source is waited for.
const DRAIN: Duration = Duration::from_millis(20);

/// How the daemon was started.
#[derive(Debug)]
pub(crate) struct Origin {
    /// The command line, for reading the configuration again.
    pub(crate) given: Given,
    /// As [`Host::stdin_feeds`](crate::host::Host::stdin_feeds).
    pub(crate) stdin_feeds: bool,
    /// Where to write the process number.
    pub(crate) pid_file: Option<PathBuf>,
    /// The file that was executed.
    pub(crate) program: PathBuf,
    /// Where that was done.
    pub(crate) start_dir: PathBuf,
    /// The control socket, if the service manager has handed it over.
    pub(crate) listener: Option<OwnedFd>,
}

/// Serves the channels until told to stop; `ready` is called when all of them are there. `left` is what the program before this
/// one in the same process has left.
///
/// # Errors
/// When it cannot start, when waiting fails, and when a source failed and `--exit-on-eof` ends the daemon for it.
pub(crate) fn run(
    config: Config,
    origin: Origin,
    left: Option<(Handover, Luggage)>,
    ready: &mut dyn FnMut(),
) -> Result<(), Failure> {
    let daemon = Daemon::start(config, origin, left)?;
    ready();
    daemon.serve()
}

/// Everything. The fields are dropped in this order.
#[derive(Debug)]
struct Daemon {
    socket: Option<Socket>,
    channels: Channels,
    connections: Connections,
    signals: Signals,
    prefix: Prefix,
    exit_on_eof: bool,
    /// The end of the source is reached: stop when the readers are through.
    draining: bool,
    /// Why the daemon is ending, once it is.
    stopping: Option<String>,
    /// The daemon no longer waits for anything.
    stopped: bool,
    failure: Option<Error>,
    origin: Origin,
    /// Standard input feeds a channel, or did.
    stdin_taken: bool,
    owner: Owner,
    user: String,
    followers: Vec<Follower>,
    /// The newest operation that the followers know of.
    told: u64,
    manager: Notifier,
    reloading: Option<Preparation>,
    /// What was asked for during that time.
    reload_again: Option<Wanted>,
    reexec: Option<Reexec>,
    creations: Creations,
    _pid_file: Option<PidFile>,
    saved: Saved,
    instance: Instance,
}

impl Daemon {
    fn start(config: Config, mut origin: Origin, left: Option<(Handover, Luggage)>) -> Result<Self, Failure> {
        closing::begin();
        let starting = left.is_some().then(Starting::begin);
        match left {
            None => descriptors::prepare(&config.channels)?,
            // The limit is what it was, and not all that is open now stays open.
            Some(_) => descriptors::look(&config.channels),
        }
        let mut connections = Connections::new(config.max_clients, config.runtime_dir.clone())?;
        let signals = Signals::hear(&connections.events)?;
        signals::release();
        let instance = match &left {
            None => Instance::take(&config.runtime_dir)?,
            Some((left, luggage)) => Instance::left(&config.runtime_dir, luggage.fd(left.lock)?, left.made_dir)?,
        };
        let path = config.runtime_dir.join(SOCKET_NAME);
        let handed_over = origin.listener.take().map(|fd| Socket::handed_over(path.clone(), fd)).transpose()?;
        let saved = save_in(instance.dir()?, &config.runtime_dir, |path, e| cleanup::failed(None, path.display(), e));
        let pid_file = origin.pid_file.as_deref().map(PidFile::write).transpose()?;
        operation(LogEvent::Start)
            .number("pid", std::process::id())
            .text("runtime_dir", config.runtime_dir.display())
            .text("prefix", &config.prefix)
            .number("channels", config.channels.len())
            .info();
        sweep();
        let owner = this_process(&config.runtime_dir).map_err(Error::from)?;
        let user = process::user_name(nix::unistd::geteuid().as_raw());
        let mut channels = Channels::default();
        let stdin_taken = config.channels.iter().any(|channel| channel.source == SourceKind::Stdin);
        let creations = Creations::new(&config);
        for channel in config.channels {
            notify::alive();
            let id = channels.next_id();
            let prepared = Prepared::make(channel, &config.prefix, owner, PATIENCE, &AtomicBool::new(false))?;
            channels.add(Channel::create(id, prepared, &user)?);
        }
        creations.restore(&mut channels, &config.prefix, owner, &user);
        remove_orphans(&config.prefix, owner, |name| channels.iter().any(|channel| channel.has_segment(name)));
        let socket = match (&left, handed_over) {
            (Some((left, luggage)), _) => Socket::left(path, luggage.fd(left.socket)?, left.socket_is_kept),
            (None, Some(socket)) => socket,
            (None, None) => Socket::bind(path)?,
        };
        connections.listen(&socket.listener)?;
        let mut daemon = Self {
            socket: Some(socket),
            channels,
            connections,
            signals,
            prefix: config.prefix,
            exit_on_eof: config.exit_on_eof,
            draining: false,
            stopping: None,
            stopped: false,
            failure: None,
            origin,
            stdin_taken,
            owner,
            user,
            followers: Vec::new(),
            told: 0,
            manager: Notifier::from_env(),
            reloading: None,
            reload_again: None,
            reexec: None,
            creations,
            _pid_file: pid_file,
            saved,
            instance,
        };
        let left = left.map(|(Handover { sources, clients, version, .. }, luggage)| {
            daemon.unpack_sources(sources, &luggage);
            (clients, version, luggage)
        });
        for channel in daemon.channels.iter_mut() {
            match channel.config().created {
                None => channel.start_source(&mut daemon.connections)?,
                // The log has the reason. What users have made does not keep the daemon from starting.
                Some(_) => drop(channel.start_source_or_retry(&mut daemon.connections, false)),
            }
        }
        daemon.channels.iter_mut().for_each(Channel::keep);
        daemon.keep_ticking();
        drop(starting);
        daemon.manager.ready(&summary(&daemon.channels));
        daemon.manager.watchdog(&mut daemon.connections.events, Instant::now());
        if let Some(socket) = &daemon.socket {
            // Without membarrier every publish costs a full fence, some nanoseconds.
            let barrier = if barrier::available() { "membarrier" } else { "fence" };
            let ready =
                operation(LogEvent::Ready).number("pid", std::process::id()).text("socket", socket.path.display());
            let ready = if socket.is_kept { ready.text("kept_by", "systemd") } else { ready };
            ready.text("barrier", barrier).info();
        }
        daemon.saved.is_ready();
        daemon.creations.is_ready();
        if let Some((clients, version, luggage)) = left {
            daemon.take_clients(clients, &luggage, &version);
        }
        Ok(daemon)
    }

    fn serve(mut self) -> Result<(), Failure> {
        let mut events = Vec::new();
        while !self.stopped {
            self.connections.events.wait(&mut events)?;
            for event in events.drain(..) {
                self.dispatch(event);
                self.remove_clients();
            }
            self.answer_removals();
            self.inform_followers();
            self.show_status();
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
                    self.connections.accept(&socket.listener, now);
                }
            }
            Event::Readable(Token::Signal(signal)) => self.signal(signal),
            Event::Readable(Token::Client(id)) => self.listen_to(id),
            Event::Writable(Token::Client(id)) => self.flush(id),
            Event::Gone(Token::Client(id)) | Event::Readable(Token::Process(id)) | Event::Gone(Token::Process(id)) => {
                self.hear_out(id);
            }
            Event::Readable(Token::Reservation(channel)) | Event::Gone(Token::Reservation(channel)) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().reservation_ready(&mut self.connections);
                }
            }
            Event::Readable(Token::Preparation) | Event::Gone(Token::Preparation) => self.reload_ready(),
            Event::Readable(Token::Creation(number)) | Event::Gone(Token::Creation(number)) => {
                self.creation_ready(number)
            }
            Event::Readable(Token::Probe) | Event::Gone(Token::Probe) => self.probe_ready(),
            Event::Readable(Token::Source(channel)) | Event::Gone(Token::Source(channel)) => self.source_ready(channel),
            Event::Readable(Token::Handoff(channel)) | Event::Gone(Token::Handoff(channel)) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.thread_ready(&mut self.connections);
                }
                self.channels.release(&mut self.connections, None);
            }
            Event::Readable(Token::Helper(channel)) | Event::Gone(Token::Helper(channel)) => {
                if let Some(channel) = self.channels.get_mut(channel) {
                    channel.ring_mut().helper_ended(&mut self.connections);
                }
            }
            Event::Due(timer) => self.due(timer, now),
            Event::Gone(Token::Listener | Token::Signal(_)) | Event::Writable(_) => {}
        }
    }

    fn signal(&mut self, signal: i32) {
        if !self.signals.take(signal) {
            return;
        }
        if !signals::ends(signal) {
            // The log has the outcome; the sender of the signal looks there.
            if self.stopping.is_none() {
                self.reload_on(signals::name(signal));
            }
        } else if self.stopping.is_some() {
            self.stopped = true;
        } else {
            self.stop(&format!("the daemon is stopping on {}", signals::name(signal)));
        }
    }

    fn source_ready(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(outcome) = channel.ring_mut().source_ready(&mut self.connections) else {
            self.go_on_reexec();
            self.wake_straggler(id);
            // A source that came to rest while the daemon had begun to stop does not come again.
            return self.check_stopped();
        };
        // The other sources do not end.
        let is_input = channel.ring().is_fed_from_stdin();
        self.channels.release(&mut self.connections, None);
        if self.exit_on_eof && is_input && self.stopping.is_none() {
            self.failure = outcome.err();
            self.draining = true;
            self.give_reexec_up(DRAINING);
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
        let Self { channels, connections, .. } = self;
        let mut drained = true;
        for channel in channels.iter_mut().filter(|channel| channel.ring().is_fed_from_stdin()) {
            drained &= channel.ring_mut().is_drained(connections, now);
        }
        if drained {
            self.stop("the source has ended");
        } else {
            self.connections.events.set_timer(Timer::Drain, Some(now + DRAIN));
        }
    }

    fn keep_ticking(&mut self) {
        if self.channels.iter().any(Channel::wants_ticks) {
            self.connections.events.start_timer(Timer::Tick, Instant::now() + TICK);
        }
    }

    fn show_status(&mut self) {
        if self.stopping.is_none() {
            let Self { manager, connections, channels, .. } = self;
            manager.status(&mut connections.events, Instant::now(), || summary(channels));
        }
    }
}

/// Removes what starts that were killed have left in `/dev/shm` under temporary names.
fn sweep() {
    match shm::sweep() {
        Ok(removed) => {
            for name in removed {
                operation(LogEvent::Sweep).text("object", name).reason("a start that was killed left it").warn();
            }
        }
        // A later start tries it again; this one does not need the names.
        Err(e) => operation(LogEvent::SweepFailed).reason(e).warn(),
    }
}

/// Channels, readers and writers, in one line.
fn summary(channels: &[Channel]) -> String {
    let readers: usize = channels.iter().map(Channel::reader_count).sum();
    let writers = channels.iter().filter(|channel| channel.has_writer()).count();
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    format!("{}, {}, {}", count(channels.len(), "channel"), count(readers, "reader"), count(writers, "writer"))
}
