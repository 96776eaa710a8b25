//! Publish times at the prompt.

use std::time::{Duration, SystemTime};

use shm_test_support::Daemon;

const WITH: &str = "[[channel]]\ntimestamps = true\n";

#[test]
fn json_and_templates_show_when_a_message_was_published() {
    let daemon = Daemon::start(WITH);
    daemon.write_lines("one\ntwo\n");
    let text = daemon.cli(&["read", "--from", "oldest", "--until-empty", "--format", "json"]).ok().text();
    let times: Vec<&str> = text.lines().map(|line| line.split("\"time\":\"").nth(1).unwrap()).collect();
    assert!(times.len() == 2 && times.iter().all(|time| time.as_bytes()[29] == b'Z'), "{text}");
    // The same moment as the clock's, by date(1), which reads what is shown.
    let shown =
        daemon.cli(&["read", "--from", "oldest", "-n", "1", "--format", "{time}"]).ok().text().trim().to_owned();
    let seconds = std::process::Command::new("date").args(["--date", &shown, "+%s"]).output().unwrap();
    let seconds: u64 = String::from_utf8(seconds.stdout).unwrap().trim().parse().unwrap();
    let published = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    assert!(SystemTime::now().duration_since(published).unwrap() < Duration::from_secs(3600), "{shown}");
}

#[test]
fn a_reader_may_start_with_the_messages_of_the_last_moments() {
    let daemon = Daemon::start(WITH);
    daemon.write_lines("old\n");
    std::thread::sleep(Duration::from_millis(30));
    let since = std::time::Instant::now();
    daemon.write_lines("new\nnewer\n");
    let read = |time: &str| daemon.cli(&["read", "--since", time, "--until-empty"]).ok().text();
    assert_eq!(read("1h"), "old\nnew\nnewer\n");
    assert_eq!(read("0"), "");
    // On a busy machine the command may start so late that this is long ago.
    let asked = since.elapsed() + Duration::from_millis(10);
    let text = read(&format!("{}ms", asked.as_millis()));
    assert!(["new\nnewer\n", "newer\n", ""].contains(&text.as_str()), "{text}");
}

#[test]
fn a_channel_without_publish_times_says_what_is_missing() {
    let daemon = Daemon::start("");
    daemon.write_lines("one\n");
    let run = daemon.cli(&["read", "--since", "1h"]);
    assert_eq!(run.code, Some(1), "{run:?}");
    assert!(run.err.contains("channel main") && run.err.contains("timestamps = true"), "{}", run.err);
    let text = daemon.cli(&["read", "--from", "oldest", "-n", "1", "--format", "{time} {text}"]).ok().text();
    assert_eq!(text, "- one\n");
    let handoff = Daemon::start("[[channel]]\nmode = \"handoff\"\n");
    let mut write = handoff.spawn_piped(&["write"]);
    write.feed(b"one\ntwo\n");
    let run = handoff.cli(&["read", "--since", "1h"]);
    assert!(run.code == Some(1) && run.err.contains("no publish times"), "{run:?}");
    assert_eq!(handoff.cli(&["read", "-n", "1"]).ok().text(), "one\n", "the refusal takes no message");
}

#[test]
fn stat_and_metrics_show_ages_and_latencies() {
    let daemon = Daemon::start(WITH);
    let mut reader = daemon.reader(shm_proto::Start::New);
    daemon.write_lines("one\ntwo\n");
    reader.recv(Some(shm_test_support::PATIENCE)).unwrap().finish().unwrap();
    drop(reader.batch(0));
    let text = daemon.cli(&["stat"]).ok().text();
    let table = text.split("  latency ").nth(1).unwrap_or_else(|| panic!("{text}"));
    assert!(table.contains("OLDEST UNREAD") && table.contains("P99"), "{text}");
    let metrics = daemon.cli(&["metrics"]).ok().text();
    for name in ["oldest_unread_age_seconds{", "latency_seconds{", "timed_messages_total{"] {
        assert!(metrics.contains(&format!("shmd_reader_{name}")), "{name}: {metrics}");
    }
}
