//! A look at a program before it is executed in the daemon's place: the program is run as a child and says what it understands.
//! A thread waits for it, so that the channels do not stand still.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use shm_proto::internal::os::child;
use shm_proto::internal::os::poll::poll;
use shm_proto::{ErrorKind, Refusal, Result};

use super::work::Work;
use crate::connections::refusal;
use crate::handover::{self, Known};

/// The option that makes a program say what it understands.
const OPTION: &str = "--check-reexec";
/// How long it may take to say so.
const LIMIT: Duration = Duration::from_secs(10);
/// How often the thread looks whether anybody still wants to know.
const LOOK: Duration = Duration::from_millis(50);
/// Most bytes that are read of it.
const MOST: usize = 16 << 10;
/// The exit codes for a mistake in a configuration file, and for one in an option or a variable, as in [`exit`](crate::exit).
const BAD_CONFIGURATION: i32 = 78;
const BAD_VALUE: i32 = 2;

/// Which program, and how.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) program: PathBuf,
    /// Without the program's name.
    pub(super) arguments: Vec<OsString>,
    /// Where its paths are relative to.
    pub(super) dir: PathBuf,
    /// What standard input is to the daemon.
    pub(super) stdin_feeds: bool,
    /// The features of the present segments, which it has to know.
    pub(super) features: u64,
    /// Whether there are channels that were made at run time, with which it has to go on.
    pub(super) has_created: bool,
}

/// Runs the program in a thread: what it understands, or why it cannot be executed.
///
/// # Errors
/// When the system gives no descriptors or no thread.
pub(super) fn start(candidate: Candidate) -> Result<Work<Known>> {
    Work::start("reexec", drop, move |ending| ask(&candidate, ending))
}

/// The child; dropping it ends it.
struct Asked(Child);

impl Drop for Asked {
    fn drop(&mut self) {
        // Not waited for yet, so that the number is still the group's.
        let _ = killpg(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn ask(candidate: &Candidate, ending: &AtomicBool) -> Result<Known, Refusal> {
    let name = candidate.program.display();
    let refuse = |kind, why: String| Err(refusal(kind, format!("{name} is not executed: {why}")));
    let mut command = Command::new(&candidate.program);
    command.args(&candidate.arguments).arg(format!("{OPTION}={}", candidate.stdin_feeds)).current_dir(&candidate.dir);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove(handover::VARIABLE);
    let mut child = match child::spawn(&mut command) {
        Ok(child) => Asked(child),
        Err(e) => return refuse(ErrorKind::BadVersion, format!("{e}; install shmd there")),
    };
    let pipes = child.0.stdout.take().map(OwnedFd::from).zip(child.0.stderr.take().map(OwnedFd::from));
    let Some((stdout, stderr)) = pipes else { return refuse(ErrorKind::Internal, "it has no pipes".to_owned()) };
    let (said, complained) = match listen(stdout, stderr, ending) {
        Ok(texts) => texts,
        Err(why) => return refuse(ErrorKind::BadVersion, why),
    };
    let Some(status) = end(&mut child.0, ending) else {
        return refuse(ErrorKind::BadVersion, format!("it does not end within {} s", LIMIT.as_secs()));
    };
    let complaint = complained.trim();
    // A program that does not know the option ends with the same code, and says so in clap's words.
    let refuses_value = status.code() == Some(BAD_VALUE) && complaint.starts_with("shmd: ");
    if status.code() == Some(BAD_CONFIGURATION) || refuses_value {
        return refuse(ErrorKind::BadConfig, format!("it does not take the configuration: {complaint}"));
    }
    if !status.success() {
        return refuse(
            ErrorKind::BadVersion,
            format!("asked what it understands, it ended with {status}: {complaint}"),
        );
    }
    let known = serde_json::from_str::<Known>(said.trim());
    let fault = known.as_ref().map_or_else(
        |_| Some("it does not answer like shmd".to_owned()),
        |known| known.fault(candidate.features, candidate.has_created),
    );
    match (known, fault) {
        (Ok(known), None) => Ok(known),
        (_, fault) => refuse(ErrorKind::BadVersion, fault.unwrap_or_default()),
    }
}

/// Reads both to their ends.
fn listen(stdout: OwnedFd, stderr: OwnedFd, ending: &AtomicBool) -> Result<(String, String), String> {
    let until = Instant::now() + LIMIT;
    let mut pipes = [(File::from(stdout), Vec::new(), false), (File::from(stderr), Vec::new(), false)];
    while pipes.iter().any(|(.., is_over)| !is_over) {
        if ending.load(Ordering::Relaxed) {
            return Err("nobody waits for it any more".to_owned());
        }
        if Instant::now() >= until {
            return Err(format!("it has not said within {} s what it understands", LIMIT.as_secs()));
        }
        for (pipe, text, is_over) in pipes.iter_mut().filter(|(.., is_over)| !is_over) {
            let mut fds = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
            // One after the other: there is little to be read.
            poll(&mut fds, Some(LOOK)).map_err(|e| e.to_string())?;
            if fds[0].any() == Some(false) {
                continue;
            }
            let mut bytes = [0; 4096];
            match pipe.read(&mut bytes).map_err(|e| e.to_string())? {
                0 => *is_over = true,
                n if text.len() + n > MOST => return Err(format!("it says more than {MOST} bytes")),
                n => text.extend_from_slice(&bytes[..n]),
            }
        }
    }
    let [said, complained] = pipes.map(|(_, text, _)| String::from_utf8_lossy(&text).into_owned());
    Ok((said, complained))
}

fn end(child: &mut Child, ending: &AtomicBool) -> Option<ExitStatus> {
    let until = Instant::now() + LIMIT;
    while Instant::now() < until && !ending.load(Ordering::Relaxed) {
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// What the program says when it is asked.
///
/// # Errors
/// When standard output does not take it.
pub(crate) fn answer(to: &mut impl std::io::Write) -> std::io::Result<()> {
    let text = serde_json::to_string(&Known::own())?;
    writeln!(to, "{text}")
}

/// The file that this process executes. An upgrade may replace it, so this is asked for at the start.
pub(crate) fn own_program() -> PathBuf {
    std::fs::read_link("/proc/self/exe").unwrap_or_else(|_| Path::new("/proc/self/exe").to_owned())
}
