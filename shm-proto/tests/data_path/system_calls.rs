//! Messages cost no system call while nobody sleeps.
//!
//! Counting calls would need a tracer. Instead a process forbids itself all of them, and goes on publishing and receiving: the
//! first one would be its end.
#![allow(unsafe_code)]

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command, Output, Stdio};

use nix::errno::Errno;
use nix::libc;

use crate::{CAPACITY, exchange, support};

/// Says to the test which part it has: that of the process that is forbidden everything.
const PART: &str = "SHM_PROTO_TEST_PART";
/// How a process ends that may not forbid itself anything.
const NOT_ALLOWED: i32 = 2;

#[test]
fn neither_publishing_nor_receiving_calls_the_kernel_while_nobody_sleeps() {
    match env::var(PART).as_deref() {
        Ok("messages") => messages_without_the_kernel(),
        Ok("a call") => a_call_without_the_kernel(),
        _ => {}
    }
    // The clock that shows a heartbeat is read without the kernel only where the kernel can show it to programs.
    let clock = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource");
    let clock = clock.unwrap_or_default();
    if !["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase"].contains(&clock.trim()) {
        println!("skipped: reading the clock {:?} is a system call itself", clock.trim());
        return;
    }
    let call = run("a call");
    if call.status.code() == Some(NOT_ALLOWED) {
        println!("skipped: {}", String::from_utf8_lossy(&call.stdout).trim_end());
        return;
    }
    assert_eq!(call.status.signal(), Some(libc::SIGSYS), "a call that is forbidden ends the process: {call:?}");
    let messages = run("messages");
    assert_ne!(
        messages.status.signal(),
        Some(libc::SIGSYS),
        "the kernel was called: strace -f on this test shows for what"
    );
    assert!(messages.status.success(), "{messages:?}");
    let said = String::from_utf8_lossy(&messages.stdout);
    assert!(said.contains("66000 messages"), "{said}");
}

/// This test once more, in a process of its own.
fn run(part: &str) -> Output {
    let test = "system_calls::neither_publishing_nor_receiving_calls_the_kernel_while_nobody_sleeps";
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(PART, part).stdin(Stdio::null());
    command.output().unwrap()
}

fn messages_without_the_kernel() -> ! {
    let (mut writer, mut reader) = support::pair(CAPACITY);
    let mut out = Vec::with_capacity(4096);
    // Once around with everything allowed: what is done once, as mapping the thread's memory, is no cost of a message.
    exchange(&mut writer, &mut reader, &mut out, 100).unwrap();
    forbid_all_but_the_end();
    let messages = exchange(&mut writer, &mut reader, &mut out, 1000).unwrap();
    say_and_end(&format!("{messages} messages\n"))
}

fn a_call_without_the_kernel() -> ! {
    forbid_all_but_the_end();
    nix::unistd::getppid();
    say_and_end("a call was allowed\n")
}

/// Writes to standard output and ends this process at once: the two calls that are left.
fn say_and_end(text: &str) -> ! {
    // Not through `print!`, which may have to lock and allocate, nor with an `exit` that runs other code first.
    // SAFETY: the pointer and the length are of one live string.
    unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(0) }
}

/// From here on any system call of this thread but `write` and `exit_group` ends the process with SIGSYS.
fn forbid_all_but_the_end() {
    let instruction = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let is =
        |call: libc::c_long, then: u8| instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, 0, call as u32);
    let answer = |answer: u32| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, answer);
    // The call's number is the first word of what a filter sees.
    let mut program = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        is(libc::SYS_write, 2),
        is(libc::SYS_exit_group, 1),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: takes plain numbers; a process that may gain no privileges may filter its own calls.
    let privileges = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    // SAFETY: the filter and its program live until the call returns; the kernel copies them.
    let filtered = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    if (privileges, filtered) != (0, 0) {
        println!("a process may not filter its own system calls here: {}", Errno::last());
        process::exit(NOT_ALLOWED);
    }
}
