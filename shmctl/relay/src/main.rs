//! The command `shmctl relay`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    shmctl_relay::main()
}
