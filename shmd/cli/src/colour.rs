//! Whether a user wants colours.

use std::ffi::OsStr;

/// Whether colours are wanted on this output: `NO_COLOR` forbids them, `CLICOLOR_FORCE` asks for them everywhere, and without
/// these variables only a terminal gets them.
#[must_use]
pub fn colours_are_wanted(is_terminal: bool) -> bool {
    let variable = |name: &str| std::env::var_os(name);
    decide(
        is_terminal,
        variable("NO_COLOR").as_deref(),
        variable("CLICOLOR_FORCE").as_deref(),
        variable("TERM").as_deref(),
    )
}

fn decide(is_terminal: bool, never: Option<&OsStr>, always: Option<&OsStr>, terminal: Option<&OsStr>) -> bool {
    let is_set = |value: Option<&OsStr>| value.is_some_and(|value| !value.is_empty());
    if is_set(never) {
        false
    } else if is_set(always) && always != Some(OsStr::new("0")) {
        true
    } else {
        is_terminal && terminal != Some(OsStr::new("dumb"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variables_have_their_usual_meaning() {
        for (is_terminal, never, always, terminal, wanted) in [
            (true, None, None, Some("xterm"), true),
            (true, None, None, None, true),
            (true, None, None, Some("dumb"), false),
            (false, None, None, Some("xterm"), false),
            (true, Some("1"), None, None, false),
            (true, Some(""), None, None, true),
            (true, Some("1"), Some("1"), None, false),
            (false, None, Some("1"), Some("dumb"), true),
            (false, None, Some("0"), None, false),
            (false, None, Some(""), None, false),
        ] {
            let decided = decide(is_terminal, never.map(OsStr::new), always.map(OsStr::new), terminal.map(OsStr::new));
            assert_eq!(decided, wanted, "{is_terminal} {never:?} {always:?} {terminal:?}");
        }
    }
}
