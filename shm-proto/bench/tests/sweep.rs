//! `shm-bench sweep`: what it writes, and that it leaves nothing. Nothing here is about how fast anything is.
//! The program needs `shmd` and `shmctl` beside it: `cargo test --workspace` builds all.

use std::fs;
use std::path::{Path, PathBuf};

use shm_test_support::{Proc, TempDir, clean, program};

/// What is left in `/dev/shm` and in the directory for temporary files of a program with this number.
fn left(pid: u32, temporary: &Path) -> Vec<PathBuf> {
    let ours = format!("shmd-bench-{pid}-");
    let entries = [Path::new("/dev/shm"), temporary].map(|dir| fs::read_dir(dir).unwrap());
    let entries = entries.into_iter().flatten().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).map(|entry| entry.path()).collect()
}

/// Runs the program to its end, and returns what it printed.
fn run(temporary: &TempDir, args: &[&str]) -> String {
    // The program starts both.
    let [_, _] = ["shmd", "shmctl"].map(program);
    let mut command = clean(env!("CARGO_BIN_EXE_shm-bench"));
    command.args(args).env("TMPDIR", temporary);
    let program = Proc::spawn(command);
    let pid = program.pid();
    let out = program.wait().quiet().text();
    assert_eq!(left(pid, temporary), Vec::<PathBuf>::new());
    out
}

#[test]
fn a_sweep_writes_a_table_and_a_plot_for_everything_that_grows() {
    let temporary = TempDir::new();
    let dir = temporary.join("results");
    let out = run(&temporary, &["sweep", "--quick", "--out", dir.to_str().unwrap()]);
    assert_eq!(out.trim_end(), dir.join("sweep.md").to_str().unwrap());
    let tables = fs::read_to_string(dir.join("sweep.md")).unwrap();
    for name in ["size", "readers", "channels", "idle", "capacity", "grow"] {
        assert!(tables.contains(&format!("({name}.svg)")), "{tables}");
        let plot = fs::read_to_string(dir.join(format!("{name}.svg"))).unwrap();
        assert!(plot.starts_with("<svg") && plot.contains("<circle"), "{plot}");
    }
    assert!(tables.matches("\n| ---: |").count() == 6 && !tables.contains("NaN"), "{tables}");
}

#[test]
fn every_command_has_help() {
    let temporary = TempDir::new();
    for command in ["sweep", "ratios"] {
        assert!(run(&temporary, &[command, "--help"]).contains("Usage: shm-bench"), "{command}");
    }
}
