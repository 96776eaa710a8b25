//! What else a daemon that died leaves to the next one.

mod log;
