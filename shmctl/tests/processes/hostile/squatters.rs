//! Other users who take a channel's name in `/dev/shm` before the daemon does.

use std::fs;
use std::path::Path;

use shm_test_support::{Place, Run, Setup, User, is_leased, leased, skip_without_root};

const SQUATTER: User = User { uid: 61_501, gid: 61_501 };
const FIRST: &str = "[[channel]]\nname = \"first\"\n";
const BOTH: &str = "[[channel]]\nname = \"first\"\n[[channel]]\nname = \"second\"\n";

/// Everything that a user can put there.
const KINDS: [&str; 6] = [
    ": >\"$0\"",
    "echo SHMDRING >\"$0\"",
    "mkdir \"$0\"",
    "mkfifo -m 666 \"$0\"",
    "ln -s /etc/passwd \"$0\"",
    "ln -s \"$0\" \"$0\"",
];

fn squat(place: &Place, object: &Path, how: &str) {
    let mut command = SQUATTER.command(&place.dir, "sh".as_ref());
    command.arg("-c").arg(how).arg(object);
    Run::of(command).quiet();
}

fn clear(object: &Path) {
    let _ = fs::remove_file(object).or_else(|_| fs::remove_dir(object));
}

#[test]
fn whoever_squats_on_a_name_keeps_that_channel_from_being_made_and_harms_no_other() {
    if skip_without_root("whoever_squats_on_a_name_keeps_that_channel_from_being_made_and_harms_no_other") {
        return;
    }
    for how in KINDS {
        let daemon = Setup::new(FIRST).start();
        let object = daemon.place.object("second");
        squat(&daemon.place, &object, how);
        let before = fs::symlink_metadata(&object).unwrap();
        fs::write(daemon.place.path("shmd.toml"), BOTH).unwrap();
        daemon.cli(&["reload"]).fails(1, &["second", "choose another --prefix"]);
        daemon.write_lines("first goes on\n");
        assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "first goes on\n");
        let after = fs::symlink_metadata(&object).unwrap();
        assert_eq!((before.len(), before.file_type()), (after.len(), after.file_type()), "{how}");
        clear(&object);
        daemon.cli(&["reload"]).ok();
    }
}

#[test]
fn a_start_names_whoever_squats_on_a_name_and_does_not_wait() {
    if skip_without_root("a_start_names_whoever_squats_on_a_name_and_does_not_wait") {
        return;
    }
    for how in KINDS {
        let place = Place::new();
        let object = place.object("first");
        squat(&place, &object, how);
        let run = Setup::new(FIRST).run_in(&place);
        clear(&object);
        run.fails(1, &["first", "choose another --prefix"]);
    }
}

/// The kernel lets nobody open such an object, for 45 s as a rule.
#[test]
fn a_start_does_not_wait_for_a_lease_that_another_user_has_on_a_name() {
    if skip_without_root("a_start_does_not_wait_for_a_lease_that_another_user_has_on_a_name") {
        return;
    }
    for channel in [FIRST.to_owned(), format!("{FIRST}mode = \"handoff\"\n")] {
        let place = Place::new();
        let object = place.object("first");
        squat(&place, &object, KINDS[1]);
        let holder = leased(&object);
        let run = Setup::new(&channel).run_in(&place);
        let is_untouched = is_leased(&object);
        drop(holder);
        clear(&object);
        run.fails(1, &["first", "user 61501's object has this name", "choose another"]);
        assert!(is_untouched, "the daemon has tried to open it");
    }
}
