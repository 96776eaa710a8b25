//! What readers say about themselves.

use shm_proto::{Follower, Start};

use super::{Daemon, wait_for};

const ONE: &str = "[[channel]]\nname = \"main\"\n";

#[test]
fn what_a_reader_says_about_itself_is_shown_cut_and_said_again_to_the_next_daemon() {
    let mut daemon = Daemon::start("status", ONE);
    let mut follower = Follower::new(daemon.endpoint(), None, Start::Oldest).unwrap();
    // Before it is attached.
    assert!(follower.set_status(&"\u{e4}".repeat(150)));
    assert!(follower.try_recv().unwrap().is_none());
    let has = |daemon: &Daemon, status: &str| {
        let is_there = || daemon.stat().readers.iter().any(|reader| reader.status == status);
        wait_for(is_there, || format!("{status:?} is not shown: {:?}", daemon.stat()));
    };
    has(&daemon, &"\u{e4}".repeat(100));
    wait_for(|| follower.set_status("saves"), || "it may not change".to_owned());
    has(&daemon, "saves");
    daemon.die();
    daemon.come_back();
    let says_it_again = || {
        // Hears the daemon.
        if !follower.arm().unwrap() {
            assert!(follower.try_recv().unwrap().is_none());
        }
        daemon.stat().readers.iter().any(|reader| reader.status == "saves")
    };
    wait_for(says_it_again, || daemon.log());
    wait_for(|| follower.set_status(""), || "it may not change".to_owned());
    has(&daemon, "");
    assert!(!daemon.log().contains("event=dismiss"), "{}", daemon.log());
}
