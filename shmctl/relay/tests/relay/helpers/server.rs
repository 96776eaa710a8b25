//! A `nats-server` of a test's own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use shm_test_support::{Proc, TempDir, clean, skip, unique, wait_until};

/// Whether there is no `nats-server`. Then a note says so.
pub(crate) fn skip_without_server(test: &str) -> bool {
    let is_here = clean("nats-server").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_here {
        skip(test, "there is no nats-server; install it with: apt-get install nats-server");
    }
    !is_here
}

pub(crate) struct Server {
    /// Ends before its directory is removed, because the fields are dropped in this order: it may still write into it.
    proc: Option<Proc>,
    pub(crate) dir: TempDir,
    port: u16,
    config: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// With more lines in its configuration. `DIR` stands for its directory.
    pub(crate) fn with(config: &str) -> Self {
        let mut server = Self::absent(config);
        server.launch();
        server
    }

    /// One that is started later.
    pub(crate) fn absent(config: &str) -> Self {
        let dir = TempDir::named(&unique("nats"));
        // Free now; the test's own programs take no ports.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = config.replace("DIR", &dir.path().display().to_string());
        Server { dir, port, config, proc: None }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn launch(&mut self) {
        let file = self.dir.path().join("nats.conf");
        let store = self.dir.path().join("store");
        let text = format!(
            "host: 127.0.0.1\nport: {}\njetstream {{ store_dir: \"{}\" }}\n{}\n",
            self.port,
            store.display(),
            self.config
        );
        fs::write(&file, text).unwrap();
        let mut command = clean("nats-server");
        command.arg("-c").arg(&file);
        let mut proc = Proc::spawn(command);
        wait_until("the server is ready", || {
            assert!(proc.is_running(), "the server has ended:\n{}", proc.err_so_far());
            proc.err_so_far().contains("Server is ready")
        });
        self.proc = Some(proc);
    }

    /// Has these lines in its configuration when it is launched again.
    pub(crate) fn configure(&mut self, config: &str) {
        config.clone_into(&mut self.config);
    }

    pub(crate) fn kill(&mut self) {
        self.proc.take().expect("the server runs").kill();
    }

    /// Publishes a message as any other program.
    pub(crate) fn publish(&self, subject: &str, bytes: &[u8]) {
        self.publish_all(subject, &[bytes.to_vec()]);
    }

    /// Publishes messages as any other program, one behind the other.
    pub(crate) fn publish_all(&self, subject: &str, messages: &[Vec<u8>]) {
        let mut connection = self.connection();
        for bytes in messages {
            let head = format!("PUB {subject} {}\r\n", bytes.len());
            connection.get_mut().write_all(&[head.as_bytes(), bytes, b"\r\n"].concat()).unwrap();
        }
        connection.get_mut().write_all(b"PING\r\n").unwrap();
        assert!(line(&mut connection).starts_with("PONG"));
    }

    /// What the server answers to a request without contents.
    pub(crate) fn ask(&self, subject: &str) -> String {
        self.ask_with(subject, "")
    }

    /// Makes stream CAM for the subjects of a relay, with more of its configuration, which is JSON.
    pub(crate) fn make_stream(&self, more: &str) {
        let config = format!("{{\"name\":\"CAM\",\"subjects\":[\"CAM.*\"],\"storage\":\"file\",{more}}}");
        let answer = self.ask_with("$JS.API.STREAM.CREATE.CAM", &config);
        assert!(!answer.contains("\"error\""), "{answer}");
    }

    fn ask_with(&self, subject: &str, text: &str) -> String {
        let mut connection = self.connection();
        let request = format!("SUB answer 1\r\nPUB {subject} answer {}\r\n{text}\r\n", text.len());
        connection.get_mut().write_all(request.as_bytes()).unwrap();
        assert!(line(&mut connection).starts_with("MSG"));
        line(&mut connection)
    }

    fn connection(&self) -> BufReader<TcpStream> {
        let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap());
        let greeting = line(&mut connection);
        assert!(greeting.starts_with("INFO"), "{greeting}");
        connection.get_mut().write_all(b"CONNECT {\"verbose\":false}\r\n").unwrap();
        connection
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    connection.read_line(&mut line).unwrap();
    line
}
