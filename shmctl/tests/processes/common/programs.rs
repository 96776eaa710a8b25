//! Where the programs are.

use std::path::PathBuf;

/// The command line program.
pub(crate) fn shmctl() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_shmctl"))
}

/// The daemon, which cargo puts beside it when it builds the workspace.
pub(crate) fn shmd() -> PathBuf {
    let path = shmctl().with_file_name("shmd");
    let missing = "is missing: these tests need both programs, run them with `cargo test --workspace`";
    assert!(path.is_file(), "{} {missing}", path.display());
    path
}
