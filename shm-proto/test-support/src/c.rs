//! Programs in C.

use std::path::Path;
use std::process::Command;

/// Compiles a program. Returns false, with a note, where there is no compiler.
#[track_caller]
pub fn compile(source: &Path, to: &Path) -> bool {
    match Command::new("gcc").args(["-O2", "-Wall", "-pthread"]).arg(source).arg("-o").arg(to).status() {
        Ok(status) => {
            assert!(status.success(), "gcc does not compile {}", source.display());
            true
        }
        Err(e) => {
            println!("skipped: gcc cannot be started ({e})");
            false
        }
    }
}
