//! The command `shmctl record`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    shmctl_record::record()
}
