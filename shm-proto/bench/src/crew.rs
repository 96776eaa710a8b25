//! The processes of one measurement: the crew starts them, tells them what to do, listens to them and ends them in any case.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use shm_proto::Error;
use shm_proto::internal::control::{Conn, MAX_FDS_A_LINE, Received, decode};

use crate::job::{FromWorker, Job, MAX_LINE, Role, ToWorker};
use crate::outcome::Measured;
use crate::stop::Stop;
use crate::{Failure, Result};

/// A worker that says nothing for this long, beyond what a measurement should take, is given up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The time between two looks at processes that say nothing.
pub(crate) const LOOK: Duration = Duration::from_millis(1);

/// A program that ends with this process, started so that the terminal's signals do not reach it; this program's worker if
/// none is named.
pub fn follower(program: Option<&OsStr>) -> Result<Command> {
    let own = env::current_exe().map_err(|e| Error::system("find the program that runs", e))?;
    let mut command = Command::new(own);
    command.arg("bench-worker").args(["--parent", &process::id().to_string()]);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHMD_")) {
        command.env_remove(name);
    }
    command.args(program.map(|_| "--")).args(program).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// `shmd` or `shmctl`, beside this program or in `PATH`.
pub fn find(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(|dir| dir.join(name));
    let path = env::var_os("PATH").unwrap_or_default();
    let found = beside.into_iter().chain(env::split_paths(&path).map(|dir| dir.join(name))).find(|p| p.is_file());
    found.ok_or_else(|| {
        let way = "put the programs into one directory (`cargo build --release` does), or measure a daemon that runs with \
                   shmctl bench --channel NAME";
        Failure::Other(format!("no {name} beside this program and none in PATH: {way}"))
    })
}

#[derive(Debug)]
struct Worker {
    child: Child,
    conn: Conn,
    role: Role,
    ready: bool,
    told: Option<Measured>,
}

/// Workers, and other programs that take part. Dropping the crew ends all of them.
#[derive(Debug, Default)]
pub struct Crew {
    workers: Vec<Worker>,
    others: Vec<(String, Child)>,
}

impl Crew {
    /// Starts a worker and gives it its job.
    pub fn hire(&mut self, job: &Job, fds: Vec<OwnedFd>) -> Result<()> {
        let failed = |e: io::Error| Failure::from(Error::system("start a worker", e));
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let child = follower(None)?.stdin(OwnedFd::from(theirs)).spawn().map_err(failed)?;
        let conn = Conn::new(ours, MAX_LINE);
        self.workers.push(Worker { child, conn, role: job.role, ready: false, told: None });
        let Some(worker) = self.workers.last_mut() else { return Ok(()) };
        for some in fds.chunks(MAX_FDS_A_LINE) {
            let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            worker.conn.send(&ToWorker::Descriptors {}, &some)?;
        }
        Ok(worker.conn.send(&ToWorker::Job(job.clone()), &[])?)
    }

    /// Adds another program, which says nothing to this one.
    pub fn add(&mut self, mut command: Command) -> Result<()> {
        let what = format!("{}", command.get_args().nth(4).unwrap_or_default().display());
        let child = command.spawn().map_err(|e| Error::system(format!("start {what}"), e))?;
        self.others.push((what, child));
        Ok(())
    }

    /// The process numbers of the other programs, in the order in which they were added.
    pub fn others(&self) -> impl Iterator<Item = u32> {
        self.others.iter().map(|(_, child)| child.id())
    }

    /// Waits until all workers are ready.
    pub fn until_ready(&mut self, stop: Stop<'_>) -> Result<()> {
        self.listen(stop, PATIENCE, |worker| worker.ready)
    }

    /// Lets the readers begin, then the writer.
    pub fn go(&mut self) -> Result<()> {
        for role in [Role::Reader, Role::Writer] {
            for worker in self.workers.iter_mut().filter(|worker| worker.role == role) {
                worker.conn.send(&ToWorker::Go {}, &[])?;
            }
        }
        Ok(())
    }

    /// What the workers measured, the writer's first; `expected` is how long that should take.
    pub fn results(&mut self, stop: Stop<'_>, expected: Duration) -> Result<Vec<Measured>> {
        self.listen(stop, expected * 20 + PATIENCE, |worker| worker.told.is_some())?;
        self.workers.sort_by_key(|worker| worker.role != Role::Writer);
        for worker in &mut self.workers {
            worker.conn.send(&ToWorker::End {}, &[])?;
        }
        for worker in &mut self.workers {
            let name = worker.name();
            end_of(name, &mut worker.child, stop, PATIENCE)?;
        }
        Ok(self.workers.iter().filter_map(|worker| worker.told).collect())
    }

    /// Waits for the end of some of the other programs, in the order in which they were added.
    pub fn until_others_end(&mut self, which: Range<usize>, stop: Stop<'_>) -> Result<()> {
        let give_up = Instant::now() + PATIENCE * 5;
        for (what, child) in &mut self.others[which] {
            let status = end_of(what, child, stop, give_up.saturating_duration_since(Instant::now()))?;
            if !status.success() {
                return Err(ended(what, child.id(), status));
            }
        }
        Ok(())
    }

    fn listen(&mut self, stop: Stop<'_>, patience: Duration, enough: fn(&Worker) -> bool) -> Result<()> {
        let give_up = Instant::now() + patience;
        loop {
            for worker in &mut self.workers {
                worker.listen(stop)?;
            }
            let late = || self.workers.iter().filter(|worker| !enough(worker));
            if late().next().is_none() {
                return Ok(());
            }
            let conns = late().map(|worker| worker.conn.as_fd());
            stop.wait_beside(conns, give_up.saturating_duration_since(Instant::now()))?;
            if Instant::now() >= give_up {
                let late = late().map(|worker| format!("{} (pid {})", worker.name(), worker.child.id()));
                return Err(silent(&format!("the {}", late.collect::<Vec<_>>().join(", the ")), patience));
            }
        }
    }
}

impl Worker {
    /// Takes in what the worker has said.
    fn listen(&mut self, stop: Stop<'_>) -> Result<()> {
        while self.told.is_none() {
            match self.conn.receive()? {
                Received::Nothing => break,
                Received::Line(line, _) => match decode(&line)? {
                    FromWorker::Ready {} => self.ready = true,
                    FromWorker::Done(measured) => self.told = Some(measured),
                    FromWorker::Failed { message } => {
                        return Err(Failure::Other(format!("the {} failed: {message}", self.name())));
                    }
                },
                Received::Closed => {
                    let name = self.name();
                    let status = end_of(name, &mut self.child, stop, PATIENCE)?;
                    return Err(ended(&format!("the {name}"), self.child.id(), status));
                }
            }
        }
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.role {
            Role::Writer => "writer",
            Role::Reader => "reader",
        }
    }
}

/// Waits for the end of a process, no longer than `patience`.
fn end_of(what: &str, child: &mut Child, stop: Stop<'_>, patience: Duration) -> Result<ExitStatus> {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::system(format!("wait for the end of {what}"), e))? {
            return Ok(status);
        }
        if Instant::now() >= give_up {
            return Err(silent(&format!("{what} (pid {}), which should have ended,", child.id()), patience));
        }
        stop.pause(LOOK)?;
    }
}

fn ended(what: &str, pid: u32, status: ExitStatus) -> Failure {
    let way = "what it has written to standard error says why; a signal that nobody here sent may be the kernel's for want \
               of memory: try fewer or smaller messages";
    Failure::Other(format!("{what} (pid {pid}) ended before the measurement did: {status}; {way}"))
}

fn silent(what: &str, waited: Duration) -> Failure {
    let waited = waited.as_secs_f64();
    let way = "is it stopped, or the machine overloaded? Try again, or a shorter --duration";
    Failure::Other(format!("{what} has said nothing for {waited:.1} s, much longer than it should take; {way}"))
}

impl Drop for Crew {
    fn drop(&mut self) {
        let children = self.workers.iter_mut().map(|worker| &mut worker.child);
        for child in children.chain(self.others.iter_mut().map(|(_, child)| child)) {
            // Both calls fail only if the process has already been waited for.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_end_is_not_waited_for_without_bound() {
        let (reader, _writer) = std::io::pipe().unwrap();
        let stop = Stop::when_readable(&reader);
        // Longer than this test takes, but bounded if the test fails.
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let error = end_of("the writer", &mut child, stop, Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains(&format!("the writer (pid {}), which should have ended,", child.id())), "{error}");
        child.kill().unwrap();
        let status = end_of("the writer", &mut child, stop, PATIENCE).unwrap();
        assert!(!status.success());
    }
}
