//! Single keys from the terminal, without waiting for the end of a line.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp};

/// Standard input, if it is a terminal and this process is in its foreground. Keys are not echoed, and Ctrl-C still sends SIGINT.
#[derive(Debug)]
pub(crate) struct Keyboard {
    stdin: io::Stdin,
    before: Termios,
}

impl Keyboard {
    /// `None`: nobody can press a key here.
    pub(crate) fn open() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() || is_in_background(&stdin) {
            return None;
        }
        let before = tcgetattr(&stdin).ok()?;
        let mut single = before.clone();
        single.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        single.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        single.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&stdin, SetArg::TCSANOW, &single).ok()?;
        Some(Keyboard { stdin, before })
    }

    /// The keys that were pressed, as bytes. None if the terminal is gone.
    pub(crate) fn pressed(&self) -> Vec<u8> {
        let mut keys = [0; 64];
        let count = read(&self.stdin, &mut keys).unwrap_or(0);
        keys[..count].to_vec()
    }
}

/// Readable if a key was pressed.
impl AsFd for Keyboard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stdin.as_fd()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if !is_in_background(&self.stdin) {
            let _ = tcsetattr(&self.stdin, SetArg::TCSANOW, &self.before);
        }
    }
}

/// Whether another process group has the terminal. A process in the background that changes its terminal is stopped.
pub(crate) fn is_in_background(stdin: &io::Stdin) -> bool {
    tcgetpgrp(stdin).is_ok_and(|foreground| foreground != getpgrp())
}
