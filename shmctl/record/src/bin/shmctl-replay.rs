//! The command `shmctl replay`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    shmctl_record::replay()
}
