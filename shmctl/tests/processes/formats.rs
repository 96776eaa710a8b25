//! How messages are cut out of a stream and how they are written.

use shm_test_support::{Daemon, Setup};

/// What comes out of `shmctl read` with these arguments after `input` went in with this framing.
#[track_caller]
fn through(framing: &str, input: &[u8], messages: usize, read: &[&str]) -> Vec<u8> {
    let daemon = Daemon::start("");
    daemon.cli_with_input(&["write", "--framing", framing], input).quiet();
    let stat = daemon.stat();
    assert_eq!(stat.messages, messages as u64, "messages in {framing}");
    let count = messages.to_string();
    let args = [&["read", "--from", "oldest", "-n", &count], read].concat();
    daemon.cli(&args).quiet().out
}

/// The same as JSON: the lines' `data`, or `hex` where there is no text.
#[track_caller]
fn messages(framing: &str, input: &[u8], count: usize) -> Vec<String> {
    let out = String::from_utf8(through(framing, input, count, &["--format", "json"])).unwrap();
    let lines = out.lines().enumerate().map(|(n, line)| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((value["seq"].as_u64(), value["lost"].as_u64()), (Some(n as u64), Some(0)), "{line}");
        let text = value.get("data").or(value.get("hex")).unwrap().as_str().unwrap().to_owned();
        let len = if value.get("data").is_some() { text.len() } else { text.len() / 2 };
        assert_eq!(value["len"].as_u64(), Some(len as u64), "{line}");
        text
    });
    lines.collect()
}

#[test]
fn lines_are_messages_the_empty_ones_and_the_unfinished_last_one_too() {
    assert_eq!(messages("lines", b"a\n\n\nbc\nlast", 5), ["a", "", "", "bc", "last"]);
    assert_eq!(messages("lines", b"a\n\n", 2), ["a", ""]);
    assert_eq!(through("lines", b"one\ntwo", 2, &[]), b"one\ntwo\n");
}

#[test]
fn nul_framing_lets_newlines_into_messages() {
    assert_eq!(messages("nul", b"a\nb\0\0c", 3), ["a\nb", "", "c"]);
}

#[test]
fn length_framing_carries_any_bytes() {
    let record = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes(), bytes].concat();
    let input = [record(b"a\0\n"), record(b""), record(&[0xff, 0x00])].concat();
    assert_eq!(messages("length", &input, 3), ["a\0\n", "", "ff00"]);
}

#[test]
fn chunks_have_one_size_but_for_the_last() {
    assert_eq!(messages("chunk=4", b"abcdefghij", 3), ["abcd", "efgh", "ij"]);
    assert_eq!(messages("chunk=5", b"abcdefghij", 2), ["abcde", "fghij"]);
}

#[test]
fn no_input_is_no_message() {
    let daemon = Daemon::start("");
    for framing in ["lines", "nul", "length", "chunk=1KiB"] {
        daemon.cli_with_input(&["write", "--framing", framing], b"").quiet();
    }
    assert_eq!(daemon.stat().messages, 0);
}

#[test]
fn each_format_writes_the_same_messages_its_own_way() {
    let input = b"hi \"you\"\n\n\xff\x01\n";
    for (format, wanted) in [
        ("raw", b"hi \"you\"\xff\x01".as_slice()),
        ("lines", b"hi \"you\"\n\n\xff\x01\n"),
        ("hex", b"68692022796f7522\n\nff01\n"),
        (
            "json",
            b"{\"seq\":0,\"lost\":0,\"len\":8,\"data\":\"hi \\\"you\\\"\"}\n\
              {\"seq\":1,\"lost\":0,\"len\":0,\"data\":\"\"}\n{\"seq\":2,\"lost\":0,\"len\":2,\"hex\":\"ff01\"}\n",
        ),
    ] {
        let out = through("lines", input, 3, &["--format", format]);
        assert!(out == wanted, "{format}: {:?}", String::from_utf8_lossy(&out));
    }
}

#[test]
fn the_daemons_own_source_cuts_as_shmctl_does() {
    for (framing, input, wanted) in [
        ("lines", b"a\n\nb".as_slice(), ["a", "", "b"]),
        ("nul", b"a\n\0\0b", ["a\n", "", "b"]),
        ("length", b"\x01\0\0\0a\0\0\0\0\x02\0\0\0bc", ["a", "", "bc"]),
        ("chunk=2", b"aabbc", ["aa", "bb", "c"]),
    ] {
        let (source, mut input_end) = std::io::pipe().unwrap();
        let daemon = Setup::new("").args(&["--framing", framing]).stdin(source).start();
        std::io::Write::write_all(&mut input_end, input).unwrap();
        drop(input_end);
        daemon.until_stat("the source has ended", |stat| stat.writer.is_none());
        let out = daemon.cli(&["read", "--from", "oldest", "-n", "3", "--format", "json"]).quiet().text();
        let got: Vec<_> = out
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(got, wanted, "{framing}");
    }
}

#[test]
fn a_source_that_ends_within_a_record_keeps_what_was_whole_and_fails_with_exit_on_eof() {
    let place = shm_test_support::Place::new();
    let file = place.path("input");
    std::fs::write(&file, b"\x01\0\0\0a\x05\0\0\0bc").unwrap();
    let source = std::fs::File::open(&file).unwrap();
    let setup = Setup::new("").args(&["--framing=length", "--exit-on-eof"]).stdin(source);
    setup.run_in(&place).fails(1, &["message 2", "5"]);
    assert!(place.leftovers().is_empty());
}

#[test]
fn count_ends_read_after_so_many_and_leaves_the_rest() {
    let daemon = Daemon::start("");
    daemon.write_lines("1\n2\n3\n4\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "2"]).quiet().text(), "1\n2\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "4"]).quiet().text(), "1\n2\n3\n4\n");
    assert_eq!(daemon.cli(&["read", "--from", "oldest", "-n", "0"]).quiet().text(), "");
}

#[test]
fn a_reader_from_new_sees_what_comes_and_one_from_oldest_what_was() {
    let daemon = Daemon::start("");
    daemon.write_lines("before\n");
    let new = daemon.spawn(&["read", "-n", "1"]);
    let explicit = daemon.spawn(&["read", "-n", "1", "--from", "new"]);
    let oldest = daemon.spawn(&["read", "-n", "2", "--from", "oldest"]);
    daemon.until_readers(3);
    daemon.write_lines("after\n");
    assert_eq!(new.wait().quiet().text(), "after\n");
    assert_eq!(explicit.wait().quiet().text(), "after\n");
    assert_eq!(oldest.wait().quiet().text(), "before\nafter\n");
}
