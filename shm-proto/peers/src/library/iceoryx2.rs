//! Publish and subscribe without overflow, retrying until every subscriber has room. A sample is filled where it is to lie and
//! looked at there. A reader that is to sleep does it in the event service, which the writer notifies after every sample.
#![allow(unsafe_code)]

use std::hint::spin_loop;
use std::thread::yield_now;

use iceoryx2::config::Config;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::{event, publish_subscribe};

use super::{Peer, Receive, Received, Send, await_readers};
use crate::Result;
use crate::case::{Job, Measure};
use crate::flow::{look, stamp, template};

pub struct Iceoryx2;

type Samples<const B: usize> = publish_subscribe::PortFactory<ipc::Service, [u8; B], ()>;
type Events = event::PortFactory<ipc::Service>;

/// The node, kept while its services are, and the services of a channel.
fn services<const B: usize>(job: &Job, channel: usize) -> Result<(Node<ipc::Service>, Samples<B>, Option<Events>)> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    let root = job.dir.to_str().ok_or("a directory whose name is no text")?;
    config.global.set_root_path(&Path::new(root.as_bytes())?);
    config.global.prefix = FileName::new(format!("{}_", job.prefix).as_bytes())?;
    let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
    let name = ServiceName::new(&format!("channel-{channel}"))?;
    let samples = node
        .service_builder(&name)
        .publish_subscribe::<[u8; B]>()
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size(job.case.capacity_bytes / B)
        .subscriber_max_borrowed_samples(2)
        .max_publishers(1)
        .max_subscribers(job.case.readers as usize)
        .max_nodes(job.case.processes())
        .open_or_create()?;
    let events = match job.case.measure {
        Measure::Sleeping => {
            Some(node.service_builder(&name).event().max_nodes(job.case.processes()).open_or_create()?)
        }
        _ => None,
    };
    Ok((node, samples, events))
}

impl Peer for Iceoryx2 {
    fn sender<const B: usize>(job: &Job, channel: usize, readers: u32) -> Result<impl Send> {
        let (node, samples, events) = services::<B>(job, channel)?;
        let publisher = samples
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .max_loaned_samples(1)
            .create()?;
        let notifier = events.as_ref().map(|events| events.notifier_builder().create()).transpose()?;
        let message = template::<B>();
        Ok(Sender { publisher, notifier, samples, message, readers: readers as usize, _events: events, _node: node })
    }

    fn receiver<const B: usize>(job: &Job, channel: usize, _: u32) -> Result<impl Receive> {
        let (node, samples, events) = services::<B>(job, channel)?;
        let subscriber = samples.subscriber_builder().create()?;
        let listener = events.as_ref().map(|events| events.listener_builder().create()).transpose()?;
        Ok(Receiver { subscriber, listener, crowded: job.crowded, _samples: samples, _events: events, _node: node })
    }
}

struct Sender<const B: usize> {
    publisher: Publisher<ipc::Service, [u8; B], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    message: Box<[u8; B]>,
    readers: usize,
    samples: Samples<B>,
    _events: Option<Events>,
    _node: Node<ipc::Service>,
}

impl<const B: usize> Send for Sender<B> {
    fn begin(&mut self) -> Result<()> {
        await_readers(self.readers, || self.samples.dynamic_config().number_of_subscribers())
    }

    #[inline]
    fn send(&mut self, number: u64, time: u64) -> Result<()> {
        stamp(&mut self.message[..], number, time);
        let mut sample = self.publisher.loan_uninit()?;
        // Not `write_payload`, through whose arguments a large sample would be copied once more.
        sample.payload_mut().write(*self.message);
        // SAFETY: all of the sample has been written by the line above.
        unsafe { sample.assume_init() }.send()?;
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }

    fn send_batch(&mut self, _: u64, _: usize) -> Result<()> {
        Err("samples are sent one by one".into())
    }
}

struct Receiver<const B: usize> {
    subscriber: Subscriber<ipc::Service, [u8; B], ()>,
    listener: Option<Listener<ipc::Service>>,
    crowded: bool,
    _samples: Samples<B>,
    _events: Option<Events>,
    _node: Node<ipc::Service>,
}

impl<const B: usize> Receive for Receiver<B> {
    #[inline]
    fn each(&mut self, mut see: impl FnMut(Received) -> Result<()>) -> Result<()> {
        let mut looks = 0;
        loop {
            if let Some(sample) = self.subscriber.receive()? {
                return see(look(&sample.payload()[..]));
            }
            looks += 1;
            match &self.listener {
                Some(listener) => drop(listener.blocking_wait(|_| ())?),
                None if self.crowded && looks > 64 => yield_now(),
                None => spin_loop(),
            }
        }
    }
}
