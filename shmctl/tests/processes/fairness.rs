//! What one user may take, tried as real other users. The numbers need no entry in any user database.

use shm_proto::{Request, Start};

use crate::helpers;
use shm_test_support::{Daemon, PATIENCE, Proc, User, program, skip_without_root, wait_until};

const USER: User = User { uid: 61_401, gid: 61_401 };
const SECOND: User = User { uid: 61_402, gid: 61_402 };
const THIRD: User = User { uid: 61_403, gid: 61_403 };

/// A user who attaches as often as it can, and what it has to say about that.
#[track_caller]
fn crowd(user: User, daemon: &Daemon, how: &str) -> (Proc, String) {
    let mut proc = helpers::start_as(user, daemon, "crowd", &[how, "50"]);
    proc.until_err_has("holding ");
    wait_until("all of it is said", || proc.err_so_far().ends_with('\n'));
    let said = proc.err_so_far();
    (proc, said)
}

#[test]
fn a_reader_that_is_evicted_and_attaches_again_and_again_holds_the_channel_up_no_more() {
    const ROUNDS: u64 = 20;
    if skip_without_root("a_reader_that_is_evicted_and_attaches_again_and_again_holds_the_channel_up_no_more") {
        return;
    }
    let daemon =
        Daemon::start("[[channel]]\ncapacity = \"64KiB\"\nmax = \"64KiB\"\nevict_after = \"200ms\"\nread = [\"*\"]\n");
    let mut honest = daemon.reader(Start::New);
    let cling = helpers::start_as(USER, &daemon, "cling", &[]);
    let attempts = || {
        let said = cling.err_so_far();
        said.matches("attached\n").count() + said.matches("refused for").count()
    };
    wait_until("it is attached", || attempts() > 0);
    let mut writer = daemon.writer();
    let mut bytes = Vec::new();
    let mut fill = || {
        // More than the ring holds.
        for _ in 0..1000u32 {
            writer.publish_within(&[7; 100], PATIENCE).unwrap();
            honest.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        }
    };
    fill();
    assert_eq!(daemon.stat().evicted, 1);
    wait_until("it has noticed", || cling.err_so_far().contains("refused for"));
    for _ in 0..ROUNDS {
        let before = attempts();
        let is_attached = || cling.err_so_far().trim_end().ends_with("attached");
        wait_until("it is attached again or has tried to be", || is_attached() || attempts() > before);
        fill();
    }
    // It would have been evicted in every round. The eighth time would need two minutes of waiting, as the waits double.
    let evicted = daemon.stat().evicted;
    assert!(evicted < 8, "{evicted} evictions in {ROUNDS} rounds\n{}", cling.err_so_far());
    let said = cling.err_so_far();
    assert!(said.contains("channel main: a reader of user 61401 was evicted once, the last time "), "{said}");
    assert!(said.contains("the user may attach again in ") && !said.contains("refused for None"), "{said}");
    assert!(daemon.log().contains("user_waits_ms=1000"), "{}", daemon.log());
}

#[test]
fn nobody_gets_around_the_wait_after_an_eviction_by_claiming_to_come_back() {
    if skip_without_root("nobody_gets_around_the_wait_after_an_eviction_by_claiming_to_come_back") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nname = \"main\"\nmax_readers = 200\nread = [\"*\"]\n");
    let instance = daemon.reader(Start::New).geometry().instance.to_string();
    let (_crowd, said) = crowd(USER, &daemon, "readers");
    assert!(said.contains("holding 50"), "{said}");
    // The waits double, and the last one is a minute.
    let evicted: Vec<_> = daemon.stat().readers.iter().map(|reader| reader.reader.to_string()).take(7).collect();
    for number in &evicted {
        daemon.cli(&["evict", "--reader", number]).quiet();
    }
    let before = daemon.stat().readers.len();
    let said = helpers::start_as(USER, &daemon, "return", &[&instance]).wait().ok().err;
    assert!(said.contains("a reader of user 61401 was evicted 7 times, the last time "), "{said}");
    assert!(daemon.stat().readers.len() <= before);
}

#[test]
fn one_user_gets_half_of_the_reader_places_and_root_a_place_when_all_are_taken() {
    if skip_without_root("one_user_gets_half_of_the_reader_places_and_root_a_place_when_all_are_taken") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nmax_readers = 4\nread = [\"*\"]\n");
    let (_first, said) = crowd(USER, &daemon, "readers");
    let share = "channel main: user 61401 has 2 readers, all that one user may have (half of max_readers = 4)";
    assert!(said.contains("holding 2") && said.contains(share), "{said}");
    let (_second, said) = crowd(SECOND, &daemon, "readers");
    assert!(said.contains("holding 2"), "{said}");
    let (_third, said) = crowd(THIRD, &daemon, "readers");
    let full = "channel main: 4 readers are attached, all it takes (max_readers = 4)";
    assert!(said.contains("holding 0") && said.contains(full), "{said}");
    daemon.write_lines("one\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "1"]).quiet().text(), "one\n");
    let mine: Vec<_> = (0..4).map(|_| daemon.reader(Start::New)).collect();
    assert_eq!(daemon.stat().readers.len(), 8);
    daemon.cli(&["read"]).fails(75, &["8 readers are attached", "max_readers = 4"]);
    drop(mine);
}

#[test]
fn one_user_gets_half_of_the_connections_whatever_for_and_root_gets_in_when_all_are_taken() {
    if skip_without_root("one_user_gets_half_of_the_connections_whatever_for_and_root_gets_in_when_all_are_taken") {
        return;
    }
    let daemon = Daemon::start("max_clients = 6\n[[channel]]\nname = \"main\"\nread = [\"*\"]\nwrite = [\"*\"]\n");
    let (_first, said) = crowd(USER, &daemon, "writer");
    let share = "user 61401 has 3 connections to the daemon, the most one user may have (half of max_clients = 6)";
    assert!(said.contains("holding 2") && said.contains(share), "{said}");
    let (_second, said) = crowd(SECOND, &daemon, "readers");
    assert!(said.contains("holding 3"), "{said}");
    let (_third, said) = crowd(THIRD, &daemon, "readers");
    assert!(said.contains("holding 0") && said.contains("6 connections") && said.contains("max_clients = 6"), "{said}");
    // A connection that has ended counts until the daemon has seen that, but root's own are few.
    for _ in 0..3 {
        assert_eq!(daemon.stat().readers.len(), 5);
    }
    let _reader = daemon.reader(Start::New);
    daemon.cli(&["list"]).quiet();
}

#[test]
fn one_user_gets_half_of_the_places_of_those_who_follow_the_log_and_is_told_that_it_is_half() {
    if skip_without_root("one_user_gets_half_of_the_places_of_those_who_follow_the_log_and_is_told_that_it_is_half") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nread = [\"*\"]\n");
    let (_first, said) = crowd(USER, &daemon, "followers");
    let share = "user 61401 has 32 clients that follow the operation log, the most one user may have (half of 64)";
    assert!(said.contains("holding 32") && said.contains(share), "{said}");
    let (_second, said) = crowd(SECOND, &daemon, "followers");
    assert!(said.contains("holding 32"), "{said}");
    let (_third, said) = crowd(THIRD, &daemon, "followers");
    let full = "64 clients follow the operation log, and the daemon serves 64";
    assert!(said.contains("holding 0") && said.contains(full), "{said}");
    daemon.cli(&["log", "-n", "1"]).quiet();
}

#[test]
fn answers_that_a_user_does_not_take_fill_little_memory_and_others_get_theirs() {
    if skip_without_root("answers_that_a_user_does_not_take_fill_little_memory_and_others_get_theirs") {
        return;
    }
    // The answers are long, so that a few are too much before the first of these connections is closed for its silence: each reload
    // changes three lists that are as long as a line of the log may have them.
    let config = |first: u32| {
        let list: Vec<String> = (first..first + 40).map(|uid| uid.to_string()).collect();
        let list = list.join(", ");
        format!("log_entries = 4000\n[[channel]]\nread = \"*, {list}\"\nwrite = \"{list}\"\nadmin = \"{list}\"\n")
    };
    let daemon = Daemon::start(&config(70_000));
    for round in 1..=400 {
        std::fs::write(daemon.place.path("shmd.toml"), config(70_000 + round % 2)).unwrap();
        daemon.place.ask(&Request::Reload).unwrap();
    }
    let (_first, said) = crowd(USER, &daemon, "untaken");
    assert!(said.contains("the connections of user 61401 have not taken ") && said.contains("try_later"), "{said}");
    assert!(!said.contains("holding 50"), "{said}");
    let (_second, said) = crowd(SECOND, &daemon, "followers");
    assert!(said.contains("holding 32"), "{said}");
    daemon.cli(&["log", "-n", "1"]).quiet();
}

#[test]
fn following_waits_as_long_as_the_daemon_says_after_an_eviction() {
    if skip_without_root("following_waits_as_long_as_the_daemon_says_after_an_eviction") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nread = [\"*\"]\n");
    let mut command = USER.command(&daemon.place.dir, &program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).args(["read", "--follow"]);
    let mut follower = Proc::spawn(command);
    for number in 1..=2 {
        daemon.until_stat("it is attached", |stat| stat.readers.iter().any(|reader| reader.reader == number));
        daemon.until_readers(1);
        daemon.cli(&["evict", "--reader", &number.to_string()]).quiet();
    }
    follower.until_err_has("a reader of user 61401 was evicted 2 times, the last time ");
    daemon.until_stat("it is back", |stat| stat.readers.iter().any(|reader| reader.reader == 3));
    daemon.until_readers(1);
    daemon.write_lines("after\n");
    follower.until_out_has("after\n");
    // Without --follow it is told, and the exit code says that it may try again.
    daemon.cli(&["evict", "--reader", "3"]).quiet();
    follower.until_err_has("was evicted 3 times");
    let mut command = USER.command(&daemon.place.dir, &program("shmctl"));
    command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).arg("read");
    shm_test_support::Run::of(command).fails(75, &["channel main", "the user may attach again in "]);
}

/// Sends a request as often as one user may at once, and ten times more; what is said about those.
#[track_caller]
fn ask_too_often(daemon: &Daemon, line: &str, burst: usize) -> String {
    let said = helpers::start_as(USER, daemon, "ask", &[line, &(burst + 1000).to_string()]).wait().ok().err;
    let figures = said.rsplit("done ").next().unwrap().trim_end();
    let (done, refused) = figures.split_once(", refused ").unwrap();
    let (done, refused): (usize, usize) = (done.parse().unwrap(), refused.parse().unwrap());
    assert!(done >= burst && refused > 0, "{done} were served, {refused} were refused");
    said
}

#[test]
fn one_user_asks_for_the_writer_role_only_so_often_and_others_get_it() {
    if skip_without_root("one_user_asks_for_the_writer_role_only_so_often_and_others_get_it") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nwrite = [\"*\"]\n");
    // Somebody has it, so that nothing comes of the requests but the answers.
    let writer = daemon.writer();
    let said = helpers::start_as(USER, &daemon, "ask", &["{\"v\":1,\"op\":\"publish\",\"layout\":2}", "20000"])
        .wait()
        .ok()
        .err;
    assert!(said.contains("writer_taken") && said.contains("\"retry_after_ms\":"), "{}", &said[said.len() - 500..]);
    let why = "channel main: user 61401 asks for the writer role too often: one user may 500 times at once, and 250 times a second";
    assert!(said.contains(why), "{}", &said[said.len() - 500..]);
    // Ten lines a second at most, and what is left out is counted.
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("event=turned-away")).count();
    assert!(log.contains("uid=61401") && lines >= 1, "{log}");
    assert!(said.matches("too often").count() > lines, "{lines} lines for as many refusals");
    drop(writer);
    daemon.until_stat("the role is free", |stat| stat.writer.is_none());
    daemon.write_lines("mine\n");
}

/// A channel with a schema, which everybody may read.
fn with_a_schema() -> Daemon {
    let declared = "content = \"p\"\nschema = \"F\"\nschema_text = \"message F {}\"\n";
    Daemon::start(&format!("[[channel]]\nread = [\"*\"]\n{declared}"))
}

#[test]
fn one_user_asks_for_schemas_only_so_often_and_root_whenever_it_likes() {
    if skip_without_root("one_user_asks_for_schemas_only_so_often_and_root_whenever_it_likes") {
        return;
    }
    let daemon = with_a_schema();
    let said = helpers::start_as(USER, &daemon, "ask", &["{\"v\":1,\"op\":\"schema\"}", "20000"]).wait().ok().err;
    let why =
        "channel main: user 61401 asks for schemas too often: one user may 500 times at once, and 250 times a second";
    assert!(said.contains(why) && said.contains("\"retry_after_ms\":"), "{}", &said[said.len() - 500..]);
    daemon.cli(&["stat", "main", "--schema"]).prints("message F {}");
}

#[test]
fn descriptors_of_schemas_do_not_pile_up_in_a_connection_that_nobody_reads() {
    if skip_without_root("descriptors_of_schemas_do_not_pile_up_in_a_connection_that_nobody_reads") {
        return;
    }
    let daemon = with_a_schema();
    let said = helpers::start_as(USER, &daemon, "ask-twice", &["{\"v\":1,\"op\":\"schema\"}"]).wait().ok().err;
    let answers: Vec<&str> = said.lines().filter(|line| line.starts_with("told: ")).collect();
    assert!(answers.len() == 2 && answers[0].contains("\"ok\""), "{said}");
    assert!(answers[1].contains("try_later") && answers[1].contains("has not taken its last answer"), "{said}");
}

#[test]
fn one_user_resizes_only_so_often_and_root_whenever_it_likes() {
    if skip_without_root("one_user_resizes_only_so_often_and_root_whenever_it_likes") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nadmin = [\"*\"]\n");
    let said = ask_too_often(&daemon, "{\"v\":1,\"op\":\"resize\",\"bytes\":1048576}", 30);
    assert!(said.contains("user 61401 asks for another capacity too often: one user may 30 times at once"), "{said}");
    for _ in 0..40 {
        daemon.cli(&["resize", "--bytes", "2MiB"]).quiet();
    }
}

#[test]
fn nobody_but_the_daemons_user_and_root_makes_the_daemon_reload() {
    if skip_without_root("nobody_but_the_daemons_user_and_root_makes_the_daemon_reload") {
        return;
    }
    let daemon = Daemon::start("[[channel]]\nname = \"main\"\nread = [\"*\"]\nwrite = [\"*\"]\nadmin = [\"*\"]\n");
    std::fs::write(daemon.place.path("shmd.toml"), "[[channel]]\nname = \"main\"\n[[channel]]\nname = \"other\"\n")
        .unwrap();
    let said = helpers::start_as(USER, &daemon, "ask", &["{\"v\":1,\"op\":\"reload\"}", "3"]).wait().ok().err;
    assert!(said.contains("done 0, refused 3") && said.contains("not_permitted"), "{said}");
    assert!(!daemon.place.object("other").exists());
}
