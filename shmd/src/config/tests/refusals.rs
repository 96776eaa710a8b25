use std::os::unix::fs::MetadataExt;

use super::*;

/// Each text is refused at the line that holds `#!`, with the words after it.
#[test]
fn what_cannot_be_is_refused_with_its_line_and_the_reason() {
    for text in [
        "\nlogg = 1 #!unknown field `logg`, expected one of `runtime_dir`",
        "[[channel]]\nbuffer = 1 #!unknown field `buffer`",
        "[channels] #!; did you mean channel?",
        "[[channel]]\ncapcity = \"1MiB\" #!unknown field `capcity`, expected one of `name`, `capacity`",
        "[[channel]]\nevict-after = \"1s\" #!; did you mean evict_after?",
        "[[channel]]\non_full = \"blok\" #!, `overwrite`; did you mean block?",
        "log = \"loud\" #!log \"loud\" is not a level",
        "log = 3 #!log: invalid type",
        "max_clients = 0 #!max_clients 0 is not from 1 to 65536",
        "max_clients = \"many\" #!max_clients: invalid type",
        "prefix = \"a/b\" #!\"a/b\" is not a prefix of object names: it contains '/'",
        "runtime_dir = \"run\" #!runtime_dir \"run\" must be an absolute path",
        "log = \"info\"\nlog = \"warn\" #!duplicate key",
        "log = #!",
        "[[channel]]\nname = \"a/b\" #!\"a/b\" is not a channel name: it contains '/'",
        "[[channel]]\nname = \"\" #!it is empty",
        "[[channel]]\nname = 7 #!name: invalid type",
        "[[channel]]\ncapacity = \"1TiB\" #!\"1TiB\" is not a size",
        "[[channel]]\ncapacity = -1 #!capacity: invalid value",
        "[[channel]]\ncapacity = 1.5 #!capacity: invalid type",
        "[[channel]]\ncapacity = true #!capacity: invalid type",
        "[[channel]]\nmin = \"2MiB\" #!min 2MiB is more than max 1MiB (\nmax = \"1MiB\"",
        "[[channel]]\nmax = \"1MiB\"\ncapacity = \"2MiB\" #!capacity 2MiB is outside min 64KiB (default) to max 1MiB (",
        "[[channel]]\ncapacity = 4096 #!capacity 4KiB is outside min 8KiB (\nmin = 8192",
        "[[channel]]\nmax = 4095 #!max 4095 is less than a page, 4096 bytes",
        "[[channel]]\nmax = \"9GiB\" #!is more than the whole of /nonexistent, 8589934592 bytes",
        "[[channel]]\nmax = \"17179869183GiB\" #!is more than any file can have",
        "[[channel]]\ncapacity = \"8GiB\" #!but only 7516192768 bytes are free in /nonexistent",
        "[[channel]]\nalign = 8 #!align 8 is not a power of two from 16 to 4096",
        "[[channel]]\nalign = 24 #!align 24 is not a power of two",
        "[[channel]]\nalign = 8192 #!align 8192 is not a power of two",
        "[[channel]]\nmax = 4096\nalign = 4096 #!holds no message at all with align 4096",
        "[[channel]]\nmax_message = \"1GiB\" #!does not fit into max 256MiB (default)",
        "[[channel]]\non_full = \"wait\" #!on_full: unknown variant `wait`",
        "[[channel]]\nmax_readers = 0 #!max_readers 0 is not from 1 to 1024",
        "[[channel]]\nmax_readers = 1025 #!max_readers 1025 is not from 1 to 1024",
        "[[channel]]\nevict_after = \"soon\" #!\"soon\" is not a duration",
        "[[channel]]\nshrink_after = 60 #!shrink_after: 60 has no unit; write \"60s\" or \"60ms\"",
        "[[channel]]\nstalled_after = \"5\" #!\"5\" is not a duration: write a number with its unit",
        "[[channel]]\nevict_after = true #!expected a time with its unit in quotes",
        "[[channel]]\nframing = \"chunk=0\" #!\"chunk=0\" is not a framing: a chunk has at least 1 byte",
        "[[channel]]\nack = \"yes\" #!ack: invalid type",
        "[[channel]]\nack_timeout = \"0s\" #!ack_timeout 0 would let no publish succeed",
        "[[channel]]\nmax_readers = 2\nwait_readers = 3 #!wait_readers 3 is more than max_readers 2",
        "[[channel]]\ncontent = \"js on\" #!\"js on\" is not the name of an encoding",
        "[[channel]]\ncontent = \"a:b\" #!\"a:b\" is not the name of an encoding",
        "[[channel]]\nschema = \"F\" #!a schema needs content",
        "[[channel]]\nschema_text = \"x\" #!a schema needs content",
        "[[channel]]\ncontent = \"p\"\nschema_file = \"/x\" #!this belongs to a schema: name it",
        "[[channel]]\ncontent = \"p\"\nschema = \"a\\u0007\" #!it contains a control character",
        "[[channel]]\ncontent = \"p\"\nschema = \"a\"\nschema_encoding = \"x y\" #!is not the name of an encoding",
        "[[channel]]\ncontent = \"p\"\nschema = \"a\"\nschema_text = \"x\"\nschema_file = \"/x\" #!leave one of them out",
        "[[channel]]\npermissions = \"01640\" #!permissions \"01640\" has bits outside of 0777",
        "[[channel]]\npermissions = \"0660\" #!lets group or others write the segment",
        "[[channel]]\npermissions = \"0642\" #!lets group or others write the segment",
        "[[channel]]\npermissions = \"rw-r-----\" #!is not an octal number",
        "[[channel]]\nmode = 640 #!mode: invalid type",
        "[[channel]]\nmode = \"0640\" #!mode \"0640\" is neither \"ring\" nor \"handoff\"",
        "[[channel]]\npermissions = \"+640\" #!is not an octal number",
        "[[channel]]\ngroup = \"no such group\" #!there is no group \"no such group\"",
        "[[channel]]\nread = [\"no such user\"] #!there is no user \"no such user\"",
        "[[channel]]\nwrite = [\"@no such group\"] #!there is no group \"no such group\"",
        "[[channel]]\nadmin = [\"4294967295\"] #!4294967295 is not a user or group number",
        "[[channel]]\nread = [\"\"] #!an empty name is no user",
        "[[channel]]\nread = [1000] #!read: invalid type",
        "[[channel]]\nsource = \"tcp\" #!source \"tcp\" is unknown: use none, stdin, fifo:/PATH",
        "[[channel]]\nsource = \"fifo\" #!source \"fifo\" is unknown",
        "[[channel]]\nsource = \"fifo:x\" #!\"x\" must be an absolute path",
        "[[channel]]\nsource = \"fifo:\" #!\"\" must be an absolute path",
        "[[channel]]\nsource = \"tail:/var/log/\" #!names a directory",
        "[[channel]]\nsource = \"unix:/\" #!names a directory",
        "[[channel]]\nsource = \"tail:/a\\nb\" #!contains the control character '\\n'",
        "[[channel]]\nsource = \"exec:\" #!names no program",
        "[[channel]]\nsource = \"exec:./x\" #!the program \"./x\" must be an absolute path",
        "[[channel]]\nsource = \"exec:sh -c 'x\" #!a quote is not closed",
        "[[channel]]\nwrite = [\"7\"]\nsource = \"fifo:/x\" #!`write` names user 7",
        "[[channel]]\nsource = \"unix-seqpacket:/x\"\nframing = \"lines\" #!leave framing out",
        "[[channel]]\nsource = \"unix-seqpacket:/x\"\nkeep_delimiter = true #!leave keep_delimiter out",
        "[[channel]]\nsource = \"tail:/x\"\nframing = \"length\" #!framing length does not go with source tail",
        "[[channel]]\nsource = \"tail:/x\"\nframing = \"stream\" #!framing stream does not go with source tail: where a message ends",
        "[[channel]]\nsource = \"tail:/x\"\nframing = \"chunk=4096\" #!framing chunk=4KiB does not go with source tail",
        "[[channel]]\nname = \"a\"\nsource = \"unix:/x\"\n[[channel]]\nname = \"b\"\nsource = \"fifo:/x\" #!\"/x\" feeds channel \"a\"",
        "[[channel]]\nframing = \"words\" #!\"words\" is not a framing",
        "[[channel]]\nflush = \"1s\" #!flush does not go with framing lines: a part of such a message is no message",
        "[[channel]]\nframing = \"stream\"\nflush = \"1s\" #!a stream is published as it arrives",
        "[[channel]]\nframing = \"chunk=4KiB\"\nflush = \"soon\" #!\"soon\" is not a duration",
        "[[channel]]\nsource = \"unix-seqpacket:/x\"\nflush = \"1s\" #!leave flush out",
        "[[channel]]\nframing = \"chunk=0\" #!\"chunk=0\" is not a framing",
        "[[channel]]\nname = \"a\"\nsource = \"stdin\"\n[[channel]]\nname = \"b\"\nsource = \"stdin\" #!feeds channel \"a\"",
        "[[channel]]\nname = \"a\"\n[[channel]]\nname = \"a\" #!channel \"a\" is there already, at shmd.toml:2",
        "[[channel]]\n[[channel]] #!channel \"main\" is there already, at shmd.toml:1",
    ] {
        let (line, wanted) =
            text.lines().zip(1..).find_map(|(line, n)| Some((n, line.split_once("#!")?.1))).expect("a mark");
        let refusal = Setup::new(text).refusal();
        assert!(refusal.starts_with(&format!("shmd.toml:{line}: ")), "{text}\n-> {refusal}");
        assert!(refusal.contains(wanted), "{text}\n-> {refusal}");
        assert!(!refusal.contains('\n'), "{text}\n-> {refusal}");
    }
}

#[test]
fn a_name_given_in_two_files_is_refused_with_both_places() {
    let refusal =
        Setup::new("\n[[channel]]\nname = \"cam\"\n").part("a.toml", "[[channel]]\nname = \"cam\"\n").refusal();
    assert!(refusal.starts_with("shmd.d/a.toml:2: channel \"cam\" is there already, at shmd.toml:3"), "{refusal}");
}

#[test]
fn text_that_is_not_utf8_is_refused_at_its_line() {
    let setup = Setup::new("");
    fs::write(setup.file(), b"log = \"info\"\n# caf\xe9\n").unwrap();
    assert_eq!(setup.refusal(), "shmd.toml:2: this is not UTF-8 text");
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_as_a_source() {
    let refusal = Setup::new(&format!("[[channel]]\nsource = \"unix:/{}\"", "d".repeat(107))).refusal();
    assert!(refusal.starts_with("shmd.toml:2: ") && refusal.contains("108 bytes"), "{refusal}");
    Setup::new(&format!("[[channel]]\nsource = \"unix:/{}\"", "d".repeat(106))).good();
}

#[test]
fn a_runtime_directory_too_long_for_a_socket_is_refused() {
    let refusal = Setup::new(&format!("runtime_dir = \"/{}\"", "d".repeat(97))).refusal();
    assert!(refusal.contains("108 bytes") && refusal.contains("107"), "{refusal}");
    Setup::new(&format!("runtime_dir = \"/{}\"", "d".repeat(96))).good();
}

#[test]
fn capacities_that_fit_one_by_one_but_not_together_are_refused_with_numbers() {
    let text = "[[channel]]\nname = \"a\"\ncapacity = \"3GiB\"\n[[channel]]\nname = \"b\"\ncapacity = \"4GiB\"\n";
    let refusal = Setup::new(text).refusal();
    assert!(refusal.starts_with("shmd.toml:6: "), "{refusal}");
    for number in ["7516200960", "7516192768", "a 3GiB, b 4GiB"] {
        assert!(refusal.contains(number), "{refusal}");
    }
}

#[test]
fn a_channel_whose_object_is_there_needs_no_more_memory_however_small_the_object_has_become() {
    let text = |name: &str| format!("[[channel]]\nname = \"{name}\"\ncapacity = \"512KiB\"\n");
    let mut setup = Setup::new(&text("a"));
    setup.host.uid = nix::unistd::geteuid().as_raw();
    setup.host.shm = Some(Shm { total: Bytes::MIB, free: 0 });
    setup.host.shm_dir = setup.dir.path().to_owned();
    assert!(setup.refusal().contains("only 0 bytes are free"), "{}", setup.refusal());
    // It has shrunk, and other programs have taken what it gave back. The daemon died, or reads its configuration again.
    fs::write(setup.dir.path().join("shmd-1000.a"), vec![1; 80 << 10]).unwrap();
    setup.good();
    // The memory has to do for new channels, and these are named.
    setup.host.shm = Some(Shm { total: Bytes::MIB, free: 600 << 10 });
    let both = |more: &str| format!("{}{}{more}", text("a"), text("b"));
    fs::write(setup.file(), both("")).unwrap();
    setup.good();
    fs::write(setup.file(), both(&text("c"))).unwrap();
    let refusal = setup.refusal();
    // What the object holds would be free, if it had to be replaced.
    let free = (600 << 10) + fs::metadata(setup.dir.path().join("shmd-1000.a")).unwrap().blocks() * 512;
    for part in ["1056768 bytes", "(b 512KiB, c 512KiB)", &format!("only {free} bytes are free")] {
        assert!(refusal.contains(part), "{part:?} is not in {refusal}");
    }
    // Another user's object is not the channel's.
    setup.host.uid += 1;
    assert!(setup.refusal().contains("(a 512KiB, b 512KiB, c 512KiB)"), "{}", setup.refusal());
}

#[test]
fn more_than_the_machines_memory_is_refused_even_where_shared_memory_is_larger() {
    let mut setup = Setup::new("[[channel]]\nmax = \"5GiB\"\n");
    setup.host.memory = Some(4 * Bytes::GIB);
    assert!(setup.refusal().contains("more than the machine's memory, 4294967296 bytes"), "{}", setup.refusal());
    let mut setup = Setup::new("[[channel]]\nname = \"a\"\ncapacity = \"4GiB\"\n");
    setup.host.memory = Some(4 * Bytes::GIB);
    assert!(setup.refusal().contains("4294967296 bytes are the machine's memory"), "{}", setup.refusal());
}

#[test]
fn defaults_that_do_not_fit_are_refused_without_a_line_to_blame() {
    let mut setup = Setup::new("");
    setup.host.shm = Some(Shm { total: 64 * Bytes::MIB, free: 4096 });
    let refusal = setup.refusal();
    assert!(refusal.starts_with("the channels' capacities"), "{refusal}");
}

#[test]
fn a_group_that_the_daemon_is_not_in_is_refused_with_what_to_do_about_it() {
    let mut setup = Setup::new("[[channel]]\ngroup = \"4242\"\n");
    setup.load().unwrap();
    setup.host.groups = Groups::Own(vec![1000, 4242]);
    setup.load().unwrap();
    setup.host.groups = Groups::Own(vec![1000]);
    let refusal = setup.refusal();
    for part in ["shmd.toml:2: ", "is not in group 4242", "SupplementaryGroups=4242", "restart"] {
        assert!(refusal.contains(part), "{part:?} is not in {refusal}");
    }
}
