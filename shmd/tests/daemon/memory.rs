//! Less memory than is asked for: refused with numbers, and nobody is killed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::geteuid;
use shm_proto::{Done, ErrorKind, Reader, Request, RequestError, Start, Writer};

use super::{Daemon, PATIENCE, wait_for};

/// A memory control group of this test's own, below the one that the test is in.
struct Group {
    path: PathBuf,
    /// Which file counts the processes that the kernel has killed in it.
    kills: &'static str,
}

impl Group {
    /// `None`, with a note, where none can be made.
    fn new(name: &str, limit: u64) -> Option<Self> {
        let group = Self::of_any_version(&format!("shmd-test-{name}-{}", std::process::id()), limit);
        if group.is_none() {
            println!(
                "skipped: no memory control group can be made here (root and a writable /sys/fs/cgroup are needed)"
            );
        }
        group
    }

    fn of_any_version(name: &str, limit: u64) -> Option<Self> {
        if !geteuid().is_root() {
            return None;
        }
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = |controller: &str| {
            groups.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                rest.split_once(':')
                    .filter(|(list, _)| *list == controller)
                    .map(|(_, path)| path.trim_start_matches('/'))
            })
        };
        if let Some(own) = own("memory") {
            let path = Path::new("/sys/fs/cgroup/memory").join(own).join(name);
            return Self::at(path, "memory.limit_in_bytes", limit, "memory.oom_control");
        }
        // A group with processes in it passes no controller on, so it may have to be one further up.
        let own = Path::new("/sys/fs/cgroup").join(own("")?);
        let above = own.ancestors().take_while(|above| above.starts_with("/sys/fs/cgroup"));
        above
            .filter_map(|above| {
                let _ = fs::write(above.join("cgroup.subtree_control"), "+memory");
                Self::at(above.join(name), "memory.max", limit, "memory.events")
            })
            .next()
    }

    fn at(path: PathBuf, file: &str, limit: u64, kills: &'static str) -> Option<Self> {
        fs::create_dir(&path).ok()?;
        let group = Self { path, kills };
        fs::write(group.path.join(file), limit.to_string()).ok()?;
        Some(group)
    }

    /// Makes the daemon run in it.
    fn run(&self, daemon: &mut Daemon) {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$0\" \"$@\"", self.path.display());
        daemon.run_within(&["sh", "-c", &enter], &[]);
    }

    fn assert_nobody_was_killed(&self) {
        let events = fs::read_to_string(self.path.join(self.kills)).unwrap();
        assert!(events.lines().any(|line| line == "oom_kill 0"), "{events}");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The processes in it may just be ending.
        for _ in 0..1000 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

const LARGE: &str = "[[channel]]\nname = \"large\"\ncapacity = \"256MiB\"\nmax = \"256MiB\"\n";
const SMALL: &str = "[[channel]]\nname = \"small\"\nmax = \"512MiB\"\n";
const LARGE_HANDOFF: &str =
    "[[channel]]\nname = \"large\"\nmode = \"handoff\"\ncapacity = \"256MiB\"\nmax = \"256MiB\"\n";

#[track_caller]
fn has_numbers(refusal: &str) {
    // A page more for a ring's header.
    let asked = ["reserve 256MiB", "reserve 262148KiB"].iter().any(|asked| refusal.contains(asked));
    assert!(asked && refusal.contains("channel large: ") && refusal.contains("of shared memory (free "), "{refusal}");
    assert!(refusal.contains("in memory control group /") && refusal.contains("(limit 64MiB, in use "), "{refusal}");
}

#[test]
fn a_start_that_does_not_fit_into_its_control_group_is_refused_with_numbers() {
    for (name, config) in [("cgroup-start", LARGE), ("cgroup-handoff", LARGE_HANDOFF)] {
        let Some(group) = Group::new(name, 64 << 20) else { return };
        let mut daemon = Daemon::configured(name, &(SMALL.to_owned() + config));
        group.run(&mut daemon);
        assert_eq!(daemon.wait(), Some(1), "{}", daemon.log());
        has_numbers(&daemon.log());
        group.assert_nobody_was_killed();
        daemon.assert_gone();
    }
}

#[test]
fn a_reload_that_does_not_fit_changes_nothing_and_the_other_channels_go_on() {
    let Some(group) = Group::new("cgroup-reload", 64 << 20) else { return };
    let mut daemon = Daemon::configured("cgroup-reload", SMALL);
    group.run(&mut daemon);
    daemon.await_ready();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    for config in [LARGE, LARGE_HANDOFF] {
        let refused = daemon.reload(&(SMALL.to_owned() + config)).unwrap_err();
        assert!(matches!(&refused, RequestError::Refused(refusal) if refusal.kind == ErrorKind::NoSpace), "{refused}");
        has_numbers(&refused.to_string());
        assert!(!daemon.object("large").exists() && !daemon.object("large.feed").exists());
        writer.publish(b"still here").unwrap();
        let mut bytes = Vec::new();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, b"still here");
    }
    let refused = daemon.refused(&Request::Resize { channel: None, bytes: 256 << 20 });
    assert!(
        refused.contains("asked 256MiB, present 1MiB, free ") && refused.contains("(limit 64MiB, in use "),
        "{refused}"
    );
    let Ok(Done::Resize(done)) = daemon.ask(&Request::Resize { channel: None, bytes: 16 << 20 }) else { panic!() };
    assert_eq!(done.new, 16 << 20);
    group.assert_nobody_was_killed();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_handoff_that_cannot_have_the_size_that_was_asked_for_says_so_and_speaks_of_no_message() {
    let Some(group) = Group::new("cgroup-handoff", 64 << 20) else { return };
    let mut daemon = Daemon::configured("cgroup-handoff", "[[channel]]\nmode = \"handoff\"\nmax = \"256MiB\"\n");
    group.run(&mut daemon);
    daemon.await_ready();
    let refused = daemon.refused(&Request::Resize { channel: None, bytes: 256 << 20 });
    assert!(refused.contains("(limit 64MiB, in use ") && !refused.contains("a message"), "{refused}");
}

/// A `unix:` source that takes messages as large as memory allows.
fn collecting(name: &str) -> Daemon {
    let mut daemon = Daemon::configured(name, "");
    let dir = daemon.dir.display();
    daemon.config = format!(
        "[[channel]]\nname = \"main\"\nsource = \"unix:{dir}/in\"\nmax = \"256MiB\"\nmax_message = \"200MiB\"\n"
    );
    daemon
}

/// Sends what is not a whole line of 100 MiB, and hears that it is not wanted. `limit` sets a limit, if there is none yet, and says how
/// the reason names it.
fn hoard_until_refused(daemon: &Daemon, limit: impl FnOnce() -> String) {
    let mut honest = UnixStream::connect(daemon.dir.join("in")).unwrap();
    honest.write_all(b"before\n").unwrap();
    // From now on the source maps all that it maps without messages.
    wait_for(|| daemon.stat().messages == 1, || daemon.log());
    let limit = limit();
    let mut hoarder = UnixStream::connect(daemon.dir.join("in")).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let sent = (0..100).take_while(|_| hoarder.write_all(&piece).is_ok()).count();
    assert!(sent < 100, "{}", daemon.log());
    wait_for(|| daemon.stat().input.unwrap().errors == 1, || daemon.log());
    let reason = daemon.stat().input.unwrap().last_error.unwrap();
    assert!(reason.contains("no memory for message 1 of the input, of which ") && reason.contains(&limit), "{reason}");
    honest.write_all(b"after\n").unwrap();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::Oldest).unwrap();
    for expected in [&b"before"[..], b"after"] {
        let mut bytes = Vec::new();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, expected);
    }
}

#[test]
fn a_message_that_does_not_fit_into_the_control_group_costs_its_client_the_connection() {
    let Some(group) = Group::new("cgroup-unix", 64 << 20) else { return };
    let mut daemon = collecting("cgroup-unix");
    group.run(&mut daemon);
    daemon.await_ready();
    hoard_until_refused(&daemon, || "(limit 64MiB, in use ".to_owned());
    group.assert_nobody_was_killed();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_message_that_does_not_fit_into_the_address_space_costs_its_client_the_connection() {
    let mut daemon = collecting("ulimit-unix");
    // The C library would map a heap of 64 MiB for each thread when it first asks for memory, whenever that is.
    daemon.run_within(&["env", "MALLOC_ARENA_MAX=1"], &[]);
    daemon.await_ready();
    let lower = || {
        let pid = daemon.child.as_ref().unwrap().id();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")).unwrap();
        // Not a whole number of MiB.
        let limit = (size.trim().parse::<u64>().unwrap() + 60_000) | 1;
        let lowered = Command::new("prlimit").arg(format!("--pid={pid}")).arg(format!("--as={}", limit << 10)).status();
        assert!(lowered.unwrap().success());
        format!("of address space (limit {limit}KiB, in use ")
    };
    hoard_until_refused(&daemon, lower);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_channel_that_does_not_fit_into_the_address_space_says_so_and_the_others_go_on() {
    let mut daemon = Daemon::configured("ulimit-reload", SMALL);
    daemon.run_within(&["sh", "-c", "ulimit -v 400000 && exec \"$0\" \"$@\""], &[]);
    daemon.await_ready();
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    // Its source maps all of it as soon as there is something to publish.
    let fifo = daemon.dir.join("in");
    let large = format!("[[channel]]\nname = \"large\"\nsource = \"fifo:{}\"\nmax = \"4GiB\"\n", fifo.display());
    daemon.reload(&(SMALL.to_owned() + &large)).unwrap();
    let refused = || {
        // The source makes the FIFO and opens it when it likes.
        let input = fs::File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo);
        let _ = input.and_then(|mut input| input.write_all(b"one\n"));
        daemon.log().contains("of address space (limit 400000KiB, in use ")
    };
    wait_for(refused, || daemon.log());
    daemon.ask(&Request::Resize { channel: Some("small".parse().unwrap()), bytes: 2 << 20 }).unwrap();
    let mut bytes = Vec::new();
    for n in 0..1000u32 {
        writer.publish(&n.to_le_bytes()).unwrap();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, n.to_le_bytes());
    }
    drop((reader, writer));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}
