//! The daemon is killed at random while channels come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use shm_test_support::shared_memory;

use super::{Daemon, MAIN};

/// How often, if `SHMD_KILLS` does not say it.
const TIMES: u64 = 12;
/// Most channels at a time.
const MOST: usize = 20;

/// What is known of the channels when the daemon is gone.
#[derive(Default)]
struct Known {
    /// Answered, and not asked to be removed since.
    there: BTreeSet<String>,
    /// Removed, and that was answered.
    gone: BTreeSet<String>,
    /// Asked for and not answered.
    unknown: BTreeSet<String>,
}

/// Makes and removes channels until the daemon is gone.
fn churn(daemon: &Daemon, round: u64) -> Known {
    let mut known = Known::default();
    for n in 0.. {
        let name = format!("r{round}n{n}");
        match daemon.create(&name, &[("capacity", "64KiB"), ("max", "64KiB")], n % 2 == 0) {
            Ok(_) => drop(known.there.insert(name)),
            Err(_) => {
                known.unknown.insert(name);
                break;
            }
        }
        let oldest = known.there.first().cloned().filter(|_| n % 3 == 0 || known.there.len() >= MOST);
        let Some(name) = oldest else { continue };
        known.there.remove(&name);
        match daemon.remove(&name) {
            Ok(()) => drop(known.gone.insert(name)),
            Err(_) => {
                known.unknown.insert(name);
                break;
            }
        }
    }
    known
}

#[test]
fn those_that_were_answered_are_there_those_that_were_removed_are_not_and_nothing_else_is() {
    let times = std::env::var("SHMD_KILLS").ok().and_then(|times| times.parse().ok()).unwrap_or(TIMES);
    let mut daemon = Daemon::with_state("create-churn", MAIN);
    for round in 0..times {
        let known = std::thread::scope(|scope| {
            let daemon = &daemon;
            let churning = scope.spawn(move || churn(daemon, round));
            std::thread::sleep(Duration::from_millis(5 + round * 7 % 60));
            daemon.signal(Signal::SIGKILL);
            churning.join().unwrap()
        });
        daemon.wait();
        daemon.come_back();
        let names: BTreeSet<String> = daemon.names().into_iter().filter(|name| name != "main").collect();
        let context = || format!("round {round}: {names:?}: {}", daemon.log());
        assert!(known.there.is_subset(&names), "{:?} are missing; {}", known.there, context());
        assert!(known.gone.is_disjoint(&names), "{:?} were removed; {}", known.gone, context());
        let strange: Vec<_> = names.iter().filter(|name| !known.there.contains(*name)).collect();
        assert!(strange.iter().all(|name| known.unknown.contains(*name)), "{strange:?}; {}", context());
        assert_eq!(shared_memory(&daemon.prefix).len(), names.len() + 1, "{}", context());
        let files: BTreeSet<String> =
            daemon.files().concat().into_iter().filter(|name| name.ends_with(".toml")).collect();
        assert_eq!(files, names.iter().map(|name| format!("{name}.toml")).collect(), "{}", context());
        names.iter().for_each(|name| daemon.remove(name).unwrap());
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    assert_eq!(daemon.leftovers(), Vec::<std::path::PathBuf>::new());
}
