//! The inner steps, each by itself: `cargo bench -p shm-bench --bench steps`, with a part of a name behind it to choose
//! (`-- ring::publish`), and `-- --help` for the rest.
//!
//! Everything runs in this process, with caches warm and no other processor that wants the same line: this is what the
//! instructions of a step cost, and a change of the code shows here first. What passes between two processes, and that is
//! most of the time of a real message, is measured by `shmctl bench`.
//!
//! The ring has no daemon behind it (see `shm-test-support`), so nothing has to be started or built before.

mod control;
mod framing;
mod ring;
mod wake;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--bench") {
        divan::main();
    } else if args.iter().all(|arg| arg.starts_with('-') && arg != "--list") {
        // With the tests of the crate, whose options (`--test-threads` and others) are not for benches. Who has named a test
        // wants that one.
        divan::Divan::default().test_benches();
    }
}
