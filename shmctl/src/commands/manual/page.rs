//! A manual page, and those of the command line.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, roman};
use shm_cli::ExitCode;

use super::help::{Block, Item, blocks};
use super::markup::inlines;
use crate::exit_code;

/// A page while it is written.
#[derive(Clone, Debug)]
pub(super) struct Page {
    name: String,
    section: u8,
    text: String,
}

impl Page {
    /// A page with its name and what the thing is, in some words.
    pub(super) fn new(name: &str, section: u8, about: &str) -> Self {
        let escaped = name.to_uppercase().replace('-', "\\-");
        // The date is left out, because the page is made from the program.
        let title = format!(".TH {escaped} {section} \"\" \"shmd {}\" \"shmd\"\n", env!("CARGO_PKG_VERSION"));
        let mut page = Page { name: name.to_owned(), section, text: definitions() + &title };
        page.heading("NAME");
        page.line(vec![roman(format!("{name} - {}", sentence(about)))]);
        page
    }

    /// A page that is written already.
    pub(super) fn ready(name: &str, section: u8, text: String) -> Self {
        Page { name: name.to_owned(), section, text }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn section(&self) -> u8 {
        self.section
    }

    /// The name of its file.
    pub(super) fn file(&self) -> String {
        format!("{}.{}", self.name, self.section)
    }

    pub(super) fn into_roff(self) -> String {
        self.text
    }

    /// The page has the definitions once.
    fn add_rendered(&mut self, text: &str) {
        self.text += text.strip_prefix(&definitions()).unwrap_or(text);
    }

    fn add(&mut self, write: impl FnOnce(&mut Roff)) {
        let mut roff = Roff::new();
        write(&mut roff);
        self.add_rendered(&roff.render());
    }

    fn line(&mut self, line: Vec<Inline>) {
        self.add(|roff| {
            roff.text(line);
        });
    }

    pub(super) fn heading(&mut self, heading: &str) {
        self.add(|roff| {
            roff.control("SH", [heading]);
        });
    }

    /// A paragraph of Markdown.
    pub(super) fn paragraph(&mut self, text: &str) {
        self.add(|roff| {
            roff.control("PP", []).text(inlines(text));
        });
    }

    /// A term, and what it means, in Markdown.
    pub(super) fn item(&mut self, term: Vec<Inline>, text: &str) {
        self.add(|roff| {
            roff.control("TP", []).text(term);
            if !text.is_empty() {
                roff.text(inlines(text));
            }
        });
    }

    /// Lines that stay as they are.
    pub(super) fn code(&mut self, lines: &str) {
        self.add(|roff| {
            roff.control("PP", []).control("RS", ["4"]).control("EX", []);
            for line in lines.lines() {
                roff.text([roman(line)]);
            }
            roff.control("EE", []).control("RE", []);
        });
    }

    /// The options of a command line. Its name and what is around them is not used.
    pub(super) fn options(&mut self, command: &Command) {
        self.options_below("SH", command);
    }

    fn options_below(&mut self, heading: &str, command: &Command) {
        let mut options = Vec::new();
        // Writing to memory cannot fail, and what clap writes is text.
        let written = Man::new(command.clone()).render_options_section(&mut options);
        debug_assert!(written.is_ok());
        self.add_rendered(&String::from_utf8_lossy(&options).replacen(".SH ", &format!(".{heading} "), 1));
    }

    /// What stands behind the options in the help: paragraphs.
    pub(super) fn notes(&mut self, help: &[Block]) {
        for block in help {
            if let Block::Paragraph(text) = block {
                self.paragraph(text);
            }
        }
    }

    /// What stands behind the options in the help: lists. Exit codes and examples have sections of their own.
    pub(super) fn lists(&mut self, help: &[Block]) {
        self.lists_with(help, |heading| !heading.starts_with("Example") && !heading.starts_with("Exit codes"));
    }

    pub(super) fn examples(&mut self, help: &[Block]) {
        self.lists_with(help, |heading| heading.starts_with("Example"));
    }

    fn lists_with(&mut self, help: &[Block], is_wanted: impl Fn(&str) -> bool) {
        let mut before = None;
        for block in help {
            match block {
                Block::Listed(heading, items) if is_wanted(heading) => {
                    let is_example = heading.starts_with("Example");
                    // The examples of several commands are one section.
                    if before.replace(heading) != Some(heading) {
                        self.heading(&if is_example { "EXAMPLES".to_owned() } else { heading.to_uppercase() });
                    }
                    items.iter().for_each(|item| self.listed(item, is_example));
                }
                _ => {}
            }
        }
    }

    fn listed(&mut self, item: &Item, is_example: bool) {
        let (first, more) = item.term.split_first().map_or(("", &[][..]), |(first, more)| (first.as_str(), more));
        self.item(vec![bold(first)], "");
        for line in more {
            self.add(|roff| {
                roff.control("TQ", []).text([bold(line.as_str())]);
            });
        }
        if !item.text.is_empty() {
            // An example's remark is plain text, and may have braces and backticks of its own.
            let text = if is_example { vec![roman(item.text.as_str())] } else { inlines(&item.text) };
            self.line(text);
        }
    }

    pub(super) fn exit_status(&mut self, codes: &[ExitCode]) {
        self.heading("EXIT STATUS");
        for ExitCode { code, meaning, .. } in codes {
            self.item(vec![bold(code.to_string())], meaning);
        }
    }

    /// The exit codes that its help lists, or else those of all commands as far as this one has them.
    pub(super) fn exit_status_of(&mut self, command: &Command, help: &[Block]) {
        let own = help.iter().find_map(|block| match block {
            Block::Listed(heading, items) if heading.starts_with("Exit codes") => Some(items),
            _ => None,
        });
        let Some(own) = own else { return self.exit_status(&exit_code::of(command.get_name())) };
        self.heading("EXIT STATUS");
        own.iter().for_each(|item| self.listed(item, false));
    }

    /// A command of a command: what it does, and the options that only it has.
    pub(super) fn part(&mut self, command: &Command) {
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned();
        self.heading(&name.to_uppercase());
        self.usage(command);
        self.about(command);
        let own = command.clone().mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg });
        self.options_below("SS", &own);
    }

    pub(super) fn see_also(&mut self, pages: &[(&str, u8)]) {
        self.heading("SEE ALSO");
        let others = pages.iter().filter(|(name, _)| *name != self.name).collect::<Vec<_>>();
        let mut line = Vec::new();
        for (place, (name, section)) in others.iter().enumerate() {
            line.push(bold(*name));
            line.push(roman(format!("({section})") + if place + 1 < others.len() { ", " } else { "" }));
        }
        self.line(line);
    }

    pub(super) fn synopsis(&mut self, command: &Command) {
        self.heading("SYNOPSIS");
        self.usage(command);
    }

    fn usage(&mut self, command: &Command) {
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
        let rest = usage.strip_prefix(name).unwrap_or(usage);
        self.line(vec![bold(name), roman(rest)]);
    }

    pub(super) fn description(&mut self, command: &Command, help: &[Block]) {
        self.heading("DESCRIPTION");
        self.about(command);
        self.notes(help);
    }

    fn about(&mut self, command: &Command) {
        let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string);
        about.unwrap_or_default().split("\n\n").for_each(|text| self.paragraph(text));
    }
}

/// What stands at the beginning of a page, so that apostrophes can be copied.
fn definitions() -> String {
    Roff::new().render()
}

/// A sentence without its end.
fn sentence(text: &str) -> &str {
    text.trim_end_matches('.')
}

/// The text behind the options in a command's help.
pub(super) fn help(command: &Command) -> Vec<Block> {
    let text = command.get_after_long_help().or_else(|| command.get_after_help());
    blocks(&text.map(ToString::to_string).unwrap_or_default())
}

pub(super) fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

const SEE_ALSO: &[(&str, u8)] = &[("shmctl", 1), ("shmd", 8), ("shmd.toml", 5)];

/// The page of a command: `shmctl-read(1)`.
pub(super) fn of_command(command: &Command) -> Page {
    let help = help(command);
    let mut page = Page::new(&format!("shmctl-{}", command.get_name()), 1, &about(command));
    page.synopsis(command);
    page.description(command, &help);
    page.options(command);
    let parts: Vec<&Command> = shown(command).collect();
    parts.iter().for_each(|part| page.part(part));
    page.lists(&help);
    page.exit_status_of(command, &help);
    if parts.is_empty() {
        page.examples(&help);
    } else {
        page.examples(&parts.into_iter().flat_map(self::help).collect::<Vec<_>>());
    }
    page.see_also(SEE_ALSO);
    page
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// The page of the program: `shmctl(1)`. `others`: commands that are programs of their own, and what they do.
pub(super) fn of_program(shmctl: &Command, others: &[(&str, &str)]) -> Page {
    let help = help(shmctl);
    let mut page = Page::new("shmctl", 1, &about(shmctl));
    page.synopsis(shmctl);
    page.description(shmctl, &help);
    page.heading("COMMANDS");
    let own = shown(shmctl).map(|command| (command.get_name(), about(command)));
    let others = others.iter().map(|(name, about)| (*name, (*about).to_owned()));
    for (name, about) in own.chain(others) {
        page.item(vec![bold(format!("shmctl-{name}")), roman("(1)")], &about);
    }
    page.options(shmctl);
    page.heading("ENVIRONMENT");
    for (name, meaning) in [
        ("SHMD_CHANNEL", "the channel, if the command line names none"),
        ("SHMD_RUNTIME_DIR", "the runtime directory of the daemon, where its socket is"),
        (
            "SHMD_PATIENCE",
            "how long attached programs wait for a daemon that has died, such as `5s`; 30 s if it is not set",
        ),
        ("NO_COLOR", "any value turns colours off"),
        ("CLICOLOR_FORCE", "any value but 0 turns colours on, also where the output is no terminal"),
    ] {
        page.item(vec![bold(name)], meaning);
    }
    page.exit_status(exit_code::CODES);
    page.examples(&help);
    page.see_also(SEE_ALSO);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_roff_would_take_for_its_own_is_escaped() {
        let mut page = Page::new("shmctl-x", 1, "Does it.");
        page.code(".starts\n'quote' --option \\0");
        let text = page.into_roff();
        assert!(text.contains("shmctl\\-x \\- Does it\n"), "{text}");
        assert!(!text.lines().any(|line| line.starts_with(".starts") || line.starts_with('\'')), "{text}");
        assert!(text.contains("\\-\\-option "), "{text}");
        assert_eq!(text.matches(".ds Aq").count(), 2, "the definitions are there once: {text}");
    }
}
