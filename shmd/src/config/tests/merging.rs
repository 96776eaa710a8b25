use super::*;

fn names(config: &Config) -> Vec<&str> {
    config.channels.iter().map(|channel| channel.name.as_str()).collect()
}

#[test]
fn parts_are_read_in_the_order_of_their_names_and_the_last_word_wins() {
    let setup = Setup::new("log = \"error\"\nmax_clients = 5\n[[channel]]\nname = \"a\"\n")
        .part("20-b.toml", "log = \"debug\"\n[[channel]]\nname = \"c\"\n")
        .part("10-a.toml", "log = \"warn\"\n[[channel]]\nname = \"b\"\n")
        .part("30-c.conf", "not read")
        .part(".hidden.toml", "not read");
    let config = setup.good();
    assert_eq!(names(&config), ["a", "b", "c"]);
    assert_eq!((config.log, config.max_clients), (log::LevelFilter::Debug, 5));
    let parts = setup.dir.path().join("shmd.d");
    assert_eq!(config.files, [setup.file(), parts.join("10-a.toml"), parts.join("20-b.toml")]);
}

#[test]
fn settings_outside_the_files_win_over_them() {
    let mut setup = Setup::new("prefix = \"file\"\n[[channel]]\ncapacity = \"1MiB\"\nalign = 16\n")
        .flag("capacity", "2MiB")
        .flag("name", "cam")
        .set("cam", "capacity", "4MiB");
    setup.given.top.push(setting("prefix", "flag", "--prefix"));
    let config = setup.good();
    assert_eq!(config.prefix.as_str(), "flag");
    let channel = setup.channel();
    assert_eq!((channel.name.as_str(), channel.capacity, channel.align), ("cam", 4 << 20, 16));
}

#[test]
fn every_key_can_be_set_as_text() {
    for (key, text) in [
        ("name", "12"),
        ("capacity", "4096"),
        ("min", "8KiB"),
        ("max", "\"4MiB\""),
        ("max_message", "100"),
        ("align", "64"),
        ("on_full", "drop"),
        ("max_readers", "3"),
        ("evict_after", "0"),
        ("shrink_after", "5m"),
        ("ack", "true"),
        ("ack_timeout", "10ms"),
        ("wait_readers", "1"),
        ("group", "0"),
        ("mode", "ring"),
        ("permissions", "0600"),
        ("read", "@0, 7"),
        ("write", "[\"*\"]"),
        ("admin", ""),
        ("source", "stdin"),
        ("framing", "chunk=64KiB"),
        ("flush", "0"),
    ] {
        let Err(e) = Setup::new("").set("main", key, text).load() else { continue };
        panic!("{key}={text}: {e}");
    }
}

#[test]
fn a_setting_for_the_only_channel_is_refused_when_there_are_several() {
    let setup = Setup::new("[[channel]]\nname = \"a\"\n[[channel]]\nname = \"b\"\n").flag("wait_readers", "3");
    let error = setup.load().unwrap_err();
    assert!(error.is_usage());
    let message = error.to_string();
    assert!(message.contains("--wait-readers") && message.contains("a, b"), "{message}");
    assert!(message.contains("--set CHANNEL.wait_readers=3"), "{message}");
}

#[test]
fn a_setting_for_an_unknown_channel_names_the_known_ones() {
    let error = Setup::new("").set("cam", "align", "8").load().unwrap_err();
    assert!(error.is_usage());
    assert_eq!(error.to_string(), "--set cam.align: there is no channel \"cam\"; known are main");
    let slip = Setup::new("").set("mian", "align", "8").refusal();
    assert_eq!(slip, "--set mian.align: there is no channel \"mian\"; known are main; did you mean main?");
}

#[test]
fn a_bad_value_outside_the_files_names_where_it_was_given() {
    for (key, text, wanted) in [
        ("capacity", "1TiB", "--set main.capacity: \"1TiB\" is not a size"),
        ("align", "x", "--set main.align: invalid type"),
        ("max_readers", "-1", "--set main.max_readers: invalid value"),
        ("on_full", "wait", "--set main.on_full: unknown variant `wait`"),
        ("colour", "red", "--set main.colour: unknown key \"colour\"; known are name, "),
        ("x\ny", "1", "--set main.x\ny: unknown key"),
        ("capcity", "1MiB", "--set main.capcity: unknown key \"capcity\"; known are name, capacity"),
        ("align", "8\nack=true", "--set main.align: invalid type"),
        ("min", "1GiB", "--set main.min: min 1GiB is more than max 4KiB (shmd.toml:2)"),
    ] {
        let refusal = Setup::new("[[channel]]\nmax = 4096\n").set("main", key, text).refusal();
        assert!(refusal.starts_with(wanted), "{refusal}");
        assert_eq!(refusal.ends_with("; did you mean capacity?"), key == "capcity", "{refusal}");
    }
}

#[test]
fn a_missing_file_is_refused_only_when_it_was_named() {
    let mut setup = Setup::new("");
    fs::remove_file(setup.file()).unwrap();
    assert!(setup.refusal().starts_with("shmd.toml: No such file"), "{}", setup.refusal());
    setup = setup.part("a.toml", "log = \"warn\"");
    let mut loaded = super::super::load::Loaded::default();
    loaded.read_with_parts(&setup.file(), false).unwrap();
    assert_eq!(loaded.files.len(), 1);
}
