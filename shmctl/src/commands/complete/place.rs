//! Where the cursor is: which command's line it is, and what the word there is for.

use clap::{Arg, Command};

/// What the last word is.
#[derive(Clone, Copy, Debug)]
pub(super) enum What<'c> {
    Option,
    Command,
    /// Of an option or an argument.
    Value(&'c Arg),
    /// Nothing that is known.
    Nothing,
}

/// The place of the last word.
#[derive(Debug)]
pub(super) struct Place<'c> {
    /// The command that the words before have chosen.
    pub(super) command: &'c Command,
    pub(super) what: What<'c>,
    /// The beginning of the last word, which stays as it is: `--format=`.
    pub(super) before: String,
    /// The rest of the last word.
    pub(super) typed: String,
    /// Options and arguments so far, by their ids, with their values.
    given: Vec<(&'c str, String)>,
}

/// The words before the last, one after the other.
struct Walk<'c> {
    command: &'c Command,
    /// The next word is the value of this option.
    pending: Option<&'c Arg>,
    /// Arguments so far.
    arguments: usize,
    /// Behind `--` there are no options.
    options_ended: bool,
    given: Vec<(&'c str, String)>,
}

impl<'c> Place<'c> {
    /// The words have the program first. `root` is its command line, built.
    pub(super) fn of(root: &'c Command, words: &[String]) -> Self {
        let mut walk = Walk { command: root, pending: None, arguments: 0, options_ended: false, given: Vec::new() };
        let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
        before.iter().skip(1).for_each(|word| walk.pass(word));
        walk.arrive(last)
    }

    /// The value that was given for an option or argument.
    pub(super) fn given(&self, id: &str) -> Option<&str> {
        self.given.iter().rev().find(|(known, _)| *known == id).map(|(_, value)| value.as_str())
    }

    /// Whether it was given, with or without a value.
    pub(super) fn has(&self, id: &str) -> bool {
        self.given.iter().any(|(known, _)| *known == id)
    }

    /// Whether it was given with this value.
    pub(super) fn has_value(&self, id: &str, value: &str) -> bool {
        self.given.iter().any(|(known, given)| *known == id && given == value)
    }
}

impl<'c> Walk<'c> {
    fn pass(&mut self, word: &str) {
        if let Some(arg) = self.pending.take()
            && !(is_option(word) && is_optional(arg))
        {
            self.note(arg, word);
            return;
        }
        if !self.options_ended && word == "--" {
            self.options_ended = true;
        } else if !self.options_ended && is_option(word) {
            self.pass_option(word);
        } else if let Some(command) = self.command.find_subcommand(word).filter(|_| self.arguments == 0) {
            self.command = command;
        } else {
            if let Some(arg) = self.argument() {
                self.note(arg, word);
            }
            self.arguments += 1;
        }
    }

    fn pass_option(&mut self, word: &str) {
        if let Some(long) = word.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if let Some(arg) = self.long(name) {
                self.take(arg, value);
            }
            return;
        }
        // Several in one word: the first that takes a value has the rest of it.
        for (at, letter) in word.char_indices().skip(1) {
            let Some(arg) = self.command.get_arguments().find(|arg| arg.get_short() == Some(letter)) else { return };
            let rest = &word[at + letter.len_utf8()..];
            if takes_value(arg) {
                self.take(arg, (!rest.is_empty()).then(|| rest.trim_start_matches('=')));
                return;
            }
            self.note(arg, "");
        }
    }

    /// An option, and the value in the same word.
    fn take(&mut self, arg: &'c Arg, value: Option<&str>) {
        match value {
            None if takes_value(arg) && !arg.is_require_equals_set() => self.pending = Some(arg),
            value => self.note(arg, value.unwrap_or_default()),
        }
    }

    fn note(&mut self, arg: &'c Arg, value: &str) {
        self.given.push((arg.get_id().as_str(), value.to_owned()));
    }

    fn long(&self, name: &str) -> Option<&'c Arg> {
        self.command.get_arguments().find(|arg| arg.get_long() == Some(name))
    }

    /// The argument at the present place; the last one may take several words.
    fn argument(&self) -> Option<&'c Arg> {
        let last = self.command.get_positionals().last()?;
        let takes_more = last.get_num_args().is_some_and(|number| number.max_values() > 1);
        self.command.get_positionals().nth(self.arguments).or(takes_more.then_some(last))
    }

    fn arrive(self, last: &str) -> Place<'c> {
        let has_commands = self.command.get_subcommands().next().is_some();
        let value = |arg: Option<&'c Arg>| arg.map_or(What::Nothing, What::Value);
        let mut before = "";
        let what = match self.pending {
            Some(arg) if !(is_option(last) && is_optional(arg)) => What::Value(arg),
            _ if !self.options_ended && last.starts_with('-') => match last.split_once('=') {
                Some((name, _)) => {
                    before = &last[..=name.len()];
                    value(self.long(name.trim_start_matches('-')))
                }
                None => What::Option,
            },
            _ if has_commands && self.arguments == 0 => What::Command,
            _ => value(self.argument()),
        };
        if let What::Value(arg) = what
            && let Some(comma) = arg.get_value_delimiter().and_then(|delimiter| last.rfind(delimiter))
        {
            before = &last[..=comma];
        }
        let (before, typed) = (before.to_owned(), last[before.len()..].to_owned());
        Place { command: self.command, what, before, typed, given: self.given }
    }
}

fn is_option(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

/// Whether the option may stand without its value.
fn is_optional(arg: &Arg) -> bool {
    arg.get_num_args().is_some_and(|number| number.min_values() == 0)
}
