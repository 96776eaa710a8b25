//! Outcomes as tables for people and as one document for programs.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use shm_bench::figures::{gigabytes, ratio, time};
use shm_bench::host::Host;
use shm_bench::measure::Settings;
use shm_bench::outcome::Outcome;
use shm_bench::plan::{Case, Fill, Measure, Transport};

use crate::human;
use crate::table::{Align, Table};
use crate::terminal::folded;

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) program: &'static str,
    pub(super) host: Dated,
    pub(super) settings: Told,
    pub(super) results: Vec<Outcome>,
    /// Cases that could not be measured, and why.
    pub(super) skipped: Vec<String>,
    /// Not cut short by a signal.
    pub(super) complete: bool,
}

/// The host, and when the measurement began.
#[derive(Debug, Serialize)]
pub(super) struct Dated {
    date: String,
    #[serde(flatten)]
    host: Host,
}

impl Dated {
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Dated { date: human::utc(u64::try_from(since.as_millis()).unwrap_or(0)), host: Host::look() }
    }

    fn describe(&self) -> String {
        format!("{}: {}", self.date, self.host.describe())
    }
}

/// The settings as reported.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    /// Of the daemon that runs; absent for a private one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel: Option<String>,
    pub(super) runs: u32,
    pub(super) warm_up_ms: f64,
    pub(super) duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) messages: Option<u64>,
    pub(super) pace_ms: f64,
    /// Writer first. Absent: a processor for each process while there are enough, else as the kernel likes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cpus: Option<Vec<usize>>,
}

impl Told {
    pub(super) fn new(settings: &Settings, runs: u32, channel: Option<String>) -> Self {
        let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        Told {
            channel,
            runs,
            warm_up_ms: ms(settings.warm_up),
            duration_ms: ms(settings.duration),
            messages: settings.messages,
            pace_ms: ms(settings.pace),
            cpus: settings.cpus.clone(),
        }
    }
}

impl Report {
    /// As tables.
    pub(super) fn render(&self, columns: Option<usize>) -> String {
        let mut text = String::new();
        let mut say = |line: &str| text += &folded(line, 0, columns);
        self.host.describe().lines().for_each(|line| say(&human::printable(line)));
        let runs = self.settings.runs;
        let plural = if runs == 1 { "run" } else { "runs, medians" };
        let daemon = match &self.settings.channel {
            Some(channel) => format!("channel {channel} of the daemon that runs"),
            None => "a daemon started for it".to_owned(),
        };
        say(&format!("{daemon}; {runs} {plural}; every byte written by one process and read by another"));
        for (heading, table) in [
            ("Throughput, as the slowest reader received it", self.throughput()),
            ("One-way latency", self.latency()),
            ("Pipeline, a producer's 64KiB chunks through shmctl read to /dev/null", self.pipeline()),
        ] {
            if let Some(table) = table {
                let _ = write!(text, "\n{}{}", folded(heading, 0, columns), table.render("  ", columns));
            }
        }
        for skipped in &self.skipped {
            let _ = write!(text, "\n{}", folded(&format!("not measured: {skipped}"), 0, columns));
        }
        if !self.complete {
            text.push_str("\nended by a signal before everything was measured\n");
        }
        text
    }

    /// The first outcome of every row.
    fn rows(&self, measure: Measure) -> Vec<&Outcome> {
        let mut rows: Vec<&Outcome> = Vec::new();
        for outcome in self.results.iter().filter(|outcome| outcome.case.measure == measure) {
            if !rows.iter().any(|row| row.case.is_row_of(&outcome.case)) {
                rows.push(outcome);
            }
        }
        rows
    }

    fn of(&self, row: &Case, transport: Transport) -> Option<&Outcome> {
        self.results.iter().find(|outcome| outcome.case.is_row_of(row) && outcome.case.transport == transport)
    }

    fn throughput(&self) -> Option<Table> {
        let rows = self.rows(Measure::Throughput);
        let mut table = Table::new(&[
            ("SIZE", Align::Right),
            ("READERS", Align::Right),
            ("BATCH", Align::Right),
            ("SHMD", Align::Right),
            ("PIPE", Align::Right),
            ("SOCKET", Align::Right),
            ("SLOTS", Align::Right),
            ("TO PIPE", Align::Right),
            ("TO SOCKET", Align::Right),
            ("TO SLOTS", Align::Right),
        ])
        .leaving_out(&["TO SLOTS", "TO SOCKET", "SLOTS", "SOCKET"]);
        for row in &rows {
            let of = |transport| self.of(&row.case, transport);
            let cell = |transport| of(transport).map_or_else(String::new, |outcome| rate(&outcome.case, outcome));
            let ring = of(Transport::Ring);
            let to = |transport| ratio(ring.map(|r| r.messages_per_s), of(transport).map(|o| o.messages_per_s));
            let in_place = if ring.is_some_and(|ring| ring.case.fill == Fill::InPlace) { " in place" } else { "" };
            table.row([
                human::bytes(row.case.size_bytes) + in_place,
                row.case.readers.to_string(),
                row.case.batch.to_string(),
                cell(Transport::Ring),
                cell(Transport::Pipe),
                cell(Transport::Socket),
                cell(Transport::Limit),
                to(Transport::Pipe),
                to(Transport::Socket),
                to(Transport::Limit),
            ]);
        }
        (!rows.is_empty()).then_some(table)
    }

    fn latency(&self) -> Option<Table> {
        let mut table = Table::new(&[
            ("READER", Align::Left),
            ("SIZE", Align::Right),
            ("BY", Align::Left),
            ("P50", Align::Right),
            ("P90", Align::Right),
            ("P99", Align::Right),
            ("P99.9", Align::Right),
            ("MAX", Align::Right),
            ("SHMD'S P50", Align::Right),
            ("SHMD'S P99", Align::Right),
        ])
        .shortening(&["BY"])
        .leaving_out(&["P90", "MAX", "SHMD'S P50", "P99.9"]);
        let mut any = false;
        for outcome in self.results.iter().filter(|outcome| outcome.case.measure == Measure::Latency) {
            let Some(latency) = outcome.latency else { continue };
            let ring = self.of(&outcome.case, Transport::Ring).and_then(|ring| ring.latency);
            let itself = outcome.case.transport == Transport::Ring;
            let to = |ours: Option<u64>, theirs: u64| {
                if itself { String::new() } else { ratio(ours.map(|ns| ns as f64), Some(theirs as f64)) }
            };
            table.row([
                format!("{:?}", outcome.case.wait).to_lowercase(),
                human::bytes(outcome.case.size_bytes),
                outcome.carrier.to_owned(),
                time(latency.p50_ns),
                time(latency.p90_ns),
                time(latency.p99_ns),
                time(latency.p99_9_ns),
                time(latency.max_ns),
                to(ring.map(|ring| ring.p50_ns), latency.p50_ns),
                to(ring.map(|ring| ring.p99_ns), latency.p99_ns),
            ]);
            any = true;
        }
        any.then_some(table)
    }

    fn pipeline(&self) -> Option<Table> {
        let rows = self.rows(Measure::Pipeline);
        let mut table = Table::new(&[
            ("READERS", Align::Right),
            ("FED BY SHMD", Align::Right),
            ("BY SHMCTL WRITE", Align::Right),
            ("CAT, OR TEE AND CAT", Align::Right),
            ("SHMD TO CAT", Align::Right),
            ("WRITE TO SHMD", Align::Right),
        ])
        .leaving_out(&["WRITE TO SHMD", "SHMD TO CAT", "BY SHMCTL WRITE"]);
        for row in &rows {
            let of = |transport| self.of(&row.case, transport);
            let cell = |transport| of(transport).map_or_else(String::new, |outcome| gigabytes(outcome.bytes_per_s));
            let speed = |transport| of(transport).map(|outcome| outcome.bytes_per_s);
            table.row([
                row.case.readers.to_string(),
                cell(Transport::Ring),
                cell(Transport::Lent),
                cell(Transport::Pipe),
                ratio(speed(Transport::Ring), speed(Transport::Pipe)),
                ratio(speed(Transport::Lent), speed(Transport::Ring)),
            ]);
        }
        (!rows.is_empty()).then_some(table)
    }
}

/// From this size on bytes per second say more than messages per second.
const LARGE: u64 = 4096;

fn rate(case: &Case, outcome: &Outcome) -> String {
    if case.size_bytes > LARGE { gigabytes(outcome.bytes_per_s) } else { human::per_second(outcome.messages_per_s) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shm_bench::outcome::{Percentiles, Sample};
    use shm_bench::plan::Wait;

    use super::*;

    fn outcome(measure: Measure, transport: Transport, messages_per_s: f64, p50_ns: u64) -> Outcome {
        let case = Case { wait: Wait::Busy, ..Case::new(measure, transport, 64, 1 << 20) };
        let latency = Percentiles {
            samples: 10,
            mean_ns: p50_ns as f64,
            p50_ns,
            p90_ns: p50_ns,
            p99_ns: 2 * p50_ns,
            p99_9_ns: 3 * p50_ns,
            max_ns: 1_500_000,
        };
        let latency = (measure == Measure::Latency).then_some(latency);
        let sample = Sample { messages_per_s, latency, ..Sample::default() };
        Outcome::of(case, &[sample]).unwrap()
    }

    fn report(results: Vec<Outcome>, complete: bool) -> Report {
        let settings = Told::new(&Settings::of(Duration::from_millis(20)), 3, None);
        Report { program: "shmctl bench", host: Dated::now(), settings, results, skipped: Vec::new(), complete }
    }

    #[test]
    fn a_row_has_every_transport_and_the_ratios_to_them() {
        let results = vec![
            outcome(Measure::Throughput, Transport::Ring, 100e6, 0),
            outcome(Measure::Throughput, Transport::Pipe, 1e6, 0),
            outcome(Measure::Throughput, Transport::Limit, 125e6, 0),
            outcome(Measure::Latency, Transport::Ring, 1.0, 150),
            outcome(Measure::Latency, Transport::Limit, 1.0, 125),
        ];
        let narrow = report(results.clone(), false).render(Some(60));
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        let text = report(results, false).render(None);
        let line =
            |part: &str| text.lines().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {text}"));
        let cells: Vec<_> = line("100M/s").split_whitespace().collect();
        assert_eq!(cells, ["64", "1", "1", "100M/s", "1M/s", "125M/s", "100x", "0.80x"]);
        let cells: Vec<_> = line("two cache lines").split_whitespace().collect();
        assert_eq!(cells[5..], ["125ns", "125ns", "250ns", "375ns", "1.5ms", "1.20x", "1.20x"], "{text}");
        assert!(!text.contains("Pipeline") && text.contains("ended by a signal"), "{text}");
    }

    #[test]
    fn the_document_names_its_units() {
        let document = serde_json::to_value(report(vec![outcome(Measure::Latency, Transport::Ring, 1.0, 150)], true));
        let document = document.unwrap();
        assert_eq!(document["results"][0]["latency"]["p99_9_ns"], 450);
        assert_eq!(document["results"][0]["size_bytes"], 64);
        assert_eq!(document["settings"]["duration_ms"], 20.0);
        assert!(document["host"]["clock_ns"].as_f64().is_some_and(|ns| ns > 0.0));
    }

    #[test]
    fn this_machine_can_be_described() {
        let host = Dated::now();
        assert!(host.describe().starts_with(&host.date) && host.describe().contains("barrier"), "{}", host.describe());
    }
}
