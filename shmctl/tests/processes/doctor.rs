//! The doctor finds what is provoked here, and mends what it may.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use shm_test_support::{Daemon, NOBODY, Place, Proc, Run, Schema, clean, program, skip_without_root, wait_for};

use crate::helpers::with_own_shared_memory;

/// What the doctor says, and its exit code. Findings about the machine that the tests run on are another matter.
#[track_caller]
fn examine(place: &Place, args: &[&str]) -> (Vec<Value>, Option<i32>) {
    let mut command = clean(program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", place.run_dir()).args(["doctor", "--json"]).args(args);
    let run = Run::of(command);
    assert!(run.err.is_empty(), "{run:?}");
    let report: Value = serde_json::from_str(&run.text()).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    Schema::of("doctor").check(&report);
    let findings = report["findings"].as_array().unwrap().clone();
    let status = match run.code {
        Some(0) => "ok",
        Some(1) => "warning",
        Some(2) => "critical",
        _ => "unknown",
    };
    assert_eq!(report["status"], status, "{run:?}");
    let is_fine = findings.iter().all(|finding| finding["severity"] == "note" || finding["mended"] == true);
    assert_eq!(is_fine, run.code == Some(0), "{run:?}");
    (findings, run.code)
}

/// Those of a check that mention this.
fn of_check(findings: &[Value], check: &str, mention: &str) -> Vec<Value> {
    let mentions = |finding: &&Value| finding["what"].as_str().unwrap().contains(mention);
    findings.iter().filter(|finding| finding["check"] == check).filter(mentions).cloned().collect()
}

#[track_caller]
fn only(findings: &[Value], check: &str, mention: &str) -> Value {
    let found = of_check(findings, check, mention);
    assert_eq!(found.len(), 1, "{check} {mention}: {findings:?}");
    for key in ["severity", "what", "cause", "command"] {
        assert!(found[0][key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {:?}", found[0]);
    }
    found[0].clone()
}

/// Whether the test that calls this has a `/dev/shm` of its own: `--fix` would remove what dead daemons of other tests, and of whoever
/// runs the tests, have left. If not, the test runs once more in a process that has one.
#[track_caller]
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "SHM_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    if let Some(mut again) = with_own_shared_memory(test, &std::env::current_exe().unwrap()) {
        again.args(["--exact", &format!("doctor::{test}"), "--nocapture", "--test-threads=1"]).env(ALONE, "1");
        let run = Run::of(again).ok();
        assert!(run.text().contains("1 passed"), "{run:?}");
    }
    false
}

#[test]
fn with_a_healthy_daemon_nothing_is_said_about_it() {
    let daemon = Daemon::start("[[channel]]\nmax = \"64KiB\"\ncapacity = \"64KiB\"\nmax_readers = 4\n");
    let _reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    let (findings, _) = examine(&daemon.place, &[]);
    for check in [
        "daemon",
        "socket",
        "access",
        "version",
        "reload",
        "clock",
        "object",
        "descriptors",
        "full",
        "stalled",
        "source",
    ] {
        assert_eq!(of_check(&findings, check, ""), [] as [Value; 0], "{check}");
    }
    assert_eq!(of_check(&findings, "leftover", &daemon.place.prefix), [] as [Value; 0]);
}

#[test]
fn without_a_daemon_the_way_to_start_it_is_named() {
    let place = Place::new();
    let (findings, code) = examine(&place, &[]);
    assert_eq!(code, Some(2));
    let found = only(&findings, "daemon", place.run_dir().to_str().unwrap());
    assert!(found["cause"].as_str().unwrap().contains("no such socket"), "{found}");
    let mut command = clean(program("shmctl"));
    let run = Run::of(command.env("SHMD_RUNTIME_DIR", place.run_dir()).arg("doctor"));
    assert!(run.code == Some(2) && run.err.is_empty(), "{run:?}");
    let text = run.text();
    let start = format!("\n          command: shmd --runtime-dir {} --daemonize\n", place.run_dir().display());
    assert!(text.starts_with("critical  no daemon answers at ") && text.contains(&start), "{text}");
}

#[test]
fn the_exit_code_is_that_of_the_findings_also_if_nobody_reads_them() {
    let place = Place::new();
    let doctor = |stdout: std::process::Stdio| {
        let mut command = clean(program("shmctl"));
        command.env("SHMD_RUNTIME_DIR", place.run_dir()).arg("doctor").stdout(stdout);
        Proc::spawn_as_is(command).wait()
    };
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let run = doctor(writer.into());
    assert!(run.code == Some(2) && run.err.is_empty(), "{run:?}");
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    doctor(full.into()).fails(3, &["standard output", "No space left"]);
}

#[test]
fn a_full_channel_is_blamed_on_the_reader_that_stands_still() {
    let daemon = Daemon::start(
        "[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\nstalled_after = \"50ms\"\n",
    );
    let mut reader = daemon.spawn(&["read"]);
    let _fast = daemon.spawn(&["read"]);
    daemon.until_readers(2);
    reader.freeze();
    let mut write = daemon.spawn_piped(&["write"]);
    write.feed(&b"0123456789\n".repeat(10_000));
    daemon.until_stat("the channel is full and the reader stalled", |stat| {
        stat.used > stat.capacity / 10 * 9 && stat.readers.iter().any(|reader| reader.state.as_str() == "stalled")
    });
    let (findings, code) = examine(&daemon.place, &[]);
    assert_eq!(code, Some(2), "{findings:?}");
    let pid = format!("pid {}", reader.pid());
    let found = only(&findings, "full", &pid);
    assert_eq!(found["severity"], "critical");
    assert!(found["what"].as_str().unwrap().contains("holds the writer up"), "{found}");
    only(&findings, "stalled", &pid);
    // The command does what it says.
    let command = found["command"].as_str().unwrap().strip_prefix("shmctl ").unwrap().to_owned();
    daemon.cli(&command.split(' ').collect::<Vec<_>>()).ok();
    wait_for("the writer goes on", || {
        let (findings, _) = examine(&daemon.place, &[]);
        of_check(&findings, "full", "").is_empty().then_some(())
    });
    only(&examine(&daemon.place, &[]).0, "evicted", &pid);
    reader.thaw();
}

#[test]
fn all_places_taken_and_a_refused_reload_are_found() {
    let daemon = Daemon::start("[[channel]]\nmax_readers = 1\n");
    let _reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    fs::write(daemon.place.path("shmd.toml"), "[[channel]]\ncolour = \"red\"\n").unwrap();
    daemon.cli(&["reload"]).fails(78, &[]);
    let (findings, _) = examine(&daemon.place, &[]);
    only(&findings, "readers", "max_readers");
    let found = only(&findings, "reload", "refused");
    assert!(found["cause"].as_str().unwrap().contains("colour"), "{found}");
}

#[test]
fn a_configuration_that_is_no_toml_is_found() {
    let daemon = Daemon::start("");
    fs::write(daemon.place.path("shmd.toml"), "[[channel]]\nname = cam\n").unwrap();
    let (findings, code) = examine(&daemon.place, &[]);
    assert_eq!(code, Some(2), "{findings:?}");
    let found = only(&findings, "config", "shmd.toml:2: ");
    assert!(found["command"].as_str().unwrap().contains("--check"), "{found}");
}

#[test]
fn a_group_that_does_not_exist_is_found_in_the_daemons_own_configuration() {
    let daemon = Daemon::start("");
    fs::write(
        daemon.place.path("shmd.toml"),
        "[[channel]]\nname = \"a\"\n[[channel]] # b\ngroup = 'no-such-group-of-shmd'\n",
    )
    .unwrap();
    let (findings, _) = examine(&daemon.place, &[]);
    // Root may use every group, and a group that is missing is named by the daemon's refusal.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(of_check(&findings, "group", daemon.place.dir.path().to_str().unwrap()), [] as [Value; 0]);
    } else {
        let found = only(&findings, "group", "no-such-group-of-shmd");
        assert!(found["what"].as_str().unwrap().contains("shmd.toml:4"), "{found}");
    }
}

#[test]
fn an_object_that_others_may_write_to_and_one_that_lost_its_name_are_found() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n");
    fs::set_permissions(daemon.place.object("cam"), Permissions::from_mode(0o666)).unwrap();
    let aside = daemon.place.object("aside");
    fs::rename(daemon.place.object("imu"), &aside).unwrap();
    let (findings, code) = examine(&daemon.place, &[]);
    assert_eq!(code, Some(2));
    let object = daemon.place.object("cam").display().to_string();
    assert_eq!(only(&findings, "object", &object)["severity"], "critical");
    assert_eq!(only(&findings, "object", "lost its name")["severity"], "warning");
    fs::rename(&aside, daemon.place.object("imu")).unwrap();
}

#[test]
fn what_a_killed_daemon_left_is_removed_on_request_unless_somebody_uses_it() {
    if !is_alone("what_a_killed_daemon_left_is_removed_on_request_unless_somebody_uses_it") {
        return;
    }
    let mut daemon = Daemon::start("");
    let object = daemon.place.object("main");
    let shown = object.display().to_string();
    let reader = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    daemon.kill();
    // A daemon that was killed holds its lock until its last child is gone.
    let findings = wait_for("the segment is nobody's", || {
        let (findings, _) = examine(&daemon.place, &[]);
        (!of_check(&findings, "leftover", &shown).is_empty()).then_some(findings)
    });
    let found = only(&findings, "leftover", &shown);
    assert!(found["what"].as_str().unwrap().contains(&format!("process {} still use", reader.pid())), "{found}");
    let found = only(&examine(&daemon.place, &["--fix"]).0, "leftover", &shown);
    assert!(found["fixed"].as_str().unwrap().starts_with("not removed: "), "{found}");
    assert!(Path::new(&object).exists());
    reader.kill();
    let found = only(&examine(&daemon.place, &[]).0, "leftover", &shown);
    assert_eq!(found["command"], "shmctl doctor --fix");
    assert!(found.get("fixed").is_none() && object.exists(), "{found}");
    let found = only(&examine(&daemon.place, &["--fix"]).0, "leftover", &shown);
    assert_eq!(found["fixed"], "removed");
    assert!(!object.exists());
    assert_eq!(of_check(&examine(&daemon.place, &[]).0, "leftover", &shown), [] as [Value; 0]);
    let _ = fs::remove_dir_all(daemon.place.run_dir());
}

#[test]
fn a_living_daemons_objects_stay_whatever_is_fixed() {
    if !is_alone("a_living_daemons_objects_stay_whatever_is_fixed") {
        return;
    }
    let mut daemon = Daemon::start("");
    let object = daemon.place.object("main");
    let (findings, _) = examine(&daemon.place, &["--fix"]);
    assert_eq!(of_check(&findings, "leftover", &daemon.place.prefix), [] as [Value; 0]);
    assert!(object.exists());
    daemon.stop(Signal::SIGTERM);
}

#[test]
fn a_user_who_may_not_connect_or_use_any_channel_is_told_why() {
    if skip_without_root("a_user_who_may_not_connect_or_use_any_channel_is_told_why") {
        return;
    }
    let daemon = Daemon::start("");
    let as_nobody = || {
        let mut command = NOBODY.command(&daemon.place.dir, &program("shmctl"));
        command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(["doctor", "--json"]);
        let run = Run::of(command);
        let report: Value = serde_json::from_str(&run.text()).unwrap_or_else(|e| panic!("{e}: {run:?}"));
        (report["findings"].as_array().unwrap().clone(), run.code)
    };
    let (findings, code) = as_nobody();
    assert_eq!(code, Some(3), "{findings:?}");
    only(&findings, "access", "may use no channel");
    fs::set_permissions(daemon.place.run_dir(), Permissions::from_mode(0o700)).unwrap();
    let (findings, code) = as_nobody();
    assert_eq!(code, Some(3), "{findings:?}");
    let found = only(&findings, "socket", "may not connect");
    assert!(found["cause"].as_str().unwrap().contains("mode 0700"), "{found}");
    fs::set_permissions(daemon.place.run_dir(), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn wrong_usage_says_nothing_on_standard_output() {
    let place = Place::new();
    let mut command = clean(program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", place.run_dir()).args(["doctor", "--cure"]);
    Run::of(command).refused(2, &["--cure"]);
}
