//! Who claims to have been a reader or a writer of a daemon that died.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::os::shm;
use shm_proto::internal::ring::layout::{LAYOUT_VERSION, LeasePage, ReaderPage, control};
use shm_proto::{Client, Done, Reader, Refusal, Request, Start, Writer};

use super::{Daemon, PATIENCE, wait_for};

/// A page of one's own proves nothing: the reader that was attached is still waited for, and nothing is overwritten in its segment.
#[test]
fn whoever_was_no_reader_takes_no_readers_place() {
    let mut daemon = Daemon::start("claims-place", LENT);
    let endpoint = daemon.endpoint();
    let stopped = Reader::attach(&endpoint, None, Start::Oldest).unwrap();
    let instance = stopped.geometry().instance;
    daemon.signal(nix::sys::signal::Signal::SIGKILL);
    daemon.wait();
    daemon.run(&[]);
    daemon.await_ready();
    // It says nothing, and somebody else claims to be it.
    let (_page, page_fd) = SharedPage::<ReaderPage>::create("claim").unwrap();
    let mut forged = Client::connect(&endpoint, PATIENCE).unwrap().into_conn();
    let channel = "main".parse().unwrap();
    let request =
        Request::ResumeReader { channel, program: None, layout: LAYOUT_VERSION, expect: None, instance, moves: 0 };
    forged.send(&request, &[page_fd.as_fd()]).unwrap();
    wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
    let lending = std::thread::spawn(move || Writer::attach(&endpoint, None).map(drop));
    wait_for(|| daemon.log().contains("event=lend"), || daemon.log());
    assert!(daemon.log().contains("event=move channel=main"), "{}", daemon.log());
    wait_for(|| daemon.log().contains("event=missing channel=main readers=1"), || daemon.log());
    super::joined(lending).unwrap();
    drop(stopped);
}

const LENT: &str = "[[channel]]\nname = \"main\"\n";

/// What a resuming client sends, by hand.
fn resume(daemon: &Daemon, request: &Request, fds: &[&OwnedFd]) -> Result<Done, Refusal> {
    let mut conn = Client::connect(&daemon.endpoint(), PATIENCE).unwrap().into_conn();
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    conn.send(request, &fds).unwrap();
    let mut answer = None;
    wait_for(
        || {
            use shm_proto::internal::control::{Received, Reply, decode};
            match conn.receive().unwrap() {
                Received::Line(line, _) => answer = Some(decode::<Reply>(&line).unwrap()),
                Received::Nothing => {}
                Received::Closed => panic!("closed: {}", daemon.log()),
            }
            answer.is_some()
        },
        || daemon.log(),
    );
    match answer.unwrap() {
        shm_proto::internal::control::Reply::Ok(done) => Ok(done),
        shm_proto::internal::control::Reply::Error(refusal) => Err(refusal),
    }
}

#[test]
fn nobody_becomes_a_reader_or_a_writer_by_claiming_to_have_been_one() {
    let daemon = Daemon::start("adopt-claims", LENT);
    let instance = Reader::attach(&daemon.endpoint(), None, Start::New).unwrap().geometry().instance;
    let channel = || "main".parse().unwrap();
    let reader = |instance| Request::ResumeReader {
        channel: channel(),
        program: None,
        layout: LAYOUT_VERSION,
        expect: None,
        instance,
        moves: 0,
    };
    let refused = |request: &Request, fds: &[&OwnedFd]| resume(&daemon, request, fds).unwrap_err().to_string();
    let (page, page_fd) = SharedPage::<ReaderPage>::create("claim").unwrap();
    let null = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    assert!(refused(&reader(instance), &[]).contains("0 descriptors came with it"));
    assert!(refused(&reader(instance), &[&null]).contains("descriptor 1 of 1 that came with it is no shared memory"));
    assert!(refused(&reader(instance ^ 1), &[&page_fd]).contains("is no more"));
    page.control.value.store(control::EVICTED, Ordering::Relaxed);
    assert!(refused(&reader(instance), &[&page_fd]).contains("was evicted"));
    page.control.value.store(0, Ordering::Relaxed);
    let mut held = Client::connect(&daemon.endpoint(), PATIENCE).unwrap().into_conn();
    held.send(&reader(instance), &[page_fd.as_fd()]).unwrap();
    wait_for(|| daemon.stat().readers.len() == 1, || daemon.log());
    assert!(refused(&reader(instance), &[&page_fd]).contains("another reader has this page"));

    let writer = |instance| Request::ResumeWriter {
        channel: channel(),
        program: None,
        layout: LAYOUT_VERSION,
        expect: None,
        instance,
        capacity: u64::MAX,
    };
    let (_lease, lease_fd) = SharedPage::<LeasePage>::create("claim").unwrap();
    let segment = shm::open(&format!("/{}.main", daemon.prefix), true).unwrap();
    assert!(refused(&reader(instance), &[&segment]).contains("a shared page has 4096 bytes"));
    assert!(refused(&writer(instance), &[&segment, &null]).contains("descriptor 2 of 2"));
    assert!(refused(&writer(instance), &[&segment, &lease_fd]).contains("is no more, or somebody else may write"));
    assert!(daemon.stat().writer.is_none());
    let held_role = Writer::attach(&daemon.endpoint(), None).unwrap();
    assert!(refused(&writer(instance), &[&segment, &lease_fd]).contains("has borrowed the writer role"));
    drop(held_role);
}

/// As a child has it that goes on with the attachment of a process that has ended. The writer holds nothing back for it.
#[test]
fn a_page_whose_attachment_has_ended_is_evicted_and_of_no_use() {
    let daemon = Daemon::start("claims-ended", LENT);
    let mut client = Client::connect(&daemon.endpoint(), PATIENCE).unwrap();
    let attach = Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None };
    let (Done::Attach(attached), fds) = client.request_with_fds(&attach).unwrap() else { panic!("no reader") };
    let [_segment, page_fd, _bell] = <[OwnedFd; 3]>::try_from(fds).unwrap();
    let page = SharedPage::<ReaderPage>::open(page_fd.as_fd()).unwrap();
    assert_eq!(page.control.value.load(Ordering::SeqCst) & control::EVICTED, 0);
    drop(client);
    wait_for(|| daemon.stat().readers.is_empty(), || daemon.log());
    assert_ne!(page.control.value.load(Ordering::SeqCst) & control::EVICTED, 0);
    let (channel, instance) = ("main".parse().unwrap(), attached.geometry.instance);
    let again =
        Request::ResumeReader { channel, program: None, layout: LAYOUT_VERSION, expect: None, instance, moves: 0 };
    let refused = resume(&daemon, &again, &[&page_fd]).unwrap_err().to_string();
    assert!(refused.contains("the reader was evicted"), "{refused}");
    assert_eq!(daemon.stat().evicted, 0, "nobody was");
}
