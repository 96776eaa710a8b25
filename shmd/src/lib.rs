//! The daemon: owns shared-memory channels, feeds and resizes them, and cleans up. The program `shmd` is [`main`] alone.
//! Nothing else in here is for others, and nothing is kept from one version to the next.
#![forbid(unsafe_code)]

mod access;
mod admission;
mod allotment;
mod args;
mod background;
mod backlog;
mod channel;
mod channels;
mod cleanup;
mod client;
mod closing;
mod config;
mod connections;
mod daemon;
mod descriptors;
mod event_loop;
mod exit;
#[doc(hidden)]
pub mod fuzzing;
mod given;
mod handover;
mod hash;
mod host;
mod liveness;
mod logging;
mod maintenance;
mod notify;
mod operation_log;
mod peer;
mod policy;
mod private_file;
mod process;
mod rate_limit;
mod rates;
mod requests;
mod saved_channels;
mod signals;
mod sizing;
mod socket;
mod source;
mod threads;
mod user_names;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;

use background::Side;
use exit::Failure;
use shm_proto::internal::os::barrier;

/// The whole program: reads the command line, serves until it is told to stop, and gives the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let Err(failure) = start() else { return ExitCode::SUCCESS };
    match &failure {
        // A closed output is no reason to fail differently.
        Failure::CommandLine(e) => drop(e.print()),
        other => logging::last_words(&other.to_string()),
    }
    ExitCode::from(exit::code(&failure))
}

fn start() -> Result<(), Failure> {
    let left = daemon::left::take()?;
    let start_dir = match &left {
        Some((left, _)) => left.start_dir.clone(),
        None => std::env::current_dir().unwrap_or_else(|_| "/".into()),
    };
    let asked = args::parse(std::env::args_os(), &start_dir)?;
    if let Some(channel) = &asked.finish_shrink {
        return Ok(maintenance::finish_shrink(channel)?);
    }
    let mut host = host::Host::look();
    // In the background standard input is given up.
    host.stdin_feeds &= asked.background.is_none();
    if let Some(stdin_feeds) = asked.check_reexec {
        host.stdin_feeds = stdin_feeds;
        config::load(&asked.given, &host)?;
        logging::check(&asked.log_target).map_err(Failure::Io)?;
        return daemon::probe::answer(&mut std::io::stdout()).map_err(Failure::Output);
    }
    let config = config::load(&asked.given, &host)?;
    if asked.check {
        let text = config::show(&config);
        return std::io::stdout().write_all(text.as_bytes()).map_err(Failure::Output);
    }
    // The program before this one in the same process has taken the socket and left it, and has gone into the background.
    let listener = if left.is_none() { socket::take()? } else { None };
    let Some(background) = asked.background.as_ref().filter(|_| left.is_none()) else {
        return serve(config, asked, Start { dir: start_dir, left, listener }, &host, &mut || {});
    };
    if let Some(channel) = config.channels.iter().find(|channel| channel.source == config::SourceKind::Stdin) {
        return Err(Failure::CommandLine(args::usage(format!(
            "--daemonize gives standard input up, but it feeds channel {}; stay in the foreground, or choose another source",
            channel.name
        ))));
    }
    match background::enter(background)? {
        Side::Parent(verdict) if verdict.code == 0 => Ok(()),
        Side::Parent(verdict) => Err(Failure::Background(verdict)),
        Side::Child(herald) => {
            let mut herald = Some(herald);
            let mut told = |code, message: &str| herald.take().map_or((), |herald| herald.tell(code, message));
            let start = Start { dir: start_dir, left: None, listener };
            let result = serve(config, asked, start, &host, &mut || told(0, ""));
            if let Err(failure) = &result {
                // Logged before the parent ends, so that whoever waited for it finds it there.
                operation_log::operation(operation_log::LogEvent::Failed).reason(failure).error();
                told(exit::code(failure), &failure.to_string());
            }
            result
        }
    }
}

/// What the program has found when it started.
struct Start {
    dir: PathBuf,
    left: Option<(daemon::left::Handover, handover::Luggage)>,
    listener: Option<OwnedFd>,
}

fn serve(
    config: config::Config,
    asked: args::Asked,
    Start { dir: start_dir, left, listener }: Start,
    host: &host::Host,
    ready: &mut dyn FnMut(),
) -> Result<(), Failure> {
    logging::start(config.log, &asked.log_target).map_err(Failure::Io)?;
    operation_log::keep(config.log_entries);
    let origin = daemon::Origin {
        given: asked.given,
        stdin_feeds: host.stdin_feeds,
        pid_file: asked.pid_file,
        program: daemon::probe::own_program(),
        start_dir,
        listener,
    };
    // This takes microseconds while there is one thread. With more threads, the kernel waits for all processors, which takes tens
    // of milliseconds on a busy machine and has no bound; meanwhile a source hears nothing, not even that it has to stop.
    let _ = barrier::register();
    daemon::run(config, origin, left, ready)?;
    cleanup::left().map_or(Ok(()), |left| Err(Failure::Left(left)))
}
