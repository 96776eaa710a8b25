//! Errors say what was tried, why it failed and what to do; what may pass is waited for.

use std::time::Duration;

use crate::helpers::{FAR, Host, SOURCE, Server, Sink, Source, skip_without_server};
use nix::sys::signal::Signal;
use shm_test_support::Proc;
#[test]
fn wrong_credentials_end_the_relay_and_right_ones_do_not() {
    if skip_without_server("wrong_credentials") {
        return;
    }
    let server = Server::with("authorization { user: relay, password: secret }");
    let (here, there) = (Host::start(SOURCE), Host::start(FAR));
    let with = |user: &str| server.url().replace("://", &format!("://{user}@"));
    for user in ["relay:wrong", "nobody:secret"] {
        let run = here.out(&with(user), &[]).wait();
        let run = run.fails(77, &["127.0.0.1", "does not accept this relay", "--creds"]);
        assert!(!run.err.contains("secret") && !run.err.contains("wrong@"), "a password is shown: {run:?}");
    }
    here.out(&server.url(), &[]).wait().fails(77, &["does not accept this relay"]);
    let (_out, _inward) = (here.out_with_stream(&with("relay:secret"), &[]), there.inward(&with("relay:secret"), &[]));
    let _source = Source::start(here.daemon.endpoint(), 100, 0, Duration::ZERO);
    Sink::start(there.daemon.endpoint(), 0, 0).finish(100);
}

#[test]
fn a_server_that_is_not_there_is_waited_for() {
    if skip_without_server("a_server_that_is_not_there") {
        return;
    }
    let (mut server, here, there) = (Server::absent(""), Host::start(SOURCE), Host::start(FAR));
    let mut out = here.out(&server.url(), &[]);
    out.until_err_has("cannot connect to nats://127.0.0.1");
    let mut ended = there.inward(&server.url(), &[]);
    ended.until_err_has("cannot connect to nats://127.0.0.1");
    ended.signal(Signal::SIGINT);
    ended.wait().ok();
    let _source = Source::start(here.daemon.endpoint(), 100, 0, Duration::ZERO);
    server.launch();
    out.until_err_has("publishing to stream CAM");
    let _inward = there.inward(&server.url(), &[]);
    Sink::start(there.daemon.endpoint(), 0, 0).finish(100);
}

#[test]
fn an_empty_variable_counts_as_none() {
    let here = Host::start(SOURCE);
    let mut command = here.command(&["out", "cam", "--stream", "CAM"]);
    command.env("SHMD_RELAY_URL", "").env("SHMD_CHANNEL", "");
    Proc::spawn(command).wait().fails(2, &["--to <URL>"]);
}

#[test]
fn creating_a_channel_needs_its_name_from_anywhere() {
    let here = Host::start(SOURCE);
    // Nobody is there: the port is reserved.
    let args = ["in", "--from", "nats://127.0.0.1:1", "--stream", "CAM", "--create-channel"];
    here.run(&args).wait().fails(2, &["--create-channel needs the name of the channel", "SHMD_CHANNEL"]);
    let mut command = here.command(&args);
    command.env("SHMD_CHANNEL", "cam");
    let (option, variable) = (here.command(&[&args[..], &["-c", "cam"]].concat()), command);
    for command in [option, variable] {
        Proc::spawn(command).until_err_has("cannot connect to nats://127.0.0.1:1");
    }
}

#[test]
fn a_stream_or_a_channel_that_does_not_exist_is_an_error_with_the_way_to_make_it() {
    if skip_without_server("a_stream_or_a_channel_that_does_not_exist") {
        return;
    }
    let (server, here) = (Server::start(), Host::start(SOURCE));
    let url = server.url();
    let help = ["the server has no stream CAM", "--create-stream", "nats stream add CAM --subjects 'CAM.*'"];
    here.run(&["out", "cam", "--to", &url, "--stream", "CAM"]).wait().fails(1, &help);
    here.inward(&url, &[]).wait().fails(1, &help[..2]);
    let help = ["no channel", "lidar", "shmctl create", "shmctl reload"];
    here.run(&["out", "lidar", "--to", &url, "--stream", "CAM", "--create-stream"]).wait().fails(1, &help);
    here.out(&url, &[]).until_err_has("publishing to stream CAM");
    here.run(&["in", "lidar", "--from", &url, "--stream", "CAM"]).wait().fails(1, &help);
    let other = ["out", "cam", "--to", &url, "--stream", "CAM", "--subject", "other"];
    here.run(&other).wait().fails(1, &["stream CAM takes subjects CAM.*", "publishes other.", "nats stream edit CAM"]);
    for bad in ["http://x", "nats://a:b:c", "nats://me:top,secret@x"] {
        let run = here.run(&["in", "cam", "--from", bad, "--stream", "CAM"]).wait();
        let run = run.fails(2, &["cannot use an address", "%2C for a comma"]);
        assert!(!run.err.contains("secret") && !run.err.contains("top"), "a password is shown: {run:?}");
    }
}

#[test]
fn a_message_that_the_far_channel_does_not_take_ends_the_relay_with_the_numbers() {
    if skip_without_server("a_message_that_the_far_channel_does_not_take") {
        return;
    }
    let (server, here) = (Server::start(), Host::start(SOURCE));
    let there = Host::start("[[channel]]\nname = \"cam\"\nmax_message = 100\n");
    let _out = here.out_with_stream(&server.url(), &[]);
    let _source = Source::start(here.daemon.endpoint(), 501, 5000, Duration::ZERO);
    let run = there.inward(&server.url(), &[]).wait();
    run.fails(1, &["over channel cam's limit of 100 bytes", "raise max_message"]);
}

#[test]
fn a_channel_without_a_place_for_the_readers_ends_the_relay() {
    let here = Host::start("[[channel]]\nname = \"cam\"\nmax_readers = 1\n");
    let _reader = here.daemon.reader(shm_proto::Start::New);
    here.out("nats://127.0.0.1:1", &[]).wait().fails(75, &["channel cam", "raise max_readers"]);
}

#[test]
fn variables_and_channels_are_checked_and_a_name_that_is_nearly_right_is_corrected() {
    let here = Host::start(SOURCE);
    let url = "nats://127.0.0.1:1";
    let mut command = here.command(&["out", "cam", "--to", url, "--stream", "CAM"]);
    command.env("SHMD_PATIENCE", "soon");
    Proc::spawn(command).wait().fails(2, &["SHMD_PATIENCE", "soon"]);
    let args = ["out", "cam", "--channel", "imu", "--to", url, "--stream", "CAM"];
    here.run(&args).wait().fails(2, &["cam and --channel imu differ"]);
    here.run(&["out", "cma", "--to", url, "--stream", "CAM"])
        .wait()
        .fails(1, &["shmctl: error: no channel named cma", "--create-channel", "did you mean cam?"]);
}
