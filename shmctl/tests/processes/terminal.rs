//! What is shown on a terminal of 80 columns and 24 rows fits it.

use nix::sys::signal::Signal;

use shm_test_support::{Daemon, Place, Proc, Run, Screen, Terminal, clean, heavy, program, wait_for};

const FOUR: &str = "[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n[[channel]]\nname = \"gps\"\n[[channel]]\n\
                    name = \"a-channel-whose-name-is-as-long-as-a-name-can-be-or-very-nearly\"\nmax = \"8MiB\"\n";

/// What `shmctl` leaves on a terminal, the last row with the cursor apart.
#[track_caller]
fn shown(daemon: &Daemon, args: &[&str]) -> Screen {
    let terminal = Terminal::new(100, 80);
    let mut command = daemon.shmctl(args);
    command.stdout(terminal.stdio());
    Proc::spawn_as_is(command).wait().quiet();
    // It has ended before everything it wrote is on the screen, perhaps.
    let screen =
        wait_for("something is on the screen", || Some(terminal.screen()).filter(|it| !it.text().trim().is_empty()));
    assert_eq!((screen.scrolled, screen.wrapped), (0, 0), "{}", screen.text());
    screen
}

#[test]
fn tables_fit_the_terminal_with_a_writer_and_readers_and_are_whole_elsewhere() {
    let daemon = Daemon::start(FOUR);
    let long = "a-channel-whose-name-is-as-long-as-a-name-can-be-or-very-nearly";
    let mut write = daemon.spawn_piped(&["write", "-c", long]);
    write.feed(b"one\n");
    let reader = daemon.spawn(&["read", "-c", long]);
    daemon.until_all_stat("writer and reader are there", |stats| {
        stats.iter().any(|stat| stat.writer.is_some() && stat.readers.len() == 1)
    });
    let list = shown(&daemon, &["list"]);
    assert!(list.text().contains("shmctl (") && list.text().contains("a-channel-whose-"), "{}", list.text());
    let stat = shown(&daemon, &["stat", "-c", long]);
    let row = format!(" {}  shmctl", reader.pid());
    assert!(stat.text().contains(&row) && stat.text().contains("LAG BYTES"), "{}", stat.text());
    let piped = daemon.cli(&["list"]).quiet().text();
    assert!(piped.lines().any(|line| line.contains(long) && line.len() > 100), "{piped}");
}

#[test]
fn a_watch_never_scrolls_and_shows_every_channel() {
    let daemon = Daemon::start(FOUR);
    let _readers: Vec<_> = (0..3).map(|_| daemon.spawn(&["read", "-c", "cam"])).collect();
    let terminal = Terminal::new(24, 80);
    let mut command = daemon.shmctl(&["stat", "--watch", "0.05"]);
    command.stdout(terminal.stdio());
    let mut watch = Proc::spawn_as_is(command);
    let has_all = |screen: &Screen| {
        let lines = screen.lines();
        let starts = |start: &str| lines.iter().any(|line| line.starts_with(start));
        ["cam ", "imu ", "gps ", "a-channel-whose-"].iter().all(|start| starts(start))
    };
    wait_for("all channels are on the screen", || Some(terminal.screen()).filter(has_all));
    daemon.cli_with_input(&["write", "-c", "imu"], b"one\ntwo\n").quiet();
    // Drawn again with what has changed: the last hour's rate is not shown there, but the readers are.
    let screen = wait_for("the readers are on the screen", || {
        Some(terminal.screen())
            .filter(|it| it.lines().iter().any(|line| line.starts_with("cam ") && line.contains("  3  ")))
    });
    assert!(has_all(&screen), "{}", screen.text());
    watch.signal(Signal::SIGINT);
    watch.wait().quiet();
    let screen = terminal.screen();
    assert_eq!((screen.scrolled, screen.wrapped), (0, 0), "{}", screen.text());
    // One channel has its whole block.
    let terminal = Terminal::new(24, 80);
    let mut command = daemon.shmctl(&["stat", "-c", "cam", "--watch", "0.05"]);
    command.stdout(terminal.stdio());
    let _watch = Proc::spawn_as_is(command);
    let screen = wait_for("the readers are on the screen", || {
        Some(terminal.screen()).filter(|it| it.text().matches("sleeping").count() == 3)
    });
    assert!(screen.text().contains("  segment   /dev/shm/"), "{}", screen.text());
    assert_eq!((screen.scrolled, screen.wrapped), (0, 0), "{}", screen.text());
}

#[test]
fn q_ends_a_watch_and_no_other_key_does() {
    let daemon = Daemon::start(FOUR);
    let mut terminal = Terminal::new(24, 80);
    let mut command = daemon.shmctl(&["stat", "--watch", "0.05"]);
    command.stdin(terminal.stdio()).stdout(terminal.stdio());
    let mut watch = Proc::spawn_as_is(command);
    wait_for("the channels are on the screen", || Some(terminal.screen()).filter(|it| it.text().contains("\nimu ")));
    terminal.type_in("x\r");
    // It is drawn once more.
    daemon.cli_with_input(&["write", "-c", "imu"], b"one\n").quiet();
    let _reader = daemon.spawn(&["read", "-c", "imu"]);
    wait_for("the reader is on the screen", || {
        Some(terminal.screen())
            .filter(|it| it.lines().iter().any(|line| line.starts_with("imu ") && line.contains("  1  ")))
    });
    assert!(watch.is_running());
    assert!(!terminal.screen().text().contains('x'), "keys are not echoed: {}", terminal.screen().text());
    terminal.type_in("q");
    watch.wait().quiet();
}

#[test]
fn states_are_coloured_where_colours_are_wanted_and_never_in_json() {
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n");
    let mut reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    reader.freeze();
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed(&b"0123456789\n".repeat(10_000));
    daemon.until_stat("the channel is full", |stat| stat.used > stat.capacity / 10 * 9);
    let run = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = daemon.shmctl(args);
        command.env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").envs(variables.iter().copied());
        Run::of(command).quiet().text()
    };
    let forced = ("CLICOLOR_FORCE", "1");
    assert!(run(&["stat"], &[forced]).contains("\x1b[31m  used "), "{}", run(&["stat"], &[forced]));
    for (args, variables) in
        [(&["stat"][..], &[][..]), (&["stat"], &[forced, ("NO_COLOR", "1")]), (&["stat", "--json"], &[forced])]
    {
        let text = run(args, variables);
        assert!(!text.contains('\x1b'), "{args:?} {variables:?}: {text}");
    }
    reader.thaw();
}

#[test]
fn a_bench_leaves_nothing_of_its_progress_on_the_terminal() {
    let _turn = heavy();
    let place = Place::new();
    let terminal = Terminal::new(24, 80);
    let mut command = clean(program("shmctl"));
    command.args(["bench", "--quick", "--duration", "3ms", "--measure", "throughput"]).env("TMPDIR", &place.dir);
    command.stdout(std::process::Stdio::null()).stderr(terminal.stdio());
    Proc::spawn_untouched(command).wait().ok();
    let progress = |line: &String| line.starts_with('[') && line.contains(" 3/");
    let screen = wait_for("the progress was shown and is gone", || {
        let gone = |screen: &Screen| !screen.lines().iter().any(|line| line.starts_with('['));
        Some(terminal.screen()).filter(|screen| screen.overwritten.iter().any(progress) && gone(screen))
    });
    assert_eq!((screen.scrolled, screen.wrapped), (0, 0), "{}", screen.text());
    assert!(screen.overwritten.iter().all(|line| line.chars().count() < 80), "{:?}", screen.overwritten);
}
