//! The loop: looks at the daemon, keys, signals, and requests of the person at the keyboard.

use std::io::{self, Stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use ratatui::Terminal;
use shm_proto::{Done, Endpoint, Request};
use signal_hook::consts::{SIGCONT, SIGTSTP, SIGWINCH};

use super::super::{evict, resize, unexpected};
use super::ansi::Ansi;
use super::control::{Control, Footer};
use super::figures::Figures;
use super::keys::{Action, decode, press};
use super::link::{Exchange, News, Observer};
use super::screen::{Screen, can_be_continued, stop};
use super::view::{self, Status};
use crate::error::{Failure, Result};
use crate::global::ANSWER;
use crate::output::{failure, has_gone, has_news, wait_for};
use crate::signals::{Notes, Signals};
use crate::terminal::{Size, size};

/// How long connecting may keep the view from moving. A daemon that runs takes a connection at once.
const CONNECT: Duration = Duration::from_millis(500);

/// An answer that takes longer than this is said to be late. The daemon answers at once unless it is stopped or starved.
const LATE: Duration = Duration::from_secs(1);

/// The state of the view.
#[derive(Debug)]
pub(super) struct Live {
    endpoint: Endpoint,
    observer: Observer,
    figures: Figures,
    control: Control,
    status: Status,
    /// What the person has asked for.
    request: Option<(Request, Exchange)>,
    /// When the next look is due.
    next: Instant,
}

impl Live {
    /// Before the first look.
    pub(super) fn new(endpoint: Endpoint, observer: Observer, interval: Duration) -> Self {
        let (figures, status) = (Figures::new(Instant::now()), Status { interval, ..Status::default() });
        Live { endpoint, observer, figures, control: Control::default(), status, request: None, next: Instant::now() }
    }

    /// Until `q` or a signal. The first look has to succeed.
    pub(super) fn run(mut self, with_colour: bool) -> Result<()> {
        let signals = Signals::catch_on_screen()?;
        self.observer.look(&signals, |news| take(news, &mut self.figures, &mut self.status))?;
        self.next = Instant::now() + self.status.interval;
        let notes = Notes::catch(&[SIGWINCH, SIGTSTP, SIGCONT])?;
        let stdout = io::stdout();
        let Some(mut screen) = Screen::enter(&signals)? else { return Ok(()) };
        let mut terminal = Terminal::new(Ansi::new(io::stdout(), screen_size, with_colour)).map_err(failure)?;
        loop {
            self.draw(&mut terminal)?;
            let keyboard = &screen.keyboard;
            let mut fds = vec![
                PollFd::new(stdout.as_fd(), PollFlags::empty()),
                PollFd::new(keyboard.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
                PollFd::new(notes.as_fd(), PollFlags::POLLIN),
            ];
            let asked = self.request.iter().map(|(_, exchange)| exchange);
            let waiting = self.observer.waiting().into_iter().chain(asked);
            fds.extend(waiting.map(|exchange| PollFd::new(exchange.as_fd(), PollFlags::POLLIN)));
            wait_for(&mut fds, self.pause())?;
            let (is_gone, has_keys) = (has_gone(&fds[0]), has_news(&fds[1]));
            if is_gone {
                return Err(Failure::OutputClosed);
            }
            if signals.came() {
                return Ok(());
            }
            if has_keys {
                let pressed = keyboard.pressed();
                // Nothing to read: the terminal is gone.
                if pressed.is_empty() || self.pressed(&pressed) {
                    return Ok(());
                }
            }
            let noted = notes.take();
            let stops = noted.contains(&SIGTSTP) && can_be_continued();
            // A shell, or another program, has the terminal while this one stands.
            if stops || noted.contains(&SIGCONT) {
                drop(screen);
                if stops {
                    stop();
                }
                let Some(again) = Screen::enter(&signals)? else { return Ok(()) };
                screen = again;
                terminal.clear().map_err(failure)?;
            }
            self.go_on();
        }
    }

    fn draw(&mut self, terminal: &mut Terminal<Ansi<Stdout>>) -> Result<()> {
        self.status.age = self.figures.at.elapsed();
        let Live { figures, control, status, .. } = self;
        terminal.draw(|frame| view::draw(frame.buffer_mut(), figures, control, status)).map_err(failure)?;
        Ok(())
    }

    /// Until when there is nothing to do, if nothing happens.
    fn pause(&self) -> Duration {
        let waiting = self.observer.waiting().into_iter().chain(self.request.iter().map(|(_, exchange)| exchange));
        let soonest = waiting.map(Exchange::deadline).chain((!self.control.is_paused).then_some(self.next)).min();
        soonest.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()))
    }

    /// Takes keys. Returns whether this is the end.
    fn pressed(&mut self, bytes: &[u8]) -> bool {
        for key in decode(bytes) {
            let was_paused = self.control.is_paused;
            let (control, action) = press(std::mem::take(&mut self.control), key, &self.figures);
            self.control = control;
            match action {
                Some(Action::Quit) => return true,
                Some(Action::Ask(request)) => self.ask(request),
                None => {}
            }
            if was_paused && !self.control.is_paused {
                self.next = Instant::now();
            }
        }
        false
    }

    /// Takes what the daemon has said, and asks again when it is time. A look that has begun is completed, paused or not: the daemon
    /// tells an operation once.
    fn go_on(&mut self) {
        loop {
            match self.observer.news() {
                Ok(Some(news)) => take(news, &mut self.figures, &mut self.status),
                Ok(None) => break,
                Err(failure) => {
                    self.no_answer(&failure);
                    break;
                }
            }
        }
        self.look_at_the_request();
        let now = Instant::now();
        if now >= self.next && !self.control.is_paused {
            // On schedule, without catching up on what was missed.
            self.next = (self.next + self.status.interval).max(now);
            if self.observer.waiting().is_some() {
                self.figures.miss();
                if self.figures.at.elapsed() > LATE + self.status.interval {
                    let socket = self.endpoint.socket.display();
                    self.status.trouble = Some(format!("no answer from the daemon at {socket}"));
                }
            } else if let Err(failure) = self.observer.begin(CONNECT) {
                self.no_answer(&failure);
            }
        }
    }

    fn no_answer(&mut self, failure: &Failure) {
        self.status.trouble = Some(failure.to_string());
        self.figures.miss();
    }

    fn ask(&mut self, request: Request) {
        match Exchange::open(&self.endpoint, CONNECT) {
            Ok(mut exchange) => {
                let patience = if matches!(request, Request::Resize { .. }) { resize::ANSWER } else { ANSWER };
                exchange.ask(&request, patience);
                self.request = Some((request, exchange));
            }
            Err(failure) => self.control.footer = Footer::Outcome { text: failure.to_string(), is_bad: true },
        }
    }

    fn look_at_the_request(&mut self) {
        let Some((request, exchange)) = &mut self.request else { return };
        let outcome = match exchange.answer() {
            Ok(None) => return,
            Ok(Some(done)) => told(request, &done),
            Err(failure) => Err(failure),
        };
        self.control.footer = match outcome {
            Ok(text) => Footer::Outcome { text, is_bad: false },
            Err(failure) => Footer::Outcome { text: failure.to_string(), is_bad: true },
        };
        self.request = None;
        // To show what has changed.
        self.next = Instant::now();
    }
}

/// What has become of a request.
fn told(request: &Request, done: &Done) -> Result<String> {
    match (request, done) {
        (Request::Resize { .. }, Done::Resize(resized)) => Ok(resize::told(resized).trim_end().to_owned()),
        (Request::Evict { channel, reader }, Done::Evict {}) => {
            Ok(evict::told(channel.as_ref(), *reader).trim_end().to_owned())
        }
        (_, other) => Err(unexpected("resize or evict", other)),
    }
}

/// Takes what the daemon has said.
pub(super) fn take(news: News, figures: &mut Figures, status: &mut Status) {
    match news {
        News::Daemon(daemon) => {
            status.daemon = Some(daemon);
            // It tells all of its operations again.
            figures.operations.clear();
        }
        News::Channels(channels) => {
            status.trouble = None;
            figures.look(channels, Instant::now());
        }
        News::Operations(entries) => figures.log(entries),
    }
}

fn screen_size() -> Size {
    size(&io::stdout()).unwrap_or(Size { columns: 80, rows: 24 })
}
