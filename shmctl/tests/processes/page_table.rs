//! How programs have the ring in their address space: `prefault`, and the advice to use huge pages.

use std::fs;
use std::path::Path;

use shm_proto::internal::control::stat::ReaderState;

use shm_test_support::{Daemon, Proc, skip};

const CAPACITY_KIB: u64 = 16 << 10;
const CHANNEL: &str = "[[channel]]\ncapacity = \"16MiB\"\nmin = \"16MiB\"\nmax = \"64MiB\"\n";

/// What the kernel says about a process's mapping of the ring.
#[derive(Debug)]
struct Mapped {
    resident_kib: u64,
    flags: String,
}

impl Mapped {
    #[track_caller]
    fn of(proc: &Proc, daemon: &Daemon) -> Self {
        let smaps = fs::read_to_string(format!("/proc/{}/smaps", proc.pid())).unwrap();
        let object = daemon.place.object("main");
        // From the line that ends with the object's path on, up to the last line of that mapping.
        let mut ours = smaps.lines().skip_while(|line| !line.ends_with(object.to_str().unwrap()));
        let mut field = |name: &str| {
            let value = ours.find_map(|line| line.strip_prefix(name));
            value.unwrap_or_else(|| panic!("no {name} of {} in\n{smaps}", object.display())).trim().to_owned()
        };
        let resident = field("Rss:");
        let resident_kib = resident.trim_end_matches(" kB").parse().unwrap_or_else(|e| panic!("{e}: {resident}"));
        Mapped { resident_kib, flags: field("VmFlags:") }
    }
}

/// Mappings of a reader that has received nothing and of a writer that has published one small message.
#[track_caller]
fn reader_and_writer(more: &str) -> [Mapped; 2] {
    let daemon = Daemon::start(&format!("{CHANNEL}{more}"));
    let reader = daemon.spawn(&["read"]);
    // It is attached before it has mapped the ring; asleep, it has.
    daemon.until_stat("the reader sleeps", |stat| {
        stat.readers.iter().any(|reader| reader.state == ReaderState::Sleeping)
    });
    let reader = Mapped::of(&reader, &daemon);
    // The role is lent before the memory is mapped; a message shows that it is.
    let mut writer = daemon.spawn_piped(&["write"]);
    writer.feed(b"one\n");
    daemon.until_stat("the writer has published", |stat| stat.messages == 1);
    [reader, Mapped::of(&writer, &daemon)]
}

#[test]
fn with_prefault_programs_have_the_whole_ring_in_their_page_table_at_once() {
    // Filling the page table ahead of use came with Linux 5.14.
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(5), Some(14)) {
        skip("with_prefault_programs_have_the_whole_ring_in_their_page_table_at_once", "it needs Linux 5.14");
        return;
    }
    for mapped in reader_and_writer("prefault = true\n") {
        assert!(mapped.resident_kib >= CAPACITY_KIB, "{mapped:?}");
    }
}

#[test]
fn without_prefault_programs_have_only_what_they_have_touched_in_their_page_table() {
    for mapped in reader_and_writer("") {
        assert!(mapped.resident_kib < CAPACITY_KIB / 2, "{mapped:?}");
    }
}

#[test]
fn programs_ask_for_huge_pages_behind_the_ring() {
    if !Path::new("/sys/kernel/mm/transparent_hugepage").exists() {
        skip("programs_ask_for_huge_pages_behind_the_ring", "this kernel has no transparent huge pages");
        return;
    }
    for mapped in reader_and_writer("") {
        assert!(mapped.flags.split(' ').any(|flag| flag == "hg"), "{mapped:?}");
    }
}
