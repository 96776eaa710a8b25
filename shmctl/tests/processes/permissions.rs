//! Who may do what, tried as real other users. The numbers need no entry in any user database.

use std::process::Stdio;

use shm_proto::Start;

use crate::helpers;
use shm_test_support::{Daemon, PATIENCE, Proc, Run, User, program, skip_without_root};

const GROUP: u32 = 61_001;
/// In the channel's group.
const MEMBER: User = User { uid: 61_101, gid: GROUP };
/// In no list and no group.
const STRANGER: User = User { uid: 61_102, gid: 61_002 };
/// May write.
const WRITER: User = User { uid: 61_103, gid: 61_003 };
/// May read by number, without being in the group.
const LISTED: User = User { uid: 61_104, gid: 61_004 };
/// In a group that may administer.
const ADMIN: User = User { uid: 61_105, gid: 61_005 };

fn daemon() -> Daemon {
    Daemon::start(&format!(
        "[[channel]]\ngroup = \"{GROUP}\"\npermissions = \"0640\"\nread = [\"{}\"]\nwrite = [\"{}\"]\nadmin = [\"@{}\"]\n",
        LISTED.uid, WRITER.uid, ADMIN.gid
    ))
}

/// `shmctl` run by somebody else, with this on its standard input.
#[track_caller]
fn cli_as(user: User, daemon: &Daemon, args: &[&str], input: &str) -> Run {
    let file = daemon.place.path("input");
    std::fs::write(&file, input).unwrap();
    let mut command = user.command(&daemon.place.dir, &program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(args).stdin(std::fs::File::open(&file).unwrap());
    Run::of(command)
}

#[test]
fn a_user_without_a_channel_has_an_empty_list_and_no_log_of_a_channel() {
    if skip_without_root("a_user_without_a_channel_has_an_empty_list_and_no_log_of_a_channel") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\n[[channel]]\nname = \"imu\"\n");
    cli_as(STRANGER, &daemon, &["log", "gps"], "").fails(1, &["no channel named gps"]);
    cli_as(STRANGER, &daemon, &["log", "cam"], "").fails(77, &["channel cam: user", "may not read it"]);
    // Nobody can read the note; the list is still there.
    for command in ["list", "stat"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let mut run = STRANGER.command(&daemon.place.dir, &program("shmctl"));
        run.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).arg(command).stdout(Stdio::null()).stderr(full);
        assert_eq!(Proc::spawn_untouched(run).wait().code, Some(0), "{command}");
    }
}

#[test]
fn a_reader_of_another_user_cannot_write_truncate_or_map_the_segment_writable() {
    if skip_without_root("a_reader_of_another_user_cannot_write_truncate_or_map_the_segment_writable") {
        return;
    }
    let daemon = daemon();
    daemon.write_lines("before\n");
    let object = daemon.place.object("main");
    let length = std::fs::metadata(&object).unwrap().len();
    let mut intruder = helpers::start_as(MEMBER, &daemon, "intrude", &[object.to_str().unwrap()]);
    intruder.until_err_has("tried everything");
    let said = intruder.err_so_far();
    assert!(!said.contains("ALLOWED"), "{said}");
    assert_eq!(said.matches("denied: ").count(), 27, "{said}");

    assert_eq!(std::fs::metadata(&object).unwrap().len(), length);
    let mut reader = daemon.reader(Start::Oldest);
    daemon.write_lines("after\n");
    // While it has the segment open and mapped, a writer that is killed in the middle of a message makes way for the next, and the size changes.
    let mut holder = helpers::start(&daemon, "hold", &["half"]);
    holder.until_err_has("holding");
    holder.kill();
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    daemon.write_lines("and on\n");
    daemon.cli(&["resize", "--bytes", "2MiB"]).quiet();
    let mut text = Vec::new();
    for wanted in ["before", "after", "from the holder", "and on"] {
        reader.recv_into(&mut text, Some(PATIENCE)).unwrap();
        assert_eq!(text, wanted.as_bytes());
    }
    intruder.kill();
}

#[test]
fn the_segment_has_exactly_the_mode_and_group_of_its_channel() {
    use std::os::unix::fs::MetadataExt;
    if skip_without_root("the_segment_has_exactly_the_mode_and_group_of_its_channel") {
        return;
    }
    let daemon = daemon();
    let meta = std::fs::metadata(daemon.place.object("main")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.gid(), meta.uid()), (0o640, GROUP, 0));
}

#[test]
fn who_is_outside_the_group_can_neither_attach_nor_open_the_object() {
    if skip_without_root("who_is_outside_the_group_can_neither_attach_nor_open_the_object") {
        return;
    }
    let daemon = daemon();
    daemon.write_lines("secret\n");
    let user = format!("user {}", STRANGER.uid);
    cli_as(STRANGER, &daemon, &["read", "--from", "oldest", "-n", "1"], "")
        .fails(77, &["channel main", &user, "may not read", "read list"]);
    cli_as(STRANGER, &daemon, &["write"], "x\n").fails(77, &[&user, "may not write", "write list"]);
    cli_as(STRANGER, &daemon, &["resize", "--bytes", "2MiB"], "").fails(77, &[&user, "may not administer"]);
    cli_as(STRANGER, &daemon, &["stat", "--channel", "main"], "").fails(77, &[&user]);
    let list = cli_as(STRANGER, &daemon, &["list", "--json"], "").ok();
    assert_eq!(list.text(), "[]\n", "what one may not touch is not shown");
    assert!(list.err.contains("no channel here that this user may"), "{list:?}");

    let mut cat = STRANGER.command(&daemon.place.dir, "cat".as_ref());
    cat.arg(daemon.place.object("main"));
    Run::of(cat).fails(1, &["Permission denied"]);
    assert_eq!(daemon.stat().messages, 1);
}

#[test]
fn members_of_the_group_and_listed_users_may_read_and_nothing_else() {
    if skip_without_root("members_of_the_group_and_listed_users_may_read_and_nothing_else") {
        return;
    }
    let daemon = daemon();
    daemon.write_lines("hello\n");
    for user in [MEMBER, LISTED] {
        let run = cli_as(user, &daemon, &["read", "--from", "oldest", "-n", "1"], "").quiet();
        assert_eq!(run.text(), "hello\n");
        cli_as(user, &daemon, &["write"], "x\n").fails(77, &["may not write"]);
        cli_as(user, &daemon, &["resize", "--bytes", "2MiB"], "").fails(77, &["may not administer"]);
        cli_as(user, &daemon, &["evict", "--reader", "1"], "").fails(77, &["may not administer"]);
        let list: serde_json::Value =
            serde_json::from_str(&cli_as(user, &daemon, &["list", "--json"], "").quiet().text()).unwrap();
        assert_eq!(list[0]["allowed"], serde_json::json!(["read"]));
    }
    assert_eq!((daemon.stat().messages, daemon.stat().capacity), (1, 1 << 20));
}

#[test]
fn who_is_listed_for_writing_or_administering_may_do_that_and_nothing_else() {
    if skip_without_root("who_is_listed_for_writing_or_administering_may_do_that_and_nothing_else") {
        return;
    }
    let daemon = daemon();
    cli_as(WRITER, &daemon, &["write"], "from another user\n").quiet();
    cli_as(WRITER, &daemon, &["read"], "").fails(77, &["may not read"]);
    cli_as(WRITER, &daemon, &["resize", "--bytes", "2MiB"], "").fails(77, &["may not administer"]);
    cli_as(ADMIN, &daemon, &["resize", "--bytes", "2MiB"], "").quiet();
    cli_as(ADMIN, &daemon, &["write"], "x\n").fails(77, &["may not write"]);
    let stat = daemon.stat();
    assert_eq!((stat.messages, stat.capacity), (1, 2 << 20));
}

#[test]
fn nobody_but_root_and_the_daemons_user_replaces_its_program() {
    if skip_without_root("nobody_but_root_and_the_daemons_user_replaces_its_program") {
        return;
    }
    let daemon = daemon();
    cli_as(MEMBER, &daemon, &["reexec"], "").refused(77, &["may not replace the daemon's program"]);
    assert!(!daemon.log().contains("event=reexec"), "{}", daemon.log());
    let pid = daemon.pid();
    let done = daemon.cli(&["reexec"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.text().ends_with(&format!(", pid {pid}\n")), "{done:?}");
}

#[test]
fn a_daemon_of_another_user_serves_that_user_and_root_alone() {
    if skip_without_root("a_daemon_of_another_user_serves_that_user_and_root_alone") {
        return;
    }
    let place = shm_test_support::Place::new();
    std::fs::write(place.path("shmd.toml"), "").unwrap();
    // Its runtime directory is made by the daemon below one that the user owns.
    let home = place.path("home");
    std::fs::create_dir(&home).unwrap();
    std::os::unix::fs::chown(&home, Some(MEMBER.uid), Some(MEMBER.gid)).unwrap();
    let mut command = MEMBER.command(&place.dir, &program("shmd"));
    command.arg("--config").arg(place.path("shmd.toml")).args(["--prefix", &place.prefix]);
    command.arg("--runtime-dir").arg(home.join("run"));
    let mut daemon = shm_test_support::Proc::spawn(command);
    daemon.until_err_has("event=ready");
    let shmctl_as = |user: Option<User>, args: &[&str]| {
        let mut command = user.map_or_else(
            || shm_test_support::clean(program("shmctl")),
            |user| user.command(&place.dir, &program("shmctl")),
        );
        command.env("SHMD_RUNTIME_DIR", home.join("run")).args(args);
        Run::of(command)
    };
    shmctl_as(Some(MEMBER), &["resize", "--bytes", "2MiB"]).quiet();
    shmctl_as(None, &["resize", "--bytes", "3MiB"]).quiet();
    shmctl_as(Some(STRANGER), &["list"]).fails(77, &["Permission denied"]);
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    daemon.wait().ok();
    assert!(place.leftovers().is_empty() && !home.join("run").exists());
}

#[test]
fn a_handoff_channel_whose_objects_keep_a_reader_out_is_not_listed_as_readable_and_says_why() {
    if skip_without_root("a_handoff_channel_whose_objects_keep_a_reader_out_is_not_listed_as_readable_and_says_why") {
        return;
    }
    let config = |keys: &str| format!("[[channel]]\nmode = \"handoff\"\nread = [\"*\"]\n{keys}\n");
    let daemon = Daemon::start(&config(""));
    let allowed = |user| {
        let text = cli_as(user, &daemon, &["list", "--json"], "").quiet().text();
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        list[0]["allowed"].as_array().unwrap().clone()
    };
    let (user, segment) = (format!("user {}", STRANGER.uid), format!("/{}.main", daemon.place.prefix));
    assert!(allowed(STRANGER).is_empty());
    let parts = [user.as_str(), segment.as_str(), "mode 0600", "user root", "permissions = \"0666\""];
    cli_as(STRANGER, &daemon, &["read"], "").fails(77, &parts);
    // Without the daemon, by the objects' names.
    let (avail, done) = (format!("{segment}.avail"), format!("{segment}.done"));
    let named = ["read", "--handoff", "--segment", &segment, "--avail", &avail, "--done", &done];
    cli_as(STRANGER, &daemon, &named, "").fails(77, &[&user, &segment, "mode 0600", "user root", "0666"]);
    // With its group they let the members in, and nobody else.
    let reload = |keys: &str| {
        std::fs::write(daemon.place.path("shmd.toml"), config(keys)).unwrap();
        daemon.cli(&["reload"]).ok();
    };
    reload(&format!("group = \"{GROUP}\"\npermissions = \"0660\""));
    assert_eq!((allowed(MEMBER), allowed(STRANGER)), (vec!["read".into()], vec![]));
    cli_as(STRANGER, &daemon, &["read"], "").fails(77, &["mode 0660", &format!("group {GROUP}")]);
    let reader = cli_as(MEMBER, &daemon, &["read", "--timeout", "50ms"], "");
    reader.fails(75, &["timed out"]);
    reload("permissions = \"0666\"");
    assert_eq!(allowed(STRANGER), ["read"]);
    cli_as(STRANGER, &daemon, &["read", "--timeout", "0.05"], "").fails(75, &["timed out"]);
}

#[test]
fn a_group_that_the_daemons_user_is_not_in_is_bad_configuration_and_says_what_to_do() {
    if skip_without_root("a_group_that_the_daemons_user_is_not_in_is_bad_configuration_and_says_what_to_do") {
        return;
    }
    let place = shm_test_support::Place::new();
    let check = |group: u32| {
        std::fs::write(place.path("shmd.toml"), format!("[[channel]]\ngroup = \"{group}\"\n")).unwrap();
        let mut command = MEMBER.command(&place.dir, &program("shmd"));
        command.arg("--check").arg("--config").arg(place.path("shmd.toml"));
        Run::of(command)
    };
    check(GROUP).quiet();
    let group = format!("not in group {}", STRANGER.gid);
    let way = format!("SupplementaryGroups={}", STRANGER.gid);
    check(STRANGER.gid).fails(78, &["shmd.toml:2: ", &MEMBER.uid.to_string(), &group, &way, "restart the service"]);
}

#[test]
fn a_user_who_may_use_no_channel_is_told_so_and_not_to_name_one() {
    if skip_without_root("a_user_who_may_use_no_channel_is_told_so_and_not_to_name_one") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n");
    let told = |args: &[&str], begin: &str| {
        let run = cli_as(STRANGER, &daemon, args, "").fails(1, &["this user may use none of the daemon's channels"]);
        assert!(run.err.contains(begin) && !run.err.contains("--channel"), "{run:?}");
    };
    told(&["read"], "several channels, and this user");
    told(&["read", "c"], "no channel named c; this user");
}
