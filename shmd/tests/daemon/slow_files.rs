//! Reading the configuration takes as long as the test likes, as with a name service that does not answer: a FIFO is in its place.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use shm_proto::{Done, ErrorKind, Request, RequestError};

use super::Daemon;

const WAITING: &str = "[[channel]]\nname = \"waiting\"\n";

impl Daemon {
    fn withhold_config(&self) {
        let path = self.path("shmd.toml");
        fs::remove_file(&path).unwrap();
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
    }

    /// Waits until the daemon has begun to read the configuration, which is what is written here.
    fn config_to_come(&self) -> File {
        OpenOptions::new().write(true).open(self.path("shmd.toml")).unwrap()
    }

    fn is_there(&self) {
        assert!(matches!(self.ask(&Request::Ping), Ok(Done::Ping(_))), "{}", self.log());
    }
}

#[test]
fn a_reload_waits_for_the_configuration_and_nobody_else_does() {
    let mut daemon = Daemon::start("slow-reload", WAITING);
    daemon.withhold_config();
    let comes = format!("{WAITING}[[channel]]\nname = \"comes\"\n");
    let done = thread::scope(|scope| {
        let reload = scope.spawn(|| daemon.ask(&Request::Reload));
        let mut config = daemon.config_to_come();
        daemon.is_there();
        let reexec = daemon.refused(&Request::Reexec);
        assert!(reexec.contains("a reload is under way"), "{reexec}");
        // These come too late for what is read now.
        let others = [(); 2].map(|()| {
            let mut other = UnixStream::connect(daemon.run_dir().join("shmd.sock")).unwrap();
            other.write_all(b"{\"v\":1,\"op\":\"reload\"}\n").unwrap();
            other
        });
        (0..3).for_each(|_| daemon.is_there());
        config.write_all(comes.as_bytes()).unwrap();
        drop(config);
        let done = reload.join().unwrap();
        // The configuration is read once more, for both.
        daemon.config_to_come().write_all(comes.as_bytes()).unwrap();
        for other in others {
            let mut answer = String::new();
            BufReader::new(other).read_line(&mut answer).unwrap();
            assert!(answer.contains("\"ok\":{\"reload\""), "{answer}");
        }
        done
    });
    match done {
        Ok(Done::Reload(done)) => assert_eq!(done.created, ["comes".parse().unwrap()]),
        other => panic!("{other:?}: {}", daemon.log()),
    }
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_reexec_waits_for_the_configuration_and_nobody_else_does() {
    let mut daemon = Daemon::start("slow-reexec", WAITING);
    daemon.withhold_config();
    let refused = thread::scope(|scope| {
        let reexec = scope.spawn(|| daemon.ask(&Request::Reexec));
        let mut config = daemon.config_to_come();
        daemon.is_there();
        config.write_all(b"nonsense = 1\n").unwrap();
        drop(config);
        reexec.join().unwrap()
    });
    match refused {
        Err(RequestError::Refused(refused)) => {
            assert_eq!(refused.kind, ErrorKind::BadConfig, "{refused:?}");
            assert!(
                refused.message.contains("nothing was changed") && refused.message.contains("nonsense"),
                "{refused:?}"
            );
        }
        other => panic!("{other:?}: {}", daemon.log()),
    }
    daemon.is_there();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    daemon.assert_gone();
}

#[test]
fn a_configuration_that_never_comes_does_not_keep_the_daemon_from_stopping() {
    let mut daemon = Daemon::start("slow-stop", WAITING);
    daemon.withhold_config();
    daemon.signal(Signal::SIGHUP);
    let config = daemon.config_to_come();
    // Another reload is wanted, and does not come either.
    daemon.signal(Signal::SIGHUP);
    daemon.is_there();
    assert_eq!(daemon.stop(), Some(0), "{}", daemon.log());
    drop(config);
    daemon.assert_gone();
}
