use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use shm_test_support::{memory, unique};

/// Follows a reservation to its end; every length reported on the way.
fn follow(reservation: &mut Reservation) -> (Vec<u64>, Progress) {
    let mut steps = Vec::new();
    loop {
        match reservation.advance().unwrap() {
            Progress::Reserved(len) => steps.push(len),
            Progress::NotYet => {
                let mut ready = [PollFd::new(reservation.as_fd(), PollFlags::POLLIN)];
                retry(|| poll(&mut ready, PollTimeout::NONE)).unwrap();
            }
            end => return (steps, end),
        }
    }
}

/// A reservation that cannot end by itself: its pipe is full after 32 MiB and nobody reads it.
fn stuck(fd: BorrowedFd<'_>) -> Reservation {
    Reservation::start(fd, 0, 64 << 20, 4096).unwrap()
}

/// A tmpfs of one mebibyte, gone when dropped.
struct SmallTmpfs(PathBuf);

impl SmallTmpfs {
    fn mount() -> Option<Self> {
        let dir = std::env::temp_dir().join(unique("tmpfs"));
        fs::create_dir(&dir).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(&dir).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(dir));
        }
        fs::remove_dir(&dir).unwrap();
        println!("skipped: mounting a tmpfs is not permitted here");
        None
    }

    fn file(&self) -> File {
        File::options().create_new(true).read(true).write(true).open(self.0.join("object")).unwrap()
    }
}

impl Drop for SmallTmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_reservation_reports_its_steps_and_its_end() {
    let object = memory("steps");
    let mut reservation = Reservation::start(object.as_fd(), 4096, 4096 + (1 << 20), 256 << 10).unwrap();
    let (steps, end) = follow(&mut reservation);
    assert!(matches!(end, Progress::Done(len) if len == 4096 + (1 << 20)), "{end:?}");
    assert!(steps.is_sorted(), "{steps:?}");
    assert_eq!(length(object.as_fd()).unwrap(), 4096 + (1 << 20));
    assert!(matches!(reservation.advance().unwrap(), Progress::Done(_)), "the end is told again");
    // The first page was not asked for: 256 pages of 8 blocks each have memory.
    assert_eq!(fstat(&object).unwrap().st_blocks, 256 * 8);
}

#[test]
fn reserving_what_is_there_is_done_at_once() {
    let object = memory("nothing to do");
    let (steps, end) = follow(&mut Reservation::start(object.as_fd(), 8192, 8192, 4096).unwrap());
    assert!(steps.is_empty() && matches!(end, Progress::Done(8192)), "{steps:?} {end:?}");
}

#[test]
fn a_full_file_system_ends_a_reservation_with_its_last_good_length() {
    let Some(tmpfs) = SmallTmpfs::mount() else { return };
    let file = tmpfs.file();
    let before = free(file.as_fd()).unwrap();
    assert!((1..=1 << 20).contains(&before), "{before}");
    now(file.as_fd(), 64 << 10).unwrap();
    let (_, end) = follow(&mut Reservation::start(file.as_fd(), 64 << 10, 8 << 20, 64 << 10).unwrap());
    let Progress::Failed { reserved, source } = end else { panic!("{end:?}") };
    assert_eq!(source.raw_os_error(), Some(Errno::ENOSPC as i32));
    assert_eq!(reserved, length(file.as_fd()).unwrap());
    assert!((64 << 10..=before).contains(&reserved), "{reserved} of {before}");
    truncate(file.as_fd(), 64 << 10).unwrap();
    assert_eq!(free(file.as_fd()).unwrap(), before - (64 << 10));
}

#[test]
fn a_refused_reservation_leaves_the_length_and_names_the_size() {
    let Some(tmpfs) = SmallTmpfs::mount() else { return };
    let file = tmpfs.file();
    let message = now(file.as_fd(), 2 << 20).unwrap_err().to_string();
    assert!(message.contains("2MiB") && message.contains("ENOSPC") | message.contains("No space"), "{message}");
    assert_eq!(length(file.as_fd()).unwrap(), 0);
}

#[test]
fn a_killed_child_is_a_failure_for_want_of_memory_and_its_steps_remain() {
    let object = memory("killed");
    let mut reservation = stuck(object.as_fd());
    kill(reservation.child.unwrap(), Signal::SIGKILL).unwrap();
    let (_, end) = follow(&mut reservation);
    let Progress::Failed { reserved, source } = end else { panic!("{end:?}") };
    assert_eq!(source.kind(), io::ErrorKind::OutOfMemory, "{source}");
    assert!(length(object.as_fd()).unwrap() >= reserved);
    assert!(matches!(reservation.advance().unwrap(), Progress::Failed { .. }), "the end is told again");
}

#[test]
fn the_child_is_the_first_to_be_killed_for_memory() {
    let object = memory("expendable");
    let mut reservation = stuck(object.as_fd());
    let score = format!("/proc/{}/oom_score_adj", reservation.child.unwrap());
    while matches!(reservation.advance().unwrap(), Progress::NotYet) {}
    assert_eq!(fs::read_to_string(score).unwrap().trim(), "1000");
}

#[test]
fn dropping_a_reservation_ends_and_reaps_its_child() {
    let object = memory("dropped");
    let reservation = stuck(object.as_fd());
    let child = reservation.child.unwrap();
    drop(reservation);
    assert_eq!(waitpid(child, None), Err(Errno::ECHILD));
}

#[test]
fn a_connection_closed_during_a_reservation_is_seen_to_close() {
    let object = memory("closed");
    let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut reservation = stuck(object.as_fd());
    while matches!(reservation.advance().unwrap(), Progress::NotYet) {}
    drop(there);
    assert_eq!(here.read(&mut [0]).unwrap(), 0, "the child has no copy of the connection");
    assert!(!matches!(reservation.advance().unwrap(), Progress::Failed { .. }));
}

#[test]
fn a_punched_hole_gives_memory_back_and_keeps_the_length() {
    let object = memory("punched");
    now(object.as_fd(), 1 << 20).unwrap();
    punch(object.as_fd(), 256 << 10, 1 << 20).unwrap();
    let stat = fstat(&object).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks), (1 << 20, (256 << 10) / 512));
}

/// Nobody ends it.
static GO_ON: AtomicBool = AtomicBool::new(false);

#[test]
fn a_reservation_that_is_waited_for_takes_exactly_what_was_asked_for() {
    let object = memory("waited");
    in_child(object.as_fd(), 0, 40 << 20, &GO_ON).unwrap();
    let stat = fstat(&object).unwrap();
    assert_eq!((stat.st_size, stat.st_blocks), (40 << 20, (40 << 20) / 512));
    in_child(object.as_fd(), 40 << 20, 41 << 20, &GO_ON).unwrap();
    assert_eq!(length(object.as_fd()).unwrap(), 41 << 20);
}

#[test]
fn what_does_not_fit_is_refused_with_numbers_and_not_tried() {
    let Some(tmpfs) = SmallTmpfs::mount() else { return };
    let file = tmpfs.file();
    now(file.as_fd(), 64 << 10).unwrap();
    let free = free(file.as_fd()).unwrap();
    let error = in_child(file.as_fd(), 64 << 10, 8 << 20, &GO_ON).unwrap_err();
    assert!(error.kind() == io::ErrorKind::OutOfMemory, "{error}");
    let numbers = format!("(free {} in /dev/shm)", Bytes(free));
    assert!(error.to_string().contains(&numbers), "{error}");
    assert_eq!(length(file.as_fd()).unwrap(), 64 << 10);
}

#[test]
fn one_that_is_not_wanted_any_more_gives_back_what_it_took() {
    let object = memory("unwanted");
    now(object.as_fd(), 4096).unwrap();
    let error = in_child(object.as_fd(), 4096, 1 << 20, &AtomicBool::new(true)).unwrap_err();
    assert!(error.kind() == io::ErrorKind::Interrupted, "{error}");
    assert_eq!(length(object.as_fd()).unwrap(), 4096);
}
