//! The metrics of real channels, printed, in a file and over HTTP.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use shm_proto::internal::control::stat::ReaderState;

use shm_test_support::{Daemon, Place, Proc, Run, Setup, TempDir, clean, program, skip, wait_for, wait_until};

const TWO: &str = "[[channel]]\nname = \"cam\"\nmax_readers = 7\n[[channel]]\nname = \"imu\"\n";

/// The samples of a text, after a check of its structure: each metric has its help and its type before its samples, and nothing is
/// there twice.
#[track_caller]
fn samples(text: &str) -> Vec<(String, f64)> {
    assert!(text.ends_with('\n'), "{text}");
    let (mut seen, mut samples): (Vec<String>, Vec<(String, f64)>) = (Vec::new(), Vec::new());
    let mut lines = text.lines().peekable();
    while let Some(help) = lines.next() {
        let words: Vec<&str> = help.splitn(4, ' ').collect();
        let ["#", "HELP", name, _] = words[..] else { panic!("not a help: {help}") };
        assert!(!seen.iter().any(|it| it == name), "{name} twice");
        seen.push(name.to_owned());
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")));
        assert!(matches!(kind, Some("counter" | "gauge")), "{name}: {kind:?}");
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(series.split('{').next(), Some(name), "{line}");
            assert!(!samples.iter().any(|(it, _)| it == series), "{series} twice");
            samples.push((series.to_owned(), value.parse().unwrap_or_else(|e| panic!("{line}: {e}"))));
        }
    }
    samples
}

#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let all = samples(text);
    let found = all.iter().find(|(it, _)| it == series);
    found.unwrap_or_else(|| panic!("no {series} in\n{text}")).1
}

fn has(text: &str, series: &str) -> bool {
    samples(text).iter().any(|(it, _)| it == series)
}

/// Says what Prometheus itself thinks of a text.
fn check_with_promtool(text: &str) {
    let command =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let Ok(mut promtool) = command else { return skip("promtool check metrics", "promtool is not installed") };
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{text}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn everything_that_stat_shows_is_a_metric_and_promtool_agrees() {
    let daemon = Daemon::start(TWO);
    let _readers = [daemon.spawn(&["read", "-c", "cam"]), daemon.spawn(&["read", "-c", "cam"])];
    daemon.until_all_stat("both have chosen their start", |stats| {
        let readers: Vec<_> = stats.iter().flat_map(|stat| &stat.readers).collect();
        readers.len() == 2 && readers.iter().all(|reader| reader.state != ReaderState::Joining)
    });
    let mut write = daemon.spawn_piped(&["write", "-c", "cam"]);
    write.feed(b"0123456789\n0123456789\n");
    daemon.until_all_stat("both have read", |stats| {
        let cam = stats.iter().find(|stat| stat.channel.as_str() == "cam").unwrap();
        cam.readers.len() == 2 && cam.messages == 2 && cam.readers.iter().all(|reader| reader.received == 2)
    });
    let text = daemon.cli(&["metrics"]).quiet().text();
    check_with_promtool(&text);
    for (series, wanted) in [
        ("shmd_up", 1.0),
        (r#"shmd_channel_capacity_bytes{channel="cam"}"#, f64::from(1 << 20)),
        (r#"shmd_channel_messages_total{channel="cam"}"#, 2.0),
        (r#"shmd_channel_bytes_total{channel="cam"}"#, 20.0),
        (r#"shmd_channel_messages_total{channel="imu"}"#, 0.0),
        (r#"shmd_channel_readers{channel="cam"}"#, 2.0),
        (r#"shmd_channel_readers_max{channel="cam"}"#, 7.0),
        (r#"shmd_writer_present{channel="cam"}"#, 1.0),
        (r#"shmd_writer_present{channel="imu"}"#, 0.0),
        (r#"shmd_reader_received_messages_total{channel="cam",reader="shmctl"}"#, 2.0),
        (r##"shmd_reader_received_messages_total{channel="cam",reader="shmctl#2"}"##, 2.0),
        (r#"shmd_reader_lag_bytes{channel="cam",reader="shmctl"}"#, 0.0),
        (r#"shmd_reader_state{channel="cam",reader="shmctl",state="evicted"}"#, 0.0),
    ] {
        assert_eq!(value(&text, series), wanted, "{series}");
    }
    let one = daemon.cli(&["metrics", "-c", "imu"]).quiet().text();
    assert!(has(&one, r#"shmd_channel_used_bytes{channel="imu"}"#) && !one.contains("\"cam\""), "{one}");
    daemon.cli(&["metrics", "-c", "lidar"]).refused(1, &["no channel named lidar"]);
}

#[test]
fn a_source_is_a_metric_too() {
    let daemon = Daemon::start("[[channel]]\nname = \"cam\"\nsource = \"exec:echo one\"\n");
    daemon.until_stat("the source has read", |stat| stat.messages > 0);
    let text = daemon.cli(&["metrics"]).quiet().text();
    assert!(value(&text, r#"shmd_source_messages_total{channel="cam",kind="exec"}"#) >= 1.0);
    let states = samples(&text).into_iter().filter(|(series, _)| series.starts_with("shmd_source_state{"));
    assert_eq!(states.map(|(_, value)| value).sum::<f64>(), 1.0, "{text}");
    check_with_promtool(&text);
}

#[test]
fn a_file_is_replaced_as_a_whole_and_says_when_the_daemon_is_down() {
    let mut daemon = Daemon::start("");
    let dir = TempDir::new();
    let path = dir.join("shmd.prom");
    let output = path.to_str().unwrap().to_owned();
    daemon.cli(&["metrics", "--output", &output]).prints("");
    assert_eq!(value(&fs::read_to_string(&path).unwrap(), "shmd_up"), 1.0);
    daemon.stop(Signal::SIGTERM);
    daemon.cli(&["metrics", "--output", &output]).refused(69, &["no daemon"]);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(value(&text, "shmd_up"), 0.0);
    assert!(!text.contains("channel="), "{text}");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing else is left");
    let run = daemon.cli(&["metrics"]).fails(69, &["no daemon"]);
    assert_eq!(value(&run.text(), "shmd_up"), 0.0);
    check_with_promtool(&run.text());
}

/// Sends this and returns everything that comes.
fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const GET: &str = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[track_caller]
fn body(answer: &str) -> &str {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{answer}");
    answer.split_once("\r\n\r\n").unwrap().1
}

/// Waits until somebody listens.
fn connect(path: &Path) -> UnixStream {
    wait_for("the server listens", || UnixStream::connect(path).ok())
}

#[test]
fn a_unix_socket_serves_scrapers_whatever_other_clients_do_and_whether_there_is_a_daemon_or_not() {
    let mut daemon = Daemon::start("");
    let socket = daemon.place.path("metrics.sock");
    let listen = format!("unix:{}", socket.display());
    let mut server = daemon.spawn(&["metrics", "--listen", &listen]);
    // Clients that send nothing, or half of a request, and stay.
    let mut idle: Vec<UnixStream> = (0..5).map(|_| connect(&socket)).collect();
    idle[0].write_all(b"GET /met").unwrap();
    let answer = ask(connect(&socket), GET);
    assert_eq!(value(body(&answer), "shmd_up"), 1.0);
    check_with_promtool(body(&answer));
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404 Not Found"),
        ("DELETE /metrics HTTP/1.1\r\n\r\n", "405 Method Not Allowed"),
        ("nonsense\r\n\r\n", "400 Bad Request"),
    ] {
        let answer = ask(connect(&socket), request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains("\r\nConnection: close\r\n"),
            "{answer}"
        );
    }
    // A request that is too long. What comes after the limit is read and forgotten, so that the answer arrives.
    let mut long = connect(&socket);
    long.write_all(&[b'x'; 20 << 10]).unwrap();
    let mut refused = String::new();
    long.read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 431 "), "{refused:?}");
    drop(long);
    // A client that goes before it gets its answer.
    let mut gone = connect(&socket);
    gone.write_all(GET.as_bytes()).unwrap();
    gone.shutdown(Shutdown::Both).unwrap();

    daemon.stop(Signal::SIGTERM);
    let answer = ask(connect(&socket), GET);
    assert_eq!(value(body(&answer), "shmd_up"), 0.0);
    assert!(server.is_running());
    // A second server does not take the first one's socket.
    daemon
        .cli(&["metrics", "--listen", &listen])
        .refused(1, &[&listen, "another process listens there", "another PATH"]);
    server.signal(Signal::SIGTERM);
    server.wait().quiet();
    assert!(!socket.exists(), "the socket is removed");
}

#[test]
fn a_socket_that_a_killed_server_left_is_replaced_and_a_file_is_not() {
    let place = Place::new();
    let start = |path: &Path| {
        let mut command = clean(program("shmctl"));
        command.env("SHMD_RUNTIME_DIR", place.run_dir()).args(["metrics", "--listen"]);
        command.arg(format!("unix:{}", path.display()));
        Proc::spawn(command)
    };
    let socket = place.path("metrics.sock");
    let first = start(&socket);
    connect(&socket);
    first.kill();
    let second = start(&socket);
    let answer = ask(connect(&socket), GET);
    assert_eq!(value(body(&answer), "shmd_up"), 0.0);
    drop(second);
    let file = place.path("file");
    fs::write(&file, "mine").unwrap();
    start(&file).wait().refused(1, &["not a socket", "another PATH"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    start(&place.path("none/such")).wait().refused(1, &["cannot listen on unix:", "none/such"]);
}

#[test]
fn readers_keep_their_names_between_two_scrapes_and_two_daemons() {
    let mut daemon = Daemon::start("");
    let socket = daemon.place.path("metrics.sock");
    let _server = daemon.spawn(&["metrics", "--listen", &format!("unix:{}", socket.display())]);
    let first = daemon.spawn(&["read"]);
    daemon.until_readers(1);
    let mut second = daemon.shmctl(&["read"]);
    let _second = Proc::spawn(second.env("SHMD_PATIENCE", "120s"));
    daemon.until_readers(2);
    let series = |name: &str| format!("shmd_reader_lag_messages{{channel=\"main\",reader=\"{name}\"}}");
    let text = ask(connect(&socket), GET);
    assert!(has(body(&text), &series("shmctl")) && has(body(&text), &series("shmctl#2")), "{text}");
    first.kill();
    daemon.until_readers(1);
    let text = ask(connect(&socket), GET);
    assert!(!has(body(&text), &series("shmctl")) && has(body(&text), &series("shmctl#2")), "{text}");
    // The reader lives through the daemon's death, and is the first of the next daemon.
    daemon.kill();
    let text = ask(connect(&socket), GET);
    assert_eq!(value(body(&text), "shmd_up"), 0.0);
    daemon.launch(Setup::new(""));
    daemon.until_readers(1);
    let text = ask(connect(&socket), GET);
    assert!(!has(body(&text), &series("shmctl")) && has(body(&text), &series("shmctl#2")), "{text}");
}

#[test]
fn sockets_that_are_handed_over_are_served_tcp_among_them() {
    let daemon = Daemon::start("");
    let works = Command::new("systemd-socket-activate").arg("--version").output().is_ok_and(|it| it.status.success());
    if !works {
        return skip("metrics --listen systemd", "systemd-socket-activate is not installed");
    }
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket = daemon.place.path("handed.sock");
    let mut command = clean("systemd-socket-activate");
    command.arg("--listen").arg(&socket).arg("--listen").arg(format!("127.0.0.1:{port}"));
    command.arg(format!("--setenv=SHMD_RUNTIME_DIR={}", daemon.place.run_dir().display()));
    command.arg(program("shmctl")).args(["metrics", "--listen", "systemd"]);
    let mut server = Proc::spawn(command);
    let answer = ask(connect(&socket), GET);
    assert_eq!(value(body(&answer), "shmd_up"), 1.0);
    let answer = ask(TcpStream::connect(("127.0.0.1", port)).unwrap(), GET);
    assert_eq!(value(body(&answer), "shmd_up"), 1.0);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code, Some(0));
    assert!(socket.exists(), "the socket is not this program's to remove");
}

#[test]
fn without_systemds_sockets_it_is_said_what_is_missing() {
    let daemon = Daemon::start("");
    let run = |pid: Option<&str>| {
        let mut command = daemon.shmctl(&["metrics", "--listen", "systemd"]);
        command.env_remove("LISTEN_PID").env_remove("LISTEN_FDS");
        if let Some(pid) = pid {
            command.env("LISTEN_PID", pid).env("LISTEN_FDS", "1");
        }
        Run::of(command)
    };
    run(None).refused(2, &["LISTEN_FDS", "unix:PATH"]);
    run(Some("1")).refused(2, &["for process 1", "unix:PATH"]);
    wait_until("the daemon is not disturbed", || daemon.cli(&["list"]).code == Some(0));
}
