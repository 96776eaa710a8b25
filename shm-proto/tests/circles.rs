//! No file of a package imports another one in a circle. A module and its own parts count as one: they may name each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module by its names from the root of its crate.
type Module = Vec<String>;
/// What each module imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// The modules below a folder, with their code: no comments, no tests.
fn modules(dir: &Path, inside: &[String], found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if name == "tests" || name == "testing" || name.ends_with("_tests") {
            continue;
        }
        let mut module = inside.to_vec();
        if !["lib", "main"].contains(&&*name) {
            module.push(name);
        }
        if path.is_dir() {
            modules(&path, &module, found);
        } else {
            found.entry(module).or_default().push_str(&code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

fn code(text: &str) -> String {
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    product.lines().map(|line| line.split("//").next().unwrap().trim()).collect::<Vec<_>>().join(" ")
}

/// The paths that the text of a braced list or of one path begins with, each with its names.
fn paths(text: &str) -> Vec<Module> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_name(c)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if let (true, Some(list)) = (name.is_empty(), rest.strip_prefix('{')) {
        let (mut depth, mut start, mut all) = (0, 0, Vec::new());
        for (at, c) in list.char_indices() {
            match c {
                ',' | '}' if depth == 0 => {
                    all.extend(paths(list[start..at].trim()));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
        }
        return all;
    }
    let below = rest.strip_prefix("::").map(paths).filter(|below| !below.is_empty()).unwrap_or_else(|| vec![vec![]]);
    let whole = |below: Module| [name.to_owned()].into_iter().chain(below).collect();
    if name.is_empty() { Vec::new() } else { below.into_iter().map(whole).collect() }
}

/// What a module's code imports by `crate::` and `super::`, as the nearest of the known modules.
fn imports(module: &Module, code: &str, known: &BTreeSet<Module>) -> BTreeSet<Module> {
    let starts = ["crate::", "super::"].into_iter().flat_map(|root| code.match_indices(root));
    let named = starts.flat_map(|(at, root)| {
        let before = code[..at].ends_with("::");
        paths(&code[at..]).into_iter().filter(move |_| !before).map(move |path| (root, path))
    });
    let absolute = named.map(|(root, path)| {
        let up = path.iter().take_while(|name| *name == "super").count();
        let from = if root == "crate::" { 0 } else { module.len().saturating_sub(up) };
        let names = path.into_iter().skip(if root == "crate::" { 1 } else { up });
        module[..from].iter().cloned().chain(names).collect::<Module>()
    });
    let nearest = absolute.filter_map(|path| {
        (0..=path.len()).rev().map(|len| path[..len].to_vec()).find(|module| known.contains(module))
    });
    nearest.filter(|other| !other.starts_with(module) && !module.starts_with(other)).collect()
}

/// Modules that import each other in a circle, if there are such.
fn circle(imports: &Imports) -> Option<Vec<Module>> {
    // What imports nothing that is left is in no circle.
    let mut left: BTreeSet<&Module> = imports.keys().collect();
    loop {
        let is_tied = |module: &&Module| imports[*module].iter().any(|other| left.contains(other));
        let tied: BTreeSet<&Module> = left.iter().copied().filter(is_tied).collect();
        if tied.len() == left.len() {
            break;
        }
        left = tied;
    }
    let mut way = vec![(*left.first()?).clone()];
    loop {
        let next = imports[way.last()?].iter().find(|other| left.contains(other))?.clone();
        if let Some(at) = way.iter().position(|module| *module == next) {
            return Some(way.split_off(at));
        }
        way.push(next);
    }
}

fn look(sources: &Path) -> Imports {
    let mut found = BTreeMap::new();
    modules(sources, &[], &mut found);
    let known = found.keys().cloned().collect();
    found.iter().map(|(module, code)| (module.clone(), imports(module, code, &known))).collect()
}

#[test]
fn no_package_has_a_circle_of_imports() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (sources, least) in [
        ("src", 150),
        ("../shmd/src", 150),
        ("../shmctl/src", 20),
        ("../shmctl/record/src", 20),
        ("../shmctl/relay/src", 15),
        ("bench/src", 20),
    ] {
        let imports = look(&root.join(sources));
        let arrows: usize = imports.values().map(BTreeSet::len).sum();
        assert!(arrows >= least, "{sources}: only {arrows} imports were found");
        let circle = circle(&imports).map(|circle| circle.iter().map(|m| m.join("::")).collect::<Vec<_>>());
        assert_eq!(circle, None, "{sources}: each of these imports the next one, and the last one the first");
    }
}

#[test]
fn a_circle_is_found() {
    let module = |text: &str| text.split("::").map(str::to_owned).collect::<Module>();
    let known: BTreeSet<Module> = ["a", "a::x", "a::y", "b"].map(module).into();
    let of = |name, code: &str| imports(&module(name), code, &known).into_iter().collect::<Vec<_>>();
    assert_eq!(of("a::x", "use super::y::Y; use crate::a::Z;"), [module("a::y")]);
    assert_eq!(of("a::y", "use crate::{a::{x::{X, W}, V}, b};"), [module("a::x"), module("b")]);
    assert_eq!(of("b", "fn f() -> super::a::y::Y {}"), [module("a::y")]);
    assert_eq!(of("a::x", "use super::super::b;"), [module("b")]);
    let tie = |from, to| (module(from), BTreeSet::from([module(to)]));
    let loose = Imports::from([tie("a", "b"), tie("b", "c"), (module("c"), BTreeSet::new())]);
    assert_eq!(circle(&loose), None);
    let tied = Imports::from([tie("a", "b"), tie("b", "c"), tie("c", "b")]);
    assert_eq!(circle(&tied), Some(vec![module("b"), module("c")]));
}
