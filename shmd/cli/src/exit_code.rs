//! Exit codes and their meanings.

/// The widest line of the help that is laid out here.
const COLUMNS: usize = 78;
/// Columns before a meaning.
const INDENT: usize = 6;

/// An exit code of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode {
    /// The number.
    pub code: u8,
    /// What the program says by it.
    pub meaning: &'static str,
    /// The commands that may end with it; nothing if all of them may.
    pub commands: &'static [&'static str],
}

impl ExitCode {
    /// A code that every command may end with.
    #[must_use]
    pub const fn new(code: u8, meaning: &'static str) -> Self {
        ExitCode { code, meaning, commands: &[] }
    }

    /// A code of these commands alone.
    #[must_use]
    pub const fn only(self, commands: &'static [&'static str]) -> Self {
        ExitCode { commands, ..self }
    }

    /// Whether this command may end with it.
    #[must_use]
    pub fn is_of(&self, command: &str) -> bool {
        self.commands.is_empty() || self.commands.contains(&command)
    }
}

/// The lines for `--help`: a code, and its meaning beside it.
#[must_use]
pub fn exit_codes(codes: &[ExitCode]) -> String {
    let mut text = String::new();
    for ExitCode { code, meaning, .. } in codes {
        let mut line = format!("  {code:<width$}", width = INDENT - 2);
        for word in meaning.split(' ') {
            if line.len() + 1 + word.len() > COLUMNS {
                text += line.trim_end();
                text.push('\n');
                line = " ".repeat(INDENT);
            }
            if line.len() > INDENT {
                line.push(' ');
            }
            line += word;
        }
        text += &line;
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_meaning_goes_on_below_its_beginning() {
        let long =
            "a meaning that is so long that it does not fit into one line of the help, and goes on in the next one";
        let text = exit_codes(&[ExitCode::new(0, "done"), ExitCode::new(78, long)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!((lines[0], lines.len()), ("  0   done", 3));
        assert!(lines[1].starts_with("  78  a meaning") && lines[2].starts_with("      "), "{text}");
        assert!(lines.iter().all(|line| line.len() <= COLUMNS), "{text}");
        assert_eq!(text.split_whitespace().skip(3).collect::<Vec<_>>().join(" "), long);
    }

    #[test]
    fn a_code_is_of_every_command_unless_it_says_which() {
        let kept = ExitCode::new(3, "in part").only(&["reload"]);
        assert!(kept.is_of("reload") && !kept.is_of("read") && ExitCode::new(1, "failed").is_of("read"));
    }
}
