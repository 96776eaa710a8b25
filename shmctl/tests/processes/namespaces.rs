//! Programs in containers: other PID, mount, IPC and network namespaces, in which nothing of the host is seen but its programs and
//! the runtime directory. Each container has a `/dev/shm` of its own, which is empty at first.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use shm_proto::internal::control::stat::ReaderState;
use shm_proto::{Reader, Start, Writer};
use shm_test_support::{Daemon, PATIENCE, Place, Proc, Run, Setup, program, skip, wait_until};

use crate::helpers::unshare;

/// What is made in the new namespaces: a root with the system's programs, these programs, and the runtime directory.
const MAKE_ROOT: &str = r#"
root=$1 run=$2 programs=$3 access=$4
shift 4
mount -t tmpfs none "$root"
for name in bin lib lib64 usr; do
    if [ -L "/$name" ]; then
        cp -P "/$name" "$root/$name"
    elif [ -d "/$name" ]; then
        mkdir "$root/$name"
        mount --rbind "/$name" "$root/$name"
    fi
done
mkdir -p "$root/dev/shm" "$root/proc" "$root/programs" "$root/run/shmd"
mount -t tmpfs none "$root/dev/shm"
mount -t proc none "$root/proc"
touch "$root/dev/null"
mount --bind /dev/null "$root/dev/null"
mount --bind "$programs" "$root/programs"
mount --bind "$run" "$root/run/shmd"
if [ "$access" = ro ]; then
    # In a user namespace, flags of the mount that it was made from have to be named.
    mount -o remount,bind,ro "$root/run/shmd" 2>"$root/flags" || mount -o remount,bind,ro,nosuid,nodev "$root/run/shmd"
fi
cd "$root"
exec chroot "$root" "$@"
"#;

/// What a container has of its own.
const NAMESPACES: [&str; 6] = ["--pid", "--fork", "--kill-child", "--mount", "--ipc", "--net"];

/// A place for containers, each with a root of its own.
struct Containers {
    run: PathBuf,
    /// Where each container puts its root. The mount is seen in the container alone, so one directory does for all.
    root: PathBuf,
}

impl Containers {
    /// Containers that see the runtime directory of this place, if they are possible here; a note says why they are not.
    fn of(place: &Place, test: &str) -> Option<Self> {
        let root = place.path("root");
        DirBuilder::new().create(&root).unwrap();
        if !place.run_dir().exists() {
            DirBuilder::new().mode(0o755).create(place.run_dir()).unwrap();
        }
        let this = Containers { run: place.run_dir(), root };
        let mut probe =
            unshare(&NAMESPACES, "mount -t tmpfs none \"$1\"; mkdir \"$1/proc\"; mount -t proc none \"$1/proc\"");
        let tried = Run::of(probe.arg(&this.root));
        if tried.code == Some(0) {
            return Some(this);
        }
        skip(test, &format!("this user may not make namespaces and mount in them here: {}", tried.err.trim()));
        None
    }

    /// A command in a new container, which has the runtime directory `ro` or `rw`.
    fn command(&self, access: &str, words: &[&str]) -> Command {
        let mut command = unshare(&NAMESPACES, MAKE_ROOT);
        command.arg(&self.root).arg(&self.run).arg(program("shmctl").parent().unwrap()).arg(access).args(words);
        command.env("SHMD_RUNTIME_DIR", "/run/shmd").env("PATH", "/programs:/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    fn spawn(&self, words: &[&str]) -> Proc {
        Proc::spawn(self.command("ro", words))
    }

    /// The same with a pipe as its standard input.
    fn spawn_piped(&self, words: &[&str]) -> Proc {
        let mut command = self.command("ro", words);
        command.stdin(Stdio::piped());
        Proc::spawn(command)
    }
}

#[test]
fn a_container_needs_the_runtime_directory_and_nothing_else() {
    let test = "a_container_needs_the_runtime_directory_and_nothing_else";
    let mut daemon = Daemon::start("");
    let Some(containers) = Containers::of(&daemon.place, test) else { return };
    let seen = Run::of(containers.command("ro", &["ls", "-A", "/dev/shm", "/tmp", "/run"]));
    assert!(seen.text().contains("/dev/shm:\n\n") && seen.text().contains("/run:\nshmd\n"), "{seen:?}");
    assert!(seen.err.contains("/tmp"), "{seen:?}");

    // From one container to another, and to a reader outside.
    let mut inside = containers.spawn(&["shmctl", "read"]);
    daemon.until_readers(1);
    let mut outside = daemon.spawn(&["read"]);
    daemon.until_readers(2);
    let mut writer = containers.spawn_piped(&["shmctl", "write"]);
    let mut sent = String::new();
    let mut send = |writer: &mut Proc, line: String| {
        writer.feed(line.as_bytes());
        sent += &line;
    };
    send(&mut writer, "from another container\n".to_owned());
    inside.until_out_has("from another container\n");
    // Larger than the channel is at first: it grows, and so it does for every program that has mapped it.
    send(&mut writer, format!("{}\n", "large".repeat(400_000)));
    send(&mut writer, "after the growth\n".to_owned());
    for reader in [&mut inside, &mut outside] {
        reader.until_out_has("after the growth\n");
    }
    daemon.until_stat("the channel has grown", |stat| stat.capacity > 1 << 20);
    let both_sleep = |readers: usize| {
        daemon.until_stat("the readers sleep", |stat| {
            stat.readers.len() == readers && stat.readers.iter().all(|reader| reader.state == ReaderState::Sleeping)
        });
    };
    both_sleep(2);
    send(&mut writer, "to sleepers\n".to_owned());
    for reader in [&mut inside, &mut outside] {
        reader.until_out_has("to sleepers\n");
    }

    // Another daemon takes the place of the killed daemon, and all programs go on.
    daemon.kill();
    send(&mut writer, "without a daemon\n".to_owned());
    inside.until_out_has("without a daemon\n");
    daemon.launch(Setup::new(""));
    daemon.until_readers(2);
    daemon.until_stat("the writer is back", |stat| stat.writer.is_some());
    send(&mut writer, "with the next one\n".to_owned());
    for reader in [&mut inside, &mut outside] {
        reader.until_out_has("with the next one\n");
        assert_eq!(reader.out_so_far(), sent);
    }

    // The daemon notices that a program in a container was killed.
    inside.kill();
    daemon.until_readers(1);
    writer.kill();
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    outside.kill();
}

#[test]
fn a_daemon_in_a_container_serves_programs_outside_and_in_other_containers() {
    let test = "a_daemon_in_a_container_serves_programs_outside_and_in_other_containers";
    let place = Place::new();
    let Some(containers) = Containers::of(&place, test) else { return };
    let arguments = ["shmd", "--config", "/dev/null", "--prefix", &place.prefix];
    let mut daemon = Proc::spawn(containers.command("rw", &arguments));
    daemon.until_err_has("event=ready");
    assert!(!place.object("main").exists(), "its objects are in its own /dev/shm");
    let mut reader = Reader::attach(&place.endpoint(), None, Start::New).unwrap();
    let mut inside = containers.spawn(&["shmctl", "read"]);
    wait_until("both readers have chosen their start", || {
        let readers = place.stat().readers;
        readers.len() == 2 && readers.iter().all(|reader| reader.state != ReaderState::Joining)
    });
    let mut writer = Writer::attach(&place.endpoint(), None).unwrap();
    let mut bytes = Vec::new();
    for text in ["one", "two"] {
        writer.publish(text.as_bytes()).unwrap();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, text.as_bytes());
        inside.until_out_has(&format!("{text}\n"));
    }
    place.resize(2 << 20).unwrap();
    drop(writer);
    wait_until("the role is free", || place.stat().writer.is_none());
    inside.kill();
    drop(reader);
    wait_until("nobody is attached", || place.stat().readers.is_empty());
    daemon.kill();
}
