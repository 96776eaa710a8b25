//! Shared-memory messaging for one Linux host: the library behind `shmd` and `shmctl`.
//!
//! A daemon, `shmd`, owns *channels*: rings in `/dev/shm`. One *writer* at a time appends messages, any number of *readers*
//! receive each message in order, and none of them takes a lock. Programs attach through the daemon's socket and from then
//! on touch only shared memory.
//!
//! ```no_run
//! use shm_proto::{Endpoint, Reader, Start, Writer};
//!
//! let daemon = Endpoint::find(None); // $SHMD_RUNTIME_DIR, else the user's own daemon, else the system's
//! let mut reader = Reader::attach(&daemon, None, Start::New)?; // None: the daemon's only channel
//! let mut writer = Writer::attach(&daemon, None)?; // borrows the writer role; usually in another program
//! writer.publish(b"hello")?; // copied once, into shared memory
//! let message = reader.recv(None)?; // waits without a limit; nothing is copied
//! let (seq, len) = (message.seq(), message.len());
//! let sum = message.words().fold(0, u64::wrapping_add); // reads the bytes in place
//! message.finish()?; // done; an error if the bytes were overwritten meanwhile
//! println!("message {seq}: {len} bytes, sum {sum:#x}");
//! # Ok::<(), shm_proto::Error>(())
//! ```
//!
//! Larger pieces are in `examples/`: `publish_structs`, `read_frames` and `poll_loop`.
//!
//! # What is here
//!
//! | type | what it is |
//! |---|---|
//! | [`Endpoint`] | where a daemon is |
//! | [`Reader`], [`Message`], [`ReadBatch`] | receiving: one by one, in place or copied out, or several together |
//! | [`Follower`], [`Notice`] | receiving beyond the end of an attachment: attaches again, and says why it waits |
//! | [`Writer`], [`Slot`], [`Batch`] | publishing: copied in, filled in place, or several together |
//! | [`OwnedMessage`], [`Messages`] | messages copied out, from an iterator or a stream |
//! | `AsyncReader`, `AsyncFollower`, `AsyncWriter` | the same roles in tasks of a tokio runtime, with feature `tokio` |
//! | [`Attachment`], [`HandoffReader`] | reading a channel of either mode; in a handoff there is one message at a time |
//! | [`Client`], [`Request`], [`Done`] | asking the daemon: `stat`, `resize` and so on |
//! | [`Content`], [`Schema`], [`Expected`] | what a channel's messages are, and what a program expects |
//!
//! # Ways to wait
//!
//! [`Reader::recv`] waits with or without a timeout, [`Reader::try_recv`] never does, and [`Reader::arm`] prepares for
//! sleeping on the reader's descriptor beside others in a poll loop. A [`Follower`] has the same three, and outlives the daemon.
//! [`Reader::set_wait_strategy`] trades latency for processor time. A [`HandoffReader`] can be [armed](HandoffReader::arm), too.
//! A [`Writer`] waits in [`Writer::publish`] when the channel is full and lossless; [`Writer::publish_within`] and
//! [`Writer::try_publish`] put a bound on that.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | brings |
//! |---|---|
//! | `tokio` | `AsyncReader`, `AsyncFollower` and `AsyncWriter`: `recv().await`, a `Stream`, `publish().await` |
//! | `zerocopy` | messages that are plain data: `Writer::publish_value`, `Reader::recv_value`, `Message::value` and others |
//!
//! # Errors
//!
//! Each role has an error that lists what this role can meet. [`Error`] is the sum of them, and `?` turns each into it. Every
//! error names the object, the numbers and the cause.
//!
//! | error | returned by |
//! |---|---|
//! | [`ReaderError`] | the calls of a [`Reader`] and of a [`ReadBatch`], [`Message::finish`] |
//! | [`WriterError`] | the calls of a [`Writer`], [`Slot::commit`], [`Batch::push`], [`Batch::commit`] |
//! | [`RequestError`] | [`Client::connect`], [`Client::request`]; with a [`Refusal`] if the daemon says no |
//! | [`HandoffError`] | the calls of a [`HandoffReader`] |
//! | [`Error`] | [`Reader::attach`], [`Writer::attach`], [`Attachment::open`], which ask the daemon and map what it hands out; the calls of a [`Follower`], which do all of this |
//!
//! [`WriterError::TimedOut`] and [`WriterError::WouldBlock`] mean that the message is *not* published.
//! [`WriterError::Unacknowledged`] means that it *is* published and that some reader has not read it yet.
//!
//! # Trust
//!
//! A reader maps the segment from a read-only descriptor and checks every header before it follows it; a writer checks
//! every position it reads from a reader's page. A message is not handed out as `&[u8]`, because another process may be
//! writing those bytes: copy them out, or look at them through [`Message::words`], and ask [`Message::finish`] whether the bytes
//! were still the message's.

#[cfg(not(loom))]
mod client;
#[cfg(not(loom))]
mod control;
#[cfg(not(loom))]
mod duration;
#[cfg(not(loom))]
mod error;
#[cfg(not(loom))]
mod framing;
#[cfg(not(loom))]
mod handoff;
#[cfg(not(loom))]
mod name;
#[cfg(not(loom))]
mod os;
mod ring;
#[cfg(not(loom))]
mod size;
mod sync;

#[cfg(all(feature = "tokio", not(loom)))]
pub use self::client::{AsyncFollower, AsyncReader, AsyncWriter};
#[cfg(not(loom))]
pub use self::{
    client::{Attached as HandoffReader, Attachment, Client, Endpoint, Error, Follower, Notice, Result},
    control::{Done, ErrorKind, Refusal, Request, RequestError},
    error::{Blocked, ProtocolError, SystemError},
    framing::FramingError,
    handoff::HandoffError,
    name::{ChannelName, Prefix},
    ring::content::{BadContent, Content, Expected, Schema},
    ring::geometry::{Geometry, OnFull, Start},
    ring::{
        Batch, Message, Messages, OwnedMessage, ReadBatch, Reader, ReaderError, Received, Slot, WaitStrategy, Words,
        Writer, WriterError,
    },
    size::Bytes,
};

/// For the C library, whose programs pay for each call.
#[cfg(not(loom))]
#[doc(hidden)]
pub use self::ring::Views;

/// Each of these may move to another thread.
#[cfg(not(loom))]
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Reader>();
    is_send::<Follower>();
    is_send::<Writer>();
    is_send::<HandoffReader>();
    is_send::<Client>();
    #[cfg(feature = "tokio")]
    {
        is_send::<AsyncReader>();
        is_send::<AsyncFollower>();
        is_send::<AsyncWriter>();
    }
};

/// For the programs of this project: what the daemon, `shmctl` and the measuring programs need besides. Nothing in here is kept
/// from one version to the next.
#[cfg(not(loom))]
#[doc(hidden)]
#[allow(missing_docs, reason = "each module has its documentation where it is written")]
pub mod internal {
    pub mod client {
        pub use crate::client::*;
    }
    pub mod control {
        pub use crate::control::*;
    }
    pub mod duration {
        pub use crate::duration::*;
    }
    pub mod framing {
        pub use crate::framing::*;
    }
    pub mod handoff {
        pub use crate::handoff::*;
    }
    pub mod name {
        pub use crate::name::*;
    }
    pub mod os {
        pub use crate::os::*;
    }
    pub mod ring {
        pub use crate::ring::*;
    }
}
