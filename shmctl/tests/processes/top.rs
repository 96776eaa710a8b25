//! The view of `shmctl top`: on a terminal, as text and as JSON.

mod tmux;

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use shm_test_support::{
    Daemon, Proc, Run, Schema, Screen, Setup, Terminal, catches, clean, program, wait_for, wait_until,
};

/// Full after some thousand lines, and nobody is evicted by time.
const SMALL: &str = "[[channel]]\nname = \"cam\"\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n";
/// The same with room to grow.
const ROOMY: &str = "[[channel]]\nname = \"cam\"\ncapacity = \"64KiB\"\nmax = \"64MiB\"\nevict_after = \"0\"\n";

/// A daemon whose channel `cam` is held up by a reader with the program name `lazyview`, which stands still.
struct Jam {
    lazy: Proc,
    _write: Proc,
    daemon: Daemon,
}

impl Jam {
    fn new() -> Self {
        let daemon = Daemon::start(SMALL);
        let lazy = lazy(&daemon);
        let mut write = daemon.spawn_piped(&["write"]);
        write.feed(&b"0123456789\n".repeat(10_000));
        daemon.until_stat("the channel is full", |stat| stat.used > stat.capacity / 10 * 9);
        Jam { lazy, _write: write, daemon }
    }

    /// How the view names the culprit.
    fn blame(&self) -> String {
        format!("reader 1 (lazyview, pid {}, user ", self.lazy.pid())
    }
}

impl Drop for Jam {
    fn drop(&mut self) {
        // A stopping daemon tells the reader.
        if self.lazy.is_running() {
            self.lazy.thaw();
        }
    }
}

/// A reader that stands still and has another name than the rest.
fn lazy(daemon: &Daemon) -> Proc {
    let path = daemon.place.path("lazyview");
    if fs::hard_link(program("shmctl"), &path).is_err() {
        // In a process of its own: a file that this process has open for writing, or another one that it starts meanwhile, cannot
        // be executed.
        assert!(Command::new("cp").arg(program("shmctl")).arg(&path).status().unwrap().success());
    }
    let mut command = clean(&path);
    command.arg("read").env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    let mut lazy = Proc::spawn(command);
    daemon.until_readers(1);
    lazy.freeze();
    lazy
}

/// `shmctl top` on a terminal.
struct Top {
    top: Proc,
    terminal: Terminal,
    /// How the terminal was before.
    modes: String,
}

impl Top {
    fn start(daemon: &Daemon) -> Self {
        let terminal = Terminal::new(24, 80);
        let modes = terminal.modes();
        let mut command = daemon.shmctl(&["top", "--interval", "50ms"]);
        command.stdin(terminal.stdio()).stdout(terminal.stdio());
        let top = Top { top: Proc::spawn_as_is(command), terminal, modes };
        top.until("shmctl top  shmd");
        top
    }

    /// Waits until the screen has this, and returns the screen.
    #[track_caller]
    fn until(&self, part: &str) -> Screen {
        let what =
            || format!("{part:?} is on the screen:\n{}\n{}", self.terminal.screen().text(), self.top.err_so_far());
        wait_for(what, || Some(self.terminal.screen()).filter(|screen| screen.text().contains(part)))
    }

    /// It ends with 0, and the terminal is as it was.
    #[track_caller]
    fn ends(self) {
        let Top { top, terminal, modes } = self;
        top.wait().quiet();
        wait_until(
            || format!("the first screen is back:\n{}", terminal.screen().text()),
            || !terminal.screen().is_other() && !terminal.screen().hides_cursor,
        );
        assert_eq!(terminal.modes(), modes);
        let screen = terminal.screen();
        assert_eq!((screen.text().trim(), screen.scrolled, screen.wrapped), ("", 0, 0));
    }
}

#[test]
fn the_culprit_is_named_and_can_be_evicted_after_a_question() {
    let jam = Jam::new();
    let mut top = Top::start(&jam.daemon);
    let screen = top.until(" holds the writer up");
    assert!(screen.is_other() && screen.hides_cursor);
    for part in [&jam.blame(), "> cam ", " full ", "lazyview/1 ", "READER 1  lazyview, pid ", "OPERATIONS", "q quit"] {
        assert!(screen.text().contains(part), "{part:?} is not in\n{}", screen.text());
    }
    // How long is known of a channel without publish times, too, after some looks.
    top.until(", the oldest for more than ");
    top.terminal.type_in("e");
    top.until("evict reader 1 (lazyview, ");
    top.terminal.type_in("n");
    top.until("q quit");
    top.terminal.type_in("e");
    top.until("y: yes, n: no");
    assert_eq!(jam.daemon.stat().evicted, 0, "nothing happens before the answer");
    top.terminal.type_in("y");
    top.until("cam: reader 1 evicted");
    top.until("event=evict channel=cam reader=1");
    assert_eq!(jam.daemon.stat().evicted, 1);
    wait_until("nobody holds the writer up", || !top.terminal.screen().text().contains("holds the writer up"));
    top.terminal.type_in("q");
    top.ends();
}

#[test]
fn a_channel_is_resized_after_a_question_and_a_refusal_is_told_in_the_daemons_words() {
    let daemon = Daemon::start(ROOMY);
    let mut top = Top::start(&daemon);
    for (size, told) in [("1G", "asked 1GiB, allowed 64KiB to 64MiB"), ("2MiB", "cam: 64KiB -> 2MiB")] {
        top.terminal.type_in("r");
        top.until("resize cam from 64KiB to: _");
        top.terminal.type_in(size);
        top.terminal.type_in("\r");
        top.until("y: yes, n: no");
        assert_eq!(daemon.stat().capacity, 64 << 10, "nothing happens before the answer");
        top.terminal.type_in("y");
        top.until(told);
    }
    assert_eq!(daemon.stat().capacity, 2 << 20);
    top.until("event=grow channel=cam old=65536 new=2097152");
    top.terminal.type_in("q");
    top.ends();
}

#[test]
fn a_signal_gives_the_terminal_back() {
    let daemon = Daemon::start("");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT] {
        let mut top = Top::start(&daemon);
        top.top.signal(signal);
        top.ends();
    }
}

#[test]
fn a_signal_ends_it_between_the_two_looks_too() {
    let daemon = Daemon::start("");
    for (signal, json) in [(Signal::SIGINT, &[][..]), (Signal::SIGTERM, &["--json"])] {
        let mut once = daemon.spawn(&[&["top", "--once", "--interval", "1h"], json].concat());
        let pid = Pid::from_raw(i32::try_from(once.pid()).unwrap());
        // The last of the signals that it catches.
        wait_until("it catches signals", || catches(pid, Signal::SIGTERM));
        once.signal(signal);
        once.wait().prints("");
    }
}

#[test]
fn a_stopped_view_gives_the_terminal_back_and_takes_it_again() {
    let daemon = Daemon::start("");
    let mut top = Top::start(&daemon);
    top.top.signal(Signal::SIGTSTP);
    let stat = format!("/proc/{}/stat", top.top.pid());
    wait_until("it stands", || fs::read_to_string(&stat).unwrap().rsplit(") ").next().unwrap().starts_with('T'));
    wait_until("the first screen is back", || !top.terminal.screen().is_other());
    assert_eq!(top.terminal.modes(), top.modes);
    top.top.signal(Signal::SIGCONT);
    top.until("shmctl top  shmd");
    top.terminal.type_in("q");
    top.ends();
}

#[test]
fn the_view_outlives_the_daemon_and_goes_on_with_the_next_one() {
    let mut daemon = Daemon::start(ROOMY);
    let mut top = Top::start(&daemon);
    daemon.write_lines("one\ntwo\n");
    let first = daemon.pid();
    top.until(&format!("(pid {first})"));
    daemon.kill();
    let screen = top.until("figures are ");
    assert!(screen.text().contains("old: no daemon at") && screen.text().contains("> cam "), "{}", screen.text());
    daemon.launch(Setup::new(ROOMY));
    assert_ne!(daemon.pid(), first);
    top.until(&format!("(pid {})", daemon.pid()));
    top.until("event=died");
    // A daemon that is stopped and started again counts from 0.
    daemon.write_lines("three\n");
    daemon.stop(Signal::SIGTERM);
    top.until("figures are ");
    daemon.launch(Setup::new(ROOMY));
    let screen = top.until(&format!("(pid {})", daemon.pid()));
    assert!(!screen.text().contains(" -1"), "{}", screen.text());
    top.terminal.type_in("q");
    top.ends();
}

#[test]
fn a_daemon_that_hangs_keeps_nobody_from_leaving() {
    let daemon = Daemon::start("");
    let mut top = Top::start(&daemon);
    let pid = Pid::from_raw(i32::try_from(daemon.pid()).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    // Other keys have their effect, too.
    top.terminal.type_in("s");
    top.until("s sort (state)");
    let screen = top.until("old: no answer from the daemon");
    assert!(screen.text().starts_with("shmctl top  figures are "), "{}", screen.text());
    top.terminal.type_in("q");
    top.ends();
    kill(pid, Signal::SIGCONT).unwrap();
}

#[test]
fn keys_sort_pause_and_choose() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n");
    let _readers: Vec<_> = (0..2).map(|_| daemon.spawn(&["read", "-c", "imu"])).collect();
    daemon.until_all_stat("both readers are there", |stats| stats[1].readers.len() == 2);
    let mut top = Top::start(&daemon);
    top.until("> cam ");
    for (key, shown) in [
        ("\x1b[B", "> imu "),
        ("\x1b[C", "READER 2  shmctl"),
        ("h", "READER 1  shmctl"),
        ("s", "s sort (state)"),
        ("p", "  PAUSED"),
        ("k", "> cam "),
    ] {
        top.terminal.type_in(key);
        top.until(shown);
    }
    // While it is paused, the daemon is not asked: a view that is started now knows more.
    daemon.cli_with_input(&["write", "-c", "imu"], b"one\n").quiet();
    let mut other = Top::start(&daemon);
    other.until("event=lend channel=imu");
    other.terminal.type_in("q");
    other.ends();
    assert!(!top.terminal.screen().text().contains("event=lend channel=imu"));
    top.terminal.type_in("p");
    top.until("event=lend channel=imu");
    top.terminal.type_in("q");
    top.ends();
}

#[test]
fn once_is_the_same_as_text_and_as_json() {
    let jam = Jam::new();
    let once = |args: &[&str]| {
        let args: Vec<_> = ["top", "--once", "--interval", "50ms"].iter().chain(args).copied().collect();
        jam.daemon.cli(&args).quiet().text()
    };
    let text = once(&[]);
    for part in [&jam.blame(), " holds the writer up", "lazyview/1 >", "\n\nOPERATIONS\n", "event=attach"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 80) && !text.contains('\x1b'), "{text}");
    let text = once(&["--json"]);
    Schema::of("top").check_text(&text);
    let json: Value = serde_json::from_str(&text).unwrap();
    let [cam] = json["channels"].as_array().unwrap().as_slice() else { panic!("{json}") };
    assert!(json["interval_s"].as_f64().unwrap() >= 0.05, "{json}");
    assert_eq!((&cam["channel"], &cam["state"], &cam["messages_per_s"]), (&"cam".into(), &"full".into(), &0.0.into()));
    assert_eq!(cam["held_up"]["reader"], 1);
    assert!(cam["held_up"]["for_s"].as_f64().unwrap() >= 0.05, "{json}");
    assert!(cam["held_up"]["what"].as_str().unwrap().starts_with(&jam.blame()), "{json}");
    let reader = &cam["readers"][0];
    assert_eq!((&reader["program"], &reader["messages_per_s"]), (&"lazyview".into(), &0.0.into()));
    assert!(reader["lag_messages"].as_u64().unwrap() > 100 && reader["oldest_unread_at_least_s"].is_f64(), "{json}");
    let events: Vec<_> = json["operations"].as_array().unwrap().iter().map(|entry| entry["event"].clone()).collect();
    assert!(events.contains(&"attach".into()), "{events:?}");
    let mut command = jam.daemon.shmctl(&["top", "--once", "--interval", "50ms"]);
    let coloured = Run::of(command.env("CLICOLOR_FORCE", "1").env_remove("NO_COLOR")).quiet().text();
    assert!(coloured.contains("\x1b[31mfull\x1b[0m"), "{coloured:?}");
}

#[test]
fn a_rate_is_what_was_published_in_the_time_between() {
    let daemon = Daemon::start(ROOMY);
    let mut write = daemon.spawn_piped(&["write", "-c", "cam"]);
    let rate = wait_for("a rate", || {
        // Published at any time, also between the two looks.
        let looks = daemon.spawn(&["top", "--once", "--json", "--interval", "100ms"]);
        write.feed(&b"0123456789\n".repeat(500));
        let json: Value = serde_json::from_str(&looks.wait().quiet().text()).unwrap();
        let of = |key: &str| json["channels"][0][key].as_f64().unwrap();
        let between = json["interval_s"].as_f64().unwrap();
        let (messages, bytes) = (of("messages_per_s"), of("bytes_per_s"));
        (messages > 0.0).then_some((messages * between, bytes * between))
    });
    let (messages, bytes) = rate;
    assert!((messages - messages.round()).abs() < 1e-6 && (bytes - 10.0 * messages).abs() < 1e-3, "{rate:?}");
}
