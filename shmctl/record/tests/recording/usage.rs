//! The command line.

use shm_test_support::{Daemon, Place, Run, clean, program};

use crate::kit::daemon;

fn run(place: &Place, line: &str) -> Run {
    let mut command = clean(program("shmctl"));
    command.args(line.split_whitespace()).env("SHMD_RUNTIME_DIR", place.run_dir()).current_dir(&place.dir);
    Run::of(command)
}

#[test]
fn both_commands_are_found_beside_shmctl_and_in_its_help() {
    let place = Place::new();
    for line in ["--help", "help"] {
        let help = run(&place, line).quiet().text();
        assert!(help.contains("  record  ") && help.contains("  replay  "), "{help}");
    }
    for (line, text) in [
        ("record --help", "Usage: shmctl record"),
        ("help record", "Usage: shmctl record"),
        ("-v replay --help", "Usage: shmctl replay"),
        ("help replay", "--speed <FACTOR>"),
        ("record --version", "shmctl-record "),
    ] {
        let told = run(&place, line).quiet().text();
        assert!(told.contains(text), "{line}: {told}");
    }
    run(&place, "recrod x").refused(2, &["recrod", "'record'"]);
    run(&place, "reed").refused(2, &["reed", "'read'"]);
    run(&place, "help recrod").refused(2, &["recrod"]);
}

#[test]
fn shmctl_has_their_manual_pages_and_completes_their_words() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n");
    let pages = run(&daemon.place, "manual").quiet().text();
    assert!(
        ["shmctl-record.1", "shmctl-replay.1"].iter().all(|page| pages.lines().any(|line| line == *page)),
        "{pages}"
    );
    run(&daemon.place, "manual --output man").quiet();
    for (command, parts) in [
        ("record", [".TH SHMCTL\\-RECORD 1 ", "\\-\\-compression", ".SH EXAMPLES", "EXIT STATUS"]),
        ("replay", [".TH SHMCTL\\-REPLAY 1 ", "\\-\\-speed", ".SH EXAMPLES", "EXIT STATUS"]),
    ] {
        let page = run(&daemon.place, &format!("manual shmctl-{command}")).quiet().text();
        assert!(parts.iter().all(|part| page.contains(part)), "{page}");
        let file = daemon.place.path(&format!("man/man1/shmctl-{command}.1"));
        assert!(std::fs::read_to_string(file).unwrap() == page);
    }
    // A dot stands for the empty word at the end.
    for (line, words) in [
        ("rep", "replay"),
        ("record --compression .", "none lz4 zstd"),
        ("-v record --compression=l", "--compression=lz4"),
        ("record .", "cam imu"),
        ("record cam .", "imu"),
        ("record -o .", ":files"),
        ("replay --create --sp", "--speed"),
        ("--runtime-dir /none record .", ""),
    ] {
        let mut command = clean(program("shmctl"));
        command.arg("complete").arg("shmctl").args(line.split(' ').map(|word| if word == "." { "" } else { word }));
        command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
        let told = Run::of(command).quiet().text();
        let found: Vec<_> = told.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_eq!(found.join(" "), words, "{line}");
    }
}

#[test]
fn variables_are_read_as_by_every_command() {
    let daemon = daemon("");
    let record = |variable: (&str, &str)| {
        let mut command = clean(program("shmctl"));
        command.args(["record", "-o", "run.mcap", "--force", "-n", "0"]).current_dir(&daemon.place.dir);
        Run::of(command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).env(variable.0, variable.1))
    };
    record(("SHMD_CHANNEL", "")).ok();
    record(("SHMD_CHANNEL", "main")).ok();
    record(("SHMD_PATIENCE", "5s")).ok();
    record(("SHMD_PATIENCE", "soon")).refused(2, &["SHMD_PATIENCE", "soon"]);
    record(("SHMD_CHANNEL", "a/b")).refused(2, &["A-Z"]);
}

#[test]
fn wrong_usage_ends_with_2_before_any_daemon_is_looked_for() {
    let place = Place::new();
    for (line, text) in [
        ("record", "--output"),
        ("record -o x cam cam", "named twice"),
        ("record -o x -c cam --channel cam", "named twice"),
        ("record -o x --all -c cam", "--all and --channel"),
        ("record -o x a/b", "A-Z"),
        ("record -o x --all cam", "--all"),
        ("record -o x --split 10m", "10min"),
        ("record -o x --compression best", "zstd"),
        ("record -o x --level 0", "1..=19"),
        ("record -o x --threads 0", "1..=256"),
        ("record -o x --chunk 1", "4KiB"),
        ("record -o x --duration soon", "500ms"),
        ("record -o x cam --encoding json", "cam=protobuf"),
        ("record -o x cam --encoding imu=json", "imu, which is not recorded"),
        ("record -o x cam --schema cam=n:x.proto", ".desc"),
        ("record -o x -c cam imu", "--channel cam"),
        ("record --recover x cam", "--recover"),
        ("replay", "<FILE>"),
        ("replay x --map cam", "cam=cam2"),
        ("replay x -c cam -c imu", "one channel"),
        ("replay x --speed fast", "0.5"),
    ] {
        run(&place, line).refused(2, &[text]);
    }
    assert!(!place.path("x").exists());
}

#[test]
fn without_a_daemon_or_the_channel_no_file_is_left() {
    let place = Place::new();
    run(&place, "record -o run.mcap").refused(69, &["no daemon at", "--runtime-dir"]);
    run(&place, "record -o run.mcap --all").refused(69, &["no daemon at"]);
    assert!(!place.path("run.mcap").exists());
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"slow\"\nmode = \"handoff\"\n");
    run(&daemon.place, "record -o run.mcap cma").refused(1, &["cma", "cam"]);
    run(&daemon.place, "-c cma record -o run.mcap").refused(1, &["cma", "did you mean cam?"]);
    run(&daemon.place, "record -o run.mcap").refused(1, &["cam", "slow"]);
    run(&daemon.place, "record -o run.mcap cam slow").refused(1, &["channel slow", "hands each message over"]);
    assert!(!daemon.place.path("run.mcap").exists());
}

#[test]
fn a_file_that_is_there_is_replaced_only_if_that_is_wanted() {
    let daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    std::fs::write(&file, "precious").unwrap();
    run(&daemon.place, "record -o run.mcap -n 0").refused(1, &["run.mcap is there already", "--force"]);
    assert!(std::fs::read(&file).unwrap() == b"precious");
    run(&daemon.place, "record -o run.mcap -n 0 --force").ok();
    assert!(crate::kit::Contents::of(&file).messages.is_empty());
    let empty = run(&daemon.place, "replay run.mcap").ok();
    assert!(empty.err.contains("published 0 messages"), "{empty:?}");
}
