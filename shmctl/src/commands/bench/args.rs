//! The command line of `shmctl bench`.

use std::time::Duration;

use clap::{Args as ClapArgs, ValueEnum};
use shm_bench::host::allowed_cpus;
use shm_bench::measure::Settings;
use shm_bench::plan::{Fill, Measure, SMALLEST, SMALLEST_TIMED, Wait, Wish};
use shm_proto::Bytes;

use crate::error::{Failure, Result};
use crate::human;
use crate::target::Target;

const HELP: &str = "\
Examples:
  shmctl bench                            everything, in about a minute
  shmctl bench --quick --json             in seconds, as one JSON document
  shmctl bench --measure throughput --sizes 64,1KiB --readers 1,2,4 --in-place
  shmctl bench --measure latency --wait busy --cpu 2,3 --duration 5s
  shmctl bench cam --sizes 64             on a channel of the daemon that runs

The writer and each reader are processes. The writer writes every byte. Every reader adds up all bytes and checks the number \
of every message; no message may be lost. A pipe and a socket have the kernel's default sizes (64 KiB, about 200 KiB), and \
each reader has its own. SLOTS is the least that passing messages on takes: slots of a fixed size in shared memory (64 KiB for \
larger messages) and processes that spin. For latency, SLOTS is two cache lines, or a semaphore.

Throughput is what the slowest reader received after a warm-up. Readers of shmd sleep if nothing comes for some microseconds. \
Latency with a busy reader is half of a round trip over two channels; the clock is read once per round. Latency with a sleeping \
reader is the time from just before sending until just after receiving, with one message per --pace. A pipeline is a producer \
that pipes into shmd, or into shmctl write, with one shmctl read per reader. It is compared with cat, or with tee and one cat per \
reader.

Other programs on this machine influence the figures, so compare ratios within one run: the runs of all transports alternate. \
Without a channel, shmctl starts a daemon for the measurement and stops it afterwards. With a channel, the channel is flooded: \
its other readers receive the messages of this test, and for latency both sides read the clock. SIGINT and SIGTERM end the \
measurement, and shmctl prints the results so far.";

/// Measure throughput and latency on this host, beside a pipe and a Unix socket.
#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What to measure.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = What::value_variants().to_vec())]
    measure: Vec<What>,
    /// Sizes of messages for throughput: 8 bytes or more [default: 64,1KiB,64KiB,1MiB].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    sizes: Vec<Bytes>,
    /// Numbers of readers, for throughput and pipelines [default: 1,4].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=1000))]
    readers: Vec<u32>,
    /// Messages per batch; batches of several messages are for sizes up to 4KiB [default: 1,64].
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Vec<u32>,
    /// Fill messages in place in the ring, instead of copying them into it.
    #[arg(long)]
    in_place: bool,
    /// How the reader waits when latency is measured.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Wait::value_variants().to_vec())]
    wait: Vec<Wait>,
    /// Size of the messages when latency is measured.
    #[arg(long, value_name = "SIZE", default_value = "64")]
    latency_size: Bytes,
    /// The interval between messages to a sleeping reader.
    #[arg(long, value_name = "TIME", default_value = "1ms", value_parser = human::duration)]
    pace: Duration,
    /// The channels' capacity [default: 1MiB, room for 32 messages to 8MiB, for 4 beyond; 256KiB for latency].
    #[arg(long, value_name = "SIZE")]
    capacity: Option<Bytes>,
    /// The duration of each run, after the warm-up [default: 200ms].
    #[arg(long, value_name = "TIME", value_parser = human::duration, conflicts_with = "messages")]
    duration: Option<Duration>,
    /// The number of messages per run, instead of a duration.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Runs of each case; the median counts [default: 3].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: Option<u32>,
    /// Processors for the writer and the readers, in turn [default: one for each process while there are enough].
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cpu: Vec<usize>,
    /// Only shmd: no pipe, no socket, no limit.
    #[arg(long)]
    alone: bool,
    /// Few cases and short runs: shows whether the measurement works, not how fast the ring is.
    #[arg(long)]
    quick: bool,
    /// Print one JSON document.
    #[arg(long)]
    pub(super) json: bool,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    Throughput,
    Latency,
    Pipeline,
}

impl Args {
    /// What is to be measured.
    pub(super) fn wish(&self) -> Result<Wish> {
        let or = |given: &[u32], quick: &[u32], full: &[u32]| match (given, self.quick) {
            ([], true) => quick.to_vec(),
            ([], false) => full.to_vec(),
            (given, _) => given.to_vec(),
        };
        let sizes = match (&self.sizes[..], self.quick) {
            ([], true) => vec![64, 64 * Bytes::KIB],
            ([], false) => vec![64, Bytes::KIB, 64 * Bytes::KIB, Bytes::MIB],
            (given, _) => given.iter().map(|size| size.get()).collect(),
        };
        let latency_size = self.latency_size.get();
        if let Some(small) = sizes.iter().find(|&&size| size < SMALLEST) {
            return Err(Failure::Usage(format!(
                "messages of {small} bytes: the smallest have {SMALLEST}, for their number"
            )));
        }
        if latency_size < SMALLEST_TIMED {
            let text = format!(
                "messages of {latency_size} bytes: for latency the smallest have {SMALLEST_TIMED}, for their number and time"
            );
            return Err(Failure::Usage(text));
        }
        if self.sizes.iter().chain([&self.latency_size]).any(|size| size.get() > Bytes::GIB) {
            return Err(Failure::Usage("messages of more than 1GiB are not measured".to_owned()));
        }
        Ok(Wish {
            measures: self.measure.iter().map(|what| what.measure()).collect(),
            sizes,
            readers: or(&self.readers, &[1, 2], &[1, 4]),
            batches: or(&self.batch, &[1, 64], &[1, 64]),
            fill: if self.in_place { Fill::InPlace } else { Fill::Copy },
            waits: self.wait.clone(),
            latency_size,
            capacity: self.capacity.map(Bytes::get),
            compare: !self.alone,
        })
    }

    /// What holds for all cases.
    pub(super) fn settings(&self) -> Result<Settings> {
        let duration = self.duration.unwrap_or(Duration::from_millis(if self.quick { 10 } else { 200 }));
        let allowed = allowed_cpus();
        if let Some(cpu) = self.cpu.iter().find(|cpu| !allowed.contains(cpu)) {
            let text = format!("--cpu {cpu}: this process may use processors {allowed:?}");
            return Err(Failure::Usage(text));
        }
        let cpus = (!self.cpu.is_empty()).then(|| self.cpu.clone());
        Ok(Settings { messages: self.messages, pace: self.pace, cpus, ..Settings::of(duration) })
    }

    /// How often each case is measured.
    pub(super) fn runs(&self) -> u32 {
        self.runs.unwrap_or(if self.quick { 1 } else { 3 })
    }
}

impl What {
    fn measure(self) -> Measure {
        match self {
            What::Throughput => Measure::Throughput,
            What::Latency => Measure::Latency,
            What::Pipeline => Measure::Pipeline,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &str) -> Args {
        Line::try_parse_from(["bench"].into_iter().chain(words.split_whitespace())).unwrap().args
    }

    #[test]
    fn what_is_not_said_has_defaults_and_quick_ones() {
        let full = args("");
        assert_eq!(full.wish().unwrap().sizes, [64, 1024, 65_536, 1 << 20]);
        assert_eq!((full.runs(), full.settings().unwrap().duration), (3, Duration::from_millis(200)));
        let quick = args("--quick --runs 2 --sizes 128,4KiB");
        assert_eq!(quick.wish().unwrap().sizes, [128, 4096]);
        assert_eq!(quick.wish().unwrap().readers, [1, 2]);
        assert_eq!((quick.runs(), quick.settings().unwrap().duration), (2, Duration::from_millis(10)));
    }

    #[test]
    fn what_cannot_be_measured_is_refused_with_numbers() {
        for (words, part) in [("--sizes 7", "7 bytes"), ("--latency-size 15", "15 bytes"), ("--sizes 2GiB", "1GiB")] {
            let refused = args(words).wish().unwrap_err();
            assert_eq!(refused.exit_code(), 2, "{words}");
            let told = refused.to_string();
            assert!(told.contains(part), "{words}: {told}");
        }
        let told = args("--cpu 0,100000").settings().unwrap_err().to_string();
        assert!(told.contains("100000") && told.contains("[0"), "{told}");
    }
}
