//! The targets under libFuzzer. `SHM_FUZZ_TARGET` says which one; `run` in this package builds and starts it.
#![no_main]

use std::sync::LazyLock;

use shm_fuzz::{Target, find};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("SHM_FUZZ_TARGET").unwrap_or_default();
    find(&name).unwrap_or_else(|| panic!("SHM_FUZZ_TARGET is {name:?}, which is no target"))
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.run)(input));
