//! A proxy on loopback that can be stopped: a network that swallows everything and says nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::Duration;

/// Between two looks at the flags.
const TICK: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Flags {
    is_stopped: AtomicBool,
    has_ended: AtomicBool,
}

impl Flags {
    fn ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

pub(crate) struct Proxy {
    flags: Arc<Flags>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To a port of this machine.
    pub(crate) fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let own = listener.local_addr().unwrap().port();
        let flags = Arc::new(Flags::default());
        let seen = Arc::clone(&flags);
        let thread = spawn(move || {
            let mut threads = Vec::new();
            while !seen.ended() {
                if let Ok((client, _)) = listener.accept()
                    && let Ok(server) = TcpStream::connect(("127.0.0.1", port))
                {
                    for (from, to) in [(&client, &server), (&server, &client)] {
                        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                        let flags = Arc::clone(&seen);
                        threads.push(spawn(move || copy(from, to, &flags)));
                    }
                } else {
                    sleep(TICK);
                }
            }
            for thread in threads {
                let _ = thread.join();
            }
        });
        Proxy { flags, port: own, thread: Some(thread) }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Nothing goes through from now on, and nobody is told.
    pub(crate) fn stop(&self) {
        self.flags.is_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn go_on(&self) {
        self.flags.is_stopped.store(false, Ordering::Relaxed);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.flags.has_ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, flags: &Flags) {
    let mut buffer = vec![0; 64 << 10];
    for end in [&from, &to] {
        end.set_nonblocking(false).unwrap();
        end.set_read_timeout(Some(TICK)).unwrap();
        end.set_write_timeout(Some(TICK)).unwrap();
    }
    while !flags.ended() {
        if flags.stopped() {
            sleep(TICK);
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => {
                let mut rest = &buffer[..len];
                while !rest.is_empty() && !flags.ended() {
                    match to.write(rest) {
                        Ok(len) => rest = &rest[len..],
                        Err(e) if waits(&e) => {}
                        Err(_) => return,
                    }
                }
            }
            Err(e) if waits(&e) => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
