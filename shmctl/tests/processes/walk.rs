//! A new user's walk: the commands of the documents, typed into a shell, do what the documents show.

use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use shm_test_support::{Place, Proc, clean, program, wait_until};

/// The path of the manual's FIFO.
const INPUT: &str = "/run/user/1000/in";

/// A command and the output that the document shows for it.
#[derive(Debug)]
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The commands between a heading and the next one of its rank.
fn steps(document: &str, heading: &str) -> Vec<Step> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(path).unwrap();
    let section = text.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.starts_with("## "));
    let (mut steps, mut inside) = (Vec::<Step>::new(), false);
    for line in section {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            steps.push(Step { command: command.to_owned(), shown: Vec::new() });
        } else if inside && let Some(step) = steps.last_mut() {
            step.shown.push(line.to_owned());
        }
    }
    steps
}

/// A line without what differs from run to run: moments, numbers with their units, users, and the width of columns.
fn essence(line: &str) -> String {
    let line = line.split_once("Z INFO ] ").map_or(line, |(_, event)| event);
    let words = line.split_whitespace().map(|word| {
        let word = word.split_once("user=").map_or(word, |_| "user=");
        let word = word.split_once("barrier=").map_or(word, |_| "barrier=");
        let (mut kept, mut number) = (String::new(), false);
        for c in word.chars() {
            if c.is_ascii_digit() && !number {
                number = true;
                kept.push('#');
            }
            number &= c.is_ascii_alphanumeric() || c == '.';
            if !number {
                kept.push(c);
            }
        }
        kept
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Processes of a shell that end with the test.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

/// The processes end before their directory is removed, because the fields are dropped in this order.
struct Shell {
    _group: Group,
    shell: Proc,
    typed: usize,
    place: Place,
}

impl Shell {
    fn start() -> Self {
        let place = Place::new();
        let programs = program("shmctl").parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = clean("bash");
        command.process_group(0).stdin(std::process::Stdio::piped());
        // /dev/null in place of a configuration that this machine may have.
        command.env("PATH", format!("{programs}:{path}")).env("SHMD_CONFIG", "/dev/null");
        command.env("SHMD_RUNTIME_DIR", place.run_dir()).env("SHMD_PREFIX", &place.prefix);
        let mut shell = Proc::spawn(command);
        let group = Group(Pid::from_raw(i32::try_from(shell.pid()).unwrap()));
        shell.feed(b"exec 2>&1\n");
        Shell { place, shell, typed: 0, _group: group }
    }

    /// Runs a command with the exit code of the one before it, and returns when it is done or in the background.
    fn run(&mut self, command: &str) {
        self.typed += 1;
        let mark = format!("-- {} --\n", self.typed);
        self.shell
            .feed(format!("(exit $r); {{ {command}\n}} </dev/null; r=$?; echo; echo '{}'\n", mark.trim()).as_bytes());
        self.shell.until_out_has(&mark);
    }

    /// Readers that have chosen their start: what is published from now on is theirs.
    fn readers(&self) -> usize {
        let mut stat = clean(program("shmctl"));
        stat.args(["stat", "--json", "--runtime-dir"]).arg(self.place.run_dir());
        let stat = String::from_utf8_lossy(&stat.output().unwrap().stdout).into_owned();
        stat.matches("\"reader\":").count() - stat.matches("\"state\":\"joining\"").count()
    }

    fn answers(&self) -> bool {
        let mut list = clean(program("shmctl"));
        list.arg("list").arg("--runtime-dir").arg(self.place.run_dir());
        list.output().unwrap().status.success()
    }

    /// The present output with the names that the documents have.
    fn output(&self) -> String {
        let (run_dir, input) = (self.place.run_dir(), self.place.path("in"));
        let output = self.shell.out_so_far().replace(&*input.to_string_lossy(), INPUT);
        output.replace(&*run_dir.to_string_lossy(), "/run/user/1000/shmd").replace(&self.place.prefix, "shmd-1000")
    }

    /// Types the commands, and waits for each line that the document shows.
    #[track_caller]
    fn walk(&mut self, steps: &[Step]) {
        for Step { command, shown } in steps {
            let command = command.replace(INPUT, &self.place.path("in").to_string_lossy());
            // A look at what goes on is repeated, as a person would.
            let is_look = command.starts_with("shmctl stat") || command.starts_with("shmctl list");
            let readers = self.readers();
            self.run(&command);
            if command.ends_with('&') && command.contains("shmd") {
                wait_until("the daemon answers", || self.answers());
            } else if command.ends_with('&') {
                wait_until("the reader is attached", || self.readers() == readers + 1);
            }
            if command.starts_with("kill %") {
                self.run("wait");
            }
            for line in shown {
                // Rows of tables, whose columns depend on the user.
                if command == "shmctl stat" && line.trim_start().starts_with(|c: char| c.is_ascii_digit()) {
                    continue;
                }
                let varies = line.starts_with('[') || command == "shmctl stat";
                let same = |have: &str| if varies { essence(have) == essence(line) } else { have == line };
                wait_until(&format!("{command:?} shows {line:?}\n{}", self.output()), || {
                    if self.output().lines().any(same) {
                        return true;
                    }
                    if is_look {
                        self.run(&command);
                    }
                    false
                });
            }
        }
    }
}

#[test]
fn five_minutes_with_the_readme() {
    let steps = steps("README.md", "## Five minutes");
    let first = steps.iter().position(|step| step.command == "shmd &").expect("the README starts a daemon");
    assert!(steps.len() - first >= 12, "{steps:#?}");
    let mut shell = Shell::start();
    shell.walk(&steps[first..]);
    shell.run("wait");
    assert_eq!(shell.place.leftovers(), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn the_manuals_source_feeds_its_channel() {
    let steps = steps("etc/MANUAL.md", "## Sources");
    assert!(steps.len() >= 4, "{steps:#?}");
    let mut shell = Shell::start();
    shell.walk(&steps);
    shell.run("kill %1; wait");
    assert_eq!(shell.place.leftovers(), [""; 0].map(std::path::PathBuf::from));
}
