//! What others do to the stream and to the consumer: removing them, making them anew, and filling the stream.

use std::time::Duration;

use nix::sys::signal::Signal;
use shm_test_support::{Proc, wait_until};

use crate::helpers::{FAR, Host, Server, Sink, Source, content, ends, envelope};

/// More than the server gives without acknowledgements.
const MANY: usize = 9000;

#[test]
fn an_empty_stream_is_relayed_from() {
    let Some((server, here, there)) = ends("an_empty_stream") else { return };
    let _out = here.out_with_stream(&server.url(), &[]);
    let mut inward = there.inward(&server.url(), &[]);
    inward.until_err_has("CAM -> cam: relaying");
    assert!(!inward.err_so_far().contains("trying again"), "{}", inward.err_so_far());
}

#[test]
fn messages_of_others_behind_the_first_part_of_a_message_do_not_stop_the_relay() {
    let Some((server, here, there)) = ends("messages_of_others_behind_the_first_part") else { return };
    let _out = here.out_with_stream(&server.url(), &[]);
    server.publish("CAM.part", &envelope(0, b"beginning", Some((0, 1000))));
    server.publish_all("CAM.hello", &vec![b"from somebody".to_vec(); MANY]);
    server.publish("CAM.whole", &envelope(0, &content(0, 0), None));
    let _inward = there.inward(&server.url(), &[]);
    Sink::start(there.daemon.endpoint(), 0, 0).finish(1);
}

#[test]
fn a_stream_that_is_removed_ends_the_relay_out_and_a_new_one_is_relayed_from_its_beginning() {
    let Some((server, here, there)) = ends("a_stream_that_is_removed") else { return };
    let metrics = here.daemon.place.path("relay.prom");
    let out = here.out_with_stream(&server.url(), &["--metrics", metrics.to_str().unwrap()]);
    let mut inward = there.inward(&server.url(), &[]);
    let source = Source::start(here.daemon.endpoint(), 3000, 0, Duration::ZERO);
    let sink = Sink::start(there.daemon.endpoint(), 0, 0);
    sink.until(3000);
    source.finish();
    let answer = server.ask("$JS.API.STREAM.DELETE.CAM");
    assert!(answer.contains("\"success\":true"), "{answer}");
    let mut writer = here.daemon.writer();
    for n in 3000..3100 {
        writer.publish_within(&content(n, 0), Duration::from_secs(60)).unwrap();
    }
    out.wait().fails(1, &["the server no longer has stream CAM", "--create-stream"]);
    let text = std::fs::read_to_string(&metrics).unwrap();
    let of = |name: &'static str| text.lines().filter(move |line| line.starts_with(name));
    assert!(of("shmd_relay_connected{").chain(of("shmd_relay_state{")).all(|line| line.ends_with("} 0")), "{text}");
    assert!(of("shmd_relay_messages_total{").all(|line| !line.ends_with("} 0")), "{text}");
    let _out = here.out_with_stream(&server.url(), &[]);
    sink.finish(3100);
    inward.until_err_has("was made anew or restored");
}

/// The metric with this state has the value 1.
fn has_state(text: &str, state: &str) -> bool {
    text.lines().any(|line| line.contains(&format!("state=\"{state}\"}} 1")))
}

#[test]
fn a_relay_in_says_that_the_stream_was_removed_and_ends_unless_there_is_another_one_in_time() {
    let Some((server, here, there)) = ends("a_relay_in_says_that_the_stream_was_removed") else { return };
    drop(here.out_with_stream(&server.url(), &[]));
    let metrics = there.daemon.place.path("relay.prom");
    let with_metrics = ["--metrics", metrics.to_str().unwrap()];
    let mut patient = there.inward(&server.url(), &[&with_metrics[..], &["--gone-after", "0"]].concat());
    patient.until_err_has("CAM -> cam: relaying");
    let remove = || assert!(server.ask("$JS.API.STREAM.DELETE.CAM").contains("\"success\":true"));
    remove();
    patient.until_err_has("stream removed: the server no longer has stream CAM: it was removed; waiting for a stream");
    let text = || std::fs::read_to_string(&metrics).unwrap();
    wait_until("the metrics show it", || has_state(&text(), "stream removed"));
    let _out = here.out_with_stream(&server.url(), &[]);
    wait_until("the metrics show the new stream", || has_state(&text(), "relaying"));
    drop(patient);
    let mut inward = there.inward(&server.url(), &["--gone-after", "1s"]);
    inward.until_err_has("CAM -> cam: relaying");
    remove();
    inward.wait().fails(1, &["the server no longer has stream CAM", "for 1s", "--gone-after", "--create-stream"]);
}

/// Removes the relay's consumer, and waits until the relay has made it again.
#[track_caller]
fn remove_consumer(server: &Server, inward: &Proc) {
    let answer = server.ask("$JS.API.CONSUMER.DELETE.CAM.far");
    // A server that writes a file of the consumer meanwhile does not remove its directory, but removes the consumer.
    assert!(answer.contains("\"success\":true") || answer.contains("directory not empty"), "{answer}");
    wait_until("the consumer is made again", || inward.err_so_far().matches("made consumer far").count() >= 2);
}

#[test]
fn a_consumer_that_is_removed_is_made_again_and_nothing_comes_twice() {
    for retention in ["limits", "workqueue"] {
        let Some((server, here, there)) = ends("a_consumer_that_is_removed") else { return };
        server.make_stream(&format!("\"retention\":\"{retention}\""));
        let _out = here.out_with_stream(&server.url(), &[]);
        let inward = there.inward(&server.url(), &["--consumer", "far"]);
        let source = Source::start(here.daemon.endpoint(), u64::MAX, 3000, Duration::from_millis(1));
        let sink = Sink::start(there.daemon.endpoint(), 0, 3000);
        sink.until(1000);
        remove_consumer(&server, &inward);
        sink.until(sink.got() + 1000);
        // The next one goes on by what is stored with the new consumer.
        inward.kill();
        let _inward = there.inward(&server.url(), &["--consumer", "far"]);
        sink.until(sink.got() + 1000);
        sink.finish(source.finish());
    }
}

#[test]
fn a_consumer_that_the_server_cannot_store_is_made_anew() {
    let Some((server, here, there)) = ends("a_consumer_that_the_server_cannot_store") else { return };
    let _out = here.out_with_stream(&server.url(), &[]);
    let mut inward = there.inward(&server.url(), &["--consumer", "far"]);
    inward.until_err_has("CAM -> cam: relaying");
    // As a server does that removes an older consumer of this name late.
    std::fs::remove_dir_all(server.dir.path().join("store/jetstream/$G/streams/CAM/obs/far")).unwrap();
    let _source = Source::start(here.daemon.endpoint(), 2000, 3000, Duration::ZERO);
    let sink = Sink::start(there.daemon.endpoint(), 0, 3000);
    inward.until_err_has("making the consumer anew");
    sink.finish(2000);
}

/// The two halves of message `n`.
fn halves(n: u64) -> [Vec<u8>; 2] {
    let bytes = content(n, 0);
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let total = bytes.len() as u64;
    [envelope(n, first, Some((0, total))), envelope(n, second, Some((first.len() as u64, total)))]
}

/// The first message needs a mark, which the server cannot store when the last part has come.
#[test]
fn a_message_in_parts_is_not_lost_when_the_consumer_is_made_anew() {
    let Some((server, here, there)) = ends("a_message_in_parts_is_not_lost") else { return };
    let _out = here.out_with_stream(&server.url(), &[]);
    let mut inward = there.inward(&server.url(), &["--consumer", "far"]);
    inward.until_err_has("CAM -> cam: relaying");
    std::fs::remove_dir_all(server.dir.path().join("store/jetstream/$G/streams/CAM/obs/far")).unwrap();
    let sink = Sink::start(there.daemon.endpoint(), 0, 0);
    server.publish_all("CAM.7", &halves(0));
    server.publish("CAM.7", &envelope(1, &content(1, 0), None));
    inward.until_err_has("making the consumer anew");
    sink.finish(2);
}

#[test]
fn parts_that_were_received_come_again_for_the_next_relay_when_the_consumer_is_removed() {
    let Some((server, here, there)) = ends("parts_that_were_received") else { return };
    let _out = here.out_with_stream(&server.url(), &[]);
    let inward = there.inward(&server.url(), &["--consumer", "far"]);
    let sink = Sink::start(there.daemon.endpoint(), 0, 0);
    let [first, second] = halves(1);
    server.publish_all("CAM.7", &[envelope(0, &content(0, 0), None), first]);
    wait_until("the relay has the first part", || {
        let info = server.ask("$JS.API.CONSUMER.INFO.CAM.far");
        info.contains("\"stream_seq\":2") && info.contains("\"num_ack_pending\":1,")
    });
    sink.until(1);
    remove_consumer(&server, &inward);
    inward.kill();
    server.publish_all("CAM.7", &[second, envelope(2, &content(2, 0), None)]);
    let _inward = there.inward(&server.url(), &["--consumer", "far"]);
    sink.finish(3);
}

/// The stream has nothing of what the far channel has, so a relay out that is killed sends the channel again, as far as the stream
/// has space. The end of that is before the end of the far channel, although nobody else has published there.
#[test]
fn what_a_work_queue_gets_a_second_time_is_passed_over() {
    let Some((server, here, there)) = ends("what_a_work_queue_gets_a_second_time") else { return };
    server.make_stream("\"retention\":\"workqueue\",\"discard\":\"new\",\"max_bytes\":65536");
    let small = ["--batch-bytes", "8KiB"];
    let out = here.out_with_stream(&server.url(), &small);
    let mut inward = there.inward(&server.url(), &[]);
    let source = Source::start_up_to(here.daemon.endpoint(), 3000, 0);
    let sink = Sink::start(there.daemon.endpoint(), 0, 0);
    sink.until(3000);
    let is_empty = || server.ask("$JS.API.STREAM.INFO.CAM").contains("\"messages\":0,");
    wait_until("everything is acknowledged", is_empty);
    inward.signal(Signal::SIGTERM);
    inward.wait().ok();
    out.kill();
    let _out = here.out_with_stream(&server.url(), &small);
    wait_until("the channel is sent again", || !is_empty());
    let mut inward = there.inward(&server.url(), &[]);
    source.allow(3100);
    sink.finish(3100);
    source.finish();
    inward.signal(Signal::SIGTERM);
    let run = inward.wait().ok();
    assert!(!run.err.contains("has other messages than this relay has published"), "{run:?}");
}

/// Also if the relay is killed before it has acknowledged anything.
#[test]
fn a_relay_that_starts_with_new_messages_publishes_no_others() {
    let Some((server, here, there)) = ends("a_relay_that_starts_with_new_messages") else { return };
    let _out = here.out_with_stream(&server.url(), &[]);
    server.publish_all("CAM.7", &(0..100).map(|n| envelope(n, &content(n, 0), None)).collect::<Vec<_>>());
    for _ in 0..2 {
        let mut inward = there.inward(&server.url(), &["--consumer", "far", "--start", "new"]);
        inward.until_err_has("CAM -> cam: relaying");
        inward.kill();
    }
    let _inward = there.inward(&server.url(), &["--consumer", "far", "--start", "new"]);
    server.publish_all("CAM.7", &(100..200).map(|n| envelope(n, &content(n, 0), None)).collect::<Vec<_>>());
    Sink::start(there.daemon.endpoint(), 100, 0).finish(200);
}

#[test]
fn a_consumer_belongs_to_one_channel_unless_another_takes_it_over() {
    let Some((server, here, there)) = ends("a_consumer_belongs_to_one_channel") else { return };
    let other = Host::start(FAR);
    let _out = here.out_with_stream(&server.url(), &[]);
    let far = ["--consumer", "far"];
    let mut inward = there.inward(&server.url(), &far);
    inward.until_err_has("CAM -> cam: relaying");
    // Before the first message, and after it.
    let refusal = ["consumer far belongs to channel cam", "this relay is for channel cam", "--consumer", "--take-over"];
    other.inward(&server.url(), &far).wait().fails(1, &refusal);
    let source = Source::start_up_to(here.daemon.endpoint(), 1000, 0);
    let sink = Sink::start(there.daemon.endpoint(), 0, 0);
    sink.until(1000);
    other.inward(&server.url(), &far).wait().fails(1, &refusal);
    wait_until("everything is acknowledged", || {
        let info = server.ask("$JS.API.CONSUMER.INFO.CAM.far");
        info.contains("\"num_ack_pending\":0,") && info.contains("\"num_pending\":0")
    });
    inward.signal(Signal::SIGTERM);
    inward.wait().ok();
    let second = Sink::start(other.daemon.endpoint(), 1000, 0);
    let mut taker = other.inward(&server.url(), &[&far[..], &["--take-over"]].concat());
    taker.until_err_has("took consumer far over from channel cam");
    taker.until_err_has("CAM -> cam: relaying");
    source.allow(2000);
    second.until(2000);
    // What was refused to the new one is refused to the old one now.
    there.inward(&server.url(), &far).wait().fails(1, &refusal);
    // And the option does no harm to the owner.
    taker.kill();
    let _again = other.inward(&server.url(), &[&far[..], &["--take-over"]].concat());
    source.allow(3000);
    second.finish(3000);
    sink.finish(1000);
    source.finish();
}
