//! `shmctl bench`: what it says, and what it leaves behind. Nothing here is about how fast anything is.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use shm_test_support::{Daemon, Place, Proc, Run, Schema, clean, heavy, program, shared_memory, wait_until};

/// A bench whose directory for temporary files is the test's own, so that what it leaves can be seen.
fn bench(place: &Place, args: &[&str]) -> Command {
    let mut command = clean(program("shmctl"));
    command.arg("bench").args(args).env("TMPDIR", &place.dir);
    command
}

/// What a bench with this number has left in `/dev/shm` and in its directory.
fn left(place: &Place, pid: u32) -> Vec<PathBuf> {
    let files = fs::read_dir(&place.dir).unwrap().map(|entry| entry.unwrap().path());
    shared_memory(&format!("shmd-bench-{pid}-")).into_iter().chain(files).collect()
}

/// Processes that a bench with this number has started and that still run.
fn followers(pid: u32) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let marks = [format!("bench-worker --parent {pid} "), format!("shmd-bench-{pid}-")];
    lines.filter(|line| marks.iter().any(|mark| line.contains(mark.as_str()))).collect()
}

#[track_caller]
fn assert_nothing_is_left(place: &Place, pid: u32) {
    wait_until("all processes have ended", || followers(pid).is_empty());
    assert_eq!(left(place, pid), Vec::<PathBuf>::new());
}

#[track_caller]
fn document(run: &Run) -> Value {
    let document = serde_json::from_slice(&run.out).unwrap_or_else(|e| panic!("{e}: {run:?}"));
    Schema::of("bench").check(&document);
    document
}

#[test]
fn a_quick_bench_has_figures_for_every_transport_and_leaves_nothing() {
    let _turn = heavy();
    let place = Place::new();
    let proc = Proc::spawn(bench(&place, &["--quick", "--json", "--duration", "3ms"]));
    let pid = proc.pid();
    let run = proc.wait().ok();
    assert_nothing_is_left(&place, pid);

    let document = document(&run);
    let mut schema = Schema::of("bench");
    schema.check(&document);
    // What depends on the machine or on other options.
    let sometimes = ["host.line_ns", "settings.channel", "settings.messages", "settings.cpus"];
    let unseen = schema.unseen();
    assert!(unseen.iter().all(|field| sometimes.contains(&field.as_str())), "{unseen:?}");
    assert_eq!(document["complete"], true, "{run:?}");
    assert_eq!(document["skipped"], Value::Array(Vec::new()));
    for fact in ["date", "cpu_model", "kernel", "barrier", "huge_pages", "version"] {
        assert!(document["host"][fact].as_str().is_some_and(|text| !text.is_empty()), "{fact}: {run:?}");
    }
    let mut carriers: BTreeMap<String, usize> = BTreeMap::new();
    for result in document["results"].as_array().unwrap() {
        let rate = result["messages_per_s"].as_f64().unwrap();
        assert!(rate > 0.0 && result["bytes_per_s"].as_f64().unwrap() > rate, "{result}");
        assert_eq!(result["messages_per_s_of_runs"].as_array().unwrap().len(), 1, "{result}");
        if result["measure"] == "latency" {
            let of = |name: &str| result["latency"][name].as_u64().unwrap();
            let order = [1, of("p50_ns"), of("p90_ns"), of("p99_ns"), of("p99_9_ns")];
            assert!(of("samples") > 0 && order.is_sorted(), "{result}");
        }
        *carriers.entry(result["carrier"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    for carrier in [
        "shmd",
        "pipe",
        "socket",
        "slots",
        "two cache lines",
        "semaphore",
        "shmd, shmctl read",
        "shmctl write, shmctl read",
        "cat",
        "tee, cat",
    ] {
        assert!(carriers.contains_key(carrier), "{carrier} is missing in {carriers:?}");
    }
}

#[test]
fn messages_filled_in_place_and_in_batches_arrive_whole() {
    let _turn = heavy();
    let place = Place::new();
    let sizes = "8,64,100,1KiB,100001";
    for more in [&["--in-place"][..], &[]] {
        let args =
            ["--measure", "throughput", "--sizes", sizes, "--readers", "1,2", "--messages", "2000", "--batch", "1,7"];
        let run = Run::of(bench(&place, &[&args[..], &["--runs", "1"], more].concat())).ok();
        let text = run.text();
        // Every reader has checked every byte. The table has a line for each size, batch and number of readers; sizes over
        // 4 KiB have no batches.
        let lines = text.lines().filter(|line| line.contains("/s")).count();
        assert_eq!(lines, (4 * 2 + 1) * 2, "{text}");
        assert_eq!(text.contains("in place"), !more.is_empty(), "{text}");
    }
}

#[test]
fn a_signal_in_the_middle_leaves_nothing_and_shows_what_there_was() {
    let _turn = heavy();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let place = Place::new();
        let mut proc =
            Proc::spawn(bench(&place, &["--json", "--measure", "throughput", "--duration", "1h", "--readers", "2"]));
        let pid = proc.pid();
        wait_until("the workers are there", || {
            followers(pid).iter().filter(|line| line.trim_end().ends_with(&format!("--parent {pid}"))).count() == 3
        });
        proc.signal(signal);
        let run = proc.wait().ok();
        assert_nothing_is_left(&place, pid);
        assert_eq!(document(&run)["complete"], false, "{run:?}");
    }
}

#[test]
fn workers_and_daemon_do_not_outlive_a_bench_that_is_killed() {
    let _turn = heavy();
    let place = Place::new();
    let proc = Proc::spawn(bench(&place, &["--measure", "throughput", "--duration", "1h"]));
    let pid = proc.pid();
    wait_until("writer, reader and daemon are there", || followers(pid).len() >= 3);
    proc.kill();
    wait_until("all processes have ended", || followers(pid).is_empty());
    assert_eq!(shared_memory(&format!("shmd-bench-{pid}-")), Vec::<PathBuf>::new());
}

#[test]
fn a_channel_of_a_running_daemon_is_measured_through_its_writer_role() {
    let _turn = heavy();
    let daemon = Daemon::start(
        "[[channel]]\nname = \"cam\"\nmax = \"1MiB\"\n[[channel]]\nname = \"lossy\"\non_full = \"drop\"\n[[channel]]\nname = \"acked\"\n\
         ack = true\n[[channel]]\nname = \"hand\"\nmode = \"handoff\"",
    );
    let args = ["bench", "--channel", "cam", "--quick", "--json", "--duration", "3ms", "--sizes", "64,2MiB"];
    let document = document(&daemon.cli(&args).ok());
    assert_eq!(document["settings"]["channel"], "cam");
    let skipped = document["skipped"].to_string();
    assert!(skipped.contains("2MiB") && skipped.contains("takes messages to"), "too large for the channel: {skipped}");
    assert!(skipped.contains("needs a daemon of its own"), "{skipped}");
    let rings = document["results"].as_array().unwrap().iter().filter(|result| result["transport"] == "ring");
    let measures: Vec<_> = rings.map(|result| result["measure"].as_str().unwrap().to_owned()).collect();
    assert!(measures.contains(&"throughput".to_owned()) && measures.contains(&"latency".to_owned()), "{measures:?}");

    let lossy = daemon.cli(&["bench", "--channel", "lossy", "--quick"]);
    lossy.fails(1, &["lossy", "on_full = \"drop\"", "lossless"]);
    daemon.cli(&["bench", "acked", "--quick"]).fails(1, &["channel acked has ack = true"]);
    daemon.cli(&["bench", "hand", "--quick"]).fails(1, &["channel hand is a handoff channel"]);
    daemon.cli(&["bench", "--channel", "nosuch", "--quick"]).fails(1, &["nosuch", "cam"]);
    let mut writer = daemon.spawn_piped(&["write", "--channel", "cam"]);
    writer.feed(b"x\n");
    wait_until("the writer role is taken", || daemon.cli(&["list"]).text().contains("shmctl"));
    daemon.cli(&["bench", "--channel", "cam", "--quick"]).fails(75, &["cam"]);
}

#[test]
fn a_channel_that_is_only_in_the_environment_is_not_flooded() {
    let _turn = heavy();
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"");
    let cpu = shm_bench::host::allowed_cpus()[0].to_string();
    let mut command = daemon.shmctl(&[
        "bench",
        "--quick",
        "--json",
        "--alone",
        "--measure",
        "latency",
        "--messages",
        "3",
        "--cpu",
        &cpu,
    ]);
    command.env("SHMD_CHANNEL", "cam");
    let document = document(&Run::of(command).ok());
    assert_eq!(
        (&document["settings"]["messages"], &document["settings"]["cpus"][0]),
        (&3.into(), &cpu.parse::<u64>().unwrap().into())
    );
    assert!(document["settings"]["channel"].is_null() && document["complete"] == true);
    assert_eq!(daemon.stat().messages, 0);
}
