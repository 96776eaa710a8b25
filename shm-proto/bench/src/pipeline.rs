//! `producer | shmd`, or `producer | shmctl write`, and `shmctl read` for each reader, against `producer | cat` and, for several
//! readers, `tee` to a `cat` each. All write what they get to /dev/null.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};
use shm_proto::internal::os::clock::{self, monotonic_ns};
use shm_proto::{Bytes, Error};

use crate::crew::{Crew, LOOK, PATIENCE, find, follower};
use crate::daemon::{Daemon, Own, Setup};
use crate::job::Job;
use crate::outcome::{Measured, Sample};
use crate::plan::{Case, Transport};
use crate::stop::Stop;
use crate::{Failure, Result};

/// Runs the pipeline once; `producer` is the job of the worker that feeds it.
pub fn run(case: &Case, producer: &Job, expected: Duration, stop: Stop<'_>) -> Result<Sample> {
    let mut crew = Crew::default();
    let own = Own::new()?;
    let (from, to) = pipe()?;
    crew.hire(producer, vec![to])?;
    // Kept until the readers have ended: dropping a daemon stops it.
    let mut daemon = match case.transport {
        Transport::Ring | Transport::Lent => Some(through_daemon(&mut crew, case, from, stop)?),
        _ => {
            through_cat(&mut crew, case, from, &own)?;
            None
        }
    };
    crew.until_ready(stop)?;
    crew.go()?;
    let results = crew.results(stop, expected)?;
    let readers = case.readers as usize;
    if let (Transport::Lent, Some(daemon)) = (case.transport, &mut daemon) {
        crew.until_others_end(readers..readers + 1, stop)?;
        // The daemon runs on without a writer. Its end also ends the readers, once they have read everything.
        daemon.end();
    }
    crew.until_others_end(0..readers, stop)?;
    let end = monotonic_ns();
    let produced = results.first().ok_or_else(|| Failure::Other("the producer has said nothing".to_owned()))?;
    // The producer says when it began.
    Ok(Sample::new(&Measured { elapsed_ns: end - produced.elapsed_ns, ..*produced }))
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC).map_err(|e| Error::system("make a pipe", e))?)
}

fn through_daemon(crew: &mut Crew, case: &Case, from: OwnedFd, stop: Stop<'_>) -> Result<Daemon> {
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
    until_attached(&daemon, case.readers, stop)?;
    Ok(daemon)
}

/// A command of `shmctl` for a daemon, to be added to a crew.
pub fn shmctl(command: &str, daemon: &Daemon) -> Result<Command> {
    let mut program = follower(Some(find("shmctl")?.as_os_str()))?;
    program.args([command, "--runtime-dir"]).arg(daemon.runtime_dir());
    Ok(program)
}

/// Waits until `all` readers are attached to a daemon's channels.
pub fn until_attached(daemon: &Daemon, all: u32, stop: Stop<'_>) -> Result<()> {
    let until = clock::after(PATIENCE);
    loop {
        let there: u32 = daemon.list()?.iter().map(|channel| channel.readers).sum();
        if there >= all {
            return Ok(());
        }
        if monotonic_ns() > until {
            let waited = PATIENCE.as_secs();
            return Err(Failure::Other(format!(
                "{there} of {all} readers (shmctl read) have attached within {waited} s; what they have written to standard \
                 error says why, or the machine is overloaded: try fewer readers"
            )));
        }
        stop.pause(LOOK)?;
    }
}

fn through_cat(crew: &mut Crew, case: &Case, from: OwnedFd, own: &Own) -> Result<()> {
    let program = |name: &str| follower(Some(OsStr::new(name)));
    let cat = |from: Stdio| -> Result<Command> {
        let mut cat = program("cat")?;
        cat.stdin(from);
        Ok(cat)
    };
    if case.readers == 1 {
        crew.add(cat(from.into())?)?;
        return Ok(());
    }
    let (tee_from, tee_to) = pipe()?;
    let mut tee = program("tee")?;
    tee.stdin(from).stdout(tee_to);
    crew.add(cat(tee_from.into())?)?;
    for n in 1..case.readers {
        let fifo = own.path(&n.to_string());
        mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|e| Error::system(format!("make the FIFO {}", fifo.display()), e))?;
        let mut reader = cat(Stdio::null())?;
        reader.arg(&fifo);
        crew.add(reader)?;
        tee.arg(&fifo);
    }
    crew.add(tee)?;
    Ok(())
}
