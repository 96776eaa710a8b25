//! The terminal while the view has it: the other screen, no cursor, single keys. It is given back however the command ends.

use std::io::{self, Write};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, raise};
use nix::unistd::{getppid, getsid};

use crate::error::{Failure, Result};
use crate::keyboard::{Keyboard, is_in_background};
use crate::output::print;
use crate::signals::Signals;

/// To the other screen, without a cursor.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
/// The way back.
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// Whether the other screen is shown.
static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// Dropping it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) keyboard: Keyboard,
}

impl Screen {
    /// Takes the terminal. In the background, the process stops until it is in the foreground. `None`: a signal asks for the end, as a
    /// shell's `kill %1` does, which continues a stopped process.
    pub(super) fn enter(signals: &Signals) -> Result<Option<Self>> {
        // The message of a panic would vanish with the other screen. The keyboard is given back when the panic reaches its owner.
        static ONCE: Once = Once::new();
        ONCE.call_once(|| before_a_panic_is_told(|| give_back(&mut io::stdout())));
        while !signals.came() && is_in_background(&io::stdin()) {
            if !can_be_continued() {
                return Err(Failure::Other("cannot take the terminal: another program has it".to_owned()));
            }
            stop();
        }
        if signals.came() {
            return Ok(None);
        }
        let keyboard = Keyboard::open();
        let keyboard =
            keyboard.ok_or_else(|| Failure::Other("cannot read single keys from the terminal".to_owned()))?;
        IS_SHOWN.store(true, Ordering::Relaxed);
        let screen = Screen { keyboard };
        print(ENTER)?;
        Ok(Some(screen))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back(&mut io::stdout());
    }
}

/// Shows the first screen again, once. If the terminal is gone, nobody can see it.
fn give_back(out: &mut impl Write) {
    if IS_SHOWN.swap(false, Ordering::Relaxed) {
        let _ = out.write_all(LEAVE.as_bytes()).and_then(|()| out.flush());
    }
}

fn before_a_panic_is_told(first: impl Fn() + Send + Sync + 'static) {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        first();
        tell(panic);
    }));
}

/// Stops this process, as Ctrl-Z does, until somebody continues it. The terminal has to be given back before.
pub(super) fn stop() {
    // What cannot be stopped goes on.
    let _ = raise(Signal::SIGSTOP);
}

/// Whether there is a shell that could continue a stopped process. Without such a shell the kernel, too, ignores Ctrl-Z.
pub(super) fn can_be_continued() -> bool {
    getsid(Some(getppid())).is_ok_and(|parents| Ok(parents) == getsid(None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_is_given_back_once() {
        let mut out = Vec::new();
        give_back(&mut out);
        assert_eq!(out, b"");
        IS_SHOWN.store(true, Ordering::Relaxed);
        give_back(&mut out);
        give_back(&mut out);
        assert_eq!(out, LEAVE.as_bytes());
    }

    #[test]
    fn a_panic_is_told_on_the_first_screen() {
        static CALLED: AtomicBool = AtomicBool::new(false);
        before_a_panic_is_told(|| CALLED.store(true, Ordering::Relaxed));
        panic::catch_unwind(|| panic!("on purpose")).unwrap_err();
        assert!(CALLED.load(Ordering::Relaxed));
    }
}
