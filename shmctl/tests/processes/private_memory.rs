//! A `/dev/shm` that is full: growth is refused with numbers and nobody dies of it.
//!
//! The daemon runs in a mount namespace of its own with a small tmpfs there; its peers outside get descriptors and never
//! need the path.

use shm_proto::{Start, WriterError};

use shm_test_support::{Daemon, PATIENCE, Run, Setup, clean, skip};

/// 8 MiB, of which another file has 4.
const MOUNT: &str = "mount -t tmpfs -o size=8m tmpfs /dev/shm\nhead -c 4194304 /dev/zero > /dev/shm/filler";
const CONFIG: &str = "[[channel]]\ncapacity = \"1MiB\"\nmin = \"64KiB\"\nmax = \"7MiB\"\nshrink_after = \"0\"\n";

fn start(test: &str) -> Option<Daemon> {
    let mut probe = clean("unshare");
    probe.args(["--mount", "sh", "-ec", MOUNT]);
    let probe = Run::of(probe);
    if probe.code == Some(0) {
        return Some(Setup::new(CONFIG).after_private_mounts(MOUNT).start());
    }
    skip(test, &format!("a private mount of a small tmpfs is not permitted here: {}", probe.err.trim()));
    None
}

#[test]
fn a_full_memory_refuses_a_resize_with_numbers() {
    let Some(daemon) = start("a_full_memory_refuses_a_resize_with_numbers") else { return };
    daemon.cli(&["resize", "--bytes", "2MiB"]).quiet();
    daemon.cli(&["resize", "--bytes", "7MiB"]).fails(1, &["channel main", "asked 7MiB", "present 2MiB", "free "]);
    let stat = daemon.stat();
    assert_eq!((stat.capacity, stat.pending), (2 << 20, None));
    // What the attempt took is free again: there is room for a little more.
    daemon.cli(&["resize", "--bytes", "3MiB"]).quiet();
    daemon.cli(&["resize", "--bytes", "64KiB"]).quiet();
    daemon.write_lines("alive\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "alive\n");
}

#[test]
fn a_full_memory_kills_nobody_and_a_pressed_channel_goes_on_at_its_size() {
    let Some(daemon) = start("a_full_memory_kills_nobody_and_a_pressed_channel_goes_on_at_its_size") else { return };
    let mut reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(move || {
            for n in 0..400u32 {
                writer.publish_within(&n.to_le_bytes().repeat(25_000), PATIENCE).unwrap();
            }
            writer
        });
        // The ring is full, the writer has asked for room it cannot have, and waits.
        let stat = daemon
            .until_stat("the writer waits", |stat| stat.used > stat.capacity * 9 / 10 && stat.capacity >= 2 << 20);
        assert!(stat.capacity < 4 << 20, "{stat:?}");
        let mut bytes = Vec::new();
        for n in 0..400u32 {
            reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
            assert!(bytes == n.to_le_bytes().repeat(25_000), "message {n}");
        }
        sending.join().unwrap()
    });
    let mut writer = sent;
    match writer.publish(&vec![0; 6 << 20]) {
        Err(e @ WriterError::NoSpace { .. }) => {
            let text = e.to_string();
            assert!(text.contains("channel main") && text.contains("asked") && text.contains("free"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    writer.publish(b"and on").unwrap();
    assert_eq!(reader.recv(Some(PATIENCE)).unwrap().len(), 6);
    daemon.until_log("event=grow-failed channel=main");
}

#[test]
fn a_message_for_which_there_is_no_memory_ends_write_with_1_and_numbers() {
    let Some(daemon) = start("a_message_for_which_there_is_no_memory_ends_write_with_1_and_numbers") else { return };
    let input = vec![b'x'; 6 << 20];
    daemon
        .cli_with_input(&["write", "--framing", "chunk=6MiB"], &input)
        .fails(1, &["channel main", "a message needs", "present 1MiB", "free "]);
    daemon.write_lines("small ones fit\n");
}

#[test]
fn a_daemon_that_finds_no_memory_says_so_and_leaves_nothing() {
    let test = "a_daemon_that_finds_no_memory_says_so_and_leaves_nothing";
    if start(test).is_none() {
        return;
    }
    let place = shm_test_support::Place::new();
    // The same configuration is good where nobody else has taken the memory.
    let script = format!("{MOUNT}\nhead -c 3500000 /dev/zero > /dev/shm/more");
    let config = CONFIG.replace("capacity = \"1MiB\"", "capacity = \"2MiB\"");
    Setup::new(&config)
        .after_private_mounts(&script)
        .run_in(&place)
        .fails(78, &["main 2MiB", "bytes are free in /dev/shm", "lower capacity"]);
    assert!(place.leftovers().is_empty());
}

#[test]
fn without_inodes_a_new_channel_is_refused_with_numbers_and_the_others_go_on() {
    let test = "without_inodes_a_new_channel_is_refused_with_numbers_and_the_others_go_on";
    if start(test).is_none() {
        return;
    }
    // One for the directory, one for the channel that there is, one to spare.
    let daemon =
        Setup::new(CONFIG).after_private_mounts("mount -t tmpfs -o size=8m,nr_inodes=3 tmpfs /dev/shm").start();
    let mut reader = daemon.reader(Start::New);
    let mut writer = daemon.writer();
    let more = format!(
        "{CONFIG}[[channel]]\nname = \"second\"\nmax = \"1MiB\"\n[[channel]]\nname = \"third\"\nmax = \"1MiB\"\n"
    );
    std::fs::write(daemon.place.path("shmd.toml"), more).unwrap();
    daemon
        .cli(&["reload"])
        .fails(1, &["create shared memory", "asked 1 inode, free 0 in /dev/shm (limit 3)", "nr_inodes"]);
    daemon.until_log("event=reload-failed");
    // Neither of them is there, and what was taken for the first is free again.
    assert_eq!(daemon.cli(&["list", "--json"]).quiet().text().matches("\"channel\"").count(), 1);
    daemon.cli(&["resize", "--bytes", "2MiB"]).quiet();
    writer.publish(b"still here").unwrap();
    assert_eq!(reader.recv(Some(PATIENCE)).unwrap().len(), 10);
    std::fs::write(daemon.place.path("shmd.toml"), format!("{CONFIG}[[channel]]\nname = \"second\"\nmax = \"1MiB\"\n"))
        .unwrap();
    daemon.cli(&["reload"]).ok();
}
