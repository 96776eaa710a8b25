//! Without a daemon: the objects of the handoff protocol, named on the command line.

use clap::Args as ClapArgs;
use shm_proto::internal::handoff::Names;

use crate::error::{Failure, Result};
use crate::global::Global;

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
    ///
    /// # Errors
    /// A usage error for a name that no object can have, and for the channel of a daemon beside them.
    pub(crate) fn names(&self, global: &Global) -> Result<Option<Names>> {
        let (Some(segment), Some(avail), Some(done), true) = (&self.segment, &self.avail, &self.done, self.handoff)
        else {
            return Ok(None);
        };
        match &global.channel {
            Some(channel) if global.is_given => Err(Failure::Usage(format!(
                "--handoff needs no daemon and knows no channel: leave {channel} out, or leave --handoff, --segment, --avail and \
                 --done out"
            ))),
            _ => Ok(Some(Names::new(segment, avail, done)?)),
        }
    }
}
