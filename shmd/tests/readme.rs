//! The README says what the code says.

use std::fs;
use std::path::Path;

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between the first line that is `fence` and the next one that closes it.
fn first_block<'t>(lines: impl Iterator<Item = &'t str>, fence: &str) -> Vec<&'t str> {
    lines.skip_while(|line| *line != fence).skip(1).take_while(|line| *line != "```").collect()
}

#[test]
fn the_readmes_api_lines_are_the_librarys_tested_example() {
    let (readme, library) = (text("README.md"), text("shm-proto/src/lib.rs"));
    let docs =
        library.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line));
    let mut example = first_block(docs, "```no_run");
    example.retain(|line| !line.starts_with("# "));
    assert!(example.len() >= 10, "{example:#?}");
    assert_eq!(first_block(readme.lines(), "```rust"), example);
}

#[test]
fn every_key_of_the_configuration_is_in_the_readme() {
    let (readme, shipped) = (text("README.md"), text("etc/shmd.toml"));
    let table: String = readme.lines().filter(|line| line.starts_with("| `") || line.starts_with("| **")).collect();
    let keys = shipped.lines().filter_map(|line| {
        let key = line.trim_start_matches("# ").split_once(" = ")?.0;
        key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_').then_some(key)
    });
    let missing: Vec<_> = keys.filter(|key| !table.contains(&format!("`{key}`"))).collect();
    assert_eq!(missing, [""; 0], "keys of etc/shmd.toml that the README's table does not have");
}
