//! The control protocol: one line of JSON per request and one per reply, over a Unix stream socket.
//!
//! | direction | line | descriptors that travel with it |
//! |---|---|---|
//! | client to daemon | [`Request`] in an [`Envelope`] | none |
//! | daemon to client | [`Reply`] in an [`Envelope`] | `attach`: segment (read-only), page, bell, none on a handoff channel; `publish`: segment (read-write), lease page; `schema`: its text, if there is one |
//! | daemon to an attached reader | [`ToReader`](crate::ring::link::ToReader) | `moved`: segment (read-only) |
//! | attached reader to daemon | [`FromReader`](crate::ring::link::FromReader) | none |
//! | daemon to a follower of the log | [`LogEntry`](log::LogEntry) | none |
//! | daemon to the lent writer | [`ToWriter`](crate::ring::link::ToWriter) | `reader_joined`: page, bell |
//! | lent writer to daemon | [`ToDaemon`](crate::ring::link::ToDaemon) | none |
//!
//! A line from a client is at most [`MAX_REQUEST`] bytes, a line from the daemon at most [`MAX_REPLY`], the newline
//! included. Lines hold no raw newline, so a person can talk to the daemon with `nc -U`:
//!
//! ```text
//! $ echo '{"v":1,"op":"ping"}' | nc -UN "$XDG_RUNTIME_DIR/shmd/shmd.sock"
//! {"v":1,"ok":{"ping":{"daemon":"shmd","version":"0.1.0","pid":4711,"prefix":"shmd-1000"}}}
//! ```
//!
//! After `attach` or `publish` the connection *is* the attachment: closing it detaches.
//!
//! # Newer and older peers
//!
//! The two sides may be of different releases as long as the version in `"v"` is the same. The receiver of a line ignores fields
//! that it does not know, and a whole [`ToReader`](crate::ring::link::ToReader), [`ToWriter`](crate::ring::link::ToWriter) or
//! [`ToDaemon`](crate::ring::link::ToDaemon) of a kind that it does not know. A request that the daemon does not know is
//! refused with `bad_request`, and the connection stays usable. A kind of refusal that a client does not know is
//! [`ErrorKind::Unknown`](crate::ErrorKind::Unknown), with the daemon's message. A word in `stat`,
//! in `list` or in the log that a client does not know is kept, and shown as it came. A change that an older
//! peer must not ignore needs another version.

mod answers;
mod conn;
mod error;
mod line;
pub mod log;
mod message;
mod refusal;
pub mod stat;
#[cfg(test)]
mod tests;
mod words;

pub use answers::{Attached, Change, Created, Declared, HandoffAttached, Lent, Pong, Reexecuted, Reloaded, Resized};
pub use conn::{Conn, HELD, Incoming, MAX_FDS_A_LINE, Received};
pub use error::RequestError;
pub(crate) use line::excerpt;
pub use line::{decode, encode};
pub use message::{Done, Envelope, Reply, Request};
pub use refusal::{ErrorKind, Refusal};

/// The protocol's version, in every line as `"v"`.
pub const VERSION: u32 = 1;
/// The longest line a client may send, in bytes.
pub const MAX_REQUEST: usize = 64 << 10;
/// The longest line the daemon may send, in bytes: `stat` of a thousand channels with their readers.
pub const MAX_REPLY: usize = 32 << 20;
