//! The connection to the server: how it is made, and what is heard of it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use log::{debug, info, warn};
use shmctl::companion::Failure;
use tokio::sync::Notify;

use crate::args::Server;
use crate::backoff::{self, Backoff};
use crate::failure::with_causes;

/// A server that is silent for three times as long counts as lost.
const PING: Duration = Duration::from_secs(5);
/// How long connecting, and each answer of the server, may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// Between two lines about errors of the server.
const BETWEEN_ERRORS: Duration = Duration::from_secs(1);

/// What is known of the connection, for figures and status lines.
#[derive(Debug, Default)]
pub(crate) struct Link {
    connected: AtomicBool,
    lost: Notify,
    heard: Mutex<Heard>,
}

/// What the log has to say, and how often.
#[derive(Debug, Default)]
struct Heard {
    /// Failures to connect in a row.
    failures: u64,
    /// Why the last one failed.
    why: String,
    /// When an error of the server was logged.
    told: Option<Instant>,
    /// Errors of the server that were not logged since.
    untold: u64,
}

impl Heard {
    /// Connecting has failed. Returns whether that is worth a line in the log.
    fn failed(&mut self, why: String) -> bool {
        self.failures += 1;
        self.why = why;
        self.failures.is_power_of_two()
    }

    /// The server has answered with an error, one for each envelope perhaps. Returns how many were not logged before this one,
    /// unless this one is not logged either.
    fn refused(&mut self, now: Instant) -> Option<u64> {
        if self.told.is_some_and(|told| now.duration_since(told) < BETWEEN_ERRORS) {
            self.untold += 1;
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.untold))
    }
}

impl Link {
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Why there is no connection; empty while there is one.
    pub(crate) fn why(&self) -> String {
        if self.is_connected() { String::new() } else { self.heard().why.clone() }
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next loss of the connection. One that nobody waited for ends the next wait at once.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    fn note(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.connected.store(true, Ordering::Relaxed);
                let mut heard = self.heard();
                (heard.failures, heard.why) = (0, String::new());
                info!("connected to the server");
            }
            Event::Disconnected => {
                self.connected.store(false, Ordering::Relaxed);
                self.lost.notify_one();
                warn!("the connection to the server is lost; connecting again");
            }
            Event::ServerError(error) => match self.heard().refused(Instant::now()) {
                Some(0) => warn!("the server says: {error}"),
                Some(untold) => warn!("the server says: {error} ({untold} such errors were not logged)"),
                None => debug!("{error}"),
            },
            Event::ClientError(error) if !self.is_connected() => {
                let why = error.to_string();
                if self.heard().failed(why.clone()) {
                    warn!("cannot connect again: {why}; trying on");
                }
            }
            Event::ClientError(error) => debug!("{error}"),
            other => debug!("{other}"),
        }
    }
}

/// Connects to one of the servers, and waits for one that is not there. The connection is made again whenever it is lost.
///
/// # Errors
/// A server that does not accept this relay, and files or addresses that cannot be used.
pub(crate) async fn connect(urls: &str, server: &Server, what: &str, link: &Arc<Link>) -> Result<Client, Failure> {
    let parsed: Result<Vec<ServerAddr>, _> = urls.split(',').map(|url| url.trim().parse()).collect();
    let addresses = parsed.map_err(|e| {
        // Without the address: a password with a comma in it is in two pieces, and nobody can tell which piece is secret.
        Failure::Usage(format!(
            "cannot use an address of the server: {e}; write nats://HOST:PORT or tls://HOST:PORT, with commas between addresses, \
             and write %2C for a comma in a password"
        ))
    })?;
    let options = in_address(options(server, what, link).await?, &addresses);
    let (mut backoff, shown) = (Backoff::default(), without_secrets(urls));
    loop {
        let error = match options.clone().connect(addresses.clone()).await {
            Ok(client) => {
                link.connected.store(true, Ordering::Relaxed);
                let info = client.server_info();
                info!("connected to {shown}: nats-server {}, max_payload {}", info.version, info.max_payload);
                return Ok(client);
            }
            Err(error) => error,
        };
        let why = with_causes(&error);
        match error.kind() {
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                let help = "give it a user in the address, or --creds or --nkey";
                return Err(Failure::NotPermitted(format!("{shown} does not accept this relay: {why}; {help}")));
            }
            ConnectErrorKind::Tls | ConnectErrorKind::ServerParse => {
                return Err(Failure::Other(format!("cannot connect to {shown}: {why}")));
            }
            _ => {}
        }
        let pause = backoff.next();
        if backoff.is_worth_a_line() {
            warn!("cannot connect to {shown}: {why}; trying again");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn options(server: &Server, what: &str, link: &Arc<Link>) -> Result<ConnectOptions, Failure> {
    let heard = Arc::clone(link);
    let mut options = ConnectOptions::new()
        .name(format!("shmctl-relay {what}"))
        .ping_interval(PING)
        .connection_timeout(ANSWER)
        .request_timeout(Some(ANSWER))
        .reconnect_delay_callback(backoff::pause)
        .event_callback(move |event| {
            let heard = Arc::clone(&heard);
            async move { heard.note(&event) }
        });
    let unusable = |file: &Path, e: io::Error| Failure::Other(format!("cannot use {}: {e}", file.display()));
    if let Some(file) = &server.creds {
        options = options.credentials_file(file).await.map_err(|e| unusable(file, e))?;
    }
    if let Some(file) = &server.nkey {
        let seed = std::fs::read_to_string(file).map_err(|e| unusable(file, e))?;
        options = options.nkey(seed.trim().to_owned());
    }
    for file in [&server.ca, &server.cert, &server.key].into_iter().flatten() {
        std::fs::File::open(file).map_err(|e| unusable(file, e))?;
    }
    if let Some(file) = &server.ca {
        options = options.add_root_certificates(file.clone()).require_tls(true);
    }
    if let (Some(cert), Some(key)) = (&server.cert, &server.key) {
        options = options.add_client_certificate(cert.clone(), key.clone()).require_tls(true);
    }
    Ok(options)
}

/// Takes the user and the password, or the token, out of the first address that has one: the client itself only looks at its options.
fn in_address(options: ConnectOptions, addresses: &[ServerAddr]) -> ConnectOptions {
    let Some(address) = addresses.iter().find(|address| address.has_user_pass()) else { return options };
    let user = address.username().map(decoded).unwrap_or_default();
    match address.password().map(decoded) {
        Some(password) => options.user_and_password(user, password),
        None => options.token(user),
    }
}

/// A part of an address with `%40` and the like as the characters that they stand for.
fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, behind)) = rest.split_first() {
        let digits = behind.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            bytes.push(byte);
            rest = &behind[2..];
        } else {
            bytes.push(first);
            rest = behind;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Addresses without the user and password that may be in them.
fn without_secrets(urls: &str) -> String {
    let shown = urls.split(',').map(|url| match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => url.trim().to_owned(),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_with_a_meaning_in_addresses_are_decoded() {
        for (text, wanted) in [("me", "me"), ("a%40b%3a", "a@b:"), ("%", "%"), ("%4", "%4"), ("%zz%c3%bc", "%zz\u{fc}")]
        {
            assert_eq!(decoded(text), wanted);
        }
    }

    #[test]
    fn a_flood_of_errors_is_one_line_a_second_and_failures_are_told_less_and_less_often() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let told: Vec<_> = [0, 1, 999, 1000, 1001, 3000].map(|ms| heard.refused(at(ms))).into();
        assert_eq!(told, [Some(0), None, None, Some(2), None, Some(1)]);
        let told: Vec<_> = (1..=9).filter(|n| heard.failed(format!("reason {n}"))).collect();
        assert_eq!((told, heard.why.as_str()), (vec![1, 2, 4, 8], "reason 9"));
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_secrets("nats://me:se:c@ret@host:4222,other,a:b@c"), "nats://host:4222,other,c");
    }
}
