//! A terminal for programs that behave otherwise on one.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::pty::{Winsize, openpty};

/// A pseudo-terminal: `master` is the person in front of it.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    slave: OwnedFd,
}

impl Terminal {
    pub(crate) fn new(rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        Terminal { master: pair.master.into(), slave: pair.slave }
    }

    /// The terminal as a program's input or output.
    pub(crate) fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    /// Types this.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }
}
