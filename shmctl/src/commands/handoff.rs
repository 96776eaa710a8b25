//! Without a daemon: the objects of the handoff protocol, named on the command line.

use clap::Args as ClapArgs;
use shm_proto::internal::handoff::{BadObjectName, Names};

/// Which objects.
#[derive(Debug, ClapArgs)]
pub(crate) struct Objects {
    /// Speak the C handoff protocol with another program, without a daemon.
    #[arg(long, requires_all = ["segment", "avail", "done"])]
    handoff: bool,
    /// The segment's name, such as /demo_shm.
    #[arg(long, value_name = "NAME", requires = "handoff")]
    segment: Option<String>,
    /// The name of the semaphore that the writer posts, such as /sem_avail.
    #[arg(long, value_name = "NAME", requires = "handoff")]
    avail: Option<String>,
    /// The name of the semaphore that the reader posts, such as /sem_done.
    #[arg(long, value_name = "NAME", requires = "handoff")]
    done: Option<String>,
}

impl Objects {
    /// The names, if a handoff without a daemon is meant.
    pub(crate) fn names(&self) -> Result<Option<Names>, BadObjectName> {
        match (&self.segment, &self.avail, &self.done) {
            (Some(segment), Some(avail), Some(done)) if self.handoff => Names::new(segment, avail, done).map(Some),
            _ => Ok(None),
        }
    }
}
