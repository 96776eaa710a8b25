//! The processes of one measurement: started, told, listened to, and ended whatever happens.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use shm_proto::Error;
use shm_proto::internal::control::{Conn, MAX_FDS_A_LINE, Received, decode};

use super::outcome::Measured;
use super::worker::{FromWorker, Job, MAX_LINE, Role, ToWorker};
use crate::error::{Failure, Result};
use crate::output::wait_for;
use crate::signals::Signals;

/// Beyond what a measurement should take, a worker that says nothing is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often processes that say nothing are looked at.
const LOOK: Duration = Duration::from_millis(1);

/// What is left of a measurement that a signal has ended is nothing.
pub(super) type Interruptible<T> = Option<T>;

/// A program that ends with this process, started so that the terminal's signals do not reach it.
pub(super) fn follower(program: Option<&OsStr>) -> Result<Command> {
    let own = env::current_exe().map_err(|e| Error::system("find the program that runs", e))?;
    let mut command = Command::new(own);
    command.arg("bench-worker").args(["--parent", &process::id().to_string()]);
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("SHMD_")) {
        command.env_remove(name);
    }
    command.args(program.map(|_| "--")).args(program).process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

#[derive(Debug)]
struct Worker {
    child: Child,
    conn: Conn,
    role: Role,
    ready: bool,
    told: Option<Measured>,
}

/// Workers, and programs that take part without saying anything. Dropped, none of them is left.
#[derive(Debug, Default)]
pub(super) struct Crew {
    workers: Vec<Worker>,
    others: Vec<(String, Child)>,
}

impl Crew {
    /// Starts a worker and gives it its job.
    pub(super) fn hire(&mut self, job: &Job, fds: Vec<OwnedFd>) -> Result<()> {
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

    /// Has another program take part.
    pub(super) fn add(&mut self, mut command: Command) -> Result<()> {
        let what = format!("{}", command.get_args().nth(4).unwrap_or_default().display());
        let child = command.spawn().map_err(|e| Error::system(format!("start {what}"), e))?;
        self.others.push((what, child));
        Ok(())
    }

    /// The process numbers of the other programs, in the order in which they were added.
    pub(super) fn others(&self) -> impl Iterator<Item = u32> {
        self.others.iter().map(|(_, child)| child.id())
    }

    /// Waits until all workers are ready. `None` when a signal came first.
    pub(super) fn until_ready(&mut self, signals: &Signals) -> Result<Interruptible<()>> {
        self.listen(signals, PATIENCE, |worker| worker.ready)
    }

    /// Lets the readers begin, then the writer.
    pub(super) fn go(&mut self) -> Result<()> {
        for role in [Role::Reader, Role::Writer] {
            for worker in self.workers.iter_mut().filter(|worker| worker.role == role) {
                worker.conn.send(&ToWorker::Go {}, &[])?;
            }
        }
        Ok(())
    }

    /// What the workers measured, the writer's first; `expected` is how long that should take.
    pub(super) fn results(&mut self, signals: &Signals, expected: Duration) -> Result<Interruptible<Vec<Measured>>> {
        if self.listen(signals, expected * 20 + PATIENCE, |worker| worker.told.is_some())?.is_none() {
            return Ok(None);
        }
        self.workers.sort_by_key(|worker| worker.role != Role::Writer);
        for worker in &mut self.workers {
            let name = worker.name();
            if end_of(name, &mut worker.child, signals, PATIENCE)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(self.workers.iter().filter_map(|worker| worker.told).collect()))
    }

    /// Waits for the end of some of the other programs, in the order in which they were added.
    pub(super) fn until_others_end(&mut self, which: Range<usize>, signals: &Signals) -> Result<Interruptible<()>> {
        let give_up = Instant::now() + PATIENCE * 5;
        for (what, child) in &mut self.others[which] {
            match end_of(what, child, signals, give_up.saturating_duration_since(Instant::now()))? {
                Some(status) if status.success() => {}
                Some(status) => return Err(ended(what, child.id(), status)),
                None => return Ok(None),
            }
        }
        Ok(Some(()))
    }

    fn listen(
        &mut self,
        signals: &Signals,
        patience: Duration,
        enough: fn(&Worker) -> bool,
    ) -> Result<Interruptible<()>> {
        let give_up = Instant::now() + patience;
        loop {
            for worker in &mut self.workers {
                if worker.listen(signals)?.is_none() {
                    return Ok(None);
                }
            }
            if self.workers.iter().all(enough) {
                return Ok(Some(()));
            }
            let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            let waited_for = self.workers.iter().filter(|worker| !enough(worker));
            fds.extend(waited_for.map(|worker| PollFd::new(worker.conn.as_fd(), PollFlags::POLLIN)));
            wait_for(&mut fds, give_up.saturating_duration_since(Instant::now()))?;
            if signals.came() {
                return Ok(None);
            }
            if Instant::now() >= give_up {
                let late = self.workers.iter().filter(|worker| !enough(worker));
                let late: Vec<_> =
                    late.map(|worker| format!("{} (pid {})", worker.name(), worker.child.id())).collect();
                return Err(silent(&format!("the {}", late.join(", the ")), patience));
            }
        }
    }
}

impl Worker {
    /// Takes in what it has said. `None` when a signal came first.
    fn listen(&mut self, signals: &Signals) -> Result<Interruptible<()>> {
        while self.told.is_none() {
            match self.conn.receive()? {
                Received::Nothing => return Ok(Some(())),
                Received::Line(line, _) => match decode(&line)? {
                    FromWorker::Ready {} => self.ready = true,
                    FromWorker::Done(measured) => self.told = Some(measured),
                    FromWorker::Failed { message } => {
                        return Err(Failure::Other(format!("the {} failed: {message}", self.name())));
                    }
                },
                Received::Closed => {
                    let name = self.name();
                    let Some(status) = end_of(name, &mut self.child, signals, PATIENCE)? else { return Ok(None) };
                    return Err(ended(&format!("the {name}"), self.child.id(), status));
                }
            }
        }
        Ok(Some(()))
    }

    fn name(&self) -> &'static str {
        match self.role {
            Role::Writer => "writer",
            Role::Reader => "reader",
        }
    }
}

/// Waits for the end of a process, no longer than `patience`. `None` when a signal came first.
fn end_of(what: &str, child: &mut Child, signals: &Signals, patience: Duration) -> Result<Interruptible<ExitStatus>> {
    let give_up = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().map_err(|e| Error::system(format!("wait for the end of {what}"), e))? {
            return Ok(Some(status));
        }
        if Instant::now() >= give_up {
            return Err(silent(&format!("{what} (pid {}), which should have ended,", child.id()), patience));
        }
        wait_for(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], LOOK)?;
        if signals.came() {
            return Ok(None);
        }
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
            // Both fail only for a process that has been waited for.
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
        let signals = Signals::catch().unwrap();
        // Longer than this test takes, but not for ever if it fails.
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let error = end_of("the writer", &mut child, &signals, Duration::from_millis(20)).unwrap_err().to_string();
        assert!(error.contains(&format!("the writer (pid {}), which should have ended,", child.id())), "{error}");
        child.kill().unwrap();
        let status = end_of("the writer", &mut child, &signals, PATIENCE).unwrap().unwrap();
        assert!(!status.success());
    }
}
