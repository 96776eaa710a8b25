//! Channels that declare what their messages are, and programs that state what they expect.

use std::fs;

use shm_proto::internal::control::Change;
use shm_proto::{
    Attachment, Client, Done, Endpoint, Error, ErrorKind, Expected, Follower, Reader, ReaderError, Request, Start,
    Writer,
};

use super::{Daemon, PATIENCE, wait_for};

const FRAMES: &str = "[[channel]]\nname = \"frames\"\ncontent = \"protobuf\"\nschema = \"telemetry.Frame\"\n\
                      schema_encoding = \"proto3\"\nschema_text = \"message Frame {}\"\n";
const OTHERS: &str = "[[channel]]\nname = \"plain\"\n\
                      [[channel]]\nname = \"hand\"\nmode = \"handoff\"\ncontent = \"json\"\n";

impl Daemon {
    fn expecting(&self, text: &str) -> Endpoint {
        self.endpoint().expecting(text.parse::<Expected>().unwrap())
    }

    fn schema(&self, channel: &str) -> Option<Vec<u8>> {
        let mut client = Client::connect(&self.endpoint(), PATIENCE).unwrap();
        client.schema(Some(channel.parse().unwrap())).unwrap()
    }
}

#[track_caller]
fn refused<T: std::fmt::Debug>(attached: Result<T, Error>, parts: &[&str]) {
    let error = attached.unwrap_err();
    assert_eq!(error.refusal(), Some(ErrorKind::OtherContent), "{error}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

/// Looks for a message that is not there, and whether the daemon has said something.
fn look(reader: &mut Reader) -> Result<(), ReaderError> {
    assert!(reader.try_recv()?.is_none());
    reader.arm().map(drop)
}

fn read(endpoint: &Endpoint, channel: &str) -> Result<Reader, Error> {
    Reader::attach(endpoint, Some(channel), Start::New)
}

#[test]
fn programs_are_told_what_is_declared_and_refused_if_they_expect_something_else() {
    let mut daemon = Daemon::start("content", &format!("{FRAMES}{OTHERS}"));
    for fits in ["protobuf", "protobuf:telemetry.Frame"] {
        let endpoint = daemon.expecting(fits);
        let reader = read(&endpoint, "frames").unwrap();
        let writer = Writer::attach(&endpoint, Some("frames")).unwrap();
        for content in [reader.content(), writer.content()] {
            assert_eq!(content.unwrap().to_string(), "protobuf:telemetry.Frame");
            let schema = content.unwrap().schema.as_ref().unwrap();
            assert_eq!((schema.encoding.as_str(), schema.bytes), ("proto3", 16));
        }
    }
    for other in ["json", "protobuf:telemetry.Other", "json:telemetry.Frame"] {
        let endpoint = daemon.expecting(other);
        let parts = ["channel frames", "protobuf:telemetry.Frame", &format!("the program expects {other}")];
        refused(read(&endpoint, "frames"), &parts);
        refused(Writer::attach(&endpoint, Some("frames")), &parts);
        let mut follower = Follower::new(endpoint, Some("frames"), Start::New).unwrap();
        refused(follower.try_recv().map(|message| message.is_some()), &parts);
    }
    refused(read(&daemon.expecting("json"), "plain"), &["channel plain", "declares no content", "expects json"]);
    assert!(read(&daemon.endpoint(), "plain").unwrap().content().is_none());
    // Nobody came in on the way to being refused.
    let log = daemon.log();
    assert_eq!(log.matches("event=attach channel=frames").count(), 2, "{log}");
    assert_eq!(log.matches("event=lend channel=frames").count(), 2, "{log}");

    refused(Attachment::open(&daemon.expecting("cdr"), Some("hand"), Start::New), &["is json", "expects cdr"]);
    let attached = Attachment::open(&daemon.expecting("json"), Some("hand"), Start::New).unwrap();
    assert_eq!(attached.content().unwrap().encoding, "json");

    assert_eq!(daemon.schema("frames").unwrap(), b"message Frame {}");
    assert_eq!(daemon.schema("frames").unwrap(), b"message Frame {}", "once more, by the same memfd");
    assert_eq!((daemon.schema("plain"), daemon.schema("hand")), (None, None));
    let (stat, list) = match (daemon.ask(&Request::Stat { channel: None }), daemon.ask(&Request::List)) {
        (Ok(Done::Stat(stat)), Ok(Done::List(list))) => (stat, list),
        other => panic!("{other:?}"),
    };
    let shown: Vec<_> = stat.iter().map(|stat| stat.content.as_ref().map(ToString::to_string)).collect();
    assert_eq!(shown, [Some("protobuf:telemetry.Frame".to_owned()), None, Some("json".to_owned())]);
    assert!(stat.iter().zip(&list).all(|(stat, summary)| stat.content == summary.content));
    drop(attached);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_large_schema_comes_whole_from_its_file_and_to_many_at_once() {
    let mut daemon = Daemon::configured("content-large", "");
    let text: Vec<u8> = (0..1_u32 << 20).map(|n| (n % 251) as u8).collect();
    let file = daemon.dir.join("schema");
    fs::write(&file, &text).unwrap();
    daemon.config = format!("[[channel]]\nname = \"a\"\ncontent = \"p\"\nschema = \"F\"\nschema_file = {file:?}\n");
    daemon.run(&[]);
    daemon.await_ready();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..5).for_each(|_| assert!(daemon.schema("a").unwrap() == text)));
        }
    });
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn a_reload_may_add_content_and_change_a_schemas_text_and_keeps_what_programs_rely_on() {
    let mut daemon = Daemon::configured("content-reload", "");
    let file = daemon.dir.join("schema");
    let keys = |content: &str, schema: &str| {
        format!("[[channel]]\nname = \"a\"\ncontent = \"{content}\"\nschema = \"{schema}\"\nschema_file = {file:?}\n")
    };
    daemon.config = "[[channel]]\nname = \"a\"\n".to_owned();
    daemon.run(&[]);
    daemon.await_ready();
    let before = read(&daemon.endpoint(), "a").unwrap();
    fs::write(&file, "one").unwrap();
    let named = |changes: &[Change]| changes.iter().map(|change| change.key.clone()).collect::<Vec<_>>().join(" ");
    let done = daemon.reload(&keys("p", "F")).unwrap();
    assert_eq!((named(&done.changed).as_str(), done.kept.len()), ("content schema schema_file", 0), "{done:?}");
    assert!(before.content().is_none(), "it was attached before");
    assert_eq!(read(&daemon.expecting("p:F"), "a").unwrap().content().unwrap().to_string(), "p:F");
    assert_eq!(daemon.schema("a").unwrap(), b"one");

    fs::write(&file, "another").unwrap();
    let done = daemon.reload(&keys("p", "F")).unwrap();
    assert_eq!((named(&done.changed).as_str(), done.kept.len()), ("schema_file", 0), "{done:?}");
    assert!(done.changed[0].old.starts_with("3 bytes, ") && done.changed[0].new.starts_with("7 bytes, "), "{done:?}");
    assert_eq!(daemon.schema("a").unwrap(), b"another");
    assert_eq!(daemon.reload(&keys("p", "F")).unwrap(), shm_proto::internal::control::Reloaded::default());

    for other in [keys("q", "F"), keys("p", "G"), "[[channel]]\nname = \"a\"\n".to_owned()] {
        let done = daemon.reload(&other).unwrap();
        assert!(done.changed.is_empty() && !done.kept.is_empty(), "{done:?}");
        assert!(done.kept.iter().all(|change| change.why.as_deref().unwrap().contains("rely on it")), "{done:?}");
        assert_eq!(read(&daemon.expecting("p:F"), "a").unwrap().content().unwrap().to_string(), "p:F");
    }
    // A mistake in the file is one in the configuration.
    fs::remove_file(&file).unwrap();
    let refused = daemon.reload(&keys("p", "F")).unwrap_err().to_string();
    assert!(refused.contains("nothing was changed") && refused.contains("shmd.toml:5"), "{refused}");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn after_the_daemons_death_only_those_stay_whose_expectation_still_holds() {
    let config = |content: &str| format!("[[channel]]\nname = \"a\"\nmax = \"1MiB\"\ncontent = \"{content}\"\n");
    let mut daemon = Daemon::start("content-death", &config("json"));
    let mut strict = read(&daemon.expecting("json"), "a").unwrap();
    let mut easy = read(&daemon.endpoint(), "a").unwrap();
    let mut writer = Writer::attach(&daemon.expecting("json"), Some("a")).unwrap();
    daemon.die();
    daemon.come_back();
    wait_for(
        || {
            writer.maintain().unwrap();
            assert!([&mut strict, &mut easy].into_iter().all(|reader| look(reader).is_ok()));
            daemon.stat().readers.len() == 2 && daemon.stat().writer.is_some()
        },
        || daemon.log(),
    );
    daemon.die();
    daemon.config = config("cbor");
    daemon.come_back();
    // The next daemon goes on with the segment, which knows nothing of this.
    wait_for(|| writer.maintain().is_err(), || daemon.log());
    wait_for(|| look(&mut strict).is_err(), || daemon.log());
    assert!(strict.farewell().unwrap().contains("the program expects json"), "{:?}", strict.farewell());
    wait_for(
        || {
            look(&mut easy).unwrap();
            daemon.stat().readers.len() == 1
        },
        || daemon.log(),
    );
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn what_is_not_a_name_is_no_expectation() {
    let mut daemon = Daemon::start("content-odd", FRAMES);
    let mut stream = std::os::unix::net::UnixStream::connect(&daemon.endpoint().socket).unwrap();
    std::io::Write::write_all(
        &mut stream,
        b"{\"v\":1,\"op\":\"attach\",\"layout\":2,\"expect\":{\"encoding\":\"\\u001b[2J\"}}\n",
    )
    .unwrap();
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut stream, &mut answer).unwrap();
    assert!(answer.contains("bad_request") && !answer.contains('\u{1b}'), "{answer}");
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}
