//! Reading the configuration again while readers and writers are at work.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use shm_proto::internal::control::Reloaded;
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::{Done, ErrorKind, Reader, ReaderError, Request, RequestError, Start, Writer, WriterError};

use super::{Daemon, PATIENCE};

fn channel(name: &str, keys: &str) -> String {
    format!("[[channel]]\nname = \"{name}\"\n{keys}\n")
}

impl Daemon {
    /// Writes the configuration and reads it again.
    pub(super) fn reload(&mut self, config: &str) -> Result<Reloaded, RequestError> {
        self.write_config(config);
        match self.ask(&Request::Reload)? {
            Done::Reload(done) => Ok(done),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn write_config(&mut self, config: &str) {
        config.clone_into(&mut self.config);
        fs::write(self.dir.join("shmd.toml"), config).unwrap();
    }

    fn attach(&self, name: &str) -> Reader {
        Reader::attach(&self.endpoint(), Some(name), Start::Oldest).unwrap()
    }
}

fn receive(reader: &mut Reader) -> Result<Vec<u8>, ReaderError> {
    let mut bytes = Vec::new();
    reader.recv_into(&mut bytes, Some(PATIENCE)).map(|_| bytes)
}

#[test]
fn channels_come_and_go_and_the_others_notice_nothing() {
    let mut daemon = Daemon::start("reload", &(channel("stays", "") + &channel("goes", "")));
    let mut writer = Writer::attach(&daemon.endpoint(), Some("stays")).unwrap();
    let (mut stays, mut goes) = (daemon.attach("stays"), daemon.attach("goes"));
    writer.publish(b"before").unwrap();
    let done = daemon.reload(&(channel("stays", "") + &channel("comes", "capacity = \"128KiB\""))).unwrap();
    let names = |names: &[shm_proto::ChannelName]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!((names(&done.created), names(&done.removed)), (vec!["comes".to_owned()], vec!["goes".to_owned()]));
    assert!(done.changed.is_empty() && done.kept.is_empty(), "{done:?}");
    assert!(matches!(receive(&mut goes), Err(ReaderError::Closed { .. })));
    assert!(!daemon.object("goes").exists() && daemon.object("comes").exists());
    writer.publish(b"after").unwrap();
    assert_eq!(receive(&mut stays).unwrap(), b"before");
    assert_eq!(receive(&mut stays).unwrap(), b"after");
    daemon.attach("comes");
    let missing =
        Request::Attach { channel: Some("goes".parse().unwrap()), program: None, layout: LAYOUT_VERSION, expect: None };
    assert!(daemon.refused(&missing).contains("comes, stays") || daemon.refused(&missing).contains("stays, comes"));
    assert_eq!(daemon.reload(&daemon.config.clone()).unwrap(), Reloaded::default());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_removed_channels_writer_loses_the_role_and_the_name_can_come_back() {
    let both = channel("a", "") + &channel("b", "");
    let mut daemon = Daemon::start("reload-writer", &both);
    let mut writer = Writer::attach(&daemon.endpoint(), Some("b")).unwrap();
    daemon.reload(&channel("a", "")).unwrap();
    // The name is free when the writer has gone or had its time.
    let busy = daemon.reload(&both).unwrap_err();
    assert!(matches!(&busy, RequestError::Refused(refusal) if refusal.kind == ErrorKind::Busy), "{busy}");
    assert!(matches!(writer.publish(b"late"), Err(WriterError::Revoked { .. })));
    drop(writer);
    super::wait_for(|| !daemon.object("b").exists(), || daemon.log());
    daemon.reload(&both).unwrap();
    assert!(daemon.object("b").exists());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
}

#[test]
fn limits_policies_and_permissions_change_and_what_cannot_is_named() {
    let mut daemon = Daemon::start("reload-keys", &channel("main", ""));
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    let keys = "max_readers = 1\nevict_after = \"100ms\"\npermissions = \"0600\"\nread = [\"*\"]\nmin = \"128KiB\"\n\
                on_full = \"drop\"\nmax = \"2MiB\"\ncapacity = \"2MiB\"";
    let done = daemon
        .reload(&("max_clients = 9\nlog_entries = 7\nprefix = \"x\"\n".to_owned() + &channel("main", keys)))
        .unwrap();
    let keys = |changes: &[shm_proto::internal::control::Change]| {
        let mut keys: Vec<_> = changes.iter().map(|change| change.key.clone()).collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(keys(&done.changed), "evict_after log_entries max_clients max_readers min permissions read", "{done:?}");
    // The prefix is given on the command line, which wins.
    assert_eq!(keys(&done.kept), "capacity max max_message on_full", "{done:?}");
    assert!(done.kept.iter().all(|change| change.why.is_some()), "{done:?}");
    let stat = daemon.stat();
    assert_eq!((stat.max_readers, stat.min, stat.max), (1, 128 << 10, 256 << 20));
    assert_eq!(fs::metadata(daemon.object("main")).unwrap().permissions().mode() & 0o777, 0o600);
    // The present writer has heard of evict_after: a full ring does not hold it up for ever.
    let mut reader = daemon.attach("main");
    let refused =
        daemon.refused(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None });
    assert!(refused.contains("max_readers = 1"), "{refused}");
    daemon.reload(&channel("main", "evict_after = \"100ms\"")).unwrap();
    let message = vec![0; 8 << 20];
    for _ in 0..64 {
        writer.publish(&message).unwrap();
    }
    assert!(matches!(receive(&mut reader), Err(ReaderError::Evicted { .. })));
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_broken_file_changes_nothing_and_names_file_and_line() {
    let mut daemon = Daemon::start("reload-broken", &channel("main", ""));
    let broken = channel("new", "") + &channel("main", "read = [\"*\"]\non_full = \"sometimes\"");
    let refused = daemon.reload(&broken).unwrap_err();
    assert!(matches!(&refused, RequestError::Refused(refusal) if refusal.kind == ErrorKind::BadConfig), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("nothing was changed") && text.contains("shmd.toml:7"), "{text}");
    daemon.signal(Signal::SIGHUP);
    daemon.await_log(|log| log.matches("event=reload-failed").count() == 2);
    assert!(daemon.log().contains("by=SIGHUP"), "{}", daemon.log());
    assert!(!daemon.object("new").exists());
    daemon.write_config(&channel("main", "max_readers = 3"));
    daemon.signal(Signal::SIGHUP);
    daemon.await_log(|log| log.contains("event=reload by=SIGHUP created=0 removed=0 changed=1 kept=0"));
    assert_eq!(daemon.stat().max_readers, 3);
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_new_channel_that_cannot_be_made_leaves_everything_as_it_was() {
    let mut daemon = Daemon::start("reload-taken", &channel("main", ""));
    fs::write(daemon.object("b"), "somebody's").unwrap();
    let refused = daemon.reload(&(channel("a", "") + &channel("b", ""))).unwrap_err().to_string();
    assert!(refused.contains("nothing was changed: channel b"), "{refused}");
    assert!(daemon.object("main").exists() && !daemon.object("a").exists());
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_flood_of_reloads_disturbs_nobody() {
    let mut daemon = Daemon::start("reload-flood", &channel("main", ""));
    let mut reader = daemon.attach("main");
    let mut writer = Writer::attach(&daemon.endpoint(), None).unwrap();
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..50).for_each(|_| drop(daemon.ask(&Request::Reload).unwrap())))).collect();
        for number in 0_u32.. {
            daemon.signal(Signal::SIGHUP);
            writer.publish(&number.to_le_bytes()).unwrap();
            assert_eq!(receive(&mut reader).unwrap(), number.to_le_bytes());
            if asking.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                break;
            }
        }
    });
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_source_stays_as_it_is_and_is_named_with_what_depends_on_it() {
    let path = std::env::temp_dir().join(format!("shmd-test-kept-{}", std::process::id()));
    let source = |kind: &str| channel("main", &format!("source = \"{kind}:{}\"", path.display()));
    let mut daemon = Daemon::start("reload-source", &source("unix-seqpacket"));
    let done = daemon.reload(&(source("fifo") + "write = [\"*\"]")).unwrap();
    let keys = |changes: &[shm_proto::internal::control::Change]| {
        let keys: Vec<_> = changes.iter().map(|change| format!("{} {}", change.key, change.old)).collect();
        keys.join(", ")
    };
    let expected =
        format!("source \"unix-seqpacket:{}\", framing none, keep_delimiter none, flush none", path.display());
    assert_eq!((keys(&done.changed), keys(&done.kept)), ("write []".to_owned(), expected));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists());
    let mut daemon = Daemon::start("reload-fifo", &source("fifo"));
    let done = daemon.reload(&(source("fifo") + "write = [\"*\"]")).unwrap();
    assert!(done.changed.is_empty() && done.kept[0].why.as_ref().unwrap().contains("permissions"), "{done:?}");
    assert_eq!(daemon.stop(), Some(0));
    assert!(!path.exists());
}

#[test]
fn a_new_channels_source_that_cannot_be_opened_is_named_and_tried_again_until_it_can() {
    let mut daemon = Daemon::start("reload-source-waits", &channel("main", ""));
    let dir = daemon.dir.join("later");
    let config = channel("main", "") + &channel("fed", &format!("source = \"unix:{}/in\"", dir.display()));
    let done = daemon.reload(&config).unwrap();
    assert_eq!(done.created.len(), 1);
    let [kept] = done.kept.as_slice() else { panic!("{done:?}") };
    assert_eq!((kept.key.as_str(), kept.old.as_str()), ("source", "\"none\""));
    let why = kept.why.as_deref().unwrap_or_default();
    assert!(why.contains("No such file") && why.contains("tries again"), "{why}");
    let input = || match daemon.ask(&Request::Stat { channel: Some("fed".parse().unwrap()) }) {
        Ok(Done::Stat(mut stats)) => stats.remove(0).input.unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(input().state.to_string().contains("trying again"), "{:?}", input());
    // Meanwhile a program may write, and is not disturbed.
    let writer = Writer::attach(&daemon.endpoint(), Some("fed")).unwrap();
    fs::create_dir(&dir).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(!dir.join("in").exists());
    drop(writer);
    super::wait_for(|| input().state.to_string().contains("listening"), || daemon.log());
    assert!(dir.join("in").exists());
    assert_eq!(daemon.log().matches("event=source-waits").count(), 1, "{}", daemon.log());
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_channel_gets_another_name_and_keeps_its_sources_object() {
    for (kind, name) in [("unix", "rename-unix"), ("fifo", "rename-fifo")] {
        let mut daemon = Daemon::configured(name, "");
        let keys = format!("source = \"{kind}:{}/in\"", daemon.dir.display());
        daemon.config = channel("before", &keys);
        daemon.run(&[]);
        daemon.await_ready();
        daemon.reload(&channel("after", &keys)).unwrap();
        let state = || daemon.stat().input.map_or_else(String::new, |input| input.state.to_string());
        super::wait_for(|| state().contains("listening") || state().contains("waiting for a writer"), || daemon.log());
        let path = daemon.dir.join("in");
        let mut to: Box<dyn std::io::Write> = match kind {
            "unix" => Box::new(std::os::unix::net::UnixStream::connect(path).unwrap()),
            _ => Box::new(fs::OpenOptions::new().write(true).open(path).unwrap()),
        };
        to.write_all(b"hello\n").unwrap();
        assert_eq!(receive(&mut daemon.attach("after")).unwrap(), b"hello");
        drop(to);
        assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
        assert!(!daemon.dir.join("in").exists());
    }
}
