//! More clients than the daemon takes.

use shm_proto::{Reader, Start};

use super::{connect, last_words, refusal};
use crate::helpers;
use shm_test_support::{Setup, User, skip_without_root, wait_for, wait_until};

#[test]
fn more_connections_than_the_daemon_takes_are_turned_away_and_counted() {
    let setup = Setup::new("max_clients = 20\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    let reader = daemon.spawn(&["read", "-n", "1"]);
    daemon.until_readers(1);
    let held: Vec<_> = (0..40).map(|_| connect(&daemon)).collect();
    let words: Vec<_> = held.into_iter().map(last_words).collect();
    let turned_away = words.iter().filter(|words| words.contains("max_clients = 20")).count();
    assert!(turned_away >= 20, "{turned_away} were turned away");
    for line in &words {
        refusal(line);
    }
    daemon.until_log("event=turned-away");
    daemon.write_lines("one\n");
    reader.wait().quiet();
}

#[test]
fn the_command_line_says_75_when_the_daemon_has_no_place_left() {
    let setup = Setup::new("max_clients = 3\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    // A connection that has ended counts until the daemon has seen that.
    let attach = || wait_for("a place", || Reader::attach(&daemon.endpoint(), None, Start::New).ok());
    let mut readers = [attach(), attach(), attach()];
    daemon.cli(&["stat"]).fails(75, &["3 connections", "max_clients = 3"]);
    daemon.cli(&["read"]).fails(75, &["3 connections", "max_clients = 3"]);
    for reader in &mut readers {
        assert!(reader.try_recv().unwrap().is_none());
    }
    drop(readers);
    wait_until("a place is free", || daemon.cli(&["list"]).code == Some(0));
}

#[test]
fn a_user_who_hogs_connections_leaves_room_for_others() {
    if skip_without_root("a_user_who_hogs_connections_leaves_room_for_others") {
        return;
    }
    let setup = Setup::new("max_clients = 20\n[[channel]]\nname = \"main\"\n");
    let daemon = setup.start();
    let hog = User { uid: 61_300, gid: 61_300 };
    let mut hog = helpers::start_as(hog, &daemon, "hog", &["40"]);
    hog.until_err_has("holding 40");
    for _ in 0..20 {
        daemon.cli(&["stat"]).quiet();
    }
    daemon.write_lines("one\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "one\n");
    assert!(hog.is_running());
}
