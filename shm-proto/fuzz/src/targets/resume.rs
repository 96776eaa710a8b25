//! Everything that clients can send to a whole daemon.
//!
//! Each line of the input is one step. A step that begins with `{` is a request. `$I` in it stands for the instance of the
//! channel's segment, as the last answer said it.
//!
//! | step | what it does |
//! |---|---|
//! | `@N` | goes over to connection N of three |
//! | `=KINDS{...` | sends a request with descriptors: `p` the last reader's page, `s` the last segment, `l` the last lease page, `m` a file in memory, `n` `/dev/null`, `c` a page of its own |
//! | `~OFFSET VALUE` | writes a word into the last page that was handed out |
//! | `-` | closes the connection |
//! | anything else | is sent as it is, with a newline unless it ends with `\` |

use std::cell::RefCell;
use std::fs;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use nix::sys::uio::pwrite;
use shm_proto::internal::control::{Conn, MAX_REPLY, Received, Reply, decode};
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::ReaderPage;
use shm_proto::{Done, Request};
use shmd::fuzzing::Stepwise;

use crate::scratch::{self, Directory};

/// The capacity never changes: a child of the daemon that shrinks a channel would be this program. A request that is rounded up to the
/// present capacity starts such a child all the same, which finds no target and ends.
const CONFIGURATION: &str = "state_dir = \"\"\n[[channel]]\nname = \"main\"\nsource = \"none\"\ncapacity = \"16KiB\"\nmin = \"16KiB\"\nmax = \"16KiB\"\n";
/// Steps that are carried out of one input.
const MOST_STEPS: usize = 24;
/// How often descriptors that are left are looked for.
const PATIENCE: u32 = 1000;

/// The daemon, for as long as this process lives.
struct Place {
    daemon: Stepwise,
    socket: PathBuf,
    descriptors: usize,
    _directory: Directory,
}

impl Place {
    fn new() -> Self {
        let directory = Directory::new("resume");
        let run = directory.path().join("run");
        let file = directory.path().join("shmd.toml");
        // libFuzzer ends the process without dropping anything; whoever started it removes what has this prefix.
        let prefix = std::env::var("SHM_FUZZ_PREFIX").unwrap_or_else(|_| format!("shm-fuzz-{}", std::process::id()));
        let text = format!("runtime_dir = \"{}\"\nprefix = \"{prefix}\"\n{CONFIGURATION}", run.display());
        fs::write(&file, text).expect("a configuration can be written");
        let daemon = Stepwise::start(&file);
        let mut place = Place { daemon, socket: run.join("shmd.sock"), descriptors: 0, _directory: directory };
        // What is opened once and kept is open after the first clients.
        for _ in 0..2 {
            let mut clients = Clients::default();
            clients.step(&mut place, "{\"v\":1,\"op\":\"attach\"}");
            clients.step(&mut place, "@1");
            clients.step(&mut place, "{\"v\":1,\"op\":\"publish\"}");
            drop(clients);
            place.daemon.settle();
        }
        place.descriptors = descriptors();
        place
    }
}

thread_local! {
    static PLACE: RefCell<Option<Place>> = const { RefCell::new(None) };
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

pub(super) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    PLACE.with_borrow_mut(|place| {
        let place = place.get_or_insert_with(Place::new);
        let mut clients = Clients::default();
        for step in text.split('\n').take(MOST_STEPS) {
            clients.step(place, step);
        }
        drop(clients);
        place.daemon.settle();
        assert_eq!(place.daemon.peers(), (0, 0), "connections and readers are left");
        // What the daemon looks at once a second, or later, may hold a segment until then.
        for _ in 0..PATIENCE {
            if descriptors() <= place.descriptors {
                break;
            }
            place.daemon.tick();
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(descriptors() <= place.descriptors, "descriptors are left");
        // Somebody who asks for nothing special is served.
        let mut honest = Clients::default();
        honest.step(place, "{\"v\":1,\"op\":\"stat\"}");
        assert_eq!(honest.answered, 1, "nobody is served any more");
        drop(honest);
        place.daemon.settle();
    });
}

/// What was handed out last.
#[derive(Default)]
struct Given {
    page: Option<OwnedFd>,
    segment: Option<OwnedFd>,
    lease: Option<OwnedFd>,
    instance: u64,
}

#[derive(Default)]
struct Clients {
    conns: [Option<Conn>; 3],
    at: usize,
    given: Given,
    answered: usize,
}

impl Clients {
    fn step(&mut self, place: &mut Place, step: &str) {
        let step = step.replace("$I", &self.given.instance.to_string());
        match step.split_at_checked(1) {
            Some(("@", number)) => self.at = number.parse::<usize>().unwrap_or(0) % self.conns.len(),
            Some(("-", _)) => self.conns[self.at] = None,
            Some(("~", word)) => self.scribble(word),
            Some(("=", with)) => {
                let (kinds, line) = with.split_at(with.find('{').unwrap_or(with.len()));
                self.send(place, kinds, &format!("{line}\n"));
            }
            _ => match step.strip_suffix('\\') {
                Some(half) => self.send(place, "", half),
                None => self.send(place, "", &format!("{step}\n")),
            },
        }
        place.daemon.settle();
        self.hear();
    }

    /// Writes over a word of a page that belongs to a reader or a writer.
    fn scribble(&self, word: &str) {
        let (offset, value) = word.split_once(' ').unwrap_or((word, "0"));
        let (offset, value) = (offset.parse::<u16>().unwrap_or(0), value.parse::<u64>().unwrap_or(u64::MAX));
        for page in [&self.given.page, &self.given.lease].into_iter().flatten() {
            // Past its end nothing can be written, because nobody can make it longer.
            let _ = pwrite(page, &value.to_le_bytes(), i64::from(offset));
        }
    }

    fn send(&mut self, place: &Place, kinds: &str, bytes: &str) {
        // The daemon's user may have it run any program. A channel more takes descriptors, too.
        if matches!(decode(bytes.trim_end()), Ok(Request::Create { .. } | Request::Reexec)) {
            return;
        }
        let conn = &mut self.conns[self.at];
        if conn.is_none() {
            let Ok(socket) = UnixStream::connect(&place.socket) else { return };
            socket.set_nonblocking(true).expect("a socket can be told not to wait");
            *conn = Some(Conn::new(socket, MAX_REPLY));
        }
        let Some(conn) = conn else { return };
        let own: Vec<OwnedFd> = kinds.chars().filter(|kind| "mnc".contains(*kind)).map(made).collect();
        let mut own = own.iter().map(AsFd::as_fd);
        let given = &self.given;
        let with: Vec<BorrowedFd<'_>> = kinds
            .chars()
            .filter_map(|kind| match kind {
                'p' => given.page.as_ref().map(AsFd::as_fd),
                's' => given.segment.as_ref().map(AsFd::as_fd),
                'l' => given.lease.as_ref().map(AsFd::as_fd),
                'm' | 'n' | 'c' => own.next(),
                _ => None,
            })
            .take(250)
            .collect();
        // A daemon that has had enough has closed the connection.
        let _: io::Result<usize> = if with.is_empty() {
            conn.stream().write(bytes.as_bytes())
        } else {
            let raw: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
            let (rights, flags) = (ControlMessage::ScmRights(&raw), MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT);
            let bytes = [IoSlice::new(bytes.as_bytes())];
            sendmsg::<()>(conn.as_fd().as_raw_fd(), &bytes, &[rights], flags, None).map_err(io::Error::from)
        };
    }

    /// Takes what the daemon has said, all of which has to make sense.
    fn hear(&mut self) {
        for place in &mut self.conns {
            let Some(conn) = place else { continue };
            loop {
                match conn.receive() {
                    Ok(Received::Line(line, fds)) => {
                        self.answered += 1;
                        self.given.note(&line, fds);
                    }
                    Ok(Received::Nothing) => break,
                    Ok(Received::Closed) => {
                        *place = None;
                        break;
                    }
                    Err(e) => panic!("the daemon says what nobody understands: {e}"),
                }
            }
        }
    }
}

impl Given {
    fn note(&mut self, line: &str, mut fds: Vec<OwnedFd>) {
        assert!(line.starts_with("{\"v\":1"), "{line}");
        match decode::<Reply>(line) {
            Ok(Reply::Ok(Done::Attach(attached))) => {
                self.instance = attached.geometry.instance;
                fds.pop();
                if fds.len() == 2 {
                    (self.page, self.segment) = (fds.pop(), fds.pop());
                }
            }
            Ok(Reply::Ok(Done::Publish(lent))) => {
                self.instance = lent.geometry.instance;
                if fds.len() == 2 {
                    (self.lease, self.segment) = (fds.pop(), fds.pop());
                }
            }
            _ => {}
        }
    }
}

/// A descriptor of a kind.
fn made(kind: char) -> OwnedFd {
    match kind {
        'm' => scratch::file(&[0; 4096]),
        'c' => SharedPage::<ReaderPage>::create("shm-fuzz-page").expect("a page can be made").1,
        _ => fs::File::open("/dev/null").expect("/dev/null can be opened").into(),
    }
}
