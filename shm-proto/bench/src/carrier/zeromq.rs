//! Sockets of ZeroMQ over Unix sockets: PUSH and PULL to one reader, XPUB and SUB to several. Neither loses a message: the
//! writer waits at the high-water mark.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::sync::LazyLock;
use std::thread::yield_now;

use zmq::{Context, DONTWAIT, Message, Socket, SocketType};
use zmq_sys::{ZMQ_XPUB_NODROP, zmq_setsockopt};

use super::Carrier;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::{Failure, Result, payload};

pub(super) struct ZeroMq;

/// One for both ways of a round trip, with one thread for input and output. Not dropped: the end of the process ends it.
static CONTEXT: LazyLock<Context> = LazyLock::new(Context::new);
/// Milliseconds between attempts to reach a writer that is not there yet.
const RETRY_MS: i32 = 1;

fn failed(what: &'static str) -> impl Fn(zmq::Error) -> Failure {
    move |error| Failure::Other(format!("zeromq: {what}: {error}"))
}

fn endpoint(job: &Job, there: bool) -> String {
    format!("ipc://{}", job.dir.join(if there { "there" } else { "back" }).display())
}

/// Half of the messages on their way wait at the writer, half at the reader.
fn high_water(job: &Job) -> i32 {
    i32::try_from(job.case.capacity_bytes / job.case.size_bytes.max(1) / 2).unwrap_or(i32::MAX).max(1)
}

impl Carrier for ZeroMq {
    type To = To;
    type From = From;

    fn sender(job: &Job, _: &mut Parent) -> Result<To> {
        let readers = job.case.readers;
        let kind = if readers > 1 { SocketType::XPUB } else { SocketType::PUSH };
        let mut socket = CONTEXT.socket(kind).map_err(failed("make a socket"))?;
        socket.set_sndhwm(high_water(job)).map_err(failed("set a mark"))?;
        socket.set_linger(0).map_err(failed("set how to end"))?;
        if readers > 1 {
            keep_all(&mut socket)?;
            socket.set_xpub_verbose(true).map_err(failed("ask for every subscription"))?;
        }
        socket.bind(&endpoint(job, job.role == Role::Writer)).map_err(failed("bind a socket"))?;
        if readers > 1 {
            for _ in 0..readers {
                socket.recv_msg(0).map_err(failed("wait for a subscription"))?;
            }
        }
        Ok(To { socket, message: payload::template(job.case.size_bytes) })
    }

    fn receiver(job: &Job, _: &mut Parent) -> Result<From> {
        let subscribes = job.case.readers > 1;
        let kind = if subscribes { SocketType::SUB } else { SocketType::PULL };
        let socket = CONTEXT.socket(kind).map_err(failed("make a socket"))?;
        socket.set_rcvhwm(high_water(job)).map_err(failed("set a mark"))?;
        socket.set_reconnect_ivl(RETRY_MS).map_err(failed("set how often to try"))?;
        if subscribes {
            socket.set_subscribe(b"").map_err(failed("subscribe"))?;
        }
        socket.connect(&endpoint(job, job.role == Role::Reader)).map_err(failed("connect a socket"))?;
        let base = payload::base(job.case.size_bytes);
        Ok(From { socket, message: Message::new(), base, polls: job.case.polls() })
    }
}

/// Makes a publisher wait for a subscriber without space, which it otherwise would pass over.
fn keep_all(socket: &mut Socket) -> Result<()> {
    let on: c_int = 1;
    // SAFETY: the socket is open, and the value is an int, as the option wants, that outlives the call.
    let set = unsafe {
        zmq_setsockopt(socket.as_mut_ptr(), ZMQ_XPUB_NODROP as c_int, (&raw const on).cast(), size_of::<c_int>())
    };
    if set == 0 { Ok(()) } else { Err(Failure::Other("zeromq: cannot make a publisher keep all messages".to_owned())) }
}

pub(super) struct To {
    socket: Socket,
    message: Vec<u8>,
}

impl To {
    #[inline]
    fn publish(&self) -> Result<()> {
        self.socket.send(&self.message[..], 0).map_err(failed("send a message"))
    }
}

impl Sender for To {
    /// Messages are sent one by one: the library itself writes several of them at a time into its Unix socket.
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        for number in first..first + count {
            payload::set(&mut self.message, number);
            self.publish()?;
        }
        Ok(())
    }

    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        payload::stamp(&mut self.message, number, time);
        self.publish()
    }
}

pub(super) struct From {
    socket: Socket,
    message: Message,
    base: u64,
    polls: bool,
}

impl From {
    fn next(&mut self) -> Result<&[u8]> {
        let flags = if self.polls { DONTWAIT } else { 0 };
        loop {
            match self.socket.recv(&mut self.message, flags) {
                Ok(()) => return Ok(&self.message),
                // The library's own thread has this processor, too.
                Err(zmq::Error::EAGAIN) => yield_now(),
                Err(zmq::Error::EINTR) => {}
                Err(error) => return Err(failed("receive a message")(error)),
            }
        }
    }
}

impl Receiver for From {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let base = self.base;
        Ok(payload::read(self.next()?, base))
    }

    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let base = self.base;
        Ok(payload::read_stamped(self.next()?, base))
    }
}
