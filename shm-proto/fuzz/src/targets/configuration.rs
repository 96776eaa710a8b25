//! A configuration file, and a key on the command line.

use shmd::fuzzing::configuration;

use crate::scratch;

pub(super) fn run(input: &[u8]) {
    // After a zero byte: CHANNEL.KEY=VALUE.
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let (text, set) = (parts.next().unwrap_or_default(), parts.next());
    let set = set.and_then(|set| std::str::from_utf8(set).ok()).and_then(|set| {
        let (channel, rest) = set.split_once('.')?;
        let (key, value) = rest.split_once('=')?;
        Some((channel, key, value))
    });
    let file = scratch::file(text);
    let read = configuration(&scratch::path(&file), set);
    let shown = match read {
        Ok(shown) => shown,
        Err(why) => {
            assert!(!why.is_empty() && !why.contains('\x1b'), "{why:?}");
            return;
        }
    };
    let again = scratch::file(shown.as_bytes());
    let again =
        configuration(&scratch::path(&again), None).unwrap_or_else(|e| panic!("what --check shows: {e}\n{shown}"));
    assert_eq!(settings(&again), settings(&shown));
}

/// Without the comment that names the files.
fn settings(shown: &str) -> Vec<&str> {
    shown.lines().filter(|line| !line.starts_with('#')).collect()
}
