//! A module of the library imports only from its own floor's ground up to itself: see `DESIGN.md`. Tests inside the modules may
//! look anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, from the ground up. A module imports from lower floors and from itself.
const FLOORS: [&[&str]; 5] = [
    &["duration", "error", "name", "size", "sync"],
    &["os"],
    &["framing", "handoff", "ring"],
    &["control"],
    &["client"],
];

/// On the ground floor there is an order, too: what stands later imports from what stands before.
const GROUND: [&str; 5] = ["sync", "duration", "name", "size", "error"];

fn floor(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|modules| modules.contains(&module))
        .unwrap_or_else(|| panic!("module {module} stands on no floor: add it to DESIGN.md and to this test"))
}

fn may_import(from: &str, to: &str) -> bool {
    let ground = |module: &str| GROUND.iter().position(|other| *other == module);
    match (ground(from), ground(to)) {
        _ if from == to => true,
        (Some(from), Some(to)) => to < from,
        _ => floor(to) < floor(from),
    }
}

/// Files of the library without those that are compiled for tests alone.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" || name == "testing" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The modules that the text of a file names by `crate::`, without its comments and its own tests.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    let named = lines.flat_map(|line| line.split("crate::").skip(1).collect::<Vec<_>>());
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    named.map(word).filter(|module| !module.is_empty()).collect()
}

#[test]
fn a_module_imports_from_lower_floors_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    let mut looked_at = 0;
    for file in files {
        let inside = file.strip_prefix(&root).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        for import in imports(&fs::read_to_string(&file).unwrap()) {
            looked_at += 1;
            if !may_import(module, &import) {
                wrong.push(format!("{} imports {import}", inside.display()));
            }
        }
    }
    assert!(looked_at > 100, "only {looked_at} imports were found");
    assert!(wrong.is_empty(), "these imports lead up, or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn an_import_that_leads_up_is_found() {
    let text = "use crate::os::clock; // crate::client\nfn f() -> crate::control::Conn {}\n#[cfg(test)]\nmod tests {\nuse crate::client;";
    let found: Vec<String> = imports(text).into_iter().collect();
    assert_eq!(found, ["control", "os"]);
    assert!(may_import("ring", "os") && may_import("ring", "ring") && may_import("error", "size"));
    assert!(!may_import("ring", "control") && !may_import("ring", "handoff") && !may_import("size", "error"));
}
