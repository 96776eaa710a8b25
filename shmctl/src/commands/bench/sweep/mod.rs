//! `shmctl bench sweep`: what it costs as messages, readers, channels and capacity grow, as tables and plots.

mod channels;
mod grow;
mod idle;
mod page;
mod speed;
mod svg;
mod usage;

use std::fs;
use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use shm_proto::Error;

use super::host::Host;
use super::progress::Progress;
use crate::error::{Failure, Result};
use crate::output::print;
use crate::signals::Signals;

const HELP: &str = "\
Examples:
  shmctl bench sweep --out results
  shmctl bench sweep --out results --only channels,grow
  shmctl bench sweep --out /tmp/try --quick

Writes sweep.md with a table for each, and size.svg, readers.svg, channels.svg, idle.svg, capacity.svg and grow.svg. Takes some minutes, and \
up to 8 GiB of memory: capacities that do not fit into what is free are left out, and the table says so. Daemons of its own \
are measured, one for each step.";

/// Measure how the cost grows, and write tables (Markdown) and plots (SVG).
#[derive(Debug, ClapArgs)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The directory that files go to; made if it is not there.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What to let grow.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', default_values_t = Axis::value_variants().to_vec())]
    only: Vec<Axis>,
    /// Few steps, short runs: says whether it works.
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
#[derive(Debug)]
struct Sweep<'a> {
    quick: bool,
    signals: &'a Signals,
    progress: Progress,
}

impl Sweep<'_> {
    /// One of two, by how thorough it is to be.
    fn choose<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

pub(super) fn run(args: &Args) -> Result<()> {
    let signals = Signals::catch()?;
    fs::create_dir_all(&args.out).map_err(|e| Error::system(format!("make {}", args.out.display()), e))?;
    let mut document =
        format!("# How the cost grows\n\n{}\n", Host::look().describe().trim_end().replace('\n', "  \n"));
    let mut end = Ok(());
    for axis in &args.only {
        // The number of steps is each axis's own business; the bar starts anew with each.
        let mut sweep = Sweep { quick: args.quick, signals: &signals, progress: Progress::new(0) };
        let page = match axis {
            Axis::Size => speed::size(&mut sweep),
            Axis::Readers => speed::readers(&mut sweep),
            Axis::Channels => channels::run(&mut sweep),
            Axis::Idle => idle::run(&mut sweep),
            Axis::Capacity => speed::capacity(&mut sweep),
            Axis::Grow => grow::run(&mut sweep),
        };
        match page {
            Ok(Some(page)) => {
                document.push_str(&page.markdown());
                write(args, page.file, &page.svg())?;
            }
            // Whatever fails once a signal has come may fail because of it.
            Err(failure) if !signals.came() => {
                document.push_str(&format!("\nThe next one failed: {failure}\n"));
                end = Err(failure);
                break;
            }
            Ok(None) | Err(_) => {
                document.push_str("\nEnded by a signal before everything was measured.\n");
                break;
            }
        }
    }
    write(args, "sweep.md", &document)?;
    end?;
    print(&format!("{}\n", args.out.join("sweep.md").display()))
}

fn write(args: &Args, name: &str, text: &str) -> Result<()> {
    let path = args.out.join(name);
    fs::write(&path, text).map_err(|e| Failure::from(Error::system(format!("write {}", path.display()), e)))
}
