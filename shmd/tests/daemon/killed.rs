//! Starts that are killed: the next one works, and leaves nothing when it stops.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::thread::sleep;
use std::time::Instant;

use nix::sys::signal::Signal;
use shm_proto::internal::os::{named_sem, reserve, shm};

use super::{Daemon, wait_for};

/// One of each kind of object that a start makes.
const EVERYTHING: &str = "[[channel]]\nname = \"ring\"\nsource = \"fifo:DIR/fifo\"\ncapacity = \"1MiB\"\n\
     [[channel]]\nname = \"hand\"\nmode = \"handoff\"\ncapacity = \"64KiB\"\nsource = \"unix:DIR/socket\"\n";

/// What changes something that outlives the process.
const CALLS: &str = "openat,open,linkat,link,unlink,unlinkat,rename,renameat,renameat2,mkdir,mkdirat,mknod,mknodat,fallocate,\
     ftruncate,fchmod,fchmodat,chmod,fchown,fchownat,chown,write,pwrite64,bind,listen,fcntl,flock,clone,clone3,fork,vfork";

fn everything(name: &str) -> Daemon {
    let mut daemon = Daemon::configured(name, "");
    daemon.config = EVERYTHING.replace("DIR", daemon.dir.to_str().unwrap());
    daemon
}

/// Whatever has the daemon's name in it or was made for it.
fn left(daemon: &Daemon) -> Vec<String> {
    let of = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().to_string_lossy().into_owned()).collect()
    };
    let mut left: Vec<_> = of("/dev/shm").into_iter().filter(|path| path.contains(&daemon.prefix)).collect();
    left.extend(of(daemon.run_dir().to_str().unwrap()));
    let usual = |path: &String| ["/shmd.toml", "/log", "/run"].iter().any(|name| path.ends_with(name));
    left.extend(of(daemon.dir.to_str().unwrap()).into_iter().filter(|path| !usual(path)));
    left
}

/// That a daemon starts over what is there, and that nothing of it or of what was there is left when it has stopped.
#[track_caller]
fn works(daemon: &mut Daemon, context: &str) {
    let before = left(daemon);
    daemon.run(&["--pid-file", daemon.dir.join("pid").to_str().unwrap()]);
    daemon.await_ready();
    assert_eq!(daemon.stop(), Some(0), "{context}: {before:?}: {}", daemon.log());
    assert_eq!(left(daemon), Vec::<String>::new(), "{context}: {before:?}: {}", daemon.log());
    fs::remove_file(daemon.dir.join("log")).unwrap();
}

/// A start that is killed before it does the `n`th call that changes something; `false` when there are not so many.
fn killed_at(daemon: &mut Daemon, n: u32) -> Option<bool> {
    let (trace, inject) = (format!("trace={CALLS}"), format!("inject={CALLS}:signal=KILL:when={n}"));
    let strace = ["strace", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    let pid_file = daemon.dir.join("pid");
    let mut command = daemon.command_within(&strace, &["--pid-file", pid_file.to_str().unwrap()]);
    daemon.child = Some(command.spawn().ok()?);
    let log = daemon.path("log");
    let log = || fs::read_to_string(&log).unwrap_or_default();
    let child = daemon.child.as_mut().unwrap();
    let mut killed = None;
    wait_for(
        || {
            killed = child.try_wait().unwrap();
            killed.is_some() || log().contains("event=ready ")
        },
        log,
    );
    match killed {
        Some(status) if status.signal() == Some(Signal::SIGKILL as i32) => {
            daemon.child = None;
            Some(true)
        }
        // A strace that may not trace, or that does not know a call.
        Some(_) => None,
        None => {
            // Its parent is strace, which ends with it.
            let pid: i32 = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            daemon.child.take().unwrap().wait().unwrap();
            Some(false)
        }
    }
}

#[test]
fn a_start_that_is_killed_at_any_call_leaves_nothing_that_stops_the_next() {
    let mut daemon = everything("killed-at");
    let mut n = 1;
    loop {
        match killed_at(&mut daemon, n) {
            Some(true) => works(&mut daemon, &format!("killed at call {n}")),
            Some(false) => break,
            None => {
                println!("skipped: strace is not here, or may not trace: {}", daemon.log());
                return;
            }
        }
        n += 1;
    }
    // Ready, and then killed: all there can be is left.
    works(&mut daemon, "killed when ready");
    assert!(n > 30, "only {n} calls, and these are not all");
}

#[test]
fn a_start_that_is_killed_after_any_time_leaves_nothing_that_stops_the_next() {
    let mut daemon = everything("killed-after");
    daemon.config = daemon.config.replace("1MiB", "256MiB");
    let pid_file = daemon.dir.join("pid");
    let arguments = ["--pid-file", pid_file.to_str().unwrap()];
    let begin = Instant::now();
    daemon.run(&arguments);
    daemon.await_ready();
    let whole = begin.elapsed();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    for n in 0..20 {
        daemon.run(&arguments);
        sleep(whole * n / 20);
        daemon.signal(Signal::SIGKILL);
        daemon.wait();
        works(&mut daemon, &format!("killed after {:?}", whole * n / 20));
    }
}

#[test]
fn what_an_earlier_version_left_half_made_is_replaced() {
    let mut daemon = everything("half-made");
    let names = ["ring", "hand.feed", "hand"].map(|name| format!("/{}.{name}", daemon.prefix));
    for (mode, len) in [(0, 0), (0o640, 0), (0o640, 1 << 20)] {
        for name in &names {
            let file = shm::create(name, mode, None).unwrap();
            if len > 0 {
                reserve::now(std::os::fd::AsFd::as_fd(&file), len).unwrap();
            }
        }
        let semaphore = named_sem::NamedSemaphore::create(&format!("{}.avail", names[2]), 0o600, None).unwrap();
        drop(semaphore);
        works(&mut daemon, &format!("mode {mode:o}, {len} bytes"));
    }
}

#[test]
fn a_half_made_object_that_somebody_has_open_is_not_taken_away() {
    let mut daemon = Daemon::configured("half-open", "[[channel]]\nname = \"main\"\n");
    let _maker = shm::create(&format!("/{}.main", daemon.prefix), 0o640, None).unwrap();
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1));
    assert!(daemon.log().contains("a process has it open"), "{}", daemon.log());
    assert!(daemon.object("main").exists());
}

#[test]
fn readers_of_a_dead_daemons_segment_cannot_keep_the_next_daemon_from_replacing_it() {
    use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
    use nix::libc;
    let mut daemon = Daemon::start("read-locked", "[[channel]]\nname = \"main\"\n");
    let [locked, flocked] = [(); 2].map(|()| fs::File::open(daemon.object("main")).unwrap());
    let all =
        libc::flock { l_type: libc::F_RDLCK as i16, l_whence: libc::SEEK_SET as i16, l_start: 1, l_len: 0, l_pid: 0 };
    // Not the owner's byte while the owner lives.
    let _ = fcntl(&locked, FcntlArg::F_OFD_SETLK(&all));
    let _flocked = Flock::lock(flocked, FlockArg::LockExclusiveNonblock).unwrap();
    daemon.signal(Signal::SIGKILL);
    daemon.wait();
    let owner = libc::flock { l_start: 0, l_len: 1, ..all };
    wait_for(|| fcntl(&locked, FcntlArg::F_OFD_SETLK(&owner)).is_ok(), || "the dead daemon's lock stays".to_owned());
    daemon.run(&[]);
    daemon.await_ready();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn of_daemons_that_find_a_dead_ones_objects_at_the_same_time_one_replaces_them() {
    let plain = "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"other\"\n";
    let mut dead = Daemon::start("replaced", plain);
    for round in 0..5 {
        dead.signal(Signal::SIGKILL);
        dead.wait();
        let mut many: Vec<_> = (0..6).map(|n| Daemon::configured(&format!("replacing-{round}-{n}"), plain)).collect();
        let prefixes: Vec<_> =
            many.iter_mut().map(|daemon| std::mem::replace(&mut daemon.prefix, dead.prefix.clone())).collect();
        many.iter_mut().for_each(|daemon| daemon.run(&[]));
        let mut ended = 0;
        let mut ready = 0;
        let log = |many: &[Daemon]| many.iter().map(Daemon::log).collect::<String>();
        wait_for(
            || {
                ended = many.iter_mut().filter_map(|it| it.child.as_mut()?.try_wait().unwrap()).count();
                ready = many.iter().filter(|it| it.log().contains("event=ready ")).count();
                ended + ready == many.len()
            },
            || String::from("some neither serve nor end"),
        );
        assert!(ready == 1 && ended == many.len() - 1, "{}", log(&many));
        for (daemon, prefix) in many.iter_mut().zip(prefixes) {
            if daemon.child.as_mut().unwrap().try_wait().unwrap().is_none() {
                assert!(dead.object("main").exists() && dead.object("other").exists(), "{}", daemon.log());
                assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
                assert!(!daemon.log().contains("the name is gone"), "{}", daemon.log());
            }
            daemon.prefix = prefix;
        }
        dead.run(&[]);
        dead.await_ready();
    }
    assert_eq!(dead.stop(), Some(0));
}
