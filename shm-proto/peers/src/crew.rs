//! The processes of one run: started, told to go, listened to, and gone afterwards.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use shm_proto::internal::os::child;

use crate::Result;
use crate::case::{Case, Job, Library, Measure, Measured, Role};
use crate::daemon::Daemon;

/// A run that takes so much longer than it should is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where runs take place: a directory and names of their own, removed at the end.
#[derive(Debug)]
pub struct Stage {
    dir: PathBuf,
    prefix: String,
    shmd: PathBuf,
    cpus: Vec<usize>,
}

impl Stage {
    pub fn new(shmd: Option<PathBuf>) -> Result<Self> {
        let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release/shmd");
        let shmd = shmd.unwrap_or(built);
        if !shmd.is_file() {
            let text = "is missing: build it with `cargo build --release` in the workspace, or name it with --shmd";
            return Err(format!("{} {text}", shmd.display()).into());
        }
        let prefix = format!("shmpeers{}", process::id());
        let dir = env::temp_dir().join(&prefix);
        fs::create_dir(&dir)?;
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        let cpus = (0..CpuSet::count()).filter(|&cpu| allowed.is_set(cpu) == Ok(true)).collect();
        Ok(Stage { dir, prefix, shmd, cpus })
    }

    /// Runs a case once; returns what the slowest reader, or whoever took the times, has measured.
    pub fn run(&self, library: Library, case: &Case, duration: Duration) -> Result<Measured> {
        let dir = self.dir.join("run");
        fs::create_dir(&dir)?;
        let daemon = match library {
            Library::ShmProto => Some(Daemon::start(&self.shmd, &dir, &self.prefix, case)?),
            _ => None,
        };
        let job = |role, n: usize| Job {
            library,
            case: *case,
            role,
            // A processor for each process, or none for anybody.
            cpu: self.cpus.get(n).copied().filter(|_| case.processes() <= self.cpus.len()),
            crowded: case.processes() > self.cpus.len(),
            dir: dir.clone(),
            prefix: self.prefix.clone(),
            warm_up_ns: (duration / 4).as_nanos() as u64,
            duration_ns: duration.as_nanos() as u64,
        };
        let mut crew = vec![Process::start(&job(Role::Writer, 0))?];
        for n in 0..case.readers {
            crew.push(Process::start(&job(Role::Reader(n), n as usize + 1))?);
        }
        crew[0].go()?;
        let results = results(&mut crew, PATIENCE + duration)?;
        drop((crew, daemon));
        fs::remove_dir_all(&dir)?;
        let result = match case.measure {
            Measure::Busy => results.into_iter().next(),
            _ => results.into_iter().skip(1).max_by_key(|result| result.elapsed_ns),
        };
        result.ok_or_else(|| "nobody has measured anything".into())
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
        // What a process that failed has left.
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A process that has made or found what it needs.
#[derive(Debug)]
struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    what: String,
    result: Option<Measured>,
}

impl Process {
    fn start(job: &Job) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("worker").arg(serde_json::to_string(job)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child::spawn(&mut command)?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { unreachable!("both are piped") };
        let what = format!("{:?} of {}, {}", job.role, job.library, job.case);
        let mut process = Process { child, to, from: BufReader::new(from), what, result: None };
        match process.line()?.as_str() {
            "ready" => Ok(process),
            other => Err(format!("{} said {other:?} instead of being ready", process.what).into()),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.from.read_line(&mut line)? {
            0 => Err(format!("{} has ended: {}", self.what, self.child.wait()?).into()),
            _ => Ok(line.trim_end().to_owned()),
        }
    }

    fn go(&mut self) -> Result<()> {
        Ok(self.to.write_all(b"go\n")?)
    }
}

/// What all of them have measured, in order. When one has ended without a word the others may wait for it for ever.
fn results(crew: &mut [Process], patience: Duration) -> Result<Vec<Measured>> {
    let end = Instant::now() + patience;
    while let waiting @ 1.. = crew.iter().filter(|process| process.result.is_none()).count() {
        let silent: Vec<&Process> = crew.iter().filter(|process| process.result.is_none()).collect();
        let mut fds: Vec<PollFd> =
            silent.iter().map(|process| PollFd::new(process.from.get_ref().as_fd(), PollFlags::POLLIN)).collect();
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(
                format!("{waiting} processes are not done after {patience:?}, {} is one", silent[0].what).into()
            );
        }
        match poll(&mut fds, PollTimeout::try_from(left)?) {
            // A signal has to wait until the run is over.
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
        let spoke: Vec<bool> = fds.iter().map(|fd| fd.any() == Some(true)).collect();
        let silent = crew.iter_mut().filter(|process| process.result.is_none());
        for (process, _) in silent.zip(spoke).filter(|(_, spoke)| *spoke) {
            process.result = Some(serde_json::from_str(&process.line()?)?);
        }
    }
    Ok(crew.iter().filter_map(|process| process.result).collect())
}

impl Drop for Process {
    fn drop(&mut self) {
        // Done, it has waited for the others, who may have needed what it made.
        if self.result.is_none() || self.to.write_all(b"end\n").is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
