//! Channels that were created at run time go on in the next program.

use std::fs;

use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::{Reader, RequestError, Start, Writer};

use super::Daemon;
use crate::{PATIENCE, wait_for};

#[test]
fn a_channel_that_was_created_goes_on_with_its_programs_and_an_older_program_that_would_lose_it_is_refused() {
    let mut daemon = Daemon::copied("reexec-created", "");
    daemon.create("cam", &[("max", "1MiB")], false).unwrap();
    let mut writer = Writer::attach(&daemon.endpoint(), Some("cam")).unwrap();
    let mut reader = Reader::attach(&daemon.endpoint(), Some("cam"), Start::Oldest).unwrap();
    let mut bytes = Vec::new();
    for round in 0..4_u64 {
        writer.publish(&round.to_le_bytes()).unwrap();
        reader.recv_into(&mut bytes, Some(PATIENCE)).unwrap();
        assert_eq!(bytes, round.to_le_bytes());
        daemon.must_reexec();
    }
    let is_back = || {
        writer.maintain().unwrap();
        assert!(reader.try_recv().unwrap().is_none());
        reader.arm().unwrap();
        daemon.summaries().iter().any(|summary| summary.channel.as_str() == "cam" && summary.readers == 1)
    };
    wait_for(is_back, || daemon.log());
    assert_eq!((reader.received(), reader.lost()), (4, 0));
    assert!(daemon.summaries()[1].created.is_some());

    // A file that somebody has changed is not what the channel is.
    let file = daemon.run_dir().join("shmd.channels/cam.toml");
    let good = fs::read_to_string(&file).unwrap();
    for bad in [good.replace("1MiB", "2MiB"), String::new()] {
        fs::write(&file, bad).unwrap();
        let Err(RequestError::Refused(refusal)) = daemon.reexec() else { panic!("{}", daemon.log()) };
        assert!(refusal.message.starts_with("nothing was changed: channel cam: the file"), "{refusal}");
    }
    fs::write(&file, good).unwrap();
    daemon.must_reexec();

    let own = "{\"daemon\":\"shmd\",\"version\":\"0.0.1\",\"features\":0,\"protocol\":1,\"handover\":1,";
    let older = format!("#!/bin/sh\necho '{own}\"layout\":{LAYOUT_VERSION}}}'\n");
    let (written, copy) = (daemon.path("written"), daemon.copy());
    fs::write(&written, older).unwrap();
    fs::set_permissions(&written, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    fs::remove_file(&copy).unwrap();
    super::put_file(&written, &copy);
    let Err(RequestError::Refused(refusal)) = daemon.reexec() else { panic!("{}", daemon.log()) };
    assert!(refusal.message.contains("would lose the channels that were created at run time"), "{refusal}");
    assert_eq!(daemon.names(), ["main", "cam"]);
    drop(writer);
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}
