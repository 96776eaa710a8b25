//! A module of the daemon imports only from lower floors, and so do the parts of a channel: the ring knows nothing of the two
//! kinds of channel that are made of it. Tests inside the modules may look anywhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

type Floors = [&'static [&'static str]];

/// The floors, from the ground up.
const DAEMON: &Floors = &[
    &["handover", "threads"],
    &[
        "access",
        "admission",
        "allotment",
        "closing",
        "event_loop",
        "given",
        "hash",
        "host",
        "liveness",
        "logging",
        "maintenance",
        "peer",
        "private_file",
        "user_names",
    ],
    &["backlog", "policy", "rate_limit", "rates"],
    &["client", "config", "notify", "operation_log", "signals", "sizing"],
    &["cleanup", "descriptors"],
    &["connections"],
    &["process", "saved_channels", "socket", "source"],
    &["channel", "exit"],
    &["background", "channels", "requests"],
    &["args", "daemon"],
    &["fuzzing"],
    &["lib", "main"],
];
const CHANNEL: &Floors = &[
    &["eviction", "reload", "removal"],
    &["reader"],
    &["readers"],
    &["ring"],
    &["handoff", "ring_channel"],
    &["prepared"],
];

fn may_import(floors: &Floors, from: &str, to: &str) -> bool {
    let floor = |module: &str| {
        let floor = floors.iter().position(|modules| modules.contains(&module));
        floor.unwrap_or_else(|| panic!("module {module} stands on no floor: add it to this test"))
    };
    from == to || floor(to) < floor(from)
}

/// Files without those that are compiled for tests alone.
fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.file_stem().and_then(|name| name.to_str()) {
            Some("tests" | "testing") => {}
            _ if path.is_dir() => sources(&path, found),
            _ => found.push(path),
        }
    }
}

/// The modules that the text of a file names after one of `roots`, without its comments and its own tests.
fn imports(text: &str, roots: &[&str]) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code: String = code.lines().map(|line| line.split("//").next().unwrap().to_owned() + "\n").collect();
    let named = roots.iter().flat_map(|root| code.split(root).skip(1));
    let word = |rest: &str| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    // One module, or several in braces.
    let words = named.flat_map(|rest| match rest.strip_prefix('{') {
        Some(several) => several.split('}').next().unwrap_or_default().split(',').map(|one| word(one.trim())).collect(),
        None => vec![word(rest)],
    });
    words.filter(|module| !module.is_empty() && module != "self").collect()
}

/// Looks at every file below `dir` of the daemon; the file itself that `dir` belongs to may import from all of them.
fn look(dir: &str, floors: &Floors, root: &str, least: usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let mut files = Vec::new();
    sources(&dir, &mut files);
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for file in files {
        let inside = file.strip_prefix(&dir).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        // On the first level a neighbour is `super`.
        let roots =
            if inside.components().count() == 1 && root != "crate::" { &[root, "super::"][..] } else { &[root] };
        for import in imports(&fs::read_to_string(&file).unwrap(), roots) {
            looked_at += 1;
            if !may_import(floors, module, &import) {
                wrong.push(format!("{} imports {import}", inside.display()));
            }
        }
    }
    assert!(looked_at >= least, "only {looked_at} imports were found");
    assert!(wrong.is_empty(), "these imports lead up, or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn a_module_imports_from_lower_floors_alone() {
    look("src", DAEMON, "crate::", 100);
}

#[test]
fn a_ring_knows_nothing_of_the_kinds_of_channel_that_are_made_of_it() {
    look("src/channel", CHANNEL, "crate::channel::", 20);
}

#[test]
fn an_import_that_leads_up_is_found() {
    let text = "use crate::peer; // crate::daemon\nfn f() -> crate::channel::X {}\nuse crate::{config, exit::code};\n#[cfg(test)]\nmod tests {\nuse crate::args;";
    assert_eq!(imports(text, &["crate::"]).into_iter().collect::<Vec<_>>(), ["channel", "config", "exit", "peer"]);
    assert!(may_import(DAEMON, "channel", "connections") && may_import(CHANNEL, "handoff", "ring"));
    assert!(!may_import(DAEMON, "connections", "channel") && !may_import(CHANNEL, "ring", "handoff"));
    assert!(!may_import(CHANNEL, "handoff", "ring_channel"));
}
