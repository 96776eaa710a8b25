//! Programs that may not make every system call, as in container runtimes with a short list of calls.
#![allow(unsafe_code)]

use std::io;

use nix::libc::{self, sock_filter};

/// What the kernel does with the system calls of a thread and of what the thread starts.
pub struct Filter(Vec<sock_filter>);

impl Filter {
    /// Answers each of the calls with the action beside it, and every other call with `others`.
    pub fn new(calls: &[(libc::c_long, u32)], others: u32) -> Self {
        let instruction = |code: u32, jf: u8, k: u32| sock_filter { code: code as u16, jt: 0, jf, k };
        let answer = |action: u32| instruction(libc::BPF_RET | libc::BPF_K, 0, action);
        // A filter sees the number of the call as its first word.
        let mut program = vec![instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
        for (call, action) in calls {
            program
                .extend([instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, *call as u32), answer(*action)]);
        }
        program.push(answer(others));
        Self(program)
    }

    /// Holds for this thread from here on. Does not allocate.
    pub fn install(&mut self) -> io::Result<()> {
        let filter = libc::sock_fprog { len: self.0.len() as u16, filter: self.0.as_mut_ptr() };
        // SAFETY: takes plain numbers; a thread that may gain no privileges may filter its own calls.
        if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the filter and its program live until the call returns; the kernel copies them.
        if unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Runs `start` where `membarrier` fails with this error; the programs that it starts have inherited that.
///
/// The test itself keeps the call, because `start` runs in a thread of its own. `start` must not attach anything in this
/// process: the library looks once whether the call works, and remembers the answer for all threads. Returns `None` where a
/// program may not filter its own calls.
pub fn without_membarrier<T: Send>(errno: i32, start: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let refused = (libc::SYS_membarrier, libc::SECCOMP_RET_ERRNO | errno as u32);
        let started = scope.spawn(move || {
            let installed = Filter::new(&[refused], libc::SECCOMP_RET_ALLOW).install();
            installed.ok().map(|()| start())
        });
        started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether the kernel has what the rings use of `membarrier`. This does not ask the library, whose answer is under test.
pub fn has_membarrier() -> bool {
    // QUERY answers with the set of commands; GLOBAL_EXPEDITED is the second of them, registering for it the third.
    // SAFETY: the call takes plain numbers and touches no memory of ours.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
    commands > 0 && commands & 0b110 == 0b110
}
