//! The C compiler, the library and the documents agree on where everything is.

use std::mem::{offset_of, size_of};
use std::path::Path;
use std::process::Command;

use shm_proto::internal::handoff::layout::{DATA, HEADER_SIZE, Header};
use shm_proto::internal::os::mutex::MUTEX_BYTES;
use shm_proto::internal::os::sem::SemaphoreCell;

/// Compiles the assertions with `CC` if that is set, as for another processor, otherwise with gcc.
fn compile(numbers: &[(&str, u64)]) -> Option<bool> {
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "gcc".into());
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/c/layout.c");
    let defined = numbers.iter().map(|(name, number)| format!("-D{name}={number}"));
    match Command::new(&compiler).args(["-fsyntax-only", "-Wall"]).args(defined).arg(source).output() {
        Ok(output) => {
            println!("{}", String::from_utf8_lossy(&output.stderr));
            Some(output.status.success())
        }
        Err(e) => {
            println!("skipped: {} cannot be started ({e})", compiler.display());
            None
        }
    }
}

#[test]
fn the_c_compiler_lays_the_objects_out_as_the_library_does() {
    let ours = |bytes: usize| u64::try_from(bytes).unwrap();
    let mut numbers = [
        ("MUTEX", ours(MUTEX_BYTES)),
        ("MUTEX_AT", ours(offset_of!(Header, mutex))),
        ("CAPACITY_AT", ours(offset_of!(Header, capacity))),
        ("CAPACITY", 8),
        ("SIZE_AT", ours(offset_of!(Header, data_size))),
        ("SIZE", 8),
        ("READY_AT", ours(offset_of!(Header, ready_flag))),
        ("READY", 4),
        ("DATA_AT", DATA),
        ("HEADER", HEADER_SIZE),
        ("SEMAPHORE", 32),
    ];
    assert!(size_of::<SemaphoreCell>() >= 32, "the place of a semaphore in a reader's page");
    let Some(same) = compile(&numbers) else { return };
    assert!(same, "the compiler's messages are above");
    for n in 0..numbers.len() {
        numbers[n].1 += 8;
        assert_eq!(compile(&numbers), Some(false), "a wrong number goes unnoticed: {:?}", numbers[n]);
        numbers[n].1 -= 8;
    }
}

/// The table in the protocol and the one in the source, with a column for each processor.
#[test]
fn the_documents_have_these_offsets() {
    let column = if cfg!(target_arch = "aarch64") { 1 } else { 0 };
    let offsets = [0, offset_of!(Header, capacity), offset_of!(Header, data_size), offset_of!(Header, ready_flag)];
    let offsets = offsets.into_iter().map(|at| at.to_string()).chain([DATA.to_string()]);
    let offsets: Vec<_> = offsets.collect();
    for path in ["PROTOCOL.md", "src/handoff/layout.rs"] {
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let rows = text.lines().map(|line| line.trim_start_matches("//! "));
        let rows = rows.skip_while(|line| !line.starts_with("| x86-64 | 64-bit Arm |")).skip(2);
        let table: Vec<_> = rows
            .map_while(|row| row.strip_prefix("| "))
            .map(|row| row.split(" | ").nth(column).unwrap_or_default().to_owned())
            .collect();
        assert_eq!(table, offsets, "{path}");
    }
}
