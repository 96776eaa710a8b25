//! Serves the metrics until a signal comes.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};

use super::families::render;
use super::http::serve;
use super::listen::{Listeners, Stream};
use super::reader_names::ReaderNames;
use super::{Metrics, Scrape};
use crate::error::{Result, note};
use crate::output::{has_news, wait_for};
use crate::signals::Signals;

/// Most connections that are answered at a time. Others wait in the socket's backlog.
const MOST: usize = 16;
/// The longest sleep. It matters only for a signal that comes between the check and the sleep.
const SLEEP: Duration = Duration::from_secs(3600);
/// How long to leave the sockets alone when there are as many connections as there may be, or too few descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Each connection has a thread of its own, and a limit on its time: a slow client delays nobody.
pub(super) fn run(listeners: &Listeners, metrics: Metrics) -> Result<()> {
    let signals = Signals::catch()?;
    let (metrics, names) = (Arc::new(metrics), Arc::new(Mutex::new(ReaderNames::default())));
    let connections = Arc::new(AtomicUsize::new(0));
    for listener in &listeners.all {
        log::info!("serving metrics on {listener}");
    }
    let mut pause = false;
    while !signals.came() {
        let is_full = connections.load(Ordering::Acquire) >= MOST;
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if !(is_full || pause) {
            fds.extend(listeners.all.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        }
        wait_for(&mut fds, if is_full || pause { PAUSE } else { SLEEP })?;
        let news: Vec<bool> = fds[1..].iter().map(has_news).collect();
        pause = false;
        for (listener, _) in listeners.all.iter().zip(news).filter(|(_, news)| *news) {
            match listener.accept() {
                Ok(stream) => spawn(stream, &connections, &metrics, &names),
                // The client has gone again.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    note(&format!("cannot accept a connection on {listener}: {e}; trying again"));
                    pause = true;
                }
            }
        }
    }
    Ok(())
}

fn spawn(stream: Stream, connections: &Arc<AtomicUsize>, metrics: &Arc<Metrics>, names: &Arc<Mutex<ReaderNames>>) {
    let place = Place::take(connections);
    let (metrics, names) = (Arc::clone(metrics), Arc::clone(names));
    let work = move || {
        let _place = place;
        let text = || {
            let (daemon, channels, _) = metrics.ask().map_err(|failure| failure.to_string())?;
            let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(render(&Scrape::new(daemon, channels, &mut names)))
        };
        if let Err(e) = serve(stream, text) {
            log::info!("a client got no answer: {e}");
        }
    };
    if let Err(e) = thread::Builder::new().spawn(work) {
        note(&format!("cannot answer a client: no thread can be started: {e}"));
    }
}

/// One of the connections that may be there at a time.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(connections))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
