//! `shm-bench sweep`: what it writes, and that it leaves nothing. Nothing here is about how fast anything is.
//! The program needs `shmd` and `shmctl` beside it: `cargo test --workspace` builds all.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A directory of the test's own, removed with everything in it.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("shm-bench-test-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Place(dir)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Ended when the test fails.
struct Proc(Child);

impl Drop for Proc {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is left in `/dev/shm` and in the directory for temporary files of a program with this number.
fn left(pid: u32, temporary: &Path) -> Vec<PathBuf> {
    let ours = format!("shmd-bench-{pid}-");
    let entries = [Path::new("/dev/shm"), temporary].map(|dir| fs::read_dir(dir).unwrap());
    let entries = entries.into_iter().flatten().map(|entry| entry.unwrap());
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&ours)).map(|entry| entry.path()).collect()
}

/// Runs the program to its end, and returns what it printed.
fn run(place: &Place, args: &[&str]) -> String {
    let program = Path::new(env!("CARGO_BIN_EXE_shm-bench"));
    for other in ["shmd", "shmctl"] {
        assert!(program.with_file_name(other).is_file(), "{other} is missing: use `cargo test --workspace`");
    }
    let mut command = Command::new(program);
    command.args(args).env("TMPDIR", &place.0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut proc = Proc(command.spawn().unwrap());
    let pid = proc.0.id();
    let out = std::io::read_to_string(proc.0.stdout.take().unwrap()).unwrap();
    let err = std::io::read_to_string(proc.0.stderr.take().unwrap()).unwrap();
    assert!(proc.0.wait().unwrap().success() && err.is_empty(), "{out}{err}");
    assert_eq!(left(pid, &place.0), Vec::<PathBuf>::new());
    out
}

#[test]
fn a_sweep_writes_a_table_and_a_plot_for_everything_that_grows() {
    let place = Place::new("sweep");
    let dir = place.0.join("results");
    let out = run(&place, &["sweep", "--quick", "--out", dir.to_str().unwrap()]);
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
    let place = Place::new("help");
    for command in ["sweep", "ratios"] {
        assert!(run(&place, &[command, "--help"]).contains("Usage: shm-bench"), "{command}");
    }
}
