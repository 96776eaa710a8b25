//! Messages cost no system call while nobody sleeps.
//!
//! Counting calls would need a tracer. Instead a process forbids itself all of them, and goes on publishing and receiving: the
//! first one would be its end.
#![allow(unsafe_code)]

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Command, Output, Stdio};

use nix::libc;
use shm_test_support::Filter;

use crate::{CAPACITY, exchange};

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
    let (mut writer, mut reader) = shm_test_support::pair(CAPACITY);
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
    let allowed = [libc::SYS_write, libc::SYS_exit_group].map(|call| (call, libc::SECCOMP_RET_ALLOW));
    let mut filter = Filter::new(&allowed, libc::SECCOMP_RET_KILL_PROCESS);
    if let Err(e) = filter.install() {
        println!("a process may not filter its own system calls here: {e}");
        process::exit(NOT_ALLOWED);
    }
    // Giving memory back may be a call.
    std::mem::forget(filter);
}
