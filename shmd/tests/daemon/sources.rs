//! What feeds a channel inside the daemon, each with real FIFOs, sockets, children and files.

mod exec;
mod fifo;
mod flush;
mod packets;
mod tail;
mod unix;

use shm_proto::Reader;
use shm_proto::Start;
use shm_proto::internal::control::stat::SourceStat;

use super::{Daemon, PATIENCE, wait_for};

impl Daemon {
    /// Not started yet; `DIR` in the keys of its one channel stands for its directory.
    pub(super) fn with_source(name: &str, keys: &str) -> Self {
        let mut daemon = Self::configured(name, "");
        daemon.config = format!("[[channel]]\nname = \"main\"\n{keys}\n").replace("DIR", &daemon.dir.to_string_lossy());
        daemon
    }

    /// Started and ready.
    fn fed(name: &str, keys: &str) -> Self {
        let mut daemon = Self::with_source(name, keys);
        daemon.run(&[]);
        daemon.await_ready();
        daemon
    }

    fn reader(&self) -> Reader {
        Reader::attach(&self.endpoint(), None, Start::Oldest).unwrap()
    }

    fn input(&self) -> SourceStat {
        self.stat().input.unwrap()
    }

    /// Waits until the source says so.
    fn until_input(&self, so: impl Fn(&SourceStat) -> bool) -> SourceStat {
        wait_for(|| so(&self.input()), || format!("{:?}\n{}", self.input(), self.log()));
        self.input()
    }

    fn until_state(&self, state: &str) -> SourceStat {
        self.until_input(|input| input.state.to_string().contains(state))
    }
}

fn next(reader: &mut Reader) -> String {
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// The refusal of a start.
fn refused(mut daemon: Daemon) -> String {
    daemon.run(&[]);
    assert_eq!(daemon.wait(), Some(1), "{}", daemon.log());
    assert!(!daemon.object("main").exists() && !daemon.run_dir().exists());
    daemon.log()
}
