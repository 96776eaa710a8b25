//! Creating and removing channels from the shell, as root or the daemon's user and as others. The numbers of users need no entry in
//! any user database.

use nix::sys::signal::Signal;

use crate::helpers;
use shm_test_support::{Daemon, Place, Run, Setup, User, clean, program, skip, skip_without_root, wait_until};

/// May create channels, by name, or by its group.
const ALICE: User = User { uid: 62_101, gid: 62_001 };
const BOB: User = User { uid: 62_102, gid: 62_002 };
/// May not.
const STRANGER: User = User { uid: 62_103, gid: 62_003 };

/// A daemon with a state directory of its own.
fn daemon(config: &str) -> Daemon {
    let place = Place::new();
    let config = format!("state_dir = {:?}\n{config}", place.path("state"));
    Setup::new(&config).start_in(place)
}

/// A daemon that lets some create channels.
fn open_daemon(rules: &str) -> Daemon {
    daemon(&format!("create = [\"{}\", \"@{}\"]\n{rules}\n[[channel]]\nname = \"main\"\n", ALICE.uid, BOB.gid))
}

#[track_caller]
fn cli_as(user: User, daemon: &Daemon, args: &[&str]) -> Run {
    let mut command = user.command(&daemon.place.dir, &program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(args);
    Run::of(command)
}

#[test]
fn a_channel_is_created_used_shown_and_removed() {
    let daemon = daemon("");
    daemon
        .cli(&["create", "cam", "--max", "4MiB", "--capacity", "128KiB", "--on-full", "drop", "--set", "align=64"])
        .prints("cam: created, 128KiB (max 4MiB), until the daemon is stopped\n");
    daemon.cli_with_input(&["write", "cam"], b"hello\n").quiet();
    daemon.cli(&["read", "cam", "--from", "oldest", "-n", "1"]).prints("hello\n");
    let stat = daemon.cli(&["stat", "cam"]).quiet().text();
    assert!(stat.contains("cam  ring, on full: drop\n  created   by ") && stat.contains("aligned to 64"), "{stat}");
    let list = daemon.cli(&["list"]).quiet().text();
    assert!(list.contains("ORIGIN") && list.contains("configuration"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&daemon.cli(&["list", "cam", "--json"]).quiet().text()).unwrap();
    assert_eq!(json[0]["created"]["kept"], false);
    daemon.cli(&["metrics"]).ok();
    let found = daemon.cli(&["doctor", "--json"]).text();
    assert!(!found.contains("channel cam"), "{found}");
    let mut reader = daemon.spawn(&["read", "cam", "--from", "oldest"]);
    reader.until_out_has("hello");
    daemon.cli(&["remove", "cam"]).prints("cam: removed\n");
    reader.wait().ok();
    assert!(!daemon.cli(&["list"]).quiet().text().contains("ORIGIN"));
    daemon.cli(&["remove", "cam"]).refused(1, &["no channel named cam"]);
    let log = daemon.cli(&["log"]).quiet().text();
    for part in ["event=create channel=cam ", "kept=false", "event=remove channel=cam reason=\"user "] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

#[test]
fn a_kept_channel_is_there_again_after_a_stop() {
    let mut daemon = daemon("");
    let json = daemon.cli(&["create", "cam", "--keep", "--json", "--max=1MiB"]).quiet().text();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({"channel": "cam", "capacity": 1 << 20, "max": 1 << 20, "kept": true});
    assert_eq!(json, expected);
    daemon.cli(&["create", "-c", "gone"]).quiet();
    daemon.stop(Signal::SIGTERM);
    let config = std::fs::read_to_string(daemon.place.path("shmd.toml")).unwrap();
    daemon.launch(Setup::new(&config));
    let list = daemon.cli(&["list"]).quiet().text();
    assert!(list.contains("cam") && list.contains(", kept") && !list.contains("gone"), "{list}");
    daemon.cli(&["remove", "cam"]).quiet();
}

#[test]
fn a_mistake_on_the_command_line_ends_with_2_and_the_daemons_word_for_it() {
    let daemon = daemon("");
    for (args, parts) in [
        (&["create", "x", "--max", "1TiB"][..], &["channel x: key max: \"1TiB\" is not a size", "64KiB"][..]),
        (&["create", "x", "--min", "2MiB", "--max", "1MiB"], &["key min: min 2MiB is more than max 1MiB (key max)"]),
        (&["create", "x", "--set", "colour=red"], &["unknown key \"colour\"; known are name, capacity"]),
        (&["create", "x", "--set", "align"], &["KEY=VALUE"]),
        (&["create", "x", "--max", "1MiB", "--set", "max=2MiB"], &["key max is given twice"]),
        (&["create", "a/b"], &["a/b"]),
        (&["create"], &["name the channel: shmctl create CHANNEL"]),
        (&["remove"], &["name the channel: shmctl remove CHANNEL"]),
    ] {
        daemon.cli(args).refused(2, parts);
    }
    daemon.cli(&["create", "main"]).refused(1, &["channel main: it is there already"]);
    daemon.cli(&["remove", "main"]).refused(1, &["channel main", "shmctl reload"]);
    // One that is only usual is not meant.
    let mut usual = daemon.shmctl(&["create"]);
    Run::of(usual.env("SHMD_CHANNEL", "x")).refused(2, &["name the channel"]);
    assert_eq!(daemon.cli(&["list"]).quiet().text().lines().count(), 2);
}

#[test]
fn only_those_whom_the_configuration_names_create_channels_and_what_they_create_is_theirs() {
    if skip_without_root("only_those_whom_the_configuration_names_create_channels_and_what_they_create_is_theirs") {
        return;
    }
    let closed = daemon("");
    let user = format!("user {}", ALICE.uid);
    cli_as(ALICE, &closed, &["create", "cam"])
        .refused(77, &["channel cam", &user, "may not create channels", "create = [...]"]);
    drop(closed);

    let daemon = open_daemon("");
    cli_as(STRANGER, &daemon, &["create", "cam"]).refused(77, &["may not create channels"]);
    cli_as(ALICE, &daemon, &["create", "cam", "--read", &BOB.uid.to_string()]).quiet();
    cli_as(BOB, &daemon, &["create", "imu"]).quiet();
    let json = |user| -> serde_json::Value {
        serde_json::from_str(&cli_as(user, &daemon, &["list", "--json"]).quiet().text()).unwrap()
    };
    let alices = json(ALICE);
    assert_eq!((&alices[0]["channel"], alices.as_array().unwrap().len()), (&"cam".into(), 1), "{alices}");
    assert_eq!(alices[0]["allowed"], serde_json::json!(["read", "write", "admin"]));
    assert_eq!(alices[0]["created"]["user"], ALICE.uid.to_string());
    let bobs = json(BOB);
    assert_eq!(bobs[0]["allowed"], serde_json::json!(["read"]), "{bobs}");
    let mut writer = ALICE.command(&daemon.place.dir, &program("shmctl"));
    writer.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(["write", "cam"]);
    std::fs::write(daemon.place.path("input"), "from alice\n").unwrap();
    Run::of(writer.stdin(std::fs::File::open(daemon.place.path("input")).unwrap())).quiet();
    cli_as(BOB, &daemon, &["read", "cam", "--from", "oldest", "-n", "1"]).prints("from alice\n");
    cli_as(ALICE, &daemon, &["resize", "cam", "2MiB"]).quiet();
    cli_as(BOB, &daemon, &["remove", "cam"]).refused(77, &["may not administer"]);
    cli_as(STRANGER, &daemon, &["remove", "cam"]).refused(77, &["may not administer"]);
    cli_as(ALICE, &daemon, &["remove", "main"]).refused(77, &["may not administer"]);
    cli_as(ALICE, &daemon, &["remove", "cam"]).quiet();
    daemon.cli(&["remove", "imu"]).quiet();
}

#[test]
fn the_daemons_rights_do_not_become_those_of_a_user_who_creates_a_channel() {
    if skip_without_root("the_daemons_rights_do_not_become_those_of_a_user_who_creates_a_channel") {
        return;
    }
    let daemon = open_daemon("");
    let made = daemon.place.path("made");
    let exec = format!("source=exec:touch {}", made.display());
    for set in [&exec, "source=tail:/etc/shadow", "source=fifo:/run/x", "source=unix:/run/x", "mode=handoff"] {
        let refused = cli_as(ALICE, &daemon, &["create", "cam", "--set", set]);
        refused.refused(2, &["only root and the daemon's own user"]);
    }
    assert!(!made.exists());
    cli_as(ALICE, &daemon, &["create", "cam", "--set", "segment=/x"]).refused(2, &["mode = \"handoff\""]);
    let group = STRANGER.gid.to_string();
    cli_as(ALICE, &daemon, &["create", "cam", "--group", &group]).refused(77, &["not in group", &group]);
    let own = ALICE.gid.to_string();
    cli_as(ALICE, &daemon, &["create", "cam", "--group", &own, "--set", "permissions=0640"]).quiet();
    let object = std::fs::metadata(daemon.place.object("cam")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::gid(&object), ALICE.gid);
}

#[test]
fn what_users_create_is_limited_in_all_and_for_each_and_a_refusal_has_the_numbers() {
    if skip_without_root("what_users_create_is_limited_in_all_and_for_each_and_a_refusal_has_the_numbers") {
        return;
    }
    let daemon = open_daemon("max_created = 4\nmax_created_memory = \"4MiB\"\n");
    let create = |user, name: &str, max: &str| cli_as(user, &daemon, &["create", name, "--max", max]);
    let memory = ["it may take 3MiB", "0 already", "2MiB (half of max_created_memory = 4MiB)"];
    create(ALICE, "a1", "3MiB").refused(1, &memory);
    create(ALICE, "a1", "1MiB").quiet();
    create(ALICE, "a2", "1MiB").quiet();
    create(ALICE, "a3", "4KiB").refused(75, &["has created 2 channels", "may have 2 (half of max_created = 4)"]);
    create(BOB, "b1", "2MiB").quiet();
    create(BOB, "b2", "4KiB").refused(1, &["2MiB already"]);
    cli_as(BOB, &daemon, &["remove", "b1"]).quiet();
    create(BOB, "b1", "4KiB").quiet();
    // The limits are those of users.
    daemon.cli(&["create", "r1", "--max", "8MiB"]).quiet();
    let config = std::fs::read_to_string(daemon.place.path("shmd.toml")).unwrap();
    std::fs::write(daemon.place.path("shmd.toml"), config.replace("max_created = 4", "max_created = 3")).unwrap();
    daemon.cli(&["reload"]).ok();
    create(BOB, "b2", "4KiB").refused(75, &["users have created 3 channels", "max_created = 3"]);
}

#[test]
fn a_user_who_creates_channels_too_often_has_to_wait() {
    if skip_without_root("a_user_who_creates_channels_too_often_has_to_wait") {
        return;
    }
    let daemon = open_daemon("");
    // A channel that is there already is as much work for the daemon to refuse.
    let line = "{\"v\":1,\"op\":\"create\",\"channel\":\"main\"}";
    let said = helpers::start_as(ALICE, &daemon, "ask", &[line, "100"]).wait().ok().err;
    assert!(said.contains("it is there already"), "{said}");
    assert!(said.contains("creates channels too often: one user may 20 times at once, and once a second"), "{said}");
    assert!(said.contains("\"kind\":\"try_later\"") && said.contains("\"retry_after_ms\":"), "{said}");
    // Others do not wait for that.
    cli_as(BOB, &daemon, &["create", "imu"]).quiet();
    daemon.cli(&["create", "cam"]).quiet();
}

#[test]
fn one_user_has_at_most_half_of_the_channels_that_are_created_at_the_same_time() {
    if skip_without_root("one_user_has_at_most_half_of_the_channels_that_are_created_at_the_same_time") {
        return;
    }
    let daemon = open_daemon("");
    // The daemon waits for five seconds until an empty object with the name of a channel is either removed or in use.
    let names = ["x0", "x1", "x2", "x3", "x4"];
    let objects = names.map(|name| daemon.place.object(name));
    let _open = objects.each_ref().map(|object| std::fs::File::create(object).unwrap());
    // So small that the limits on memory are not what refuses them.
    let create = |name: &str| cli_as(ALICE, &daemon, &["create", name, "--max", "1MiB"]).err;
    wait_until("one of five at the same time is refused", || {
        std::thread::scope(|scope| {
            let asked = names.map(|name| scope.spawn(move || create(name)));
            let told = asked.map(|one| one.join().unwrap());
            told.iter().any(|told| told.contains("creating 4 channels for user 62101, the most for one user"))
        })
    });
    objects.iter().for_each(|object| std::fs::remove_file(object).unwrap());
}

#[test]
fn a_kept_channel_that_cannot_be_made_again_is_still_its_creators() {
    if skip_without_root("a_kept_channel_that_cannot_be_made_again_is_still_its_creators") {
        return;
    }
    let mut daemon = open_daemon("");
    cli_as(ALICE, &daemon, &["create", "cam", "--keep", "--max", "1MiB"]).quiet();
    daemon.stop(Signal::SIGTERM);
    std::fs::write(daemon.place.object("cam"), "somebody's").unwrap();
    let config = std::fs::read_to_string(daemon.place.path("shmd.toml")).unwrap();
    daemon.launch(Setup::new(&config));
    daemon.until_log("event=create-failed channel=cam");
    std::fs::remove_file(daemon.place.object("cam")).unwrap();
    let user = format!("user {} has created it", ALICE.uid);
    let file = daemon.place.path("state").join(&daemon.place.prefix).join("cam.toml");
    cli_as(BOB, &daemon, &["create", "cam"]).refused(1, &["channel cam", &user, &file.display().to_string()]);
    assert!(file.exists());
    cli_as(ALICE, &daemon, &["create", "cam", "--keep", "--max", "2MiB"]).quiet();
    assert!(std::fs::read_to_string(&file).unwrap().contains("2MiB"));
}

#[test]
fn a_full_state_directory_refuses_what_is_to_be_kept_and_nothing_else() {
    const TEST: &str = "a_full_state_directory_refuses_what_is_to_be_kept_and_nothing_else";
    let place = Place::new();
    let state = place.path("state");
    std::fs::create_dir(&state).unwrap();
    let mount =
        format!("mount -t tmpfs -o size=16k,mode=700 tmpfs {0}\nhead -c 16384 /dev/zero > {0}/filler", state.display());
    let mut probe = clean("unshare");
    probe.args(["--mount", "sh", "-ec", &mount]);
    let probe = Run::of(probe);
    if probe.code != Some(0) {
        return skip(TEST, &format!("a private mount of a small tmpfs is not permitted here: {}", probe.err.trim()));
    }
    let setup = Setup::new(&format!("state_dir = {state:?}\n")).after_private_mounts(&mount);
    let daemon = setup.start_in(place);
    // As the daemon sees it.
    let state = std::path::PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), state.display()));
    let kept = state.join(&daemon.place.prefix);
    daemon.cli(&["create", "cam", "--keep"]).refused(1, &["channel cam: its file in", "No space left on device"]);
    assert!(!daemon.place.object("cam").exists());
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
    daemon.cli(&["create", "cam"]).quiet();
    daemon.cli(&["remove", "cam"]).quiet();
    std::fs::remove_file(state.join("filler")).unwrap();
    daemon.cli(&["create", "cam", "--keep"]).quiet();
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 1);
    daemon.cli(&["remove", "cam"]).quiet();
    assert_eq!(std::fs::read_dir(&kept).unwrap().count(), 0);
}

#[test]
fn the_log_of_a_removed_channel_is_not_shown_to_who_creates_the_next_one_of_its_name() {
    if skip_without_root("the_log_of_a_removed_channel_is_not_shown_to_who_creates_the_next_one_of_its_name") {
        return;
    }
    let daemon = open_daemon("");
    cli_as(ALICE, &daemon, &["create", "cam", "--max", "1MiB"]).ok();
    let reader = daemon.spawn(&["read", "cam"]);
    wait_until("the reader is attached", || daemon.cli(&["log"]).text().contains("event=attach channel=cam"));
    cli_as(ALICE, &daemon, &["remove", "cam"]).ok();
    reader.wait();
    wait_until("the reader is gone", || daemon.cli(&["log"]).text().contains("event=remove channel=cam"));
    cli_as(BOB, &daemon, &["create", "cam", "--max", "1MiB"]).ok();
    let log = cli_as(BOB, &daemon, &["log", "cam"]).quiet().text();
    assert!(log.contains("event=create channel=cam") && log.lines().count() == 1, "{log}");
    let all = daemon.cli(&["log", "cam"]).quiet().text();
    assert!(all.contains("event=attach channel=cam") && all.matches("event=create channel=cam").count() == 2, "{all}");
}
