//! A child process that inherits no descriptors and does not outlive its parent.
#![allow(unsafe_code)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::libc;

use super::inherited::SOCKET_VARIABLES;

/// `select` handles no more descriptors than this. A program that needs more raises its limit itself.
const DESCRIPTORS: libc::rlim_t = 1024;
/// The manager's socket and watchdog, and the journal behind standard error.
const MANAGER_VARIABLES: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM"];

/// Starts `command` as the leader of a process group of its own, which the kernel kills with SIGKILL when the *thread* that
/// called this ends, however it ends. The child's own children are not killed with it.
///
/// The child gets standard input, output and error as the command says, and no other descriptor, not even one that this process
/// inherited without close-on-exec. Variables with which a service manager speaks to this process alone are not in its environment. If
/// this process has raised the soft limit of descriptors, the child's limit is 1024 again.
/// Signals are as `std` sets them for a child: none is blocked, and SIGPIPE has its default action.
///
/// # Errors
/// What the system says, including errors of executing the program.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let parent = std::process::id();
    command.process_group(0);
    for variable in MANAGER_VARIABLES.iter().chain(&SOCKET_VARIABLES) {
        command.env_remove(variable);
    }
    // SAFETY: the closure runs in the child of a fork. It calls only async-signal-safe functions with numbers and a local buffer,
    // allocates nothing, takes no lock and cannot panic.
    unsafe { command.pre_exec(move || prepare(parent)) };
    command.spawn()
}

fn prepare(parent: u32) -> io::Result<()> {
    // SAFETY: the call takes numbers.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })?;
    // If the parent died before the call above, no signal will come.
    // SAFETY: the call takes nothing and cannot fail.
    if unsafe { libc::getppid() }.cast_unsigned() != parent {
        return Err(Errno::ESRCH.into());
    }
    // The descriptors are marked close-on-exec and not closed, because `std` reports a failed exec through one of them. Kernels
    // before 5.11 cannot do that; there the child also gets what this process has inherited.
    // SAFETY: the call takes numbers and changes this process's own table.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a live local that the calls fill and read.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur > DESCRIPTORS {
            limit.rlim_cur = DESCRIPTORS;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsRawFd;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use nix::unistd::{Pid, getpgid};

    use super::*;
    use crate::os::process::{is_alive, start_ticks};

    fn sleeper() -> Command {
        let mut command = Command::new("sleep");
        // Longer than any test takes, and the longest that a failing test waits for the end of this program.
        command.arg("100").stdin(Stdio::null());
        command
    }

    #[test]
    fn the_child_leads_a_group_of_its_own_and_has_no_descriptor_but_the_first_three() {
        let (leak, _other) = std::io::pipe().unwrap();
        fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let mut child = spawn(&mut sleeper()).unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert_eq!(getpgid(Some(pid)), Ok(pid));
        let open = || {
            let entries = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
            let mut open: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            open.sort();
            open
        };
        // A program opens its libraries when it begins; what it has inherited stays.
        let patience = Instant::now() + Duration::from_secs(60);
        while open() != ["0", "1", "2"] && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(3));
        }
        let open = open();
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(leak.as_raw_fd() > 2);
        assert_eq!(open, ["0", "1", "2"]);
        let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        assert!(soft.split_whitespace().next().unwrap().parse::<u64>().unwrap() <= DESCRIPTORS);
    }

    #[test]
    fn the_child_does_not_learn_what_a_service_manager_tells_this_process() {
        let mut command = Command::new("true");
        for variable in ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JOURNAL_STREAM", "LISTEN_PID", "LISTEN_FDS"]
        {
            command.env(variable, "1");
        }
        command.env("OTHER", "1");
        spawn(&mut command).unwrap().wait().unwrap();
        let left: Vec<_> = command.get_envs().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect();
        assert_eq!(left, ["OTHER"]);
    }

    #[test]
    fn the_child_is_killed_when_the_thread_that_started_it_ends() {
        let mut child = std::thread::spawn(|| spawn(&mut sleeper()).unwrap()).join().unwrap();
        let (pid, start) = (child.id(), start_ticks(child.id()).unwrap());
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        assert!(!is_alive(pid, start));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_at_once() {
        assert_eq!(spawn(&mut Command::new("/nonexistent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
