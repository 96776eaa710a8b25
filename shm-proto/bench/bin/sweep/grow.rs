//! How long a writer is held up while its channel grows.

use std::thread;
use std::time::{Duration, Instant};

use shm_bench::crew::Crew;
use shm_bench::daemon::{Daemon, Setup};
use shm_bench::figures::time;
use shm_bench::job::{Job, Role};
use shm_bench::measure::Settings;
use shm_bench::outcome::{Percentiles, Times};
use shm_bench::payload::{self, END, START};
use shm_bench::plan::{Case, Measure, Transport};
use shm_bench::{Failure, Result};
use shm_proto::internal::control::Resized;
use shm_proto::internal::control::stat::Summary;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{Bytes, ChannelName, Client, Done, Endpoint, ProtocolError, Request, RequestError, Writer};

use super::Sweep;
use crate::page::Page;

const CHANNEL: &str = "main";
const MESSAGE: u64 = 64 * Bytes::KIB;
/// The writer sleeps between two messages, so that the figures do not include waits for a reader or a processor.
const PAUSE: Duration = Duration::from_micros(50);
/// A resize that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(sweep: Sweep<'_>) -> Result<Page> {
    let (from, to) = sweep.choose((4 * Bytes::MIB, 16 * Bytes::MIB), (64 * Bytes::MIB, Bytes::GIB));
    let quiet = Duration::from_millis(sweep.choose(50, 3000));
    let mut page = Page {
        file: "grow.svg",
        title: "Growing under load",
        method: format!(
            "Messages of {}, {} us between them, one reader; how long publishing one takes: without a change, while `resize` \
             makes the channel grow from {} to {}, and while it makes it smaller again.",
            Bytes(MESSAGE),
            PAUSE.as_micros(),
            Bytes(from),
            Bytes(to)
        ),
        columns: vec!["", "took", "messages", "p50", "p99", "p99.9", "longest"],
        x_label: "one message in this many takes longer",
        y_label: "microseconds to publish",
        ..Page::default()
    };
    let mut setup = Setup::default();
    setup.free_channel(CHANNEL, &format!("capacity = {from}\nmin = {from}\nmax = {to}\nshrink_after = \"0\""));
    let daemon = setup.start()?;
    let mut crew = Crew::default();
    crew.hire(&reader(&daemon, from)?, Vec::new())?;
    let mut load = Load::new(&daemon)?;
    crew.until_ready(sweep.stop)?;
    crew.go()?;
    load.publish(START)?;
    for (name, asked) in [("steady", None), ("growing", Some(to)), ("shrinking", Some(from))] {
        crate::step(&name);
        let (times, took) = load.during(sweep, &daemon, quiet, asked)?;
        page.rows.push(vec![
            name.to_owned(),
            format!("{:.0} ms", took.as_secs_f64() * 1e3),
            times.samples.to_string(),
            time(times.p50_ns),
            time(times.p99_ns),
            time(times.p99_9_ns),
            time(times.max_ns),
        ]);
        let last = times.samples as f64;
        let points = [(2.0, times.p50_ns), (10.0, times.p90_ns), (100.0, times.p99_ns), (1000.0, times.p99_9_ns)];
        for (x, ns) in points.into_iter().filter(|(x, _)| *x < last).chain([(last, times.max_ns)]) {
            page.point(name, x, ns as f64 / 1e3);
        }
    }
    load.publish(END)?;
    crew.results(sweep.stop, quiet)?;
    Ok(page)
}

/// The job of a worker that checks every message.
fn reader(daemon: &Daemon, capacity_bytes: u64) -> Result<Job> {
    let case = Case::new(Measure::Throughput, Transport::Ring, MESSAGE, capacity_bytes);
    let job = Settings::of(Duration::ZERO).job(&case, Role::Reader, 1);
    Ok(Job { cpu: None, dir: daemon.runtime_dir(), channel: Some(name()?), ..job })
}

fn name() -> Result<ChannelName> {
    Ok(CHANNEL.parse()?)
}

/// The writer.
struct Load {
    writer: Writer,
    message: Vec<u8>,
    number: u64,
}

impl Load {
    fn new(daemon: &Daemon) -> Result<Self> {
        let writer = Writer::attach(&daemon.endpoint(), Some(name()?.as_str()))?;
        Ok(Load { writer, message: payload::template(MESSAGE), number: 0 })
    }

    fn publish(&mut self, mark: u64) -> Result<()> {
        payload::set(&mut self.message, self.number | mark);
        self.writer.publish(&self.message)?;
        self.number += 1;
        Ok(())
    }

    /// Publishes until the channel has had the size `asked`, and for at least `quiet`.
    fn during(
        &mut self,
        sweep: Sweep<'_>,
        daemon: &Daemon,
        quiet: Duration,
        asked: Option<u64>,
    ) -> Result<(Percentiles, Duration)> {
        let mut times = Times::new()?;
        let begun = Instant::now();
        let endpoint = daemon.endpoint();
        let mut asking = asked.map(|bytes| thread::spawn(move || (resize(&endpoint, bytes), begun.elapsed())));
        let mut answer: Option<(Resized, Duration)> = None;
        let mut looked = Instant::now();
        let mut unfinished = true;
        while begun.elapsed() < quiet || unfinished {
            sweep.stop.check()?;
            if begun.elapsed() > PATIENCE {
                return Err(Failure::Other(format!(
                    "the channel did not become {asked:?} bytes large within a minute"
                )));
            }
            if looked.elapsed() > Duration::from_millis(20) {
                if let Some(thread) = asking.take_if(|thread| thread.is_finished()) {
                    let (resized, took) =
                        thread.join().map_err(|_| Failure::Other("the request to resize failed".to_owned()))?;
                    answer = Some((resized?, took));
                }
                unfinished = match &answer {
                    None => asking.is_some(),
                    // With a slow reader, the writer may have made the channel grow again by now.
                    Some((resized, _)) if !resized.pending => false,
                    Some((resized, _)) => {
                        let other = |channel: &Summary| channel.capacity != resized.new;
                        daemon.list().is_ok_and(|channels| channels.iter().any(other))
                    }
                };
                looked = Instant::now();
            }
            thread::sleep(PAUSE);
            let before = monotonic_ns();
            self.publish(0)?;
            times.record(monotonic_ns() - before);
        }
        let took = answer.map_or_else(|| begun.elapsed(), |(_, took)| took);
        Ok((times.percentiles(), took))
    }
}

fn resize(daemon: &Endpoint, bytes: u64) -> Result<Resized, RequestError> {
    match Client::connect(daemon, PATIENCE)?.request(&Request::Resize { channel: None, bytes })? {
        Done::Resize(resized) => Ok(resized),
        other => Err(ProtocolError::Broken(format!("the daemon answered resize with {other:?}")).into()),
    }
}
