//! The program `shmctl`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    shmctl::main()
}
