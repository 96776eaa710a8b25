//! The C library beside the Rust library: `cargo build --release && cargo bench -p shm-capi`.
//!
//! A writer and a reader in two processes pass messages through a channel of `shmd`: both in Rust, then both in C, in turns. What
//! counts of each is the best of all rounds, which other work on the machine disturbs least. Readers copy each message out, because
//! then both libraries have the same work besides their own: the C library's `memcpy`. `exchange.c` is the program in C; this
//! program runs itself as the one in Rust.
//!
//! `-- --instructions` counts instead, with valgrind: the instructions for publishing and receiving a message in one process, which
//! are the same on every run, however busy the machine is.

use std::error::Error;
use std::hint::black_box;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use shm_proto::{Endpoint, Message, Reader, Start, Writer};
use shm_test_support::{Daemon, Proc, Run, TempDir, clean};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 15;
const BATCH: usize = 64;
/// Messages of which the instructions are counted: whole batches.
const COUNTED: u64 = 4000 * BATCH as u64;
const CAPACITY: &str = "[[channel]]\ncapacity = \"1MiB\"\nmin = \"1MiB\"\nmax = \"1MiB\"\nevict_after = \"0\"\n";
/// Bytes, messages together, and messages in a round.
const CASES: [(usize, usize, u64); 4] =
    [(64, 1, 1 << 21), (64, BATCH, 1 << 21), (1024, 1, 1 << 18), (1024, BATCH, 1 << 18)];

fn main() -> Result<ExitCode> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [role, dir, size, batch, messages] = &args[..]
        && ["write", "read", "both"].contains(&role.as_str())
    {
        work(role, Path::new(dir), size.parse()?, batch.parse()?, messages.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rounds = match args.iter().position(|arg| arg == "--rounds") {
        Some(at) => args.get(at + 1).ok_or("--rounds needs a number")?.parse()?,
        None => ROUNDS,
    };
    compare(rounds, args.iter().any(|arg| arg == "--instructions"))
}

/// What the program in C does.
fn work(role: &str, dir: &Path, size: usize, batch: usize, messages: u64) -> Result<()> {
    let endpoint = Endpoint::in_dir(dir);
    if role == "write" {
        let mut writer = Writer::attach(&endpoint, None)?;
        return writes(&mut writer, size, batch, messages);
    }
    let mut reader = Reader::attach(&endpoint, None, Start::New)?;
    if role == "both" {
        let mut writer = Writer::attach(&endpoint, None)?;
        return add_up(exchanges(&mut writer, &mut reader, size, batch, messages)?, messages);
    }
    println!("ready");
    let (sum, ns) = reads(&mut reader, batch, messages)?;
    println!("{ns}");
    add_up(sum, messages)
}

fn add_up(sum: u64, messages: u64) -> Result<()> {
    if sum == messages * (messages - 1) / 2 { Ok(()) } else { Err(format!("the sum of all numbers is {sum}").into()) }
}

/// Publishes and receives in turn, and adds up the numbers.
fn exchanges(writer: &mut Writer, reader: &mut Reader, size: usize, batch: usize, messages: u64) -> Result<u64> {
    let (mut bytes, mut copy, mut sum) = (vec![vec![0u8; size]; BATCH], [0; 1024], 0u64);
    for first in (0..messages).step_by(batch) {
        for (n, bytes) in (first..first + batch as u64).zip(&mut bytes) {
            bytes[..8].copy_from_slice(&n.to_ne_bytes());
        }
        if batch == 1 {
            writer.publish(&bytes[0])?;
            sum = sum.wrapping_add(see(reader.recv(None)?, &mut copy)?);
            continue;
        }
        let mut together = writer.batch();
        for bytes in &bytes[..batch] {
            together.push(bytes)?;
        }
        together.commit()?;
        let mut together = reader.batch(batch);
        while let Some(message) = together.next()? {
            sum = sum.wrapping_add(see(message, &mut copy)?);
        }
    }
    Ok(sum)
}

fn writes(writer: &mut Writer, size: usize, batch: usize, messages: u64) -> Result<()> {
    let mut bytes = vec![vec![0u8; size]; BATCH];
    if batch == 1 {
        for n in 0..messages {
            bytes[0][..8].copy_from_slice(&n.to_ne_bytes());
            writer.publish(&bytes[0])?;
        }
        return Ok(());
    }
    for first in (0..messages).step_by(batch) {
        for (n, bytes) in (first..first + batch as u64).zip(&mut bytes) {
            bytes[..8].copy_from_slice(&n.to_ne_bytes());
        }
        let mut together = writer.batch();
        for bytes in &bytes[..batch] {
            together.push(bytes)?;
        }
        together.commit()?;
    }
    Ok(())
}

fn reads(reader: &mut Reader, batch: usize, messages: u64) -> Result<(u64, u128)> {
    let mut bytes = [0; 1024];
    let (mut sum, mut received, mut begun) = (0u64, 0, Instant::now());
    while received < messages {
        let mut count = 0;
        if batch > 1 && received > 0 {
            let mut together = reader.batch(batch);
            while let Some(message) = together.next()? {
                sum = sum.wrapping_add(see(message, &mut bytes)?);
                count += 1;
            }
        }
        if count == 0 {
            sum = sum.wrapping_add(see(reader.recv(None)?, &mut bytes)?);
            count = 1;
        }
        if received == 0 {
            begun = Instant::now();
        }
        received += count;
    }
    Ok((sum, begun.elapsed().as_nanos()))
}

/// Copies the message, and returns its number.
#[inline(always)]
fn see(message: Message<'_>, bytes: &mut [u8; 1024]) -> Result<u64> {
    message.copy_to(bytes);
    message.finish()?;
    Ok(black_box(&*bytes).first_chunk().map_or(0, |word| u64::from_ne_bytes(*word)))
}

/// Compiles the program in C, linked with the shared library.
fn program(dir: &TempDir) -> Result<PathBuf> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = std::env::current_exe()?.with_file_name("libshmd.so");
    symlink(&library, dir.join("libshmd.so.0"))?;
    let to = dir.join("exchange");
    let mut command = clean("gcc");
    command.args(["-std=c11", "-O3", "-I"]).arg(home.join("include")).arg(home.join("benches/exchange.c"));
    Run::of(command.arg(&library).arg("-o").arg(&to)).quiet();
    Ok(to)
}

/// Nanoseconds a message.
fn round(daemon: &Daemon, dir: &TempDir, program: &Path, case: (usize, usize, u64)) -> Result<f64> {
    let (size, batch, messages) = case;
    let start = |role: &str| {
        let mut command = clean(program);
        command.arg(role).arg(daemon.place.run_dir()).args([size.to_string(), batch.to_string(), messages.to_string()]);
        Proc::spawn(command.env("LD_LIBRARY_PATH", dir.path()))
    };
    let mut reader = start("read");
    reader.until_out_has("ready\n");
    daemon.until_readers(1);
    start("write").wait().quiet();
    let text = reader.wait().quiet().text();
    daemon.until_stat("the reader is gone", |stat| stat.readers.is_empty() && stat.writer.is_none());
    let ns: u64 = text.lines().last().unwrap_or_default().parse()?;
    Ok(ns as f64 / (messages - 1) as f64)
}

/// Instructions a message, on both sides: what so many more messages cost.
fn instructions(daemon: &Daemon, dir: &TempDir, program: &Path, case: (usize, usize, u64)) -> Result<f64> {
    let (size, batch, _) = case;
    let count = |messages: u64| -> Result<u64> {
        let mut command = clean("valgrind");
        command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg("both");
        command.arg(daemon.place.run_dir()).args([size.to_string(), batch.to_string(), messages.to_string()]);
        let run = Run::of(command.env("LD_LIBRARY_PATH", dir.path()));
        let collected = run.err.lines().filter_map(|line| line.split_once("Collected :")?.1.trim().parse().ok()).max();
        match collected {
            Some(count) if run.code == Some(0) => Ok(count),
            _ => Err(format!("callgrind of {} has ended: {}", program.display(), run.err).into()),
        }
    };
    Ok((count(2 * COUNTED)? - count(COUNTED)?) as f64 / COUNTED as f64)
}

fn compare(rounds: usize, counts: bool) -> Result<ExitCode> {
    if Command::new("gcc").arg("--version").output().is_err() {
        println!("compare: nothing is compared, because gcc is not installed");
        return Ok(ExitCode::SUCCESS);
    }
    let dir = TempDir::new();
    let (rust, c) = (std::env::current_exe()?, program(&dir)?);
    let daemon = Daemon::start(CAPACITY);
    for case in CASES {
        let (size, batch, _) = case;
        if counts {
            let (rust, c) = (instructions(&daemon, &dir, &rust, case)?, instructions(&daemon, &dir, &c, case)?);
            println!(
                "{size:>5} B, {batch:>2} together: Rust {rust:>6.1}, C {c:>6.1} instructions a message, ratio {:.2}",
                c / rust
            );
            continue;
        }
        let (mut best_rust, mut best_c) = (f64::MAX, f64::MAX);
        for _ in 0..rounds {
            best_rust = best_rust.min(round(&daemon, &dir, &rust, case)?);
            best_c = best_c.min(round(&daemon, &dir, &c, case)?);
        }
        let ratio = best_c / best_rust;
        println!(
            "{size:>5} B, {batch:>2} together: Rust {best_rust:>6.2} ns, C {best_c:>6.2} ns a message, ratio {ratio:.2}"
        );
    }
    Ok(ExitCode::SUCCESS)
}
