//! Executing the daemon's file anew, in the same process, with nobody noticing.
//!
//! ```text
//! asked -> the configuration is read -> probe: the new file says what it understands -> the configuration is read again
//!       -> the sources rest -> everything is packed -> execve
//! ```
//!
//! Until the sources rest, a refusal changes nothing. After that, the sources go on.

use std::convert::Infallible;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use shm_proto::internal::control::Reexecuted;
use shm_proto::internal::os::inherited;
use shm_proto::internal::ring::record::features;
use shm_proto::{ChannelName, Done, Error, ErrorKind, Refusal};

use super::left::Handover;
use super::preparation;
use super::probe::{self, Candidate};
use super::work::Work;
use super::{Daemon, Origin};
use crate::channel::{Channel, stays_as_it_is};
use crate::client::Role;
use crate::config::{self, Config};
use crate::connections::{is_master, refusal};
use crate::event_loop::{ChannelId, ClientId, Interest, Timer, Token};
use crate::handover::{Known, Luggage, PackedClient, Parcel, VARIABLE};
use crate::operation_log::{self, LogEvent, operation};
use crate::signals;
use crate::source::PackedSource;

/// How long the sources have to rest, and memory that is being reserved to be there.
const REST: Duration = Duration::from_secs(10);
/// How often that is looked at besides.
const LOOK: Duration = Duration::from_millis(5);

/// Why a daemon that drains is not replaced: the next program would not know that it has to end.
pub(super) const DRAINING: &str = "the input has ended, and the daemon ends when it is read";

/// A reexec that is under way.
#[derive(Debug)]
pub(super) struct Reexec {
    client: ClientId,
    by: String,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The configuration is read, before the new program is asked and after it has answered: that may have taken a while.
    Reads(Work<Box<Config>>, Option<Known>),
    Asks(Work<Known>),
    Rests {
        until: Instant,
    },
}

fn failed(error: Error) -> Refusal {
    refusal(ErrorKind::Internal, error.to_string())
}

impl Daemon {
    /// A client asks for it. The next program answers the client; if it cannot start, this one answers with the reason.
    pub(super) fn reexec_for(&mut self, id: ClientId) {
        let Some(uid) = self.connections.client(id).map(|client| client.credentials.uid) else { return };
        let user = self.connections.user(uid);
        let begun = self.begin_reexec(id, uid, user.clone());
        match begun {
            Ok(()) => {
                if let Some(client) = self.connections.client(id) {
                    client.role = Role::Waiting(None);
                }
            }
            Err(refused) => {
                if is_master(uid) {
                    operation(LogEvent::ReexecFailed).text("by", user).reason(&refused.message).error();
                }
                self.connections.reply(id, Err(refused), Vec::new());
            }
        }
    }

    fn begin_reexec(&mut self, client: ClientId, uid: u32, by: String) -> Result<(), Refusal> {
        let busy = |what: &str| Err(refusal(ErrorKind::Busy, format!("{what}; try again when it is done")));
        if !is_master(uid) {
            let why = format!("user {by} may not replace the daemon's program; root and the daemon's own user may");
            return Err(refusal(ErrorKind::NotPermitted, why));
        }
        if let Some(present) = &self.reexec {
            return busy(&format!("a reexec by {} is under way", present.by));
        }
        if self.reloading.is_some() {
            return busy("a reload is under way");
        }
        if self.channels.have_leaving() {
            return busy("a channel is just being removed");
        }
        if self.creations.are_under_way() {
            return busy("a channel is just being created");
        }
        if self.draining {
            return Err(refusal(ErrorKind::Busy, DRAINING));
        }
        self.read_configuration(client, by, None)
    }

    fn read_configuration(&mut self, client: ClientId, by: String, known: Option<Known>) -> Result<(), Refusal> {
        let Origin { given, stdin_feeds, .. } = &self.origin;
        let reading = preparation::start_reading("reexec", given.clone(), *stdin_feeds, |config| config);
        let reading = reading.map_err(failed)?;
        self.connections.events.add(reading.bell(), Token::Probe, Interest::READ).map_err(failed)?;
        self.reexec = Some(Reexec { client, by, stage: Stage::Reads(reading, known) });
        Ok(())
    }

    fn ask_program(&mut self, client: ClientId, by: String) -> Result<(), Refusal> {
        let origin = &self.origin;
        let candidate = Candidate {
            program: origin.program.clone(),
            arguments: std::env::args_os().skip(1).collect(),
            dir: origin.start_dir.clone(),
            stdin_feeds: origin.stdin_feeds,
            features: features(self.channels.iter().any(|channel| channel.config().timestamps)),
            has_created: self.channels.iter().any(|channel| channel.config().created.is_some()),
        };
        let probe = probe::start(candidate).map_err(failed)?;
        self.connections.events.add(probe.bell(), Token::Probe, Interest::READ).map_err(failed)?;
        self.reexec = Some(Reexec { client, by, stage: Stage::Asks(probe) });
        Ok(())
    }

    /// That the files say what runs: the next program knows nothing else.
    fn check_files(&self, config: &Config) -> Result<(), Refusal> {
        let refuse = |kind, why: String| Err(refusal(kind, format!("nothing was changed: {why}")));
        let dirs_stay =
            config.runtime_dir == self.connections.runtime_dir && config.state_dir == self.creations.state_dir;
        if !dirs_stay || config.prefix != self.prefix {
            let why = "the configuration names another runtime directory, state directory or prefix than the running daemon has; \
                       take that back, or restart shmd";
            return refuse(ErrorKind::BadConfig, why.to_owned());
        }
        let names = |channels: &mut dyn Iterator<Item = &config::ChannelConfig>| {
            let mut names: Vec<_> = channels.map(|channel| channel.name.clone()).collect();
            names.sort();
            names
        };
        // The others have files of the daemon's own.
        let mut configured = self.channels.iter().map(Channel::config).filter(|channel| channel.created.is_none());
        if names(&mut config.channels.iter()) != names(&mut configured) {
            let why = "the configuration has other channels than the running daemon; run shmctl reload first";
            return refuse(ErrorKind::BadConfig, why.to_owned());
        }
        for new in &config.channels {
            let present = self.channels.iter().find(|channel| channel.config().name == new.name);
            if let Some(Err(why)) = present.map(|present| stays_as_it_is(present.config(), new)) {
                return refuse(ErrorKind::BadConfig, format!("channel {}: {why}", new.name));
            }
        }
        let saved = self.creations.saved.found();
        let is_saved = |created: &config::Created, name: &ChannelName| {
            saved.iter().any(|found| found.channel.as_ref().is_ok_and(|(of, with)| of == name && with == created))
        };
        for channel in self.channels.iter().map(Channel::config) {
            if channel.created.as_ref().is_some_and(|created| !is_saved(created, &channel.name)) {
                let why = "the file that the daemon wrote when the channel was created has been removed or changed, and the next \
                           program could not go on with the channel; remove the channel (shmctl remove), or restart shmd";
                return refuse(ErrorKind::BadConfig, format!("channel {}: {why}", channel.name));
            }
        }
        Ok(())
    }

    /// The configuration is read, or the new program has said what it understands, or neither could be done.
    pub(super) fn probe_ready(&mut self) {
        let Some(Reexec { client, by, stage }) = &mut self.reexec else { return };
        let (client, by) = (*client, by.clone());
        let gone_on = match stage {
            Stage::Reads(reading, known) => {
                let Some(read) = reading.take() else { return };
                let known = known.take();
                self.connections.events.remove(reading.bell());
                let checked = read.and_then(|config| self.check_files(&config));
                match (checked, known) {
                    (Ok(()), Some(known)) => return self.rest(&known),
                    (Ok(()), None) => self.ask_program(client, by),
                    (refused, _) => refused,
                }
            }
            Stage::Asks(probe) => {
                let Some(said) = probe.take() else { return };
                self.connections.events.remove(probe.bell());
                said.and_then(|known| self.read_configuration(client, by, Some(known)))
            }
            Stage::Rests { .. } => return,
        };
        if let Err(refused) = gone_on {
            self.end_reexec(refused);
        }
    }

    fn rest(&mut self, known: &Known) {
        let Some(reexec) = &mut self.reexec else { return };
        log::debug!("event=rest version={}", known.version);
        reexec.stage = Stage::Rests { until: Instant::now() + REST };
        self.manager.executing();
        for channel in self.channels.iter_mut() {
            channel.ring_mut().rest_source();
        }
        self.go_on_reexec();
    }

    /// Executes the file if everything rests.
    pub(super) fn go_on_reexec(&mut self) {
        let Some(Reexec { client, stage: Stage::Rests { until }, .. }) = &self.reexec else { return };
        let (client, now) = (*client, Instant::now());
        let is_busy = |channel: &Channel| channel.ring().has_running_source() || channel.ring().is_reserving();
        let busy = self.channels.iter().find(|channel| is_busy(channel)).map(|channel| channel.config().name.clone());
        let why = match busy {
            Some(_) if now < *until => {
                // One that could not be opened before may have started meanwhile.
                let running = self.channels.iter_mut().filter(|channel| channel.ring().has_running_source());
                running.for_each(|channel| channel.ring_mut().rest_source());
                return self.connections.events.set_timer(Timer::Reexec, Some(now + LOOK));
            }
            Some(name) => refusal(
                ErrorKind::Busy,
                format!(
                    "channel {name} does not rest within {} s: its source hangs, or its memory takes longer to reserve; the \
                     program before goes on",
                    REST.as_secs()
                ),
            ),
            None => match self.execute(client) {
                Err(e) => refusal(ErrorKind::Internal, format!("{e}; the program before goes on")),
            },
        };
        self.end_reexec(why);
    }

    /// Only returns if that fails; then the sources have to be woken.
    fn execute(&mut self, client: ClientId) -> io::Result<Infallible> {
        signals::hold().map_err(io::Error::other)?;
        let failed = self.execute_held(client);
        signals::release();
        failed
    }

    fn execute_held(&mut self, client: ClientId) -> io::Result<Infallible> {
        if self.signals.have_heard() {
            return Err(io::Error::other("a signal has come"));
        }
        let mut parcel = Parcel::new()?;
        let number = self.pack(&mut parcel, client)?;
        let text = |text: &OsString| CString::new(text.as_bytes()).map_err(io::Error::other);
        let arguments = std::env::args_os().map(|word| text(&word)).collect::<io::Result<Vec<_>>>()?;
        let mut variables = Vec::new();
        let is_old = |name: &OsStr| name == VARIABLE || inherited::SOCKET_VARIABLES.iter().any(|other| name == *other);
        for (name, value) in std::env::vars_os().filter(|(name, _)| !is_old(name)) {
            variables.push(text(&[name.as_os_str(), value.as_os_str()].join("=".as_ref()))?);
        }
        variables.push(text(&format!("{VARIABLE}={}:{number}", std::process::id()).into())?);
        let program = text(&self.origin.program.clone().into_os_string())?;
        for channel in self.channels.iter_mut() {
            channel.ring_mut().end_helper();
        }
        // The others are told what has happened up to here, as far as they take it.
        self.inform_followers();
        self.connections.flush_all();
        operation_log::settle();
        let Err(error) = nix::unistd::execve(&program, &arguments, &variables);
        Err(io::Error::new(
            io::Error::from(error).kind(),
            format!("execute {}: {error}", self.origin.program.display()),
        ))
    }

    fn pack(&self, parcel: &mut Parcel, client: ClientId) -> io::Result<i32> {
        let (lock, made_dir) = self.instance.parts();
        let Some(socket) = &self.socket else { return Err(io::Error::other("the daemon is stopping")) };
        let mut sources = Vec::new();
        for channel in self.channels.iter() {
            if let Some(source) = channel.ring().pack_source(parcel)? {
                sources.push((channel.config().name.clone(), source));
            }
        }
        let handover = Handover {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            by: self.reexec.as_ref().map(|reexec| reexec.by.clone()).unwrap_or_default(),
            start_dir: self.origin.start_dir.clone(),
            lock: parcel.fd(lock)?,
            made_dir,
            socket: parcel.fd(&socket.listener)?,
            socket_is_kept: socket.is_kept,
            clients: self.connections.pack(parcel, client)?,
            sources,
        };
        parcel.close(&handover)
    }

    /// It is over before anything was replaced.
    fn end_reexec(&mut self, refused: Refusal) {
        let Some(Reexec { client, by, stage }) = self.reexec.take() else { return };
        self.connections.events.set_timer(Timer::Reexec, None);
        operation(LogEvent::ReexecFailed).text("by", by).reason(&refused.message).error();
        match stage {
            Stage::Reads(reading, _) => self.connections.events.remove(reading.bell()),
            Stage::Asks(probe) => self.connections.events.remove(probe.bell()),
            Stage::Rests { .. } => {
                for channel in self.channels.iter_mut() {
                    channel.ring_mut().wake_source(&mut self.connections);
                }
                self.manager.ready(&super::summary(&self.channels));
            }
        }
        self.connections.reply(client, Err(refused), Vec::new());
        self.reload_if_wanted();
    }

    /// Gives it up, because the daemon stops or is going to.
    pub(super) fn give_reexec_up(&mut self, why: &str) {
        if self.reexec.is_some() {
            self.end_reexec(refusal(ErrorKind::Busy, format!("nothing was changed: {why}")));
        }
    }

    /// A source may have come to rest when the time for that was over.
    pub(super) fn wake_straggler(&mut self, channel: ChannelId) {
        if self.reexec.is_none()
            && self.stopping.is_none()
            && let Some(channel) = self.channels.get_mut(channel).filter(|channel| channel.ring().rests())
        {
            channel.ring_mut().wake_source(&mut self.connections);
        }
    }

    /// Gives the sources what the program before this one has left of them.
    pub(super) fn unpack_sources(&mut self, sources: Vec<(ChannelName, PackedSource)>, luggage: &Luggage) {
        for (name, source) in sources {
            if let Some(channel) = self.channels.named(&name) {
                channel.ring_mut().unpack_source(source, luggage);
            }
        }
    }

    /// Goes on with the connections, and answers the one that has asked for this program.
    pub(super) fn take_clients(&mut self, clients: Vec<PackedClient>, luggage: &Luggage, old: &str) {
        for client in clients {
            let taken = luggage.fd(client.socket).and_then(|socket| Ok((socket, luggage.bytes(client.received)?)));
            let taken = taken.map_err(|e| Error::system("take a connection over", e));
            match taken.and_then(|(socket, received)| self.connections.take_over(socket, received)) {
                Ok(id) if client.asked => {
                    let new = env!("CARGO_PKG_VERSION").to_owned();
                    let done = Reexecuted::new(old.to_owned(), new, std::process::id());
                    self.connections.reply(id, Ok(Done::Reexec(done)), Vec::new());
                }
                Ok(_) => {}
                Err(e) => log::debug!("event=connection-lost reason={:?}", e.to_string()),
            }
        }
    }
}
