//! Completions in real shells, with the names that a running daemon knows.

use std::process::{Command, Stdio};

use shm_test_support::{Daemon, Proc, Run, Terminal, clean, program, skip, wait_for};

const TWO: &str = "[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n";

/// A shell that finds our programs, and the daemon by its directory.
fn shell(daemon: &Daemon, name: &str) -> Command {
    let programs = program("shmctl").parent().unwrap().display().to_string();
    let mut shell = clean(name);
    shell.env("PATH", format!("{programs}:{}", std::env::var("PATH").unwrap_or_default()));
    shell.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    shell
}

fn is_there(shell: &str, test: &str) -> bool {
    let is_there = clean(shell).arg("--version").output().is_ok();
    if !is_there {
        skip(test, &format!("{shell} is not there"));
    }
    is_there
}

/// What bash has for the end of a line, whose words are given as bash splits them.
fn in_bash(daemon: &Daemon, words: &[&str], line: &str) -> Vec<String> {
    let script = "source <(shmctl completions bash)\nCOMP_LINE=$1; shift\nCOMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1))\n\
                  _shmctl\nprintf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = shell(daemon, "bash");
    bash.arg("-c").arg(script).arg("bash").arg(line).args(words);
    Run::of(bash).quiet().text().lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The same for a line without signs at which bash splits.
fn words_in_bash(daemon: &Daemon, line: &str) -> Vec<String> {
    in_bash(daemon, &line.split(' ').collect::<Vec<_>>(), line)
}

#[test]
fn bash_completes_commands_options_values_and_what_the_daemon_knows() {
    let daemon = Daemon::start(TWO);
    let _readers = [daemon.spawn(&["read", "cam"]), daemon.spawn(&["read", "cam"])];
    daemon.until_all_stat("both are attached", |stats| stats[0].readers.len() == 2);
    let words = |line: &str| words_in_bash(&daemon, line);
    assert_eq!(words("shmctl rea"), ["read"]);
    assert!(words("shmctl ").contains(&"doctor".to_owned()) && !words("shmctl ").contains(&"complete".to_owned()));
    assert_eq!(words("shmctl read --until"), ["--until-empty"]);
    assert_eq!(words("shmctl read "), ["cam", "imu"]);
    assert_eq!(words("shmctl read cam "), ["imu"]);
    assert_eq!(words("shmctl stat -c c"), ["cam"]);
    assert_eq!(words("shmctl evict cam "), ["1", "2"]);
    assert_eq!(words("shmctl read --from "), ["oldest", "new"]);
    assert_eq!(words("shmd --on-full o"), ["overwrite"]);
    assert_eq!(words("shmd --set imu.keep"), ["imu.keep_delimiter="]);
    // Bash splits these, and replaces only the last part.
    assert_eq!(in_bash(&daemon, &["shmctl", "read", "--from", "=", "o"], "shmctl read --from=o"), ["oldest"]);
    assert_eq!(in_bash(&daemon, &["shmctl", "read", "--from", "="], "shmctl read --from="), ["oldest", "new"]);
    assert_eq!(in_bash(&daemon, &["shmd", "--set", "cam.mode", "=", "h"], "shmd --set cam.mode=h"), ["handoff"]);
    assert_eq!(in_bash(&daemon, &["shmd", "--source", "fi"], "shmd   --source  fi"), ["fifo:"]);
}

#[test]
fn what_is_typed_is_not_carried_out() {
    let daemon = Daemon::start(TWO);
    let file = daemon.place.path("file");
    let shown = file.display();
    for word in [format!("$(>{shown})"), format!("`>{shown}`"), format!("a;>{shown}"), format!("${{x:=$(>{shown})}}")] {
        assert_eq!(words_in_bash(&daemon, &format!("shmctl read {word}")), [""; 0], "{word}");
        assert_eq!(words_in_bash(&daemon, &format!("shmctl read {word} c")), ["cam"], "{word}");
        assert!(!file.exists(), "{word}");
    }
}

#[test]
fn without_a_daemon_there_is_nothing_to_say_and_nothing_said() {
    let mut daemon = Daemon::start(TWO);
    daemon.stop(nix::sys::signal::Signal::SIGTERM);
    for line in ["shmctl read ", "shmctl evict cam ", "shmctl nonsense --x "] {
        assert_eq!(words_in_bash(&daemon, line), [""; 0], "{line}");
    }
    assert_eq!(words_in_bash(&daemon, "shmd --set main.kee"), ["main.keep_delimiter="]);
}

#[test]
fn the_tabulator_key_completes_at_the_prompt() {
    let daemon = Daemon::start("[[channel]]\nname = \"front-camera\"\n[[channel]]\nname = \"imu\"\n");
    let mut terminal = Terminal::new(24, 80);
    let mut bash = shell(&daemon, "bash");
    bash.args(["--norc", "--noprofile", "-i"]).env("TERM", "dumb").env("PS1", "$ ").env("INPUTRC", "/dev/null");
    bash.stdin(terminal.stdio()).stdout(terminal.stdio()).stderr(terminal.stdio());
    let _bash = Proc::spawn_untouched(bash);
    let shows = |terminal: &Terminal, text: &str| {
        wait_for(&format!("{text:?} is on the screen\n{}", terminal.screen().text()), || {
            terminal.screen().lines().iter().any(|line| line.trim_end() == text).then_some(())
        });
    };
    terminal.type_in("source <(shmctl completions bash); PS1='ready> '\n");
    // At this prompt bash reads keys. Before, the terminal would take the tabulator for itself.
    shows(&terminal, "ready>");
    terminal.type_in("echo got; shmctl list -c fro\t--json | cut -c 1-27\n");
    shows(&terminal, "[{\"channel\":\"front-camera\",");
}

#[test]
fn fish_and_zsh_have_the_same_words() {
    const TEST: &str = "fish_and_zsh_have_the_same_words";
    let daemon = Daemon::start(TWO);
    if is_there("fish", TEST) {
        let mut fish = shell(&daemon, "fish");
        let script = "shmctl completions fish | source; complete -C 'shmctl read --until'; complete -C 'shmctl stat '; complete -C \
                      'shmd --set cam.keep'";
        fish.arg("--no-config").arg("-c").arg(script).env("HOME", daemon.place.dir.path());
        let text = Run::of(fish).ok().text();
        let words: Vec<&str> = text.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(words, ["--until-empty", "cam", "imu", "cam.keep_delimiter="], "{text}");
    }
    if is_there("zsh", TEST) {
        // Only the parts of zsh that exist where it completes are replaced.
        let script = "compdef() { }; compset() { }; _describe() { shift; print -rl -- ${(P)1} }; source <(shmctl completions zsh)\n\
                      words=(shmctl stat ''); CURRENT=3; PREFIX=''; _shmctl\nwords=(shmctl read --unt); PREFIX=--unt; _shmctl\n\
                      words=(shmd --set cam.keep); PREFIX=cam.keep; _shmctl";
        let mut zsh = shell(&daemon, "zsh");
        zsh.arg("-f").arg("-c").arg(script).stdin(Stdio::null());
        let text = Run::of(zsh).ok().text();
        let words: Vec<&str> =
            text.lines().filter(|line| !line.is_empty()).map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(words, ["cam", "imu", "--until-empty", "cam.keep_delimiter="], "{text}");
    }
}
