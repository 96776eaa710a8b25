//! What a channel declares about its messages, from the shell.

use shm_test_support::{Daemon, Run, User, program, skip_without_root};

const FRAMES: &str = "[[channel]]\nname = \"frames\"\ncontent = \"protobuf\"\nschema = \"telemetry.Frame\"\n\
                      schema_encoding = \"proto3\"\nschema_text = \"message Frame {}\"\n\
                      [[channel]]\nname = \"plain\"\n";

#[test]
fn content_is_shown_and_who_expects_something_else_is_refused_with_both_names() {
    let daemon = Daemon::start(FRAMES);
    let list = daemon.cli(&["list"]).quiet().text();
    assert!(list.contains("CONTENT") && list.contains("protobuf:telemetry.Frame"), "{list}");
    let stat = daemon.cli(&["stat", "frames"]).quiet().text();
    assert!(stat.contains("  content   protobuf:telemetry.Frame, 16 bytes of proto3\n"), "{stat}");
    let json: serde_json::Value = serde_json::from_str(&daemon.cli(&["list", "--json"]).quiet().text()).unwrap();
    assert_eq!((&json[0]["content"]["schema"]["bytes"], &json[1]["content"]), (&16.into(), &serde_json::Value::Null));

    daemon.cli_with_input(&["write", "frames", "--expect", "protobuf"], b"hello\n").quiet();
    let read = ["read", "frames", "--from", "oldest", "-n", "1", "--expect"];
    for fits in ["protobuf", "protobuf:telemetry.Frame"] {
        daemon.cli(&[&read[..], &[fits]].concat()).prints("hello\n");
    }
    for args in [&["read"][..], &["read", "--follow"], &["write"], &["write", "--follow"]] {
        let parts = ["channel frames: its content is protobuf:telemetry.Frame, and the program expects json"];
        daemon.cli(&[args, &["frames", "--expect", "json"]].concat()).refused(1, &parts);
        let parts = ["channel plain: it declares no content, and the program expects json:a"];
        daemon.cli(&[args, &["plain", "--expect", "json:a"]].concat()).refused(1, &parts);
        daemon
            .cli(&[args, &["frames", "--expect", "js on"]].concat())
            .refused(2, &["js on", "not the name of an encoding"]);
    }
    daemon.cli(&["stat", "frames", "--schema"]).prints("message Frame {}");
    daemon.cli(&["stat", "plain", "--schema"]).refused(1, &["channel plain declares no schema text"]);
    daemon.cli(&["stat", "--schema"]).refused(1, &["several channels"]);
}

#[test]
fn a_channel_is_created_with_content_and_a_schema_of_the_users_own_file() {
    if skip_without_root("a_channel_is_created_with_content_and_a_schema_of_the_users_own_file") {
        return;
    }
    let user = User { uid: 62_201, gid: 62_201 };
    let daemon = Daemon::start(&format!("create = [\"{}\"]\n[[channel]]\nname = \"main\"\n", user.uid));
    let cli = |args: &[&str]| {
        let mut command = user.command(&daemon.place.dir, &program("shmctl"));
        command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(args);
        Run::of(command)
    };
    let file = daemon.place.path("schema");
    let text = "message Frame {\n  // \"quoted\", \\ and \u{e9}\n}\n".repeat(900);
    std::fs::write(&file, &text).unwrap();
    let path = file.to_str().unwrap();
    let create =
        ["create", "cam", "--content", "protobuf", "--schema", "Frame", "--schema-encoding", "proto3", "--schema-file"];
    cli(&[&create[..], &[path]].concat()).quiet();
    cli(&["stat", "cam", "--schema"]).prints(&text);
    cli(&["read", "cam", "--expect", "protobuf:Frame", "--until-empty"]).quiet();
    cli(&["remove", "cam"]).quiet();
    // The daemon reads no file for a user.
    cli(&["create", "cam", "--content", "p", "--schema", "F", "--set", "schema_file=/etc/shadow"])
        .refused(2, &["only root and the daemon's own user may name a file"]);
    std::fs::write(&file, "x".repeat(50_000)).unwrap();
    cli(&[&create[..], &[path]].concat()).refused(2, &["50000 bytes", "at most 49152"]);
    cli(&[&create[..], &["/nonexistent"]].concat()).refused(2, &["--schema-file /nonexistent: No such file"]);
    cli(&["create", "cam", "--schema", "F"]).refused(2, &["key schema: a schema needs content"]);
}
