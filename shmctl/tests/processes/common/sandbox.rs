//! Programs in a sandbox that has no `membarrier(2)`, as there are: container runtimes with a short list of calls.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// Runs `start` where `membarrier` answers with this error; the programs that it starts have inherited that.
///
/// A filter is a thread's and its children's, so the test itself keeps the call. `start` must not attach anything in this
/// process: whether there is the call is looked up once and remembered for all threads. `None` where a program may not
/// filter its own calls.
pub(crate) fn without_membarrier<T: Send>(errno: i32, start: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let started = scope.spawn(move || refuse_membarrier(errno).ok().map(|()| start()));
        started.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether the kernel has what the rings use of `membarrier`, here, outside the sandbox. Asked without the library, whose
/// answer is what is tested.
pub(crate) fn has_membarrier() -> bool {
    // QUERY answers with the set of commands; GLOBAL_EXPEDITED is the second of them, registering for it the third.
    // SAFETY: the call takes plain numbers and touches no memory of ours.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, 0, 0, 0) };
    commands > 0 && commands & 0b110 == 0b110
}

/// From here on this thread and what it starts get `errno` from `membarrier`.
fn refuse_membarrier(errno: i32) -> io::Result<()> {
    let instruction = |code: u32, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    // The call's number is the first word of what a filter sees.
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, libc::SYS_membarrier as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
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
