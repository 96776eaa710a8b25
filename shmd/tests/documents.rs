//! The documents say what the code says, and each table exists once.

use std::fs;
use std::path::{Path, PathBuf};

use shm_cli::keys;

const DOCUMENTS: [&str; 14] = [
    "README.md",
    "CHANGELOG.md",
    "etc/MANUAL.md",
    "etc/OPERATIONS.md",
    "etc/RECORDING.md",
    "etc/RELAY.md",
    "shm-proto/DESIGN.md",
    "shm-proto/PERFORMANCE.md",
    "shm-proto/PROTOCOL.md",
    "shm-proto/RELIABILITY.md",
    "shm-proto/bench/README.md",
    "shm-proto/capi/README.md",
    "shm-proto/fuzz/README.md",
    "shm-proto/python/README.md",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The text of every source file of the library, whichever module it belongs to.
fn library() -> Vec<String> {
    fn visit(directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut found = Vec::new();
    visit(&root().join("shm-proto/src"), &mut found);
    found
}

/// The lines between the first line that is `fence` and the line that closes it.
fn first_block<'t>(lines: impl Iterator<Item = &'t str>, fence: &str) -> Vec<&'t str> {
    lines.skip_while(|line| *line != fence).skip(1).take_while(|line| *line != "```").collect()
}

/// The cells of a row of a table.
fn cells(row: &str) -> Vec<&str> {
    row.trim_matches('|').split(" | ").map(str::trim).collect()
}

/// The tables whose heading begins with `heading`, row by row, without the heading.
fn tables<'t>(lines: impl Iterator<Item = &'t str>, heading: &str) -> Vec<Vec<Vec<&'t str>>> {
    let (mut tables, mut inside) = (Vec::new(), false);
    for line in lines {
        if line.starts_with(heading) {
            tables.push(Vec::new());
            inside = true;
        } else if inside && line.starts_with("| ") {
            tables.last_mut().unwrap().push(cells(line));
        } else if !line.starts_with("|---") {
            inside = false;
        }
    }
    tables
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
fn the_manuals_async_lines_are_those_of_a_test() {
    let (manual, test) = (text("etc/MANUAL.md"), text("shm-proto/tests/tokio/manual.rs"));
    let lines = test.lines().skip_while(|line| line.trim() != "// MANUAL: begins").skip(1);
    let lines = lines.take_while(|line| line.trim() != "// MANUAL: ends");
    let example: Vec<_> = lines.map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    assert!(example.len() >= 6, "{example:#?}");
    assert_eq!(first_block(manual.lines(), "```rust"), example);
}

#[test]
fn the_manuals_table_of_keys_is_the_one_that_all_documents_have() {
    let (manual, table) = (text("etc/MANUAL.md"), keys::manual_table());
    let heading = table.lines().next().unwrap();
    let begin = manual.find(heading).unwrap_or_else(|| panic!("etc/MANUAL.md has no table {heading}"));
    let rows = manual[begin..].split_inclusive('\n').take_while(|line| line.starts_with('|'));
    let end = begin + rows.map(str::len).sum::<usize>();
    if std::env::var_os("SHMD_BLESS").is_some() {
        let renewed = format!("{}{table}{}", &manual[..begin], &manual[end..]);
        fs::write(root().join("etc/MANUAL.md"), renewed).unwrap();
        return;
    }
    let differs = table.lines().zip(manual[begin..end].lines()).find(|(made, written)| made != written);
    assert!(
        manual[begin..end] == table,
        "etc/MANUAL.md has another table of keys than shmd/cli/src/keys.rs; the first difference: {differs:?}\nrenew it: SHMD_BLESS=1 \
         cargo test -p shmd --test documents"
    );
}

#[test]
fn the_keys_and_their_defaults_are_those_of_the_shipped_configuration() {
    let shipped = text("etc/shmd.toml");
    let is_key = |key: &str| !key.is_empty() && key.bytes().all(|c| c.is_ascii_lowercase() || c == b'_');
    let settings = shipped.lines().filter_map(|line| line.trim_start_matches("# ").split_once(" = "));
    let written: Vec<_> = settings.map(|(key, _)| key).filter(|key| is_key(key)).collect();
    let all: Vec<_> = keys::TOP.iter().chain(keys::CHANNEL).collect();
    assert_eq!(all.iter().map(|key| key.name).collect::<Vec<_>>(), written, "shmd/cli/src/keys.rs and etc/shmd.toml");
    for key in all {
        // What depends on the user or on other keys is commented out.
        let Some(value) = shipped.lines().find_map(|line| line.strip_prefix(key.name)?.strip_prefix(" = ")) else {
            continue;
        };
        let value = match value {
            "\"\"" => "none",
            "[]" => "nobody",
            value => value.trim_matches('"'),
        };
        assert_eq!(key.default.replace(['`', '"'], ""), value, "default of {}", key.name);
    }
}

/// The numbers in the first words of lines.
fn codes<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<u8> {
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn the_manuals_exit_codes_are_those_of_the_programs() {
    let (manual, surface) = (text("etc/MANUAL.md"), text("etc/surface.txt"));
    let table = tables(manual.lines(), "| code | `shmctl` | `shmd` |").remove(0);
    for (program, column) in [("shmctl", 1), ("shmd", 2)] {
        let documented = table.iter().filter(|row| row.get(column).is_some_and(|cell| !cell.is_empty()));
        let documented = codes(documented.map(|row| row[0]));
        let has = codes(surface.lines().filter_map(|line| line.strip_prefix(&format!("exit {program} "))));
        assert_eq!(documented, has, "exit codes of {program}");
    }
    // Codes of some commands are told with the commands.
    for line in surface.lines().filter_map(|line| line.strip_prefix("exit shmctl ")) {
        let Some((code, commands)) = line.split_once("  only ") else { continue };
        let row = table.iter().find(|row| row[0] == code).unwrap();
        for command in commands.split(',') {
            assert!(row[1].contains(&format!("`{command}`")), "{command} is not in {row:?}");
        }
    }
    let of_doctor =
        manual.split("`shmctl doctor` has the exit codes").nth(1).unwrap().split("Wrong usage").next().unwrap();
    let items = of_doctor.split(|c| ",(:".contains(c)).map(str::trim);
    let doctor = codes(surface.lines().filter_map(|line| line.strip_prefix("exit shmctl doctor ")));
    assert_eq!(codes(items), doctor, "{of_doctor}");
}

#[test]
fn the_schema_of_the_log_has_every_event() {
    let schema: serde_json::Value = serde_json::from_str(&text("etc/schemas/log.json")).unwrap();
    let written = schema["properties"]["event"]["enum"].as_array().unwrap();
    let written: Vec<_> = written.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    let code = text("shm-proto/src/control/log/event.rs");
    let events = code.lines().filter_map(|line| line.trim().strip_suffix("\",")?.split_once(" = \""));
    let events: Vec<_> = events.map(|(_, word)| word.to_owned()).collect();
    assert!(events.len() > 50, "{events:?}");
    assert_eq!(written, events);
}

#[test]
fn the_layout_tables_are_those_of_the_source() {
    let protocol = text("shm-proto/PROTOCOL.md");
    for (heading, least) in [("| offset | bytes | field | written by |", 3), ("| bits | field |", 1)] {
        // The description in the source may be shorter; where a field is may not differ.
        let columns = if heading.contains("bytes") { 2 } else { 1 };
        let places =
            |table: &Vec<Vec<&str>>| -> Vec<String> { table.iter().map(|row| row[..columns].join(" | ")).collect() };
        let mut written: Vec<_> = tables(protocol.lines(), heading).iter().map(places).collect();
        let mut coded = Vec::new();
        for file in library() {
            let docs = file.lines().map(|line| line.strip_prefix("//! ").unwrap_or(""));
            coded.extend(tables(docs, heading).iter().map(places));
        }
        written.sort();
        coded.sort();
        assert!(coded.len() >= least, "{heading}: {coded:?}");
        assert_eq!(written, coded, "PROTOCOL.md has other tables {heading} than the source");
    }
}

/// `NoSuchChannel` as JSON has it.
fn snake_case(name: &str) -> String {
    let mut word = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !word.is_empty() {
            word.push('_');
        }
        word.push(letter.to_ascii_lowercase());
    }
    word
}

/// The variants of an enum of the library, as JSON has them.
fn variants(files: &[String], name: &str) -> Vec<String> {
    let head = format!("pub enum {name} {{");
    let file = files.iter().find(|file| file.lines().any(|line| line == head));
    let file = file.unwrap_or_else(|| panic!("no file has {head}"));
    let body = file.lines().skip_while(|line| *line != head).skip(1).take_while(|line| *line != "}");
    let variants =
        body.filter_map(|line| line.strip_prefix("    ")).filter(|line| line.starts_with(char::is_uppercase));
    let names = variants.map(|line| line.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
    // A peer's words for what it does not know, and for what has become of its connection; nobody sends them.
    names.filter(|name| !["Unknown", "Resumed", "NotResumed"].contains(name)).map(snake_case).collect()
}

#[test]
fn every_line_of_the_protocol_is_in_its_document() {
    let (protocol, files) = (text("shm-proto/PROTOCOL.md"), library());
    let listed = |heading: &str, column: usize| -> Vec<String> {
        let found = tables(protocol.lines(), heading);
        found.concat().iter().map(|row| row[column].trim_matches('`').to_owned()).collect()
    };
    assert_eq!(variants(&files, "Request"), listed("| `op` |", 0));
    assert_eq!(variants(&files, "ErrorKind"), listed("| kind | meaning |", 0));
    let tables = tables(protocol.lines(), "| direction | `event` |");
    for (table, name, direction) in [
        (0, "ToReader", "to the reader"),
        (0, "FromReader", "to the daemon"),
        (1, "ToWriter", "to the writer"),
        (1, "ToDaemon", "to the daemon"),
    ] {
        let mut expected = variants(&files, name);
        let rows = tables[table].iter().filter(|row| row[0] == direction);
        let mut found: Vec<_> = rows.map(|row| row[1].trim_matches('`').to_owned()).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn the_protocols_limits_for_attached_clients_are_the_daemons() {
    let (protocol, client) = (text("shm-proto/PROTOCOL.md"), text("shmd/src/client.rs"));
    let constant = |name: &str| {
        let line = client.lines().find(|line| line.contains(&format!("const {name}: "))).expect(name);
        line.split(" = ").nth(1).unwrap().trim_end_matches(';').to_owned()
    };
    let (free, rate) = (constant("FREE_LINES"), constant("LINES_A_SECOND"));
    let lines = format!("An attached reader may send {free} lines at once, and {rate} lines per second on average");
    assert!(protocol.contains(&lines), "PROTOCOL.md does not say: {lines}");
    assert_eq!(constant("MAX_QUEUED"), "1 << 20");
    assert!(protocol.contains("leaves more than 1 MiB of lines untaken"));
}

/// The word that a heading is reached by, as GitHub makes it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_between_the_documents_lead_somewhere() {
    for document in DOCUMENTS {
        let content = text(document);
        let directory = Path::new(document).parent().unwrap();
        for link in content.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { PathBuf::from(document) } else { directory.join(path) };
            assert!(root().join(&target).exists(), "{document}: {link}");
            if !fragment.is_empty() {
                let headings = text(&target);
                let mut anchors = headings.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(anchors.any(|anchor| anchor == fragment), "{document}: {link}");
            }
        }
    }
}
