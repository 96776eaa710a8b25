//! What programs use: finding the daemon, asking it, and attaching to a channel.
//!
//! | module | what it is |
//! |---|---|
//! | `endpoint` | where a daemon is |
//! | `session` | a connection for requests |
//! | `attach` | from a request to a [`Reader`](crate::Reader), a [`Writer`](crate::Writer) or a handoff |
//! | `follower` | a reader that outlives attachments |
//! | `reconnect` | finding the daemon that replaces one that died |
//! | `link` | the connection of an attachment, as the ring sees it |
//! | `handoff` | a reader of a handoff channel that the daemon knows of |
//! | `error` | the sum of what every role can meet |
//! | `sink` | a ring's writer as the destination of a byte stream |
//! | `tasks` | the same roles in tasks of a tokio runtime, with feature `tokio` |

mod attach;
mod endpoint;
mod error;
mod follower;
mod handoff;
mod link;
mod reconnect;
mod session;
mod sink;
#[cfg(feature = "tokio")]
mod tasks;

pub use attach::Attachment;
pub use endpoint::{
    Endpoint, LOCK_NAME, PATIENCE_VARIABLE, RUNTIME_DIR_VARIABLE, SOCKET_NAME, SYSTEM_RUNTIME_DIR, default_prefix,
    default_runtime_dir,
};
pub use error::{Error, Result};
pub use follower::{Follower, Notice};
pub use handoff::Attached;
pub use link::SocketLink;
pub use session::Client;
#[cfg(feature = "tokio")]
pub use tasks::{AsyncFollower, AsyncReader, AsyncWriter};
