//! The hidden command that makes this program a process of a measurement: a worker, or another program that ends with it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, parent_id};
use std::process::Command;

use clap::Args as ClapArgs;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use shm_proto::Error;

use crate::job::Parent;
use crate::{Failure, Result, carrier, host};

/// A process of a measurement; not for people.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The process that started this one; when it ends, this one ends, too.
    #[arg(long)]
    parent: u32,
    /// The program to become instead; the kernel sends it SIGTERM when the parent ends.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<OsString>,
}

/// What the hidden command does.
pub fn run(args: &Args) -> Result<()> {
    let signal = if args.program.is_empty() { Signal::SIGKILL } else { Signal::SIGTERM };
    set_pdeathsig(signal).map_err(|e| Error::system("ask for a signal at the parent's end", e))?;
    if parent_id() != args.parent {
        return Err(Failure::Other("this command is only for the program that measures, which has ended".to_owned()));
    }
    if let Some((program, rest)) = args.program.split_first() {
        let error = Command::new(program).args(rest).exec();
        return Err(Error::system(format!("start {}", program.display()), error).into());
    }
    let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(|e| Error::system("take the parent's socket", e))?;
    let mut parent = Parent::new(UnixStream::from(stdin));
    let job = parent.job()?;
    match stay_on(job.cpu).and_then(|()| carrier::work(&job, &mut parent)) {
        Ok(()) => Ok(()),
        Err(failure) => parent.failed(&failure),
    }
}

fn stay_on(cpu: Option<usize>) -> Result<()> {
    let Some(cpu) = cpu else { return Ok(()) };
    Ok(host::stay_on(cpu).map_err(|e| Error::system(format!("stay on processor {cpu}"), e))?)
}
