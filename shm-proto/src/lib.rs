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
//! let mut writer = Writer::attach(&daemon, None)?; // borrows the writer role; another program, as a rule
//! writer.publish(b"hello")?; // copied once, into the shared memory
//! let message = reader.recv(None)?; // waits as long as it takes; nothing is copied
//! let (seq, len) = (message.seq(), message.len());
//! let sum = message.words().fold(0, u64::wrapping_add); // looks at the bytes where they lie
//! message.finish()?; // done with it; an error if it was overwritten meanwhile
//! println!("message {seq}: {len} bytes, sum {sum:#x}");
//! # Ok::<(), shm_proto::Error>(())
//! ```
//!
//! Larger pieces are in `examples/`: `publish_structs`, `read_frames` and `poll_loop`.
//!
//! # Where things are
//!
//! | module | what it is |
//! |---|---|
//! | [`ring`] | the data path: [`Writer`], [`Reader`], [`Message`], and the [layout](ring::layout) they share |
//! | [`handoff`] | one message at a time, for programs in C with a mutex and two named semaphores |
//! | [`control`] | the daemon's socket: [`Endpoint`], requests and replies as types, a [client](control::Client) |
//! | [`framing`] | cutting byte streams into messages |
//! | [`stat`] | what `stat` and `list` show, as data |
//! | [`oplog`] | what `log` shows, as data |
//! | [`name`], [`size`], [`duration`] | names, `64MiB` and `30s`, checked where they are read |
//! | [`error`] | the one [`Error`]: the object, the numbers, the cause |
//! | [`os`] | what only the operating system can do: mappings, semaphores, sealed memory, descriptors between processes |
//!
//! # Ways to wait
//!
//! [`Reader::recv`] waits with or without a timeout, [`Reader::try_recv`] never does, and [`Reader::arm`] prepares for
//! sleeping on the reader's descriptor beside others in a poll loop. A [`Writer`] waits in [`Writer::publish`] when the
//! channel is full and lossless; [`Writer::publish_within`] and [`Writer::try_publish`] put a bound on that.
//! [`Error::TimedOut`] and [`Error::WouldBlock`] mean that the message is *not* published. [`Error::Unacknowledged`] means that
//! it *is* published and that some reader has not read it yet.
//!
//! # Who is believed
//!
//! A reader maps the segment from a read-only descriptor and checks every header before it follows it; a writer checks
//! every position it reads from a reader's page. A message is not handed out as `&[u8]`, because another process may be
//! writing those bytes: copy them out, or look at them through [`Message::words`], and ask [`Message::finish`] whether what
//! was seen can be believed.

#[cfg(not(loom))]
pub mod control;
#[cfg(not(loom))]
pub mod duration;
#[cfg(not(loom))]
pub mod error;
#[cfg(not(loom))]
pub mod framing;
#[cfg(not(loom))]
pub mod handoff;
#[cfg(not(loom))]
pub mod name;
#[cfg(not(loom))]
pub mod oplog;
#[cfg(not(loom))]
pub mod os;
pub mod ring;
#[cfg(not(loom))]
pub mod size;
#[cfg(not(loom))]
pub mod stat;
mod sync;

#[cfg(not(loom))]
pub use self::{
    control::{Endpoint, Start},
    error::{Blocked, Error, Result},
    name::{ChannelName, Prefix},
    ring::{Attachment, Message, Reader, Writer},
    size::Bytes,
};
