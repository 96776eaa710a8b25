//! Receiving and publishing in tasks of a tokio runtime, with feature `tokio`.
//!
//! A task sleeps on the one descriptor of its reader. The writer of a full channel and an attachment that begins have none to
//! sleep on: those waits happen on a thread for blocking calls, to which the writer or the follower is lent meanwhile.
//!
//! | part | what it is |
//! |---|---|
//! | `watch` | a descriptor as tokio sees it |
//! | `lent` | a value that a thread may have for a while |
//! | `reader`, `follower`, `writer` | the three roles |

mod follower;
mod lent;
mod reader;
mod watch;
mod writer;

pub use self::follower::AsyncFollower;
pub use self::reader::AsyncReader;
pub use self::writer::AsyncWriter;

/// How often one poll looks for a message before other tasks get their turn.
const LOOKS: u32 = 16;
/// How often to look although nothing is readable: a writer that outlives its daemon ends without a sign.
const PAUSE_NS: u64 = 1_000_000_000;
