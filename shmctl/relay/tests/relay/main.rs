//! The relay as a whole: two daemons with runtime directories of their own stand for two hosts, and a `nats-server` on loopback is
//! between them. Each test compares what arrives with what was sent, byte by byte. Without `nats-server` the tests are skipped.

mod carry;
mod errors;
mod helpers;
mod kills;
mod secure;
mod stalled;
mod stream;
