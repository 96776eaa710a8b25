//! `producer | shmd`, or `producer | shmctl write`, and `shmctl read` for each reader, against `producer | cat` and, for several
//! readers, `tee` to a `cat` each. All write what they get to /dev/null.

use std::env;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{Bytes, Client, Done, Endpoint, Error, Request};

use super::crew::{Crew, Interruptible, follower};
use super::outcome::{Measured, Sample};
use super::plan::{Case, Transport};
use super::stage::{Daemon, Scratch, Setup};
use super::worker::Job;
use crate::error::{Failure, Result};
use crate::output::wait_for;
use crate::signals::Signals;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(1);

/// Runs the pipeline once; `producer` is the job of whoever feeds it.
pub(super) fn run(case: &Case, producer: &Job, expected: Duration, signals: &Signals) -> Result<Interruptible<Sample>> {
    let mut crew = Crew::default();
    let (from, to) = pipe()?;
    crew.hire(producer, vec![to])?;
    // Kept until the readers have ended: dropping a daemon stops it.
    let mut kept = match case.transport {
        Transport::Ring | Transport::Lent => match through_daemon(&mut crew, case, from, signals)? {
            Some(daemon) => Kept::Daemon(daemon),
            None => return Ok(None),
        },
        _ => Kept::Scratch(through_cat(&mut crew, case, from)?),
    };
    if crew.until_ready(signals)?.is_none() {
        return Ok(None);
    }
    crew.go()?;
    let Some(results) = crew.results(signals, expected)? else { return Ok(None) };
    let readers = case.readers as usize;
    if case.transport == Transport::Lent {
        if crew.until_others_end(readers..readers + 1, signals)?.is_none() {
            return Ok(None);
        }
        // The daemon goes on without a writer; its end is the readers', once they have read everything.
        if let Kept::Daemon(daemon) = &mut kept {
            daemon.end();
        }
    }
    if crew.until_others_end(0..readers, signals)?.is_none() {
        return Ok(None);
    }
    let end = monotonic_ns();
    let produced = results.first().ok_or_else(|| Failure::Other("the producer has said nothing".to_owned()))?;
    // The producer says when it began.
    Ok(Some(Sample::new(&Measured { elapsed_ns: end - produced.elapsed_ns, ..*produced })))
}

/// What is there as long as the pipeline runs.
enum Kept {
    Daemon(Daemon),
    Scratch(#[expect(dead_code, reason = "it is only there to be dropped")] Scratch),
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::system("make a pipe", e))?)
}

fn through_daemon(crew: &mut Crew, case: &Case, from: OwnedFd, signals: &Signals) -> Result<Interruptible<Daemon>> {
    let framing = format!("chunk={}", Bytes(case.size_bytes));
    let mut setup = Setup::default();
    let mut keys = format!("wait_readers = {}", case.readers);
    let (mut to_daemon, mut to_write) = (None, None);
    if case.transport == Transport::Lent {
        to_write = Some(from);
    } else {
        to_daemon = Some(from);
        setup.args = vec!["--exit-on-eof"];
        keys += &format!("\nsource = \"stdin\"\nframing = \"{framing}\"");
    }
    setup.stdin = to_daemon.map(Stdio::from);
    setup.channel("main", case.capacity_bytes, &keys);
    let daemon = setup.start()?;
    for _ in 0..case.readers {
        let mut read = shmctl("read", &daemon)?;
        read.args(["--from", "oldest", "--format", "raw"]);
        crew.add(read)?;
    }
    if let Some(from) = to_write {
        let mut write = shmctl("write", &daemon)?;
        write.args(["--framing", &framing]).stdin(from);
        crew.add(write)?;
    }
    Ok(until_attached(&daemon, case.readers, signals)?.map(|()| daemon))
}

/// A command of this program for a daemon, as part of a crew.
pub(super) fn shmctl(command: &str, daemon: &Daemon) -> Result<Command> {
    let own = env::current_exe().map_err(|e| Error::system("find the program that runs", e))?;
    let mut program = follower(Some(own.as_os_str()))?;
    program.args([command, "--runtime-dir"]).arg(daemon.runtime_dir());
    Ok(program)
}

/// Waits until so many readers are attached to a daemon's channels. `None` when a signal came first.
pub(super) fn until_attached(daemon: &Daemon, all: u32, signals: &Signals) -> Result<Interruptible<()>> {
    let begun = Instant::now();
    loop {
        let there = attached(daemon)?;
        if there >= all {
            return Ok(Some(()));
        }
        if begun.elapsed() > PATIENCE {
            let waited = PATIENCE.as_secs();
            return Err(Failure::Other(format!(
                "{there} of {all} readers (shmctl read) have attached within {waited} s; what they have written to standard \
                 error says why, or the machine is overloaded: try fewer readers"
            )));
        }
        wait_for(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], LOOK)?;
        if signals.came() {
            return Ok(None);
        }
    }
}

fn attached(daemon: &Daemon) -> Result<u32> {
    let mut client = Client::connect(&Endpoint::in_dir(&daemon.runtime_dir()), PATIENCE)?;
    match client.request(&Request::List)? {
        Done::List(channels) => Ok(channels.iter().map(|channel| channel.readers).sum()),
        other => Err(crate::commands::unexpected("list", &other)),
    }
}

fn through_cat(crew: &mut Crew, case: &Case, from: OwnedFd) -> Result<Scratch> {
    let scratch = Scratch::new()?;
    let program = |name: &str| follower(Some(OsStr::new(name)));
    let cat = |from: Stdio| -> Result<Command> {
        let mut cat = program("cat")?;
        cat.stdin(from);
        Ok(cat)
    };
    if case.readers == 1 {
        crew.add(cat(from.into())?)?;
        return Ok(scratch);
    }
    let (tee_from, tee_to) = pipe()?;
    let mut tee = program("tee")?;
    tee.stdin(from).stdout(tee_to);
    crew.add(cat(tee_from.into())?)?;
    for n in 1..case.readers {
        let fifo = scratch.path(&n.to_string());
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|e| Error::system(format!("make the FIFO {}", fifo.display()), e))?;
        let mut reader = cat(Stdio::null())?;
        reader.arg(&fifo);
        crew.add(reader)?;
        tee.arg(&fifo);
    }
    crew.add(tee)?;
    Ok(scratch)
}
