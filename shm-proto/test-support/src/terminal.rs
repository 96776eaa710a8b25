//! A terminal for programs that behave otherwise on one.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::take;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use nix::pty::{Winsize, openpty};

/// A pseudo-terminal: `master` is the person in front of it.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    screen: Arc<Mutex<Screen>>,
}

impl Terminal {
    pub fn new(rows: u16, columns: u16) -> Self {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).unwrap();
        let master = File::from(pair.master);
        let screen = Arc::new(Mutex::new(Screen::new(rows.into(), columns.into())));
        let (mut from, onto) = (master.try_clone().unwrap(), Arc::clone(&screen));
        // Ends when nobody has the other side open any more, which the test has until it ends.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                onto.lock().unwrap_or_else(PoisonError::into_inner).show(&bytes[..n]);
            }
        });
        Terminal { master, slave: pair.slave, screen }
    }

    /// The terminal as a program's input or output.
    pub fn stdio(&self) -> Stdio {
        self.slave.try_clone().unwrap().into()
    }

    /// Types this.
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    /// How the terminal treats keys and output, in stty's words.
    pub fn modes(&self) -> String {
        let output = Command::new("stty").arg("-g").stdin(self.stdio()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What there is to see now.
    pub fn screen(&self) -> Screen {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// As much of a terminal as the programs use: letters, moving the cursor, clearing, colours, the other screen.
#[derive(Clone, Debug)]
pub struct Screen {
    cells: Vec<Vec<char>>,
    row: usize,
    column: usize,
    /// What has come so far of a control sequence or of a letter of several bytes.
    pending: Vec<u8>,
    /// What lines held when they were begun anew.
    pub overwritten: Vec<String>,
    /// Lines that have left the screen at its top.
    pub scrolled: usize,
    /// Lines that were too long.
    pub wrapped: usize,
    /// The cursor is not shown.
    pub hides_cursor: bool,
    /// What the first screen holds while the other one is shown.
    first: Vec<Vec<char>>,
}

impl Screen {
    fn new(rows: usize, columns: usize) -> Self {
        let cells = vec![vec![' '; columns]; rows];
        Screen {
            cells,
            row: 0,
            column: 0,
            pending: Vec::new(),
            overwritten: Vec::new(),
            scrolled: 0,
            wrapped: 0,
            hides_cursor: false,
            first: Vec::new(),
        }
    }

    /// Whether the other screen is shown, the one that programs leave again.
    pub fn is_other(&self) -> bool {
        !self.first.is_empty()
    }

    /// The lines, without blanks at their ends.
    pub fn lines(&self) -> Vec<String> {
        self.cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned()).collect()
    }

    pub fn text(&self) -> String {
        self.lines().join("\n")
    }

    fn show(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.pending.push(byte);
            match self.pending.as_slice() {
                [b'\x1b'] | [b'\x1b', b'['] => {}
                [b'\x1b', b'[', arguments @ .., last] if last.is_ascii_alphabetic() => {
                    let (arguments, last) = (String::from_utf8(arguments.to_vec()).unwrap(), *last);
                    self.obey(&arguments, last);
                    self.pending.clear();
                }
                [b'\x1b', b'[', ..] => {}
                letter => {
                    if let Ok(text) = str::from_utf8(letter) {
                        let letter = text.chars().next().unwrap();
                        self.put(letter);
                        self.pending.clear();
                    }
                }
            }
        }
    }

    fn put(&mut self, letter: char) {
        match letter {
            '\r' => {
                let line = self.cells[self.row].iter().collect::<String>().trim_end().to_owned();
                self.overwritten.extend((!line.is_empty()).then_some(line));
                self.column = 0;
            }
            '\n' => self.down(),
            letter if letter.is_control() => panic!("what does {letter:?} do?"),
            letter => {
                if self.column == self.cells[0].len() {
                    self.wrapped += 1;
                    self.column = 0;
                    self.down();
                }
                self.cells[self.row][self.column] = letter;
                self.column += 1;
            }
        }
    }

    fn down(&mut self) {
        if self.row + 1 < self.cells.len() {
            self.row += 1;
            return;
        }
        self.scrolled += 1;
        self.cells.remove(0);
        self.cells.push(vec![' '; self.cells[0].len()]);
    }

    fn obey(&mut self, arguments: &str, last: u8) {
        match (arguments, last) {
            (place, b'H') => {
                let mut numbers = place.split(';').map(|number| number.parse().unwrap_or(1));
                let (row, column): (usize, usize) = (numbers.next().unwrap_or(1), numbers.next().unwrap_or(1));
                assert!(row <= self.cells.len() && column <= self.cells[0].len(), "there is no {place:?}");
                (self.row, self.column) = (row - 1, column - 1);
            }
            ("?1049", b'h') if !self.is_other() => {
                let empty = vec![vec![' '; self.cells[0].len()]; self.cells.len()];
                self.first = std::mem::replace(&mut self.cells, empty);
            }
            ("?1049", b'l') if self.is_other() => self.cells = take(&mut self.first),
            ("?25", b'h' | b'l') => self.hides_cursor = last == b'l',
            ("", b'K') => self.cells[self.row].iter_mut().skip(self.column).for_each(|cell| *cell = ' '),
            ("", b'J') => {
                self.obey("", b'K');
                self.cells.iter_mut().skip(self.row + 1).flatten().for_each(|cell| *cell = ' ');
            }
            ("2", b'J') => self.cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
            (_, b'm') => {}
            _ => panic!("what does {arguments:?} {:?} do?", char::from(last)),
        }
    }
}
