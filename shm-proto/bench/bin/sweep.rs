//! `shm-bench sweep`: what it costs as messages, readers, channels and capacity grow, as tables and plots.

mod channels;
mod grow;
mod idle;
mod speed;
mod usage;

use std::fs;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use shm_bench::host::Host;
use shm_bench::stop::Stop;
use shm_bench::{Failure, Result};
use shm_proto::Error;

const HELP: &str = "\
Examples:
  shm-bench sweep --out results
  shm-bench sweep --out results --only channels,grow
  shm-bench sweep --out /tmp/try --quick

Writes sweep.md with one table for each thing that grows, and the plots size.svg, readers.svg, channels.svg, idle.svg, \
capacity.svg and grow.svg. A sweep takes some minutes and up to 8 GiB of memory. Capacities that do not fit into free memory are \
left out, and the table says so. Each step starts a daemon of its own.";

/// Measure how the cost grows, and write tables (Markdown) and plots (SVG).
#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The directory for the files. It is created if it does not exist.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What grows.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Axis::value_variants().to_vec())]
    only: Vec<Axis>,
    /// Few steps and short runs: shows whether the sweep works.
    #[arg(long)]
    quick: bool,
}

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Axis {
    /// Messages, from 8 bytes to 16 MiB.
    Size,
    /// Readers, from 1 to 64.
    Readers,
    /// Channels in one daemon, from 1 to 1000.
    Channels,
    /// Programs that are attached and have nothing to do, from 1 to 64.
    Idle,
    /// The capacity of a channel, from 64 KiB to 8 GiB.
    Capacity,
    /// A channel under load, from 64 MiB to 1 GiB.
    Grow,
}

/// What every step needs.
#[derive(Clone, Copy, Debug)]
struct Sweep<'a> {
    quick: bool,
    stop: Stop<'a>,
}

impl Sweep<'_> {
    /// One of two values: for a quick or for a full sweep.
    fn choose<T>(self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

pub(crate) fn run(args: &Args, stop: Stop<'_>) -> Result<()> {
    fs::create_dir_all(&args.out).map_err(|e| Error::system(format!("make {}", args.out.display()), e))?;
    let sweep = Sweep { quick: args.quick, stop };
    let mut document =
        format!("# How the cost grows\n\n{}\n", Host::look().describe().trim_end().replace('\n', "  \n"));
    let mut end = Ok(());
    for axis in &args.only {
        let page = match axis {
            Axis::Size => speed::size(sweep),
            Axis::Readers => speed::readers(sweep),
            Axis::Channels => channels::run(sweep),
            Axis::Idle => idle::run(sweep),
            Axis::Capacity => speed::capacity(sweep),
            Axis::Grow => grow::run(sweep),
        };
        match page {
            Ok(page) => {
                document.push_str(&page.markdown());
                write(args, page.file, &page.svg())?;
            }
            Err(failure) => {
                // Whatever fails after the user ended the sweep may fail because of that.
                let failure = if stop.came() { Failure::Stopped } else { failure };
                document.push_str(&format!("\nThe next one is missing: {failure}\n"));
                end = Err(failure);
                break;
            }
        }
    }
    write(args, "sweep.md", &document)?;
    end?;
    println!("{}", args.out.join("sweep.md").display());
    Ok(())
}

fn write(args: &Args, name: &str, text: &str) -> Result<()> {
    let path = args.out.join(name);
    fs::write(&path, text).map_err(|e| Failure::from(Error::system(format!("write {}", path.display()), e)))
}
