//! The processes of one run: started, told to go, listened to, and gone afterwards.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{self, Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::Result;
use crate::case::{Case, Job, Library, Measure, Measured, Role};
use crate::daemon::Daemon;

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
        let mut writer = Process::start(&job(Role::Writer, 0))?;
        let mut readers = Vec::new();
        for n in 0..case.readers {
            readers.push(Process::start(&job(Role::Reader(n), n as usize + 1))?);
        }
        writer.go()?;
        let of_writer = writer.result()?;
        let mut results = Vec::new();
        for reader in &mut readers {
            results.push(reader.result()?);
        }
        drop((writer, readers, daemon));
        fs::remove_dir_all(&dir)?;
        let result = match case.measure {
            Measure::Busy => Some(of_writer),
            _ => results.into_iter().max_by_key(|result| result.elapsed_ns),
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
}

impl Process {
    fn start(job: &Job) -> Result<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.arg("worker").arg(serde_json::to_string(job)?).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else { unreachable!("both are piped") };
        let what = format!("{:?} of {}, {}", job.role, job.library, job.case);
        let mut process = Process { child, to, from: BufReader::new(from), what };
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

    fn result(&mut self) -> Result<Measured> {
        let measured = serde_json::from_str(&self.line()?)?;
        // The end of its input lets it end: a writer's memory is there until the readers are done.
        Ok(measured)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.to.write_all(b"end\n").is_err() {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
