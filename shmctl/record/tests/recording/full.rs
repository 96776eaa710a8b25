//! A full disk: the file ends behind a whole chunk, and what is missing is counted.

use std::path::Path;
use std::process::Command;

use shm_test_support::{Daemon, Proc, Run, clean, program, skip_without_root, wait_until};

use crate::kit::{Contents, assert_messages, daemon, publish};

const COUNT: u64 = 800;

/// Waits for a recorder that cannot write everything, and looks at what it has written.
#[track_caller]
fn assert_ended(run: Run, file: &Path, cause: &str) {
    let run = run.fails(1, &[cause, file.file_name().unwrap().to_str().unwrap(), "received, but in no file: "]);
    let contents = Contents::of(file);
    let count = contents.messages.len() as u64;
    assert_messages(&contents.of_topic("main"), 0..count);
    assert!(count > 0 && count < COUNT, "{count}");
    assert!(run.err.contains(&format!(": {count} messages, ")), "{count}: {run:?}");
    assert!(run.err.contains(&format!("of main, from number {count} on")), "{count}: {run:?}");
    let unwritten: u64 = contents.notes("shmd.channel")[0]["unwritten"].parse().unwrap();
    assert!(unwritten > 0 && count + unwritten <= COUNT, "{count} {unwritten}");
    assert!(run.err.contains(&format!("{unwritten} message")), "{unwritten}: {run:?}");
    assert!(contents.reason().starts_with("a write failed"), "{}", contents.reason());
}

/// `shmctl record` after a shell command.
fn recorder(daemon: &Daemon, shell: &[&str], before: &str, file: &Path, after: &str) -> Command {
    let mut command = clean(shell[0]);
    let script = format!("{before}\n\"$@\"\ncode=$?\n{after}\nexit $code");
    command.args(&shell[1..]).args(["sh", "-c", &script, "sh"]).arg(program("shmctl"));
    // A recorder that begins with new messages may pass some that are published while it looks for its place.
    command.args(["record", "--from", "oldest", "--chunk", "64KiB", "-o"]).arg(file);
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir());
    command
}

#[test]
fn a_file_that_may_not_become_larger_is_ended_and_the_rest_is_counted() {
    // Blocks have 512 or 1024 bytes, which depends on the shell.
    for (blocks, split) in [(3000, &[][..]), (8000, &["--split", "2MiB"])] {
        let daemon = daemon("");
        let file = daemon.place.path("run.mcap");
        let mut command = recorder(&daemon, &["env"], &format!("ulimit -f {blocks}"), &file, ":");
        command.args(split);
        let recorder = Proc::spawn(command);
        daemon.until_readers(1);
        publish(&mut daemon.writer(), 0..COUNT);
        if split.is_empty() {
            assert_ended(recorder.wait(), &file, "may not become larger");
        } else {
            // Parts are smaller than the limit.
            wait_until("the last part has the last messages", || {
                crate::kit::parts(&file).iter().any(|part| crate::kit::has(part, &crate::kit::message(COUNT - 2)))
            });
            drop(recorder);
        }
    }
}

#[test]
fn a_file_that_cannot_be_begun_is_not_left_behind() {
    let daemon = daemon("");
    let file = daemon.place.path("run.mcap");
    Run::of(recorder(&daemon, &["env"], "ulimit -f 0", &file, ":")).refused(1, &["may not become larger"]);
    assert!(!file.exists());
}

#[test]
fn a_disk_that_is_full_ends_the_file_and_the_rest_is_counted() {
    if skip_without_root("a_disk_that_is_full_ends_the_file_and_the_rest_is_counted") {
        return;
    }
    for compression in ["none", "zstd"] {
        let daemon = daemon("");
        let disk = daemon.place.path("disk");
        std::fs::create_dir(&disk).unwrap();
        let (file, saved) = (disk.join("run.mcap"), daemon.place.path("run.mcap"));
        let size = if compression == "none" { "2m" } else { "32k" };
        // Other processes do not see the small disk, so the file is copied out of it.
        let before = format!("mount -t tmpfs -o size={size} none {}", disk.display());
        let after = format!("cp {} {}", file.display(), saved.display());
        let mut command = recorder(&daemon, &["unshare", "--mount"], &before, &file, &after);
        command.args(["--compression", compression]);
        let recorder = Proc::spawn(command);
        daemon.until_readers(1);
        publish(&mut daemon.writer(), 0..COUNT);
        assert_ended(recorder.wait(), &saved, "no space is left");
    }
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named_and_nothing_is_left() {
    let daemon = daemon("");
    for path in ["/none/such/run.mcap", "/proc/run.mcap"] {
        daemon.cli(&["record", "-o", path]).refused(1, &["cannot write", path]);
    }
    assert_eq!(daemon.stat().readers.len(), 0);
}
