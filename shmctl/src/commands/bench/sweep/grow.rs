//! How long a writer is held up while its channel grows.

use std::thread;
use std::time::{Duration, Instant};

use shm_proto::internal::control::Resized;
use shm_proto::internal::os::clock::monotonic_ns;
use shm_proto::{Bytes, ChannelName, Client, Done, Endpoint, Error, Request, Writer};

use super::page::Page;
use super::{Progress, Sweep};
use crate::commands::bench::crew::{Crew, Interruptible};
use crate::commands::bench::outcome::{Percentiles, Times};
use crate::commands::bench::plan::{Case, Fill, Measure, Transport, Wait};
use crate::commands::bench::report::time;
use crate::commands::bench::stage::{Daemon, Setup};
use crate::commands::bench::worker::payload::{self, END, START};
use crate::commands::bench::worker::{Job, Role};
use crate::error::{Failure, Result};

const CHANNEL: &str = "main";
const MESSAGE: u64 = 64 * Bytes::KIB;
/// Between two messages the writer sleeps, so that what is measured is not the wait for a reader or a processor.
const PAUSE: Duration = Duration::from_micros(50);
/// A growth that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn run(sweep: &mut Sweep<'_>) -> Result<Interruptible<Page>> {
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
        x_label: "one message in so many takes longer",
        y_label: "microseconds to publish",
        ..Page::default()
    };
    sweep.progress = Progress::new(3);
    let mut setup = Setup::default();
    setup.free_channel(CHANNEL, &format!("capacity = {from}\nmin = {from}\nmax = {to}\nshrink_after = \"0\""));
    let daemon = setup.start()?;
    let mut crew = Crew::default();
    crew.hire(&reader(&daemon, from)?, Vec::new())?;
    let mut load = Load::new(&daemon)?;
    if crew.until_ready(sweep.signals)?.is_none() {
        return Ok(None);
    }
    crew.go()?;
    load.publish(START)?;
    for (name, what, asked) in
        [("steady", "steady", None), ("growing", "growing", Some(to)), ("shrinking", "shrinking", Some(from))]
    {
        sweep.progress.step(what);
        let Some((times, took)) = load.during(sweep, &daemon, quiet, asked)? else { return Ok(None) };
        page.rows.push(vec![
            what.to_owned(),
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
    Ok(crew.results(sweep.signals, quiet)?.map(|_| page))
}

/// A worker that adds up and checks everything.
fn reader(daemon: &Daemon, capacity_bytes: u64) -> Result<Job> {
    let case = Case {
        measure: Measure::Throughput,
        transport: Transport::Ring,
        size_bytes: MESSAGE,
        readers: 1,
        batch: 1,
        fill: Fill::Copy,
        wait: Wait::Sleep,
        capacity_bytes,
    };
    Ok(Job {
        case,
        reader: 0,
        role: Role::Reader,
        cpu: None,
        runtime_dir: daemon.runtime_dir(),
        channel: Some(name()?),
        back: None,
        warm_up_ns: 0,
        duration_ns: 0,
        messages: None,
        pace_ns: 0,
    })
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
        let writer = Writer::attach(&Endpoint::in_dir(&daemon.runtime_dir()), Some(&name()?))?;
        Ok(Load { writer, message: payload::template(MESSAGE), number: 0 })
    }

    fn publish(&mut self, mark: u64) -> Result<()> {
        payload::set(&mut self.message, self.number | mark);
        self.writer.publish(&self.message)?;
        self.number += 1;
        Ok(())
    }

    /// Publishes while the channel becomes as large as asked; and as long as `quiet`, at least.
    fn during(
        &mut self,
        sweep: &Sweep<'_>,
        daemon: &Daemon,
        quiet: Duration,
        asked: Option<u64>,
    ) -> Result<Interruptible<(Percentiles, Duration)>> {
        let mut times = Times::new()?;
        let begun = Instant::now();
        let dir = daemon.runtime_dir();
        let resize =
            asked.map(|bytes| thread::spawn(move || resize(&Endpoint::in_dir(&dir), bytes).map(|_| begun.elapsed())));
        let going_on = |load: &Load| match (&resize, asked) {
            (Some(resize), Some(bytes)) => !resize.is_finished() || load.capacity(daemon).is_ok_and(|now| now != bytes),
            _ => false,
        };
        let mut looked = Instant::now();
        let mut unfinished = true;
        while begun.elapsed() < quiet || unfinished {
            if sweep.signals.came() {
                return Ok(None);
            }
            if begun.elapsed() > PATIENCE {
                return Err(Failure::Other(format!(
                    "the channel did not become {asked:?} bytes large within a minute"
                )));
            }
            if looked.elapsed() > Duration::from_millis(20) {
                unfinished = going_on(self);
                looked = Instant::now();
            }
            thread::sleep(PAUSE);
            let before = monotonic_ns();
            self.publish(0)?;
            times.record(monotonic_ns() - before);
        }
        let took = match resize {
            Some(resize) => resize.join().map_err(|_| Failure::Other("the request to resize failed".to_owned()))??,
            None => begun.elapsed(),
        };
        Ok(Some((times.percentiles(), took)))
    }

    fn capacity(&self, daemon: &Daemon) -> Result<u64> {
        let mut client = Client::connect(&Endpoint::in_dir(&daemon.runtime_dir()), PATIENCE)?;
        match client.request(&Request::List)? {
            Done::List(channels) => Ok(channels.first().map_or(0, |channel| channel.capacity)),
            other => Err(crate::commands::unexpected("list", &other)),
        }
    }
}

fn resize(daemon: &Endpoint, bytes: u64) -> Result<Resized, Error> {
    match Client::connect(daemon, PATIENCE)?.request(&Request::Resize { channel: None, bytes })? {
        Done::Resize(resized) => Ok(resized),
        other => Err(Error::Protocol(format!("the daemon answered resize with {other:?}"))),
    }
}
