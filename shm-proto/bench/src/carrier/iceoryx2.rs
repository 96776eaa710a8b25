//! Publish and subscribe without overflow, retrying until every subscriber has room. A sample is filled where it is to lie and
//! looked at there. A reader that is to sleep does it in the event service, which the writer notifies after every sample.
#![allow(unsafe_code)]

use std::hint::spin_loop;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant};

use iceoryx2::config::Config;
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::port::update_connections::UpdateConnections;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::{event, publish_subscribe};

use super::Carrier;
use crate::flow::{Receiver, Sender};
use crate::job::{Job, Parent, Role};
use crate::plan::{Measure, Wait};
use crate::{Failure, Result, payload};

/// For messages of `B` bytes.
pub(super) struct Iceoryx2<const B: usize>;

type Samples<const B: usize> = publish_subscribe::PortFactory<ipc::Service, [u8; B], ()>;
type Events = event::PortFactory<ipc::Service>;

/// A publisher that does not exist yet is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// The library has an error type for each step; which one it was is in its text.
fn failed(what: &'static str) -> impl Fn(&dyn std::fmt::Debug) -> Failure {
    move |error| Failure::Other(format!("iceoryx2: {what}: {error:?}"))
}

/// The node, kept while its services are, and the services of one way.
type Services<const B: usize> = (Node<ipc::Service>, Samples<B>, Option<Events>);

fn services<const B: usize>(job: &Job, there: bool) -> Result<Services<B>> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    let root = Path::new(job.dir.as_os_str().as_encoded_bytes()).map_err(|e| failed("name a directory")(&e))?;
    config.global.set_root_path(&root);
    let prefix = FileName::new(format!("{}_", job.prefix).as_bytes());
    config.global.prefix = prefix.map_err(|e| failed("name a file")(&e))?;
    let node = NodeBuilder::new().config(&config).create::<ipc::Service>().map_err(|e| failed("make a node")(&e))?;
    let name = ServiceName::new(if there { "there" } else { "back" }).map_err(|e| failed("name a service")(&e))?;
    let samples = node
        .service_builder(&name)
        .publish_subscribe::<[u8; B]>()
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size(job.case.capacity_bytes as usize / B)
        .subscriber_max_borrowed_samples(2)
        .max_publishers(1)
        .max_subscribers(job.case.readers as usize)
        .max_nodes(job.case.processes())
        .open_or_create()
        .map_err(|e| failed("open a service")(&e))?;
    let sleeps = job.case.measure == Measure::Latency && job.case.wait == Wait::Sleep;
    let events = || node.service_builder(&name).event().max_nodes(job.case.processes()).open_or_create();
    let events = sleeps.then(events).transpose().map_err(|e| failed("open an event service")(&e))?;
    Ok((node, samples, events))
}

impl<const B: usize> Carrier for Iceoryx2<B> {
    type To = To<B>;
    type From = From<B>;

    fn sender(job: &Job, _: &mut Parent) -> Result<To<B>> {
        let (node, samples, events) = services::<B>(job, job.role == Role::Writer)?;
        let publisher = samples
            .publisher_builder()
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .max_loaned_samples(1)
            .create()
            .map_err(|e| failed("make a publisher")(&e))?;
        let notifier = events.as_ref().map(|events| events.notifier_builder().create()).transpose();
        let notifier = notifier.map_err(|e| failed("make a notifier")(&e))?;
        let message = payload::template(B as u64).try_into().map_err(|_| failed("size a message")(&B))?;
        Ok(To { publisher, notifier, message, _samples: samples, _events: events, _node: node })
    }

    fn receiver(job: &Job, _: &mut Parent) -> Result<From<B>> {
        let (node, samples, events) = services::<B>(job, job.role == Role::Reader)?;
        let subscriber = samples.subscriber_builder().create().map_err(|e| failed("make a subscriber")(&e))?;
        // To a subscriber whose end is not connected yet, a publisher loses what does not fit into the buffer.
        let begun = Instant::now();
        while samples.dynamic_config().number_of_publishers() == 0 {
            if begun.elapsed() > PATIENCE {
                return Err(failed("wait for a publisher")(&PATIENCE));
            }
            sleep(Duration::from_millis(1));
        }
        subscriber.update_connections().map_err(|e| failed("connect to a publisher")(&e))?;
        let listener = events.as_ref().map(|events| events.listener_builder().create()).transpose();
        let listener = listener.map_err(|e| failed("make a listener")(&e))?;
        let base = payload::base(B as u64);
        // With fewer processors than processes, a reader that waits lets others run.
        let crowded = job.cpu.is_none();
        Ok(From { subscriber, listener, crowded, base, _samples: samples, _events: events, _node: node })
    }
}

pub(super) struct To<const B: usize> {
    publisher: Publisher<ipc::Service, [u8; B], ()>,
    notifier: Option<Notifier<ipc::Service>>,
    message: Box<[u8; B]>,
    _samples: Samples<B>,
    _events: Option<Events>,
    _node: Node<ipc::Service>,
}

impl<const B: usize> To<B> {
    #[inline(always)]
    fn publish(&mut self) -> Result<()> {
        let mut sample = self.publisher.loan_uninit().map_err(|e| failed("loan a sample")(&e))?;
        // Not `write_payload`, through whose arguments a large sample would be copied once more.
        sample.payload_mut().write(*self.message);
        // SAFETY: all of the sample has been written by the line above.
        unsafe { sample.assume_init() }.send().map_err(|e| failed("send a sample")(&e))?;
        if let Some(notifier) = &self.notifier {
            notifier.notify().map_err(|e| failed("notify")(&e))?;
        }
        Ok(())
    }
}

impl<const B: usize> Sender for To<B> {
    /// Samples are sent one by one: the library has no batches.
    #[inline]
    fn send(&mut self, first: u64, count: u64) -> Result<()> {
        for number in first..first + count {
            payload::set(&mut self.message[..], number);
            self.publish()?;
        }
        Ok(())
    }

    #[inline]
    fn send_stamped(&mut self, number: u64, time: u64) -> Result<()> {
        payload::stamp(&mut self.message[..], number, time);
        self.publish()
    }
}

pub(super) struct From<const B: usize> {
    subscriber: Subscriber<ipc::Service, [u8; B], ()>,
    listener: Option<Listener<ipc::Service>>,
    crowded: bool,
    base: u64,
    _samples: Samples<B>,
    _events: Option<Events>,
    _node: Node<ipc::Service>,
}

impl<const B: usize> From<B> {
    #[inline(always)]
    fn next<T>(&mut self, look: impl Fn(&[u8]) -> T) -> Result<T> {
        let mut looks = 0;
        loop {
            if let Some(sample) = self.subscriber.receive().map_err(|e| failed("receive a sample")(&e))? {
                return Ok(look(&sample.payload()[..]));
            }
            looks += 1;
            match &self.listener {
                Some(listener) => drop(listener.blocking_wait(|_| ()).map_err(|e| failed("wait")(&e))?),
                None if self.crowded && looks > 64 => yield_now(),
                None => spin_loop(),
            }
        }
    }
}

impl<const B: usize> Receiver for From<B> {
    #[inline]
    fn receive(&mut self) -> Result<u64> {
        let base = self.base;
        self.next(|message| payload::read(message, base))
    }

    #[inline]
    fn receive_stamped(&mut self) -> Result<(u64, u64)> {
        let base = self.base;
        self.next(|message| payload::read_stamped(message, base))
    }
}
