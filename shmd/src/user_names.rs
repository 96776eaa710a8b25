//! The names of users, for people: in messages, in the log, in `stat`.
//!
//! Looking one up may go over a network, to a server that does not answer. A thread does it, and is waited for only briefly: until
//! there is a name, the number stands for it.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use crate::threads;

/// How long everybody else waits for a name.
const PATIENCE: Duration = Duration::from_secs(1);
/// Most names that are being looked up. Further users have numbers until one of these has come.
const MOST_AWAITED: usize = 8;
/// Most names that are remembered. A user who has many numbers, for example for containers, may connect under all of them.
const MOST_KNOWN: usize = 4096;

/// The names that are known.
#[derive(Debug)]
pub(crate) struct UserNames {
    look_up: fn(u32) -> String,
    patience: Duration,
    known: HashMap<u32, String>,
    awaited: HashMap<u32, Receiver<String>>,
}

impl UserNames {
    /// No names are known yet.
    pub(crate) fn new(look_up: fn(u32) -> String) -> Self {
        Self { look_up, patience: PATIENCE, known: HashMap::new(), awaited: HashMap::new() }
    }

    /// The name of a user, or the number.
    pub(crate) fn name(&mut self, uid: u32) -> String {
        self.take_what_has_come();
        if let Some(name) = self.known.get(&uid) {
            return name.clone();
        }
        if self.awaited.len() < MOST_AWAITED && !self.awaited.contains_key(&uid) {
            match self.ask(uid) {
                Ok(name) => {
                    self.remember(uid, name.clone());
                    return name;
                }
                Err(Some(coming)) => drop(self.awaited.insert(uid, coming)),
                // The system gives no thread. The next message about this user tries it again.
                Err(None) => {}
            }
        }
        uid.to_string()
    }

    /// The name, or where it will come.
    fn ask(&self, uid: u32) -> Result<String, Option<Receiver<String>>> {
        let (to, coming) = mpsc::channel();
        let look_up = self.look_up;
        // A daemon that has ended does not want it any more.
        threads::spawn("user", move || drop(to.send(look_up(uid)))).map_err(|_| None)?;
        coming.recv_timeout(self.patience).map_err(|_| Some(coming))
    }

    fn take_what_has_come(&mut self) {
        let mut come = Vec::new();
        self.awaited.retain(|&uid, coming| match coming.try_recv() {
            Ok(name) => {
                come.push((uid, name));
                false
            }
            Err(TryRecvError::Empty) => true,
            // Its thread panicked, which was told. The number stands for good, or every message would ask again.
            Err(TryRecvError::Disconnected) => {
                come.push((uid, uid.to_string()));
                false
            }
        });
        come.into_iter().for_each(|(uid, name)| self.remember(uid, name));
    }

    fn remember(&mut self, uid: u32, name: String) {
        if self.known.len() >= MOST_KNOWN {
            self.known.clear();
        }
        self.known.insert(uid, name);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use super::*;

    /// Whoever has it keeps the names from coming.
    static HELD: Mutex<()> = Mutex::new(());

    fn slow(uid: u32) -> String {
        drop(HELD.lock());
        format!("user-{uid}")
    }

    fn wait_for(names: &mut UserNames, uid: u32, wanted: &str) {
        while names.name(uid) != wanted {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_name_that_does_not_come_is_a_number_until_it_comes() {
        let held: MutexGuard<'_, ()> = HELD.lock().unwrap();
        let mut names = UserNames { patience: Duration::from_millis(1), ..UserNames::new(slow) };
        for uid in 0..2 * MOST_AWAITED as u32 {
            assert_eq!(names.name(uid), uid.to_string());
        }
        assert_eq!(names.awaited.len(), MOST_AWAITED, "no more threads than these wait");
        drop(held);
        (0..2 * MOST_AWAITED as u32).for_each(|uid| wait_for(&mut names, uid, &format!("user-{uid}")));
        assert!(names.awaited.is_empty());
    }

    #[test]
    fn names_are_forgotten_when_there_are_too_many() {
        let mut names = UserNames::new(|uid| uid.to_string());
        (0..MOST_KNOWN as u32).for_each(|uid| names.remember(uid, "somebody".to_owned()));
        names.remember(u32::MAX, "the last".to_owned());
        assert_eq!((names.known.len(), names.name(u32::MAX).as_str()), (1, "the last"));
    }
}
