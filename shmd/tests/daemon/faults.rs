//! A daemon one of whose system calls fails, or that is killed there, from its start over readers, a writer, resizes and a reload to
//! its stop: it says what is wrong or goes on, nobody hangs, and the next one starts over whatever it has left.
//!
//! Each call in its turn with `SHMD_STEPS=1`, a sample of them otherwise, another one each time.

mod threads;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_proto::{Client, Reader, Request, Start, Writer};

use shm_test_support::{PATIENCE, shared_memory};

use super::{Daemon, wait_for};

/// Faults of a kind, without `SHMD_STEPS`.
const SAMPLE: usize = 8;
const CHANNEL: &str = "[[channel]]\nname = \"main\"\ncapacity = \"64KiB\"\nmax = \"1MiB\"\nsource = \"none\"\n";
const ANOTHER: &str = "[[channel]]\nname = \"other\"\ncapacity = \"64KiB\"\n";
/// What fails how. A failed `mmap` is left out: the C library's own loader makes most of them, and ends the process.
const FAULTS: [(&str, &str); 6] = [
    ("EMFILE", "openat,memfd_create,socket,socketpair,accept4,epoll_create1,pidfd_open,timerfd_create,signalfd4,fcntl"),
    ("ENOMEM", "clone,clone3,epoll_ctl,memfd_create,accept4,sendmsg,recvmsg,setsockopt"),
    ("ENOSPC", "openat,fallocate,ftruncate,linkat,link,mkdir,mkdirat,rename,bind,write,pwrite64"),
    ("EIO", "openat,fstat,newfstatat,ftruncate,fallocate,unlink,unlinkat,fchmod,pwrite64,pread64,flock,fcntl"),
    ("EINTR", "openat,fallocate,flock,epoll_wait,accept4,sendmsg,recvmsg,sendto,recvfrom,write,pwrite64,poll,fcntl"),
    (
        "KILL",
        "openat,fallocate,ftruncate,linkat,unlink,unlinkat,epoll_wait,epoll_ctl,sendmsg,accept4,fcntl,pwrite64,memfd_create",
    ),
];

/// What is done with a daemon: whatever cannot be done is refused or fails, and nothing waits for ever.
fn use_it(daemon: &mut Daemon) {
    let endpoint = daemon.endpoint();
    let ask = |request: &Request| Client::connect(&endpoint, PATIENCE)?.request(request);
    let resize = |bytes| ask(&Request::Resize { channel: None, bytes });
    let reader = Reader::attach(&endpoint, Some("main"), Start::Oldest);
    if let Ok(mut writer) = Writer::attach(&endpoint, Some("main")) {
        for n in 0..10u64 {
            let _ = writer.publish(&n.to_le_bytes());
        }
        let growing = std::thread::scope(|scope| {
            let growing = scope.spawn(|| resize(512 << 10));
            while !growing.is_finished() {
                let _ = writer.maintain();
                std::thread::sleep(Duration::from_millis(1));
            }
            growing.join()
        });
        drop(growing);
        let _ = writer.publish(&[1; 1000]);
    }
    if let Ok(mut reader) = reader {
        let mut bytes = Vec::new();
        let mut next = 0;
        while let Ok(Some(got)) = reader.try_recv().map(|got| got.map(|got| got.seq())) {
            assert_eq!(got, next, "a message is missing");
            next += 1;
        }
        let _ = reader.recv_into(&mut bytes, Some(Duration::from_millis(1)));
    }
    let _ = resize(64 << 10);
    fs::write(daemon.dir.join("shmd.toml"), format!("{CHANNEL}{ANOTHER}")).unwrap();
    let _ = ask(&Request::Reload);
    drop(Reader::attach(&endpoint, Some("other"), Start::New));
    fs::write(daemon.dir.join("shmd.toml"), CHANNEL).unwrap();
    let _ = ask(&Request::Reload);
}

/// A daemon's life under `strace`. `None` where that cannot be.
fn life(daemon: &mut Daemon, options: &[&str]) -> Option<ExitStatus> {
    let _ = fs::remove_file(daemon.dir.join("log"));
    let mut outer = vec!["strace", "-D", "-qq"];
    outer.extend_from_slice(options);
    daemon.child = Some(daemon.command_within(&outer, &[]).spawn().ok()?);
    let (endpoint, calls, log) = (daemon.endpoint(), daemon.dir.join("calls"), daemon.dir.join("log"));
    let said = || {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        format!("{options:?}: {}: {}", text(&calls), text(&log))
    };
    // The log may not say so: that line may be what cannot be written.
    let serves = || Client::connect(&endpoint, PATIENCE).and_then(|mut client| client.request(&Request::Ping)).is_ok();
    let mut ended = None;
    let mut look = |child: &mut Child| {
        ended = child.try_wait().unwrap();
        ended.is_some()
    };
    let child = daemon.child.as_mut().unwrap();
    wait_for(|| look(child) || serves(), said);
    if !look(child) {
        use_it(daemon);
        daemon.signal(Signal::SIGTERM);
        let child = daemon.child.as_mut().unwrap();
        wait_for(|| look(child), || format!("it does not end: {}", said()));
    }
    daemon.child = None;
    ended
}

#[test]
fn one_system_call_that_fails_or_kills_never_costs_more_than_what_was_asked_for() {
    let mut daemon = Daemon::configured("faults", CHANNEL);
    let whole = std::env::var_os("SHMD_STEPS").is_some();
    let calls = daemon.dir.join("calls");
    for (fault, names) in FAULTS {
        let trace = format!("trace={names}");
        let Some(ended) = life(&mut daemon, &["-o", calls.to_str().unwrap()]) else {
            return println!("skipped: strace is not here");
        };
        if ended.code() != Some(0) {
            return println!("skipped: strace may not trace here: {}", daemon.log());
        }
        let all = fs::read_to_string(&calls).unwrap();
        // The loader's calls come first; they are not the daemon's.
        let begin = all.lines().position(|line| line.contains("shmd.toml")).unwrap();
        let is_one = |line: &str| names.split(',').any(|name| line.starts_with(&format!("{name}(")));
        let before = all.lines().take(begin).filter(|line| is_one(line)).count();
        let count = all.lines().filter(|line| is_one(line)).count();
        assert!(count > before + 10, "{fault}: only {count} calls");
        let every = if whole { 1 } else { (count - before).div_ceil(SAMPLE) };
        for n in (before + 1 + std::process::id() as usize % every..=count).step_by(every) {
            let tamper = if fault == "KILL" { "signal=KILL".to_owned() } else { format!("error={fault}") };
            let inject = format!("inject={names}:{tamper}:when={n}");
            let ended = life(&mut daemon, &["-o", calls.to_str().unwrap(), "-e", &trace, "-e", &inject]).unwrap();
            let context = || {
                let trace = fs::read_to_string(&calls).unwrap_or_default();
                let hit = trace.lines().find(|line| line.contains("INJECTED")).unwrap_or("").to_owned();
                format!("call {n} of {count}, {fault}: {hit}: {ended}: {}", daemon.log())
            };
            match ended.signal() {
                None => {}
                Some(signal) => assert!(fault == "KILL" && signal == Signal::SIGKILL as i32, "{}", context()),
            }
            if ended.code().is_some_and(|code| code != 0) {
                // It says why.
                assert!(daemon.log().contains(" ERROR ") || daemon.log().contains("shmd: "), "{}", context());
            }
            let context = context();
            daemon.run(&[]);
            let ready = format!("event=ready pid={} ", daemon.child.as_ref().unwrap().id());
            wait_for(
                || daemon.log().contains(&ready),
                || format!("the next does not start: {context}: {}", daemon.log()),
            );
            assert_eq!(daemon.stop(), Some(0), "{context}: {}", daemon.log());
            let left = shared_memory(&daemon.prefix);
            assert!(left.is_empty(), "{left:?}: {context}: {}", daemon.log());
        }
    }
}
