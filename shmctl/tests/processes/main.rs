//! The programs together: real daemons, real clients, real shared memory.
//!
//! `cargo test --workspace` builds all that is needed. Each test has a daemon with a runtime directory and a prefix of its
//! own and checks at the end that nothing of it is left. Where a test needs another process that is no `shmctl`, this test
//! program runs itself with a role: see [`helpers`].

mod api;
mod barrier;
mod bench;
mod completions;
mod content;
mod create;
mod declared;
mod doctor;
mod errors;
mod examples;
mod fairness;
mod follower;
mod formats;
mod handoff_kills;
mod helpers;
mod hostile;
mod lifecycle;
mod listings;
mod log;
mod losses;
mod manual;
mod massacre;
mod metrics;
mod namespaces;
mod page_table;
mod permissions;
mod private_memory;
mod protocol;
mod read_write;
mod resize;
mod roles;
mod schemas;
mod selection;
mod several;
mod slow;
mod soak;
mod stat;
mod stop_write;
mod storm;
mod terminal;
mod times;
mod top;
mod walk;
mod write_follow;
mod write_input;

/// Not a test: where this program goes in when another test has started it with a role.
#[test]
fn helper_process() {
    helpers::play();
}
