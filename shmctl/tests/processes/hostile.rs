//! Clients and readers that misbehave: they lose their connection, and nobody else loses anything.

mod attached;
mod crowds;
mod descriptors;
mod lines;
mod mutations;
mod squatters;

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use shm_test_support::{Daemon, PATIENCE};

fn connect(daemon: &Daemon) -> UnixStream {
    let stream = UnixStream::connect(daemon.place.run_dir().join("shmd.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Everything up to the end of the connection, which the daemon has to bring about.
#[track_caller]
fn last_words(mut stream: UnixStream) -> String {
    let mut text = Vec::new();
    match stream.read_to_end(&mut text) {
        Ok(_) => {}
        // What we had sent was not read any more.
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the connection stays open: {e}"),
    }
    String::from_utf8(text).unwrap()
}

#[track_caller]
fn refusal(line: &str) -> (String, String) {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    assert_eq!(value["v"], 1, "{line}");
    let text = |key: &str| value["error"][key].as_str().unwrap_or_else(|| panic!("no {key} in {line}")).to_owned();
    (text("kind"), text("message"))
}
