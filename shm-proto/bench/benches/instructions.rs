//! Instructions for each message, publishing and receiving together: `cargo bench -p shm-bench --bench instructions`.
//!
//! Times differ from run to run and from machine to machine; the number of instructions does not, so a change for the worse
//! shows in it whatever else the machine has to do. This program runs itself under callgrind with so many messages, and with
//! twice as many: the difference is what the messages cost, without the start. A number over its limit is a failure.
//!
//! Counted is one process that does both sides through the public interface, looks at all bytes of every message, and whose
//! ring is gone around many times.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::process::{Command, ExitCode};

use shm_proto::{Message, Reader, Writer};
use shm_test_support::pair;

const CAPACITY: u64 = 256 << 10;
const MESSAGES: u64 = 20_000;
/// Messages that are published together, and received together.
const BATCH: u64 = 64;
/// The first word of the command line of a process that is counted.
const EXCHANGE: &str = "exchange";

struct Case {
    name: &'static str,
    size: usize,
    /// For x86-64: about 15 % more than it was when this was written, since another compiler may choose other instructions.
    limit: u64,
}

const CASES: [Case; 6] = [
    Case { name: "single", size: 64, limit: 200 },
    Case { name: "single", size: 1024, limit: 605 },
    Case { name: "in-place", size: 64, limit: 182 },
    Case { name: "in-place", size: 1024, limit: 575 },
    Case { name: "batch", size: 64, limit: 187 },
    Case { name: "batch", size: 1024, limit: 590 },
];

impl Case {
    /// Part of a name chooses, as with other benches; none at all chooses everything.
    fn is_one_of(&self, wanted: &[&String]) -> bool {
        let name = format!("instructions::{}::{}", self.name, self.size);
        wanted.is_empty() || wanted.iter().any(|part| name.contains(part.as_str()))
    }
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<ExitCode> {
    let args: Vec<String> = env::args().skip(1).collect();
    if let [first, name, size, messages] = &args[..]
        && first == EXCHANGE
    {
        exchange(name, size.parse()?, messages.parse()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // With the tests of the crate, or as a test of the benches: the programs that would be counted.
    if args.iter().any(|arg| arg == "--test") || !args.iter().any(|arg| arg == "--bench") {
        for case in &CASES {
            exchange(case.name, case.size, BATCH)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.iter().any(|arg| arg == "--list") {
        return Ok(ExitCode::SUCCESS);
    }
    let wanted: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let cases: Vec<&Case> = CASES.iter().filter(|case| case.is_one_of(&wanted)).collect();
    if cases.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: not counted, because valgrind is not installed (Debian: apt install valgrind)");
        return Ok(ExitCode::SUCCESS);
    }
    let mut within = true;
    for case in cases {
        within &= check(case)?.is_continue();
    }
    Ok(if within { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check(case: &Case) -> Result<ControlFlow<()>> {
    let Case { name, size, limit } = case;
    let messages = MESSAGES.next_multiple_of(BATCH);
    let each = (count(case, 2 * messages)? - count(case, messages)?) as f64 / messages as f64;
    // Each byte is looked at, eight or more at a time.
    if each < (*size / 64) as f64 {
        return Err(
            format!("{name} {size}: {each:.1} instructions for each message cannot be; what was counted?").into()
        );
    }
    print!("{name:>8} {size:>5} B: {each:>7.1} instructions for each message");
    // The limits are for the instructions of one kind of processor.
    if !cfg!(target_arch = "x86_64") {
        println!(" (no limit on {})", env::consts::ARCH);
        return Ok(ControlFlow::Continue(()));
    }
    if each <= *limit as f64 {
        println!(", limit {limit}");
        return Ok(ControlFlow::Continue(()));
    }
    println!(
        ", OVER THE LIMIT of {limit}; callgrind on this program with `{EXCHANGE} {name} {size} {messages}` shows where"
    );
    Ok(ControlFlow::Break(()))
}

/// Instructions of a whole process. A child that reserves memory is counted, too; it does the least.
fn count(case: &Case, messages: u64) -> Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args([EXCHANGE, case.name, &case.size.to_string(), &messages.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().filter_map(|line| line.split_once("Collected :")?.1.trim().parse().ok()).max();
    match collected {
        Some(number) if output.status.success() => Ok(number),
        _ => Err(format!("callgrind of {} {} ended with {}: {said}", case.name, case.size, output.status).into()),
    }
}

/// Publishes and receives so many messages; whole batches of them.
fn exchange(name: &str, size: usize, messages: u64) -> Result<()> {
    let (mut writer, mut reader) = pair(CAPACITY);
    let mut message = vec![0; size];
    let sum = match name {
        "single" => one_by_one(&mut writer, &mut reader, &mut message, messages),
        "in-place" => in_place(&mut writer, &mut reader, size, messages),
        "batch" => in_batches(&mut writer, &mut reader, &mut message, messages),
        _ => return Err(format!("nobody knows how to exchange messages {name:?}").into()),
    }?;
    if sum != messages * (messages - 1) / 2 {
        return Err(format!("{messages} messages of {size} bytes, {name}: the sum of their bytes is {sum}").into());
    }
    Ok(())
}

fn one_by_one(writer: &mut Writer, reader: &mut Reader, message: &mut [u8], messages: u64) -> Result<u64> {
    let mut sum = 0;
    for number in 0..messages {
        message[..8].copy_from_slice(&number.to_le_bytes());
        writer.publish(black_box(message))?;
        sum += seen(reader.recv(None)?)?;
    }
    Ok(sum)
}

fn in_place(writer: &mut Writer, reader: &mut Reader, size: usize, messages: u64) -> Result<u64> {
    let mut sum = 0;
    for number in 0..messages {
        let mut slot = writer.reserve(size)?.ok_or("a block channel drops nothing")?;
        black_box(&mut slot[..]).fill(0);
        slot[..8].copy_from_slice(&number.to_le_bytes());
        slot.commit(size)?;
        sum += seen(reader.recv(None)?)?;
    }
    Ok(sum)
}

fn in_batches(writer: &mut Writer, reader: &mut Reader, message: &mut [u8], messages: u64) -> Result<u64> {
    let mut sum = 0;
    for first in (0..messages).step_by(BATCH as usize) {
        let mut batch = writer.batch();
        for number in first..first + BATCH {
            message[..8].copy_from_slice(&number.to_le_bytes());
            batch.push(black_box(message))?;
        }
        batch.commit()?;
        let mut batch = reader.batch(BATCH as usize);
        while let Some(message) = batch.next()? {
            sum += seen(message)?;
        }
    }
    Ok(sum)
}

/// The sum of all bytes, as words.
#[inline(always)]
fn seen(message: Message<'_>) -> Result<u64> {
    let sum = message.words().fold(0, u64::wrapping_add);
    message.finish()?;
    Ok(sum)
}
