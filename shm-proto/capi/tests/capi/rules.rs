//! What the header promises beside streams. The programs check it; see `tests/rules.c` and `tests/peer.cpp`.

use shm_test_support::Daemon;

use crate::kit;

#[test]
fn misuse_is_an_error_and_no_crash() {
    let Some(c) = kit::c() else { return };
    c.run(&Daemon::start(""), &["misuse"]).quiet();
}

#[test]
fn a_child_cannot_use_its_parents_handles_and_attaches_by_itself() {
    let Some(c) = kit::c() else { return };
    c.run(&Daemon::start(""), &["fork"]).quiet();
}

#[test]
fn another_thread_ends_a_writers_wait() {
    let Some(c) = kit::c() else { return };
    let daemon = Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"0\"\n");
    c.run(&daemon, &["interrupt"]).quiet();
}

#[test]
fn messages_have_their_publish_times_where_the_channel_has_them() {
    let Some(c) = kit::c() else { return };
    c.run(&Daemon::start("[[channel]]\ntimestamps = true\n"), &["times"]).quiet();
    c.run(&Daemon::start(""), &["no-times"]).quiet();
}

#[test]
fn programs_in_c_and_cpp_state_what_they_expect_and_are_refused_with_both_names() {
    let config = "[[channel]]\nname = \"frames\"\ncontent = \"protobuf\"\nschema = \"telemetry.Frame\"\n\
                  schema_encoding = \"proto3\"\nschema_text = \"message Frame {}\"\n[[channel]]\nname = \"plain\"\n";
    let daemon = Daemon::start(config);
    if let Some(c) = kit::c() {
        c.run(&daemon, &["content"]).quiet();
    }
    if let Some(cpp) = kit::cpp() {
        cpp.run(&daemon, &["content"]).quiet();
    }
}

#[test]
fn a_reader_waits_as_it_is_told_and_says_how() {
    let Some(c) = kit::c() else { return };
    c.run(&Daemon::start(""), &["waits"]).quiet();
    c.run(&Daemon::start("[[channel]]\nmode = \"handoff\"\n"), &["waits-handoff"]).quiet();
}

#[test]
fn the_daemon_answers_programs_in_c() {
    let Some(c) = kit::c() else { return };
    let config =
        "[[channel]]\nname = \"main\"\ncapacity = \"128KiB\"\n[[channel]]\nname = \"pairs\"\nmode = \"handoff\"\n";
    let daemon = Daemon::start(config);
    let run = c.run(&daemon, &["ask"]).quiet();
    let text = run.text();
    let (names, json) = text.split_at(text.find('[').unwrap());
    assert_eq!(names, "main\npairs\n");
    assert!(json.contains("\"channel\":\"main\"") && json.contains("\"mode\":\"handoff\""), "{json}");
}

#[test]
fn the_rules_of_the_layer_in_cpp_hold() {
    let Some(cpp) = kit::cpp() else { return };
    cpp.run(&Daemon::start(""), &["rules"]).quiet();
}
