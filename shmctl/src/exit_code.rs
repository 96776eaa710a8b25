//! The exit codes: their numbers for the code, and their meanings for the help and the manual pages.

use shm_cli::ExitCode;

/// The command failed.
pub const FAILED: u8 = 1;
/// The command line, or a value in it or in a variable, is wrong.
pub const USAGE: u8 = 2;
/// Reloaded in part.
pub(crate) const IN_PART: u8 = 3;
pub(crate) const NO_DAEMON: u8 = 69;
/// The command timed out, or would have to wait.
pub const WOULD_BLOCK: u8 = 75;
/// The command is not permitted.
pub const NOT_PERMITTED: u8 = 77;
pub(crate) const BAD_CONFIG: u8 = 78;

/// Of every command but `doctor`.
pub(crate) const CODES: &[ExitCode] = &[
    ExitCode::new(
        0,
        "done; also when the output or the channel was closed, and when SIGINT or SIGTERM ended read, write, record, replay, stat --watch, \
         top, log --follow, metrics --listen or bench",
    ),
    ExitCode::new(FAILED, "failed: the message states the reason"),
    ExitCode::new(USAGE, "wrong usage, or a wrong value, on the command line or in an environment variable"),
    ExitCode::new(IN_PART, "reloaded, but some keys were not changed").only(&["reload"]),
    ExitCode::new(NO_DAEMON, "no daemon answers"),
    ExitCode::new(WOULD_BLOCK, "timed out, or the command would have to wait"),
    ExitCode::new(NOT_PERMITTED, "not permitted"),
    ExitCode::new(BAD_CONFIG, "the daemon refuses its configuration").only(&["reload", "reexec"]),
];

/// Of `doctor`: those of monitoring plugins.
pub(crate) const DOCTOR: &[ExitCode] = &[
    ExitCode::new(0, "nothing is wrong, or --fix has mended everything"),
    ExitCode::new(1, "warning: something will go wrong, or does for some"),
    ExitCode::new(
        2,
        "critical: messages do not flow or are lost, or there is no daemon. Wrong usage ends with 2 as well, with a message on \
         standard error and nothing on standard output",
    ),
    ExitCode::new(3, "unknown: something could not be looked at, such as a socket that this user may not use"),
];

/// What a command may end with.
pub(crate) fn of(command: &str) -> Vec<ExitCode> {
    let codes = if command == "doctor" { DOCTOR } else { CODES };
    codes.iter().filter(|code| code.is_of(command)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_own_codes() {
        let numbers = |command: &str| of(command).iter().map(|code| code.code).collect::<Vec<_>>();
        assert_eq!(numbers("read"), [0, 1, 2, 69, 75, 77]);
        assert_eq!(numbers("reload"), [0, 1, 2, 3, 69, 75, 77, 78]);
        assert_eq!(numbers("doctor"), [0, 1, 2, 3]);
    }
}
