//! What the system does not let the daemon do: remove an object, open another descriptor.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::geteuid;
use shm_proto::{ChannelName, Reader, Request, Start, Writer};
use shm_test_support::{in_child_of_nobody, may_change_user};

use super::{Daemon, PATIENCE};

/// A file that even root cannot remove; it can again when this is dropped.
struct Immutable(PathBuf);

impl Immutable {
    fn make(path: PathBuf) -> Option<Self> {
        let made = Command::new("chattr").arg("+i").arg(&path).output();
        made.is_ok_and(|made| made.status.success()).then_some(Self(path))
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        let _ = Command::new("chattr").arg("-i").arg(&self.0).status();
    }
}

#[test]
fn a_segment_that_cannot_be_removed_is_logged_and_named_and_the_exit_code_is_1() {
    let mut daemon = Daemon::start("immutable", "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"other\"\n");
    let Some(_immutable) = Immutable::make(daemon.object("main")) else {
        println!("skipped: chattr is not here, or this is not root");
        return;
    };
    assert_eq!(daemon.stop(), Some(1), "{}", daemon.log());
    let (log, object) = (daemon.log(), daemon.object("main").display().to_string());
    assert!(log.contains(&format!("event=unlink-failed object={object} ")), "{log}");
    assert!(
        log.contains(&format!("shmd: stopped, but these could not be removed: {object} (unlink shared memory /")),
        "{log}"
    );
    // Everything else is gone.
    assert!(!daemon.object("other").exists() && !daemon.run_dir().exists(), "{log}");
}

#[test]
fn objects_of_a_handoff_that_cannot_be_removed_make_the_exit_code_1() {
    let mut daemon = Daemon::start("immutable-handoff", "[[channel]]\nname = \"main\"\nmode = \"handoff\"\n");
    let Some(_immutable) = Immutable::make(daemon.object("main")) else {
        println!("skipped: chattr is not here, or this is not root");
        return;
    };
    assert_eq!(daemon.stop(), Some(1), "{}", daemon.log());
    assert!(daemon.log().contains("event=unlink-failed channel=main object="), "{}", daemon.log());
    assert!(!daemon.object("main.feed").exists() && !daemon.run_dir().exists());
}

#[test]
fn a_fifo_that_cannot_be_removed_is_logged_and_named_and_the_exit_code_is_1() {
    if geteuid().is_root() {
        println!("skipped: root may remove files in every directory");
        return;
    }
    let mut daemon = Daemon::configured("read-only-dir", "");
    let dir = daemon.dir.join("inputs");
    fs::create_dir(&dir).unwrap();
    let fifo = dir.join("in").display().to_string();
    daemon.config = format!("[[channel]]\nname = \"main\"\nsource = \"fifo:{fifo}\"\n");
    daemon.run(&[]);
    daemon.await_ready();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o500)).unwrap();
    let code = daemon.stop();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(code, Some(1), "{}", daemon.log());
    assert!(daemon.log().contains(&format!("event=unlink-failed object={fifo} ")), "{}", daemon.log());
    assert!(daemon.log().contains(&format!("could not be removed: {fifo} (")), "{}", daemon.log());
    assert!(!daemon.object("main").exists() && !daemon.run_dir().exists());
}

impl Daemon {
    /// Runs it with at most so many descriptors.
    fn run_with_descriptors(&mut self, most: u64) {
        self.run_within(&["sh", "-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")], &[]);
    }
}

#[test]
fn with_the_least_descriptors_that_it_asks_for_a_reader_is_served_and_with_fewer_nobody_is() {
    let sources = ["none", "stdin", "fifo:DIR/in", "unix:DIR/in", "exec:sleep 1000", "tail:DIR/in", "handoff", "two"];
    for source in sources {
        let mut daemon = Daemon::configured(&format!("descriptors-{}", &source[..3]), "");
        let dir = daemon.dir.display().to_string();
        daemon.config = match source {
            "handoff" => "[[channel]]\nname = \"main\"\nmode = \"handoff\"\n".to_owned(),
            "two" => {
                "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"other\"\nsource = \"exec:sleep 1000\"\n".to_owned()
            }
            source => format!("[[channel]]\nname = \"main\"\nsource = \"{}\"\n", source.replace("DIR", &dir)),
        };
        daemon.run_with_descriptors(14);
        assert_eq!(daemon.wait(), Some(1), "{source}: {}", daemon.log());
        let log = daemon.log();
        let (before, after) = log.split_once(" to serve one reader, ").unwrap_or_else(|| panic!("{source}: {log}"));
        assert!(before.contains("the limit is 14 descriptors (ulimit -n, LimitNOFILE=)"), "{log}");
        let least: u64 = before.rsplit(' ').next().unwrap().parse().unwrap();
        let all: u64 = after.split(' ').next().unwrap().parse().unwrap();
        assert!(least > 14 && all > least + 200, "{log}");

        daemon.run_with_descriptors(least - 1);
        assert_eq!(daemon.wait(), Some(1), "{source}: {}", daemon.log());

        daemon.run_with_descriptors(least);
        daemon.await_ready();
        let few = format!("event=few-descriptors limit={least} least={least} all={all} reason=");
        assert!(daemon.log().contains(&few), "{source}: {}", daemon.log());
        let main: ChannelName = "main".parse().unwrap();
        if source != "handoff" {
            let mut reader = Reader::attach(&daemon.endpoint(), Some(&main), Start::Oldest).unwrap();
            let mut bytes = Vec::new();
            if matches!(source, "none" | "two") {
                Writer::attach(&daemon.endpoint(), Some(&main)).unwrap().publish(b"x").unwrap();
                reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            } else if source == "stdin" {
                daemon.feed(b"x\n");
                reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            }
            daemon.ask(&Request::Resize { channel: Some(main), bytes: 2 << 20 }).unwrap();
        } else {
            Writer::attach(&daemon.endpoint(), Some(&main)).unwrap();
        }
        assert_eq!(daemon.stop(), Some(0), "{source}: {}", daemon.log());
        daemon.assert_gone();
    }
}

#[test]
fn with_enough_descriptors_nothing_is_said() {
    let mut daemon = Daemon::configured("descriptors-enough", "[[channel]]\nname = \"main\"\n");
    daemon.run_with_descriptors(1024);
    daemon.await_ready();
    assert!(!daemon.log().contains("few-descriptors"), "{}", daemon.log());
}

#[test]
fn readers_beyond_the_descriptors_are_refused_with_the_limit_and_the_others_go_on() {
    let mut daemon = Daemon::configured("descriptors-readers", "[[channel]]\nname = \"main\"\n");
    daemon.run_with_descriptors(48);
    daemon.await_ready();
    let mut first = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let before = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.as_ref().unwrap().id())).unwrap().count();
    // Each connection leaves less for the next. A connection is accepted as long as there is one descriptor.
    let mut readers = Vec::new();
    let refused = loop {
        match Reader::attach(&daemon.endpoint(), None, Start::New) {
            Ok(reader) => readers.push(reader),
            Err(e) => break e.to_string(),
        }
        assert!(readers.len() < 48, "as many readers as descriptors");
    };
    assert!(refused.contains("all 48 descriptors that this process may have are open"), "{refused}: {}", daemon.log());
    let mut bytes = Vec::new();
    for n in 0..1000u32 {
        writer.publish(&n.to_le_bytes()).unwrap();
        for reader in readers.iter_mut().chain([&mut first]) {
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert_eq!(bytes, n.to_le_bytes());
        }
    }
    drop(readers);
    let now = || std::fs::read_dir(format!("/proc/{}/fd", daemon.child.as_ref().unwrap().id())).unwrap().count();
    super::wait_for(|| now() <= before, || daemon.log());
    drop(Reader::attach(&daemon.endpoint(), None, Start::New).unwrap());
    drop((first, writer));
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_user_who_takes_all_descriptors_that_others_may_have_does_not_keep_root_out() {
    if !may_change_user() {
        return;
    }
    let mut daemon = Daemon::configured("descriptors-kept", "[[channel]]\nname = \"main\"\n");
    daemon.run_with_descriptors(128);
    daemon.await_ready();
    let socket = daemon.run_dir().join("shmd.sock");
    let _user = in_child_of_nobody(|| {
        let _held: Vec<_> = (0..200).map_while(|_| UnixStream::connect(&socket).ok()).collect();
        loop {
            nix::unistd::pause();
        }
    });
    daemon.await_log(|log| log.contains("event=turned-away") && log.contains("are kept for root"));
    let stat = daemon.stat();
    assert_eq!(stat.readers.len(), 0);
    let mut reader = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap();
    Writer::attach(&daemon.endpoint(), None).unwrap().publish(b"x").unwrap();
    reader.recv_into(&mut Vec::new(), Some(PATIENCE)).unwrap();
}
