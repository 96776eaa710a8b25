//! The binary interface: a change must be deliberate. `symbols` and `layout` hold what was published.

use std::collections::BTreeSet;
use std::fs;

use shm_test_support::{Run, TempDir, clean};

use crate::kit::{CFLAGS, has, home, library, text};

/// The functions that the header declares.
fn declared() -> BTreeSet<String> {
    let header = text("include/shmd.h");
    let mut inside_comment = false;
    let mut names = BTreeSet::new();
    for line in header.lines() {
        let is_comment = inside_comment || line.trim_start().starts_with("/*");
        if is_comment {
            inside_comment = !line.contains("*/");
            continue;
        }
        // A declaration: a type before the name, an opening bracket after it.
        if let Some((before, _)) = line.split_once('(')
            && !before.starts_with(' ')
            && let Some(name) = before.rsplit([' ', '*']).next()
            && name.starts_with("shmd_")
        {
            names.insert(name.to_owned());
        }
    }
    names
}

fn listed() -> BTreeSet<String> {
    text("symbols").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn the_library_exports_what_is_listed_and_the_header_declares_it() {
    assert_eq!(declared(), listed(), "include/shmd.h and symbols");
    if !has("nm", "the_library_exports_what_is_listed_and_the_header_declares_it") {
        return;
    }
    let run = Run::of(clean("nm").args(["-D", "--defined-only"]).arg(library("libshmd.so"))).quiet();
    let exported: BTreeSet<String> =
        run.text().lines().filter_map(|line| line.split(' ').next_back().map(str::to_owned)).collect();
    assert_eq!(exported, listed(), "libshmd.so and symbols; a symbol that goes away needs another SONAME");
}

#[test]
fn the_library_has_its_soname() {
    if !has("readelf", "the_library_has_its_soname") {
        return;
    }
    let run = Run::of(clean("readelf").arg("-d").arg(library("libshmd.so"))).quiet();
    assert!(run.text().contains("soname: [libshmd.so.0]"), "{run:?}");
}

/// The structures of the header and their fields.
const STRUCTURES: [(&str, &str); 11] = [
    ("shmd_error", "code system_errno number retry_after_ms"),
    (
        "shmd_facts",
        "instance lineage max_capacity max_message ack_timeout_ms evict_after_ms align on_full ack wait_readers max_readers \
         handoff channel",
    ),
    ("shmd_content", "schema_bytes encoding schema schema_encoding"),
    ("shmd_message", "data len seq lost_before generation published_ns reserved"),
    ("shmd_slot", "data len generation reserved"),
    ("shmd_bytes", "data len"),
    ("shmd_writer_state", "messages bytes dropped readers drained shrinking disconnected"),
    (
        "shmd_stat",
        "capacity min_capacity max_capacity pending_capacity memory used retained max_message messages bytes dropped overwritten \
         resizes evicted lag_messages messages_per_s bytes_per_s align readers max_readers writer_pid handoff reserved",
    ),
    ("enum shmd_result", ""),
    ("enum shmd_start", ""),
    ("enum shmd_wait", ""),
];

#[test]
fn the_structures_of_the_header_have_the_published_layout() {
    let mut program = String::from("#include <stdio.h>\n#include \"shmd.h\"\nint main(void) {\n");
    for (name, fields) in STRUCTURES {
        program += &format!("    printf(\"{name} %zu\\n\", sizeof({name}));\n");
        for field in fields.split_whitespace() {
            program += &format!("    printf(\"  {field} %zu\\n\", offsetof({name}, {field}));\n");
        }
    }
    program += "    return 0;\n}\n";
    for compiler in ["gcc", "clang"] {
        if !has(compiler, "the_structures_of_the_header_have_the_published_layout") {
            continue;
        }
        let dir = TempDir::new();
        let (source, to) = (dir.join("layout.c"), dir.join("layout"));
        fs::write(&source, &program).unwrap();
        let include = home().join("include");
        Run::of(clean(compiler).args(CFLAGS).arg("-I").arg(include).arg(&source).arg("-o").arg(&to)).quiet();
        assert_eq!(Run::of(clean(&to)).quiet().text(), text("layout"), "include/shmd.h and layout");
    }
}

#[test]
fn results_have_the_same_numbers_in_the_header_and_in_the_library() {
    let (header, library) = (text("include/shmd.h"), text("src/result.rs"));
    let numbers = |text: &str, prefix: &str, from: &str, to: &str| -> BTreeSet<String> {
        let body = text.split_once(from).unwrap().1.split_once(to).unwrap().0;
        let lines = body.lines().filter_map(|line| line.trim().strip_prefix(prefix));
        let pairs = lines.filter_map(|line| line.split_once(" = "));
        pairs.map(|(name, rest)| format!("{name} {}", rest.split([',', ' ']).next().unwrap())).collect()
    };
    let coded = numbers(&library, "", "\nresults! {", "\n}");
    assert!(coded.len() > 40, "{coded:?}");
    assert_eq!(numbers(&header, "SHMD_", "enum shmd_result {", "};"), coded);
}

#[test]
fn each_header_compiles_by_itself_with_every_compiler_and_standard() {
    let headers = |names: &[&str]| names.iter().map(|name| home().join("include").join(name)).collect::<Vec<_>>();
    let c = headers(&["shmd.h"]);
    let cpp = headers(&["shmd.h", "shmd.hpp", "shmd/base.hpp", "shmd/reader.hpp", "shmd/writer.hpp"]);
    for (compiler, language, standards, headers) in [
        ("gcc", "c", ["c99", "c17"], &c),
        ("clang", "c", ["c99", "c17"], &c),
        ("g++", "c++", ["c++17", "c++20"], &cpp),
        ("clang++", "c++", ["c++17", "c++20"], &cpp),
    ] {
        if !has(compiler, "each_header_compiles_by_itself_with_every_compiler_and_standard") {
            continue;
        }
        for (standard, header) in standards.iter().flat_map(|standard| headers.iter().map(move |h| (standard, h))) {
            // As a program that includes it: alone, a header has a `#pragma once` or a guard without a use.
            let dir = TempDir::new();
            let source = dir.join("includes");
            fs::write(&source, format!("#include \"{}\"\nint main(void) {{ return 0; }}\n", header.display())).unwrap();
            let exceptions: &[&str] = if header.ends_with("shmd.hpp") { &["", "-fno-exceptions"] } else { &[""] };
            for flag in exceptions {
                let mut command = clean(compiler);
                command.arg(format!("-std={standard}")).args(CFLAGS).args(["-fsyntax-only", "-x", language]);
                command.args((!flag.is_empty()).then_some(flag)).arg(&source);
                Run::of(command).quiet();
            }
        }
    }
}
