//! The manual pages: whole, clean, and with everything that the surface has.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use shm_test_support::{Place, Run, TempDir, clean, program, skip};

fn shmctl(args: &[&str]) -> Command {
    let mut command = clean(program("shmctl"));
    command.args(args);
    command
}

/// All pages as they are written below a directory, by the names of their files.
fn pages(dir: &Path) -> BTreeMap<String, String> {
    Run::of(shmctl(&["manual", "--output", dir.to_str().unwrap()])).prints("");
    let sections = fs::read_dir(dir).unwrap().map(|section| section.unwrap().path());
    let files = sections.flat_map(|section| fs::read_dir(section).unwrap()).map(|file| file.unwrap().path());
    files
        .map(|file| (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(file).unwrap()))
        .collect()
}

/// Text as it was before roff's escapes.
fn plain(roff: &str) -> String {
    let text = roff.replace("\\*(Aq", "'").replace("\\fB", "").replace("\\fI", "").replace("\\fR", "");
    text.replace("\\&", "").replace("\\-", "-").replace("\\\\", "\\")
}

fn surface() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/surface.txt")).unwrap()
}

/// Commands of `shmctl`.
fn commands(surface: &str) -> Vec<&str> {
    let of = surface.lines().filter_map(|line| line.strip_prefix("shmctl ")).filter(|rest| !rest.contains([' ', '-']));
    of.collect()
}

#[test]
fn every_command_has_a_page_that_can_be_printed_and_written() {
    let dir = TempDir::new();
    let pages = pages(&dir);
    let surface = surface();
    let mut wanted: Vec<String> = commands(&surface).iter().map(|name| format!("shmctl-{name}.1")).collect();
    assert!(wanted.len() > 10, "{wanted:?}");
    wanted.extend(["shmctl.1".to_owned(), "shmd.8".to_owned(), "shmd.toml.5".to_owned()]);
    wanted.sort();
    assert_eq!(pages.keys().cloned().collect::<Vec<_>>(), wanted);
    let all = plain(&pages["shmctl.1"]);
    for name in commands(&surface) {
        assert!(all.contains(&format!("\nshmctl-{name}(1)\n")), "shmctl.1 does not list {name}: {all}");
    }
    let listed = Run::of(shmctl(&["manual"])).quiet().text();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, wanted);
    for name in ["shmctl-read.1", "shmctl-read"] {
        Run::of(shmctl(&["manual", name])).prints(&pages["shmctl-read.1"]);
    }
    Run::of(shmctl(&["manual", "shmctl-reed.1"])).refused(2, &["no manual page shmctl-reed.1"]);
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    Run::of(shmctl(&["manual", "--output", file.to_str().unwrap()])).refused(1, &["cannot write", "man1/shmctl.1"]);
}

#[test]
fn pages_have_every_option_and_every_exit_code() {
    let dir = TempDir::new();
    let (pages, surface) = (pages(&dir), surface());
    let mut looked_at = 0;
    for line in surface.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let page = match words.as_slice() {
            ["shmctl", option, ..] if option.starts_with('-') => "shmctl.1".to_owned(),
            ["shmctl", command, ..] => format!("shmctl-{command}.1"),
            ["shmd", ..] => "shmd.8".to_owned(),
            _ => continue,
        };
        let roff = plain(&pages[&page]);
        for option in words.iter().filter(|word| word.starts_with("--")) {
            let option = option.split(['=', '[']).next().unwrap().trim_end_matches("...");
            assert!(roff.contains(option), "{page} has no {option}");
            looked_at += 1;
        }
        if let Some(at) = words.iter().position(|word| *word == "variable") {
            assert!(roff.contains(words[at + 1]), "{page} has no {}", words[at + 1]);
        }
    }
    assert!(looked_at > 70, "{looked_at}");
    let exits: Vec<Vec<&str>> = surface
        .lines()
        .filter_map(|line| line.strip_prefix("exit "))
        .map(|rest| rest.split_whitespace().collect())
        .collect();
    let has_own = |command: &str| exits.iter().any(|exit| matches!(exit.as_slice(), [_, of, _] if *of == command));
    assert!(has_own("doctor") && !has_own("read"), "{exits:?}");
    for (page, roff) in &pages {
        let program = page.split(['.', '-']).next().unwrap();
        let command = page.strip_prefix("shmctl-").and_then(|rest| rest.strip_suffix(".1")).unwrap_or_default();
        let status = plain(roff.split(".SH \"EXIT STATUS\"").nth(1).unwrap_or_default());
        for exit in &exits {
            let code = match exit.as_slice() {
                // Its own codes, instead of those of all commands.
                ["shmctl", of, code] if *of == command => code,
                [of, code] if *of == program && !has_own(command) => code,
                [of, code, "only", commands]
                    if *of == program && (command.is_empty() || commands.split(',').any(|it| it == command)) =>
                {
                    code
                }
                _ => continue,
            };
            if page != "shmd.toml.5" {
                assert!(status.lines().any(|line| line == *code), "{page} has no exit code {code}: {status}");
            }
        }
    }
}

#[test]
fn pages_are_shown_by_man_without_a_warning() {
    const TEST: &str = "pages_are_shown_by_man_without_a_warning";
    let dir = TempDir::new();
    let pages = pages(&dir);
    if clean("man").arg("--version").output().is_err() || clean("groff").arg("--version").output().is_err() {
        skip(TEST, "there is no man, or no groff");
        return;
    }
    for (page, roff) in &pages {
        let file = dir.join(page);
        fs::write(&file, roff).unwrap();
        let mut man = clean("man");
        man.args(["--warnings", "-P", "cat", "-l"]).arg(&file).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
        let text = Run::of(man.env_remove("MANPAGER").env_remove("PAGER")).quiet().text();
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "SEE ALSO"] {
            assert!(text.lines().any(|line| line == heading), "{page} has no {heading}:\n{text}");
        }
        if page.starts_with("shmctl-") {
            assert!(text.contains("\nEXAMPLES\n") && text.contains("shmctl "), "{page}:\n{text}");
        }
    }
    // What is to be copied looks as it has to be typed.
    let mut man = clean("man");
    man.args(["-P", "cat", "-l"]).arg(dir.join("shmctl-write.1")).env("MANWIDTH", "80").env("LC_ALL", "C.UTF-8");
    let text = Run::of(&mut man).ok().text();
    assert!(text.contains("printf 'Hello\\0World\\0' | shmctl write --framing nul --keep-delimiter \\"), "{text}");
    if clean("mandoc").arg("-h").output().is_err() {
        skip(TEST, "mandoc is not there, and cannot look for errors");
        return;
    }
    for page in pages.keys() {
        let mut mandoc = clean("mandoc");
        Run::of(mandoc.args(["-T", "lint", "-W", "error"]).arg(dir.join(page))).prints("");
    }
}

#[test]
fn the_page_of_the_configuration_has_every_key_and_an_example_that_is_good() {
    let dir = TempDir::new();
    let page = plain(&pages(&dir)["shmd.toml.5"]);
    let shipped = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/shmd.toml")).unwrap();
    let keys = shipped.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = ")).map(|(key, _)| key);
    let keys: Vec<&str> = keys.filter(|key| key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_')).collect();
    assert!(keys.len() > 30, "{keys:?}");
    for key in keys {
        assert!(page.contains(&format!("\n{key} = ")), "{key}");
    }
    let example = page.split(".EX\n").nth(1).unwrap().split(".EE").next().unwrap();
    let place = Place::new();
    let mut shmd = place.shmd(example);
    let shown = Run::of(shmd.arg("--check")).quiet().text();
    assert!(shown.contains("name = \"cam\"") && shown.contains("flush = \"100ms\""), "{shown}");
}
