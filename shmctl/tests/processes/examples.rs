//! The examples in the help, which the manual pages have as well, do something when they are typed into a shell.
//!
//! Each command has daemons of its own: one with a channel, and one with `cam`, `imu` and `telemetry` for examples that name these. Programs that
//! examples use beside ours are replaced by some that read and write, unless they are everywhere. What goes on for ever gets SIGINT, as
//! from a person.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use shm_proto::Request;

use shm_test_support::{Daemon, Place, Proc, Run, Setup, TempDir, catches, clean, heavy, program, wait_until};

use crate::helpers::with_own_shared_memory;

/// Programs of other people: what stands in for them.
const STAND_INS: [(&str, &str); 9] = [
    ("journalctl", "printf 'one\\ntwo\\n'"),
    ("tcpdump", "printf 'a packet'"),
    ("sensor", "printf '1\\n2\\n'"),
    ("producer", "printf '\\002\\000\\000\\000hi'"),
    ("ffmpeg", "cat"),
    ("curl", "true"),
    ("promtool", "cat"),
    ("jq", "cat"),
    ("man", "cat"),
];
/// Commands that look at what is there, and are not to be kept from it by a test.
const REAL_IF_THERE: [&str; 3] = ["promtool", "jq", "man"];
/// What an example that goes on may take to begin.
const MOMENT: Duration = Duration::from_millis(700);

/// The commands in the help of a program, and what stands behind each.
fn examples(program_name: &str, command: &[&str]) -> Vec<(String, String)> {
    let help = Run::of(clean(program(program_name)).args(command).arg("--help")).quiet().text();
    let block = help.lines().skip_while(|line| !line.starts_with("Example")).skip(1);
    let mut examples: Vec<(String, String)> = Vec::new();
    for line in block.take_while(|line| line.starts_with("  ")) {
        let line = &line[2..];
        match examples.last_mut() {
            Some((command, remark)) if remark.is_empty() && command.ends_with('\\') => {
                command.pop();
                *command += line.trim_start();
            }
            Some((_, remark)) if line.starts_with(' ') => *remark += line.trim(),
            _ => {
                let (command, remark) = line.split_once("  ").unwrap_or((line, ""));
                examples.push((command.trim_end().to_owned(), remark.trim().to_owned()));
            }
        }
    }
    assert!(!examples.is_empty(), "{program_name} {command:?} has no examples:\n{help}");
    examples
}

/// A directory with what examples need, and no daemon.
struct Stage {
    dir: TempDir,
    path: String,
    objects: String,
}

impl Stage {
    fn new() -> Self {
        let dir = TempDir::new();
        let bin = dir.join("stand-ins");
        fs::create_dir(&bin).unwrap();
        for (name, script) in STAND_INS {
            let is_there = clean("sh").arg("-c").arg(format!("command -v {name}")).output().unwrap().status.success();
            if is_there && REAL_IF_THERE.contains(&name) {
                continue;
            }
            fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(bin.join(name), Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(dir.join("film.ts"), [b'x'; 100_000]).unwrap();
        fs::write(dir.join("imu.json"), "{}").unwrap();
        fs::write(dir.join("shmd.toml"), "[[channel]]\nname = \"cam\"\n").unwrap();
        let programs = program("shmctl").parent().unwrap().to_owned();
        let path = format!("{}:{}:{}", bin.display(), programs.display(), std::env::var("PATH").unwrap_or_default());
        let objects = format!("/{}", shm_test_support::unique("example"));
        Stage { dir, path, objects }
    }

    /// The example with the test's own places in it.
    fn own(&self, example: &str) -> String {
        let dir = self.dir.path().display();
        let example = example.replace("/var/lib/prometheus/node-exporter/", &format!("{dir}/"));
        let example =
            example.replace("/run/shmd/", &format!("{dir}/")).replace("/run/shmd.pid", &format!("{dir}/shmd.pid"));
        let example = example.replace("/etc/shmd/", &format!("{dir}/")).replace("/var/log/", &format!("{dir}/"));
        let cpu = shm_bench::host::allowed_cpus()[0];
        let example = example.replace("--cpu 2,3", &format!("--cpu {cpu},{cpu}"));
        let example = example.replace("/demo_shm", &self.objects).replace("/sem_avail", &format!("{}.a", self.objects));
        example.replace("/sem_done", &format!("{}.d", self.objects))
    }

    /// The files that are published again: of one channel, its parts, and of a channel `cam`.
    fn record(&self, daemons: &Daemons) {
        for (daemon, line) in
            [(&daemons.one, "run.mcap"), (&daemons.one, "all.mcap --split 1GiB"), (&daemons.two, "cam.mcap cam")]
        {
            let mut shell = self.shell(&format!("shmctl record --from oldest -n 2 -o {line}"));
            Run::of(shell.env("SHMD_RUNTIME_DIR", daemon.place.run_dir())).ok();
        }
    }

    fn shell(&self, example: &str) -> Command {
        self.shell_by(clean("bash"), example)
    }

    fn shell_by(&self, mut bash: Command, example: &str) -> Command {
        bash.arg("-c").arg(format!("set -o pipefail; {}", self.own(example))).current_dir(&self.dir);
        // /dev/null in place of a configuration that this machine may have.
        bash.env("PATH", &self.path).env("SHMD_CONFIG", "/dev/null").process_group(0);
        bash
    }
}

/// Name, parent and group of a process.
fn process(pid: i32) -> Option<(String, i32, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    // State, parent, group.
    let mut fields = after.split_whitespace().skip(1);
    Some((before.split_once('(')?.1.to_owned(), fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Processes of a group that have this program's name. A child that has just been forked is no other program yet, and not in its
/// own group yet.
fn of_group(group: u32, name: &str) -> Vec<Pid> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let has_name = |pid| process(pid).is_some_and(|(its, ..)| its == name);
    let belongs =
        |pid: &i32| process(*pid).is_some_and(|(its, parent, of)| its == name && of == group && !has_name(parent));
    pids.filter(belongs).map(Pid::from_raw).collect()
}

/// Ends what an example has started, if the test fails before its end.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(Pid::from_raw(i32::try_from(group).unwrap()), Signal::SIGKILL);
        }
    }
}

/// Runs an example to its end. Until then, `meanwhile` is called again and again, with the group of its processes, and whether it has
/// had its time.
#[track_caller]
fn run(shell: Command, mut meanwhile: impl FnMut(u32, bool)) -> Run {
    let mut proc = Proc::spawn(shell);
    let (pid, begun) = (proc.pid(), Instant::now());
    let mut group = Group(Some(pid));
    wait_until(&format!("{proc:?} ends"), || {
        if proc.is_running() {
            meanwhile(pid, begun.elapsed() > MOMENT);
            return false;
        }
        true
    });
    group.0 = None;
    proc.wait()
}

/// Daemons for the examples of one command.
struct Daemons {
    one: Daemon,
    two: Daemon,
    /// The examples make the channels that they name.
    creates: bool,
    _readers: Vec<Proc>,
}

impl Daemons {
    fn new(command: &str) -> Self {
        let times = "timestamps = true\n";
        let place = Place::new();
        let kept = place.path("kept").display().to_string();
        let one = Setup::new(&format!("state_dir = \"{kept}\"\n[[channel]]\n{times}")).start_in(place);
        let two = Daemon::start(&format!(
            "[[channel]]\nname = \"cam\"\n{times}content = \"protobuf\"\nschema = \"cam.Frame\"\nschema_text = \"message Frame {{}}\"\n\
             [[channel]]\nname = \"imu\"\n{times}[[channel]]\nname = \"telemetry\"\ncontent = \"json\"\n"
        ));
        one.write_lines("first\nsecond error\n");
        if command == "remove" {
            one.cli(&["create", "cam"]).ok();
        }
        two.cli_with_input(&["write", "cam"], b"first\nsecond\n").quiet();
        let mut readers = Vec::new();
        if command == "evict" {
            // Examples have reader 3.
            for _ in 0..3 {
                readers.extend([one.spawn(&["read"]), two.spawn(&["read", "cam"])]);
            }
            one.until_all_stat("three readers are there", |stats| stats[0].readers.len() == 3);
            two.until_all_stat("three readers are there", |stats| stats[0].readers.len() == 3);
        }
        Daemons { one, two, creates: ["create", "remove"].contains(&command), _readers: readers }
    }

    fn of(&self, example: &str) -> &Daemon {
        let is_named = ["cam", "imu", "telemetry"].iter().any(|name| example.contains(name));
        if is_named && !self.creates { &self.two } else { &self.one }
    }
}

#[test]
fn the_examples_of_every_command_do_what_they_say() {
    let _turn = heavy();
    let surface = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/surface.txt")).unwrap();
    let commands = surface.lines().filter_map(|line| line.strip_prefix("shmctl "));
    // A relay needs a NATS server, and has its own tests with one.
    let commands: Vec<&str> = commands.filter(|rest| !rest.contains([' ', '-']) && *rest != "relay").collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in [&[][..]].into_iter().chain(commands.iter().map(std::slice::from_ref)) {
        let (stage, name) = (Stage::new(), command.first().copied().unwrap_or_default());
        let daemons = Daemons::new(name);
        if name == "replay" {
            stage.record(&daemons);
        }
        for (example, remark) in examples("shmctl", command) {
            // The live view needs a terminal: see `top`.
            if name == "top" && !example.contains("--once") {
                continue;
            }
            let daemon = daemons.of(&example);
            // Where others see it, it would remove what dead daemons of other tests have left for their successors.
            let mut shell = if example == "shmctl doctor --fix" {
                let Some(bash) = with_own_shared_memory(&example, Path::new("bash")) else { continue };
                stage.shell_by(bash, &example)
            } else {
                stage.shell(&example)
            };
            shell.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
            // Somebody has to write what is read, unless the example does.
            let feeds = name == "read" && !example.contains("shmctl write") && !example.contains("--handoff");
            let mut interrupted = Vec::new();
            let ran = run(shell, |group, has_had_its_time| {
                let programs = ["shmctl", "shmctl-record", "shmctl-replay"];
                for pid in programs.iter().flat_map(|program| of_group(group, program)) {
                    // A second signal would end it at once.
                    if has_had_its_time && catches(pid, Signal::SIGINT) && !interrupted.contains(&pid) {
                        let _ = kill(pid, Signal::SIGINT);
                        interrupted.push(pid);
                    }
                }
                if feeds {
                    let channels = [("cam", &["cam", "imu"][..]), ("telemetry", &["telemetry"])];
                    let named = channels.iter().find(|(name, _)| example.contains(name));
                    let text: &[u8] =
                        if example.contains("json") { b"{\"temperature\": 1}\n" } else { b"and an error\n" };
                    for channel in named.map_or(&["main"][..], |(_, channels)| channels) {
                        daemon.cli_with_input(&["write", channel], text).quiet();
                    }
                }
            });
            let good: &[i32] = if name == "doctor" { &[0, 1, 2, 3] } else { &[0] };
            assert!(
                ran.code.is_some_and(|code| good.contains(&code)) && !ran.err.contains("error:"),
                "{example}: {ran:?}"
            );
            if remark.starts_with("main: ") {
                assert_eq!(ran.text().trim_end(), remark, "{example}");
            }
        }
    }
}

#[test]
fn the_examples_of_the_daemon_start_it() {
    for (example, _) in examples("shmd", &[]) {
        let (stage, place) = (Stage::new(), Place::new());
        let mut shell = stage.shell(&example);
        shell.env("SHMD_RUNTIME_DIR", place.run_dir()).env("SHMD_PREFIX", &place.prefix);
        let mut readers: Vec<Proc> = Vec::new();
        let ran = run(shell, |group, has_had_its_time| {
            let answers = place.ask(&Request::Ping).is_ok();
            if answers && has_had_its_time && !example.contains("--exit-on-eof") {
                of_group(group, "shmd").into_iter().for_each(|pid| _ = kill(pid, Signal::SIGTERM));
            }
            if readers.is_empty() && answers {
                let mut read = clean(program("shmctl"));
                read.args(["read", "--from", "oldest"]).env("SHMD_RUNTIME_DIR", place.run_dir());
                readers.push(Proc::spawn(read));
            }
        });
        assert_eq!(ran.code, Some(0), "{example}: {ran:?}");
        end_background(&stage.dir.join("shmd.pid"), &place);
        for reader in readers {
            // 1, 69 and 75: the daemon was being stopped while the reader attached.
            let read = reader.wait();
            assert!(read.code.is_some_and(|code| [0, 1, 69, 75].contains(&code)), "{example}: {read:?}");
            assert!(!example.contains("seq 1000") || read.text().ends_with("\n1000\n"), "{example}: {read:?}");
        }
        assert_eq!(place.leftovers(), [""; 0].map(PathBuf::from), "{example}");
    }
}

/// Stops a daemon that has gone into the background.
fn end_background(pid_file: &Path, place: &Place) {
    let Ok(text) = fs::read_to_string(pid_file) else { return };
    assert!(place.ask(&Request::Ping).is_ok(), "it has returned, so the channels are there");
    kill(Pid::from_raw(text.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
    wait_until("the daemon has ended", || !pid_file.exists() && place.leftovers().is_empty());
}
