//! The real program: what it says and with which code it ends, for good and bad configuration.
//!
//! Every run has a directory, a runtime directory and a prefix of its own, an environment without `SHMD_*`, and a named
//! configuration file, so that nothing of the machine's own configuration comes in.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shm_test_support::{Proc, Run, TempDir, clean, program};

struct Test {
    dir: TempDir,
}

impl Test {
    fn new(text: &str) -> Self {
        let dir = TempDir::new();
        fs::write(dir.join("shmd.toml"), text).unwrap();
        Test { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The program, told nothing but its configuration file.
    fn shmd(&self) -> Command {
        let mut command = clean(program("shmd"));
        command.env("XDG_RUNTIME_DIR", &self.dir).arg("--config").arg(self.path("shmd.toml"));
        command
    }

    fn check(&self, args: &[&str]) -> Run {
        Run::of(self.shmd().arg("--check").args(args))
    }
}

/// The table that a run has printed, which ended with 0 and had nothing else to say.
#[track_caller]
fn good(run: Run) -> toml::Table {
    let text = run.quiet().text();
    text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// One channel's value of a key, as TOML.
#[track_caller]
fn value(run: Run, key: &str) -> String {
    good(run)["channel"][0][key].to_string()
}

#[test]
fn check_prints_the_resolved_configuration_as_toml_with_its_files() {
    let test = Test::new("log = \"warn\"\n[[channel]]\nname = \"cam\"\n");
    fs::create_dir(test.path("shmd.d")).unwrap();
    fs::write(test.path("shmd.d/10-more.toml"), "[[channel]]\nname = \"mic\"\non_full = \"drop\"\n").unwrap();
    let run = test.check(&[]);
    for file in ["shmd.toml", "shmd.d/10-more.toml"] {
        assert!(run.text().contains(&format!("#   {}\n", test.path(file).display())), "{run:?}");
    }
    let table = good(run);
    assert_eq!(table["log"].as_str(), Some("warn"));
    assert_eq!(table["channel"][1]["name"].as_str(), Some("mic"));
    assert_eq!(table["channel"][1]["on_full"].as_str(), Some("drop"));
    assert!(!test.path("shmd").exists(), "--check leaves nothing");
}

#[test]
fn what_check_prints_can_be_used_again() {
    let test = Test::new("[[channel]]\nname = \"cam\"\nread = [\"*\"]\nsource = \"stdin\"\n");
    let first = good(test.check(&["--prefix", "own", "--capacity", "2MiB"]));
    fs::write(test.path("shmd.toml"), first.to_string()).unwrap();
    assert_eq!(good(test.check(&[])), first);
}

#[test]
fn bad_configuration_ends_with_78_and_file_line_reason() {
    let test = Test::new("# first line\n[[channel]]\nname = \"a/b\"\n");
    let place = format!("shmd: {}:3: ", test.path("shmd.toml").display());
    test.check(&[]).refused(78, &[&place, "'/'"]);
    Run::of(test.shmd()).refused(78, &[&place]);
}

#[test]
fn a_named_file_that_is_missing_ends_with_78() {
    let test = Test::new("");
    fs::remove_file(test.path("shmd.toml")).unwrap();
    test.check(&[]).refused(78, &["shmd.toml: No such file or directory"]);
}

#[test]
fn more_memory_than_there_is_ends_with_78_and_numbers() {
    let test = Test::new("[[channel]]\nmax = \"1000000GiB\"\n");
    test.check(&[]).refused(78, &["shmd.toml:2: ", "1073741824000000 bytes", "more than"]);
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_files() {
    let test = Test::new("[[channel]]\ncapacity = \"1MiB\"\nwait_readers = 16\nalign = 16\nmax_readers = 40\n");
    let mut shmd = test.shmd();
    shmd.env("SHMD_CAPACITY", "2MiB").env("SHMD_WAIT_READERS", "32");
    shmd.args(["--check", "--capacity", "4MiB", "--set", "main.align=64"]);
    let table = good(Run::of(&mut shmd));
    let channel = &table["channel"][0];
    assert_eq!(channel["capacity"].as_str(), Some("4MiB"));
    let values = ["align", "wait_readers", "max_readers"].map(|key| channel[key].as_integer().unwrap());
    assert_eq!(values, [64, 32, 40]);
}

#[test]
fn every_flag_of_the_only_channel_has_its_variable_and_the_other_keys_have_set() {
    let test = Test::new("");
    for (key, text, shown) in [
        ("name", "cam", "\"cam\""),
        ("capacity", "128KiB", "\"128KiB\""),
        ("max", "4MiB", "\"4MiB\""),
        ("on_full", "overwrite", "\"overwrite\""),
        ("source", "stdin", "\"stdin\""),
        ("framing", "chunk=4KiB", "\"chunk=4KiB\""),
        ("wait_readers", "2", "2"),
    ] {
        assert_eq!(value(test.check(&[&format!("--{}={text}", key.replace('_', "-"))]), key), shown);
        let variable = format!("SHMD_{}", key.to_uppercase());
        assert_eq!(value(Run::of(test.shmd().arg("--check").env(variable, text)), key), shown);
    }
    for (key, text, shown) in [
        ("min", "32KiB", "\"32KiB\""),
        ("max_message", "100", "\"100\""),
        ("align", "64", "64"),
        ("max_readers", "3", "3"),
        ("evict_after", "0", "\"0\""),
        ("shrink_after", "5s", "\"5s\""),
        ("ack", "true", "true"),
    ] {
        assert_eq!(value(test.check(&["--set", &format!("main.{key}={text}")]), key), shown);
        let way = format!("--set CHANNEL.{key}=VALUE");
        let flag = format!("--{}", key.replace('_', "-"));
        for flag in [vec![flag.as_str(), text], vec![&format!("{flag}={text}")]] {
            let refused = test.check(&flag);
            assert!(!refused.err.contains("similar"), "{refused:?}");
            refused.refused(2, &[&format!("unexpected argument '{}'", flag[0].split('=').next().unwrap()), &way]);
        }
        let variable = format!("SHMD_{}", key.to_uppercase());
        let run = Run::of(test.shmd().arg("--check").env(&variable, text));
        run.refused(2, &[&format!("shmd: {variable}: "), &way]);
    }
}

#[test]
fn an_empty_variable_is_none() {
    let test = Test::new("");
    let mut shmd = test.shmd();
    for name in ["RUNTIME_DIR", "PREFIX", "LOG", "CAPACITY", "ACK", "EXIT_ON_EOF"] {
        shmd.env(format!("SHMD_{name}"), "");
    }
    assert_eq!(good(Run::of(shmd.arg("--check"))), good(test.check(&[])));
}

#[test]
fn a_bad_value_on_the_command_line_or_in_the_environment_ends_with_2() {
    let test = Test::new("");
    test.check(&["--capacity", "1TiB"]).refused(2, &["shmd: --capacity: \"1TiB\" is not a size", "64KiB"]);
    test.check(&["--set", "main.colour=red"]).refused(2, &["--set main.colour: unknown key"]);
    test.check(&["--set", "main.min=2MiB", "--max", "1MiB"])
        .refused(2, &["--set main.min: min 2MiB is more than max 1MiB (--max)"]);
    test.check(&["--set", "main.evict_after=5"])
        .refused(2, &["--set main.evict_after: ", "\"5\" is not a duration: write a number with its unit"]);
    test.check(&["--log", "loud"]).refused(2, &["--log: log \"loud\""]);
    test.check(&["--log-target", "nowhere"]).refused(2, &["--log-target: \"nowhere\" is not stderr"]);
    for (variable, value, reason) in [
        ("SHMD_CAPACITY", "1TiB", "\"1TiB\" is not a size"),
        ("SHMD_FRAMING", "chunk=0", "a chunk has at least 1 byte"),
        ("SHMD_ON_FULL", "wait", "unknown variant `wait`"),
        ("SHMD_LOG_TARGET", "nowhere", "\"nowhere\" is not stderr"),
        ("SHMD_EXIT_ON_EOF", "perhaps", "\"perhaps\" is neither true nor false"),
        ("SHMD_EXIT_ON_EOF", "true", "this waits for the end of standard input"),
    ] {
        let place = format!("shmd: {variable}: ");
        Run::of(test.shmd().arg("--check").env(variable, value)).refused(2, &[&place, reason]);
    }
    let two = Test::new("[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n");
    let run = Run::of(two.shmd().arg("--check").env("SHMD_MAX", "8MiB"));
    run.refused(2, &["SHMD_MAX: this is for the only channel", "a, b"]);
}

#[test]
fn a_command_line_that_means_nothing_ends_with_2() {
    let test = Test::new("[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n");
    test.check(&["--capcity", "1"]).refused(2, &["--capcity", "'--capacity'"]);
    let way = "did you mean the key evict_after? It has no flag of its own: use '--set CHANNEL.evict_after=VALUE'";
    test.check(&["--evict-aftr", "1s"]).refused(2, &[way]);
    test.check(&["--set", "a.capcity=1MiB"]).refused(2, &["unknown key \"capcity\"", "did you mean capacity?"]);
    test.check(&["--set", "capcity=1MiB"]).refused(2, &["CHANNEL.KEY=VALUE", "main.capacity=VALUE"]);
    test.check(&["--capacity", "2MiB"]).refused(2, &["--capacity: this is for the only channel", "a, b", "--set"]);
    test.check(&["--set", "c.align=8"]).refused(2, &["no channel \"c\"", "a, b"]);
    test.check(&["--set", "align=8"]).refused(2, &["CHANNEL.KEY=VALUE"]);
    test.check(&["--exit-on-eof=perhaps"]).refused(2, &["\"perhaps\" is neither true nor false"]);
    test.check(&["--exit-on-eof"])
        .refused(2, &["--exit-on-eof: this waits for the end of standard input", "--source stdin"]);
    good(test.check(&["--exit-on-eof", "--set", "a.source=stdin"]));
    let table = good(test.check(&["--set", "b.read=@0,7"]));
    assert_eq!(table["channel"][1]["read"].to_string(), "[\"@0\", \"7\"]");
}

#[test]
fn a_relative_runtime_directory_is_meant_from_here() {
    let test = Test::new("");
    let table = good(Run::of(test.shmd().current_dir(&test.dir).args(["--check", "--runtime-dir", "run"])));
    assert_eq!(Path::new(table["runtime_dir"].as_str().unwrap()), test.path("run"));
}

#[test]
fn help_and_version_end_with_0() {
    let test = Test::new("");
    for flag in ["--help", "--version"] {
        let run = test.check(&[flag]);
        assert!(run.code == Some(0) && run.text().contains("shmd"), "{run:?}");
    }
}

#[test]
fn standard_input_is_the_source_when_bytes_can_come_from_it() {
    let test = Test::new("");
    let source = |stdin: Stdio| value(Run::of(test.shmd().arg("--check").stdin(stdin)), "source");
    assert_eq!(source(Stdio::null()), "\"none\"");
    assert_eq!(source(Stdio::piped()), "\"stdin\"");
    assert_eq!(source(File::open(test.path("shmd.toml")).unwrap().into()), "\"stdin\"");
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(source(std::os::fd::OwnedFd::from(socket).into()), "\"stdin\"");
    assert_eq!(source(File::open(&test.dir).unwrap().into()), "\"none\"");
    assert_eq!(source(File::open("/dev/zero").unwrap().into()), "\"none\"");
}

#[test]
fn standard_output_that_takes_nothing_is_a_failure() {
    let test = Test::new("");
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = test.shmd();
    command.arg("--check").stdout(full);
    Proc::spawn_as_is(command).wait().fails(1, &["shmd: standard output: No space left"]);
}
