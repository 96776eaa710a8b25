//! `shmctl top` in a real terminal emulator, started from a shell with job control.

use std::process::{Command, Output};

use shm_test_support::{Place, clean, program, skip, wait_for};

use super::Jam;

/// A server of the test's own, with one window.
struct Tmux {
    socket: String,
}

impl Tmux {
    /// A shell in a window of 80 by 24, which finds the programs and the daemon.
    fn start(place: &Place) -> Self {
        let socket = place.path("tmux").display().to_string();
        let tmux = Tmux { socket };
        let programs = program("shmctl").parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = tmux.command();
        command.args(["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24"]);
        // Not through a shell, which would not leave the prompt alone.
        command.args(["bash", "--norc", "--noprofile", "-i"]);
        command.env("PATH", format!("{programs}:{path}")).env("SHMD_RUNTIME_DIR", place.run_dir());
        command.env("PS1", "at-the-prompt> ").env("LC_ALL", "C.UTF-8").env("TERM", "xterm");
        command.env("HISTFILE", "/dev/null").env_remove("TMUX").env_remove("NO_COLOR");
        checked(command);
        tmux
    }

    fn command(&self) -> Command {
        let mut command = clean("tmux");
        command.args(["-u", "-S", &self.socket]);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = self.command();
        command.args(args);
        checked(command)
    }

    fn press(&self, keys: &[&str]) {
        self.run(&[&["send-keys"], keys].concat());
    }

    fn screen(&self) -> String {
        String::from_utf8(self.run(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let what = || format!("{what}:\n{}", self.screen());
        wait_for(what, || Some(self.screen()).filter(|screen| wanted(screen)))
    }

    #[track_caller]
    fn until_has(&self, part: &str) -> String {
        self.until(part, |screen| screen.contains(part))
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

fn checked(mut command: Command) -> Output {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

fn is_there() -> bool {
    clean("tmux").arg("-V").output().is_ok_and(|output| output.status.success())
}

#[test]
fn the_view_names_the_culprit_asks_before_it_acts_and_leaves_the_terminal_as_it_was() {
    if !is_there() {
        return skip("the view in tmux", "there is no tmux");
    }
    let jam = Jam::new();
    let tmux = Tmux::start(&jam.daemon.place);
    tmux.until_has("at-the-prompt>");
    tmux.press(&["echo before $((6 * 7)); shmctl top --interval 50ms", "Enter"]);
    let screen = tmux.until(&jam.blame(), |screen| {
        [&*jam.blame(), " holds the writer up", "lazyview/1 "].iter().all(|part| screen.contains(part))
    });
    assert!(!screen.contains("before 42"), "{screen}");
    assert!(screen.lines().last().is_some_and(|line| line.starts_with("q quit")), "{screen}");
    // A question, and its answer.
    tmux.press(&["e"]);
    tmux.until_has("y: yes, n: no");
    tmux.press(&["Escape"]);
    tmux.until_has("q quit");
    // Ctrl-Z gives the terminal to the shell, and fg takes it back.
    tmux.press(&["C-z"]);
    tmux.until("the shell's prompt", |screen| screen.contains("before 42") && !screen.contains("q quit"));
    tmux.press(&["fg", "Enter"]);
    tmux.until_has("q quit");
    // The window changes its size.
    tmux.run(&["resize-window", "-x", "40", "-y", "10"]);
    // Until it is drawn anew, the window shows what was there before.
    tmux.until("a narrow view", |screen| {
        let lines: Vec<_> = screen.lines().collect();
        let [first, .., last] = lines.as_slice() else { return false };
        let fits = lines.len() == 10 && lines.iter().all(|line| line.chars().count() <= 40);
        let is_whole = first.starts_with("shmctl top") && last.starts_with("q quit");
        fits && is_whole && screen.contains("lazyview/1 ")
    });
    tmux.run(&["resize-window", "-x", "80", "-y", "24"]);
    tmux.until_has("OPERATIONS");
    // The deed.
    tmux.press(&["e"]);
    tmux.until_has("evict reader 1 (lazyview, ");
    tmux.press(&["y"]);
    tmux.until_has("cam: reader 1 evicted");
    tmux.press(&["q"]);
    tmux.until("the shell's prompt", |screen| screen.contains("before 42") && !screen.contains("q quit"));
    // A stopped view can be ended, too, by a signal that the shell sends before it lets the view go on.
    tmux.press(&["shmctl top", "Enter"]);
    tmux.until_has("q quit");
    tmux.press(&["C-z"]);
    tmux.until("the shell's prompt", |screen| screen.contains("Stopped") && !screen.contains("q quit"));
    tmux.press(&["clear; kill %1; while kill -0 %1; do sleep 0.01; done 2>/dev/null; echo over $((6 * 7))", "Enter"]);
    tmux.until_has("over 42");
    // Echo and lines are back.
    tmux.press(&["echo after $((6 * 7)); stty -a", "Enter"]);
    let screen = tmux.until("stty's answer", |screen| screen.contains("after 42") && screen.contains(" icanon"));
    let words: Vec<_> = screen.split_whitespace().collect();
    assert!(words.contains(&"icanon") && words.contains(&"echo"), "{screen}");
}
