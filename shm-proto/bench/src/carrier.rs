//! What carries messages: a file for each carrier, with a sender and a receiver.

#[cfg(feature = "peers")]
mod crossbar;
#[cfg(feature = "peers")]
mod iceoryx2;
mod limit;
mod producer;
mod ring;
#[cfg(feature = "peers")]
mod ringfire;
mod stream;
#[cfg(feature = "peers")]
mod zeromq;

pub(crate) use self::limit::slots_of;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::plan::{Measure, Transport, Wait};
use crate::{Result, flow};

/// Makes both ends. The writer of a round trip also receives, and its reader also sends: the answers.
trait Carrier {
    type To: Sender;
    type From: Receiver;

    fn sender(job: &Job, parent: &mut Parent) -> Result<Self::To>;
    fn receiver(job: &Job, parent: &mut Parent) -> Result<Self::From>;
}

/// The size is known to the compiler, as it is in a program for one type of message; these libraries need that.
#[cfg(feature = "peers")]
macro_rules! sized {
    ($carrier:ident, $name:ident, $job:expr, $parent:expr) => {
        match $job.case.size_bytes {
            8 => roomy::<$carrier::$name<8>>($job, $parent),
            64 => roomy::<$carrier::$name<64>>($job, $parent),
            1024 => roomy::<$carrier::$name<1024>>($job, $parent),
            65_536 => roomy::<$carrier::$name<65_536>>($job, $parent),
            1_048_576 => roomy::<$carrier::$name<1_048_576>>($job, $parent),
            other => {
                Err(crate::Failure::Other(format!("other libraries are not measured with messages of {other} bytes")))
            }
        }
    };
}

/// Does the worker's part of a case, and says what was measured.
pub(crate) fn work(job: &Job, parent: &mut Parent) -> Result<()> {
    match (job.case.measure, job.case.transport, job.case.wait) {
        (Measure::Pipeline, ..) => producer::produce(job, parent),
        (_, Transport::Ring | Transport::Lent, _) => part::<ring::Ring>(job, parent),
        (_, Transport::Pipe | Transport::Socket, _) => part::<stream::Stream>(job, parent),
        (Measure::Throughput | Measure::Rate, Transport::Limit, _) => part::<limit::Slots>(job, parent),
        (Measure::Latency, Transport::Limit, Wait::Busy) => part::<limit::Lines>(job, parent),
        (Measure::Latency, Transport::Limit, Wait::Sleep) => part::<limit::Post>(job, parent),
        #[cfg(feature = "peers")]
        (_, Transport::Iceoryx2, _) => sized!(iceoryx2, Iceoryx2, job, parent),
        #[cfg(feature = "peers")]
        (_, Transport::Ringfire, _) => sized!(ringfire, Ringfire, job, parent),
        #[cfg(feature = "peers")]
        (_, Transport::Crossbar, _) => match job.case.size_bytes {
            8 => part::<crossbar::Crossbar<1>>(job, parent),
            64 => part::<crossbar::Crossbar<8>>(job, parent),
            1024 => part::<crossbar::Crossbar<128>>(job, parent),
            other => Err(crate::Failure::Other(format!("crossbar is not measured with messages of {other} bytes"))),
        },
        #[cfg(feature = "peers")]
        (_, Transport::ZeroMq, _) => part::<zeromq::ZeroMq>(job, parent),
    }
}

/// The same on a stack for several of the largest messages, which these libraries take and return by value. A thread stays on
/// the processor of the one that starts it.
#[cfg(feature = "peers")]
fn roomy<C: Carrier>(job: &Job, parent: &mut Parent) -> Result<()> {
    const STACK: usize = 64 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || part::<C>(job, parent));
        let thread = thread.map_err(|e| shm_proto::Error::system("start a thread", e))?;
        thread.join().unwrap_or_else(|_| Err(crate::Failure::Other("the thread of a worker has panicked".to_owned())))
    })
}

fn part<C: Carrier>(job: &Job, parent: &mut Parent) -> Result<()> {
    match (job.role, job.answers) {
        (role, true) => {
            let (mut to, mut from) = (C::sender(job, parent)?, C::receiver(job, parent)?);
            parent.ready()?;
            parent.done(match role {
                Role::Writer => flow::ping(job, &mut to, &mut from)?,
                Role::Reader => flow::pong(&mut from, &mut to)?,
            })
        }
        (Role::Writer, false) => {
            let mut to = C::sender(job, parent)?;
            parent.ready()?;
            parent.done(match job.case.measure {
                Measure::Latency => flow::drip(job, &mut to)?,
                Measure::Rate => flow::keep_rate(job, &mut to)?,
                _ => flow::flood(job, &mut to)?,
            })
        }
        (Role::Reader, false) => {
            let mut from = C::receiver(job, parent)?;
            parent.ready()?;
            let timed = matches!(job.case.measure, Measure::Latency | Measure::Rate);
            parent.done(if timed { flow::catch(&mut from)? } else { flow::drain(&mut from)? })
        }
    }
}
