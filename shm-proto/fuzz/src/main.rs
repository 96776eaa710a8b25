//! Gives targets random inputs near the kept ones, without a guide. See the README of this package.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use shm_fuzz::{Mutator, TARGETS, Target, corpus, find};

const USAGE: &str = "usage: shm-fuzz [--seconds N] [--seed N] [TARGET...]\n       shm-fuzz TARGET --input FILE";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("shm-fuzz: {why}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), String> {
    let (mut seconds, mut seed, mut input, mut targets) = (5, 1, None, Vec::new());
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|n| n.parse::<u64>().ok()).ok_or_else(|| USAGE.to_owned());
        match word.as_str() {
            "--seconds" => seconds = number()?,
            "--seed" => seed = number()?,
            "--input" => input = Some(words.next().ok_or_else(|| USAGE.to_owned())?),
            name => targets.push(find(name).ok_or_else(|| {
                let known = TARGETS.map(|target| target.name).join(", ");
                format!("there is no target {name:?}; known are {known}\n{USAGE}")
            })?),
        }
    }
    if targets.is_empty() {
        targets.extend(TARGETS);
    }
    if let Some(file) = input {
        let bytes = std::fs::read(&file).map_err(|e| format!("{file}: {e}"))?;
        targets.iter().for_each(|target| (target.run)(&bytes));
        return Ok(());
    }
    targets.iter().try_for_each(|target| try_out(*target, seed, Duration::from_secs(seconds)))
}

fn try_out(target: Target, seed: u64, time: Duration) -> Result<(), String> {
    let kept = corpus(target.name).map_err(|e| format!("the corpus of {}: {e}", target.name))?;
    let path = std::env::temp_dir().join(format!("shm-fuzz-{}-{}.input", target.name, std::process::id()));
    let last = File::create(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    // After the file was opened: a target may count the descriptors.
    kept.iter().for_each(|input| (target.run)(input));
    let (mut mutator, mut tried, until) = (Mutator::new(seed), 0u64, Instant::now() + time);
    while Instant::now() < until {
        let input = mutator.near(&kept);
        // An input that ends the process is found there afterwards.
        last.write_all_at(&input, 0).and_then(|()| last.set_len(input.len() as u64)).map_err(|e| e.to_string())?;
        (target.run)(&input);
        tried += 1;
    }
    let _ = std::fs::remove_file(path);
    println!("{:<14} {} kept inputs, {tried} near them", target.name, kept.len());
    Ok(())
}
