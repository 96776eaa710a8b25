//! The tables: throughput and latency, processor time, rates.

use shm_bench::figures::{fine, gigabytes, ratio, short, time};
use shm_bench::outcome::Outcome;
use shm_bench::plan::{Measure, Transport};
use shm_bench::rate::Share;
use shm_proto::Bytes;

use super::rates::Rate;
use super::rows::{Peer, Row};
use crate::page::Page;

/// A figure, and how good it is: twice is twice as good.
struct Cell {
    text: String,
    worth: f64,
}

/// A row's name, and a cell for each carrier that takes part.
type Line = (String, Vec<Option<Cell>>);

pub(crate) fn all(
    rows: &[Row],
    peers: &[&Peer],
    results: &[Outcome],
    rates: &[Rate],
    runs: u32,
    duration: u64,
) -> Vec<Page> {
    let line = |row: &Row, cell: fn(&Outcome) -> Option<Cell>| -> Line {
        (row.name.clone(), peers.iter().map(|peer| row.outcome(peer, results).and_then(cell)).collect())
    };
    let measured = || rows.iter().filter(|row| row.case.measure != Measure::Rate);
    let working = measured().filter(|row| !row.case.is_busy());
    let tables = [
        Page {
            title: "Other libraries",
            method: format!(
                "{runs} runs of {duration} ms, medians; 1 MiB for messages on their way, 8 MiB for those of 1 MiB, 256 KiB for \
                 latency. Throughput is what the slowest reader received; latency is median and 99th percentile, one way. In \
                 brackets: how many times as fast as shmd. Whoever is within 5 % of the fastest is named, too."
            ),
            ..table(peers, measured().map(|row| line(row, speed)).collect(), "fastest")
        },
        Page {
            title: "Processor time for each message",
            method: "Writer / reader, the mean of the readers if there are several; the kernel's time for them is included. Busy \
                     readers are left out, because they use a whole processor. In brackets: how many times as thrifty as shmd, \
                     writer and reader together."
                .to_owned(),
            ..table(peers, working.map(|row| line(row, effort)).collect(), "least")
        },
        Page {
            title: "The highest rate within 10 us",
            method: format!(
                "Messages are due at fixed moments, and their time counts from these, also if the writer is late. The highest \
                 rate of those tried, {duration} ms each, at which 90 % and 99 % of the messages were received within 10 us by \
                 a busy reader; -: none was low enough."
            ),
            ..table(peers, rate_lines(rows, peers, rates), "highest")
        },
    ];
    tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
}

fn rate_lines(rows: &[Row], peers: &[&Peer], rates: &[Rate]) -> Vec<Line> {
    let searched = rows.iter().filter(|row| row.case.measure == Measure::Rate);
    let shares = searched.flat_map(|row| [(Share::P90, "90 %"), (Share::P99, "99 %")].map(|share| (row, share)));
    let lines = shares.map(|(row, (share, name))| {
        let cell = |peer: &&Peer| {
            let mut own = rates.iter().filter(|rate| rate.case.transport == peer.transport);
            let worth = own.find(|rate| rate.case.is_row_of(&row.case))?.of(share)?;
            Some(Cell { text: format!("{}/s", short(worth)), worth })
        };
        (format!("{}, {name}", row.name), peers.iter().map(cell).collect())
    });
    lines.collect()
}

/// Large messages in bytes, small ones in messages.
fn speed(outcome: &Outcome) -> Option<Cell> {
    Some(match outcome.latency {
        Some(latency) => Cell {
            text: format!("{} / {}", time(latency.p50_ns), time(latency.p99_ns)),
            worth: 1.0 / latency.p50_ns.max(1) as f64,
        },
        None if outcome.case.size_bytes >= 64 * Bytes::KIB => {
            Cell { text: gigabytes(outcome.bytes_per_s), worth: outcome.messages_per_s }
        }
        None => Cell { text: format!("{}/s", short(outcome.messages_per_s)), worth: outcome.messages_per_s },
    })
}

fn effort(outcome: &Outcome) -> Option<Cell> {
    let cpu = outcome.cpu?;
    let (writer, reader) = (cpu.writer.ns(), cpu.reader.ns());
    Some(Cell { text: format!("{} / {}", fine(writer), fine(reader)), worth: 1.0 / (writer + reader).max(0.1) })
}

/// Adds to each row the ratios to shmd and who is the best.
fn table(peers: &[&Peer], lines: Vec<Line>, best: &'static str) -> Page {
    let names = || peers.iter().map(|peer| peer.name);
    let ours = peers.iter().position(|peer| peer.transport == Transport::Ring);
    let rows = lines.into_iter().map(|(name, cells)| {
        let base = ours.and_then(|n| Some(cells.get(n)?.as_ref()?.worth));
        let text = |(n, cell): (usize, &Option<Cell>)| match cell {
            None => "-".to_owned(),
            Some(cell) if base.is_none() || Some(n) == ours => cell.text.clone(),
            Some(cell) => format!("{} ({})", cell.text, ratio(Some(cell.worth), base)),
        };
        let winners = winners(names().zip(cells.iter().map(|cell| cell.as_ref().map_or(0.0, |cell| cell.worth))));
        [vec![name], cells.iter().enumerate().map(text).collect(), vec![winners]].concat()
    });
    Page {
        rows: rows.collect(),
        columns: ["work"].into_iter().chain(names()).chain([best]).collect(),
        ..Page::default()
    }
}

/// Figures that are so close are as good as the same.
const CLOSE: f64 = 0.95;

/// The best, and those close to it.
fn winners<'a>(worth: impl Iterator<Item = (&'a str, f64)>) -> String {
    let mut all: Vec<(&str, f64)> = worth.filter(|(_, worth)| *worth > 0.0).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    let least = all.first().map_or(0.0, |(_, best)| best * CLOSE);
    let close: Vec<&str> = all.iter().take_while(|(_, worth)| *worth >= least).map(|(name, _)| *name).collect();
    if close.is_empty() { "-".to_owned() } else { close.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::rows::PEERS;
    use super::*;

    #[test]
    fn the_fastest_is_named_whoever_it_is() {
        assert_eq!(winners([("a", 1.0), ("b", 3.0), ("c", 2.9), ("d", 0.0)].into_iter()), "b, c");
        assert_eq!(winners([("a", 0.0)].into_iter()), "-");
    }

    #[test]
    fn a_row_has_ratios_to_ours_and_a_dash_for_who_does_not_take_part() {
        let peers: Vec<&Peer> = PEERS[..3].iter().collect();
        let cell = |text: &str, worth| Some(Cell { text: text.to_owned(), worth });
        let lines = vec![("x".to_owned(), vec![cell("2/s", 2.0), None, cell("5/s", 5.0)])];
        let page = table(&peers, lines, "fastest");
        assert_eq!(page.columns, ["work", "shmd", "iceoryx2", "ringfire", "fastest"]);
        assert_eq!(page.rows, [["x", "2/s", "-", "5/s (2.5x)", "ringfire"]]);
        // Without ours there is nothing to compare with.
        let lines = vec![("x".to_owned(), vec![cell("2/s", 2.0), cell("1/s", 1.0)])];
        assert_eq!(table(&peers[1..], lines, "fastest").rows, [["x", "2/s", "1/s", "iceoryx2"]]);
    }
}
