//! `shmctl log` against a real daemon, and what ends a follower.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use shm_test_support::{Daemon, Proc, program};

#[test]
fn a_follower_ends_quietly_when_its_output_is_closed_though_nothing_more_happens() {
    let daemon = Daemon::start("");
    let mut pipeline = shm_test_support::clean("sh");
    pipeline.arg("-c").arg("\"$0\" log --follow | head -n 1; echo \"end\"").arg(program("shmctl"));
    pipeline.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).stdin(Stdio::null());
    let run = Proc::spawn(pipeline).wait().quiet();
    let text = run.text();
    assert!(text.contains("event=start") && text.ends_with("end\n") && text.lines().count() == 2, "{text}");
}

#[test]
fn a_follower_sees_the_stop_and_then_ends_with_69_naming_the_daemon() {
    let mut daemon = Daemon::start("");
    let mut follower = daemon.spawn(&["log", "--follow"]);
    follower.until_out_has("event=ready");
    daemon.stop(Signal::SIGTERM);
    let run = follower.wait().fails(69, &["no daemon at ", "shmd.sock: it has ended"]);
    assert!(run.text().contains("event=stop"), "{run:?}");

    let mut daemon = Daemon::start("");
    let mut follower = daemon.spawn(&["log", "--follow", "-n", "1"]);
    follower.until_out_has("event=ready");
    daemon.kill();
    follower.wait().fails(69, &["no daemon at "]);
}

#[test]
fn a_follower_of_a_channel_that_is_not_there_says_so_and_waits_for_it() {
    let daemon = Daemon::start("");
    let mut follower = daemon.spawn(&["log", "--follow", "cam"]);
    follower.until_err_has("no channel named cam; channels: main; waiting for the channel's first operation");
    daemon.cli(&["create", "cam"]).ok();
    follower.until_out_has("event=create channel=cam");
    daemon.cli(&["remove", "cam"]).ok();
    // What has been is shown though the channel is gone.
    let text = daemon.cli(&["log", "cam"]).quiet().text();
    assert!(text.contains("event=create channel=cam"), "{text}");
    follower.signal(Signal::SIGINT);
    follower.wait().ok();
}

#[test]
fn lines_and_json_tell_the_same_and_a_channel_may_be_chosen() {
    let daemon = Daemon::start("[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n");
    let mut follower = daemon.spawn(&["log", "--follow", "--json", "--channel", "b", "-n", "1"]);
    follower.until_out_has("\"create\"");
    let reading = |channel: &str| daemon.spawn(&["read", "--channel", channel, "--timeout", "10ms"]).wait();
    reading("a").fails(75, &[]);
    reading("b").fails(75, &[]);
    follower.until_out_has("\"detach\"");
    follower.signal(Signal::SIGINT);
    let text = follower.wait().quiet().text();
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = entries.iter().map(|entry| entry["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["create", "attach", "detach"]);
    assert!(entries.iter().all(|entry| entry["channel"] == "b"), "{text}");
    let lines = daemon.cli(&["log", "--channel", "b"]).quiet().text();
    assert_eq!(lines.lines().count(), 3);
    for (line, entry) in lines.lines().zip(&entries) {
        assert!(line.contains(&format!("event={}", entry["event"].as_str().unwrap())), "{line}");
        assert!(line.contains(&format!(" {} info ", entry["seq"])), "{line}");
    }
}
