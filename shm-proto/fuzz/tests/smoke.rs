//! Every target takes its kept inputs, and some near them.

use std::sync::{Mutex, PoisonError};

use shm_fuzz::{Mutator, TARGETS, corpus, find};

/// Inputs that are tried near the kept ones, of each target.
const NEAR: usize = 300;

/// One at a time: a target may count the descriptors of the process.
static TURN: Mutex<()> = Mutex::new(());

fn try_out(name: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let target = find(name).unwrap();
    let kept = corpus(name).unwrap();
    assert!(!kept.is_empty(), "{name} has no kept inputs");
    kept.iter().for_each(|input| (target.run)(input));
    let mut mutator = Mutator::new(std::process::id().into());
    for _ in 0..NEAR {
        let input = mutator.near(&kept);
        // The panic's message says what is wrong, and this what with.
        if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&input)) {
            eprintln!("{name} fails with {:?}", input.escape_ascii().to_string());
            std::panic::resume_unwind(panic);
        }
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { try_out(stringify!($name)); })*

        #[test]
        fn every_target_is_tried() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

targets!(chain geometry adoption resume control configuration framing);
