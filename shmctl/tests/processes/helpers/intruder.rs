//! A reader that was let in and tries to do what only the writer may.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl};
use nix::libc;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mprotect};
use nix::unistd::{Whence, ftruncate, lseek};
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::{Client, Done, Endpoint, Request};

/// Names the daemon's process.
pub(crate) const DAEMON: &str = "SHM_TEST_DAEMON";

/// Attaches and tries everything; a line for each attempt, `denied` or `ALLOWED`. `object` is the segment's path.
pub(crate) fn intrude(endpoint: &Endpoint, object: &str) {
    let mut client = Client::connect(endpoint, shm_test_support::PATIENCE).unwrap();
    let (done, fds) = client
        .request_with_fds(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION, expect: None })
        .unwrap();
    assert!(matches!(done, Done::Attach(_)), "{done:?}");
    let [segment, page, _bell] = <[_; 3]>::try_from(fds).unwrap();
    let segment = segment.as_fd();

    told("map the segment for writing", map(segment, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE));
    told("make a mapping of the segment writable", remap(segment));
    told("truncate the segment", ftruncate(segment, 0));
    told("lengthen the segment", fallocate(segment, FallocateFlags::empty(), 0, 1 << 20));
    told("punch a hole into the segment", {
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(segment, punch, 0, 4096)
    });
    told("write to the segment", nix::sys::uio::pwrite(segment, b"x", 4096));
    told("switch the segment's descriptor to writing", switched(segment));
    told("open the descriptor again for writing", open(&format!("/proc/self/fd/{}", segment.as_raw_fd())));
    told("open the object for writing", open(object));
    told("truncate the object by its name", nix::unistd::truncate(object, 0));
    told("remove the object", fs::remove_file(object));
    told("change the object's mode", fs::set_permissions(object, fs::Permissions::from_mode(0o666)));
    told("change the object's owner", std::os::unix::fs::chown(object, Some(nix::unistd::geteuid().as_raw()), None));

    // The daemon has locked all of it, so that nobody else's lock says anything.
    told("lock the segment for writing", lock(segment, libc::F_WRLCK));
    told("lock the segment for reading", lock(segment, libc::F_RDLCK));
    told("take a lease for writing on the segment", lease(segment, libc::F_WRLCK));
    told("take a lease for reading on the segment", lease(segment, libc::F_RDLCK));
    told("seal the segment", fcntl(segment, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK)));
    told("take the segment's memory away by advice", discard(segment));
    told("copy into the segment", copy_into(segment));
    told("give the object another name", fs::hard_link(object, format!("{object}.more")));
    told("put something else under the object's name", fs::rename(own_object(), object));
    let daemon = format!("/proc/{}", std::env::var(DAEMON).expect("the daemon's number"));
    told("open the daemon's memory", File::open(format!("{daemon}/mem")));
    told("look at the daemon's descriptors", fs::read_dir(format!("{daemon}/fd")));
    // Allowed, and harmless: a place in the file, flags, and the segment held open for ever.
    lseek(segment, 12_345, Whence::SeekSet).expect("a reader may seek");
    fcntl(segment, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_APPEND)).expect("a reader may set flags");

    told("truncate its own page", ftruncate(&page, 0));
    told("lengthen its own page", ftruncate(&page, 8192));
    told("seal its own page against the writer", fcntl(&page, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)));
    let _ = fs::remove_file(own_object());
    eprintln!("tried everything");
    // What it has, it has until it is killed.
    loop {
        std::thread::sleep(std::time::Duration::from_secs(3600));
    }
}

/// Locks all of the file, from the first byte on, in the one way that lasts as long as somebody has it open.
fn lock(fd: BorrowedFd<'_>, kind: libc::c_int) -> nix::Result<()> {
    let all = libc::flock { l_type: kind as _, l_whence: libc::SEEK_SET as _, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(fd, FcntlArg::F_OFD_SETLK(&all)).map(drop)
}

/// Asks to be told, and waited for, when somebody opens the file.
fn lease(fd: BorrowedFd<'_>, kind: libc::c_int) -> nix::Result<()> {
    // SAFETY: the descriptor is open, and the call takes and gives numbers.
    Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, kind) }).map(drop)
}

/// Copies bytes of the file to another place in it, in the kernel.
fn copy_into(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let (mut from, mut to) = (0, 8192);
    // SAFETY: the descriptor is open, and the places are this function's.
    let copied = unsafe { libc::copy_file_range(fd.as_raw_fd(), &raw mut from, fd.as_raw_fd(), &raw mut to, 64, 0) };
    Errno::result(copied).map(drop)
}

/// Punches a hole by way of a mapping.
fn discard(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mapped = map(fd, ProtFlags::PROT_READ).expect("a reader may map for reading");
    // SAFETY: the page that was just mapped; nothing refers to it.
    unsafe { madvise(mapped, 4096, MmapAdvise::MADV_REMOVE) }
}

/// A file of its own beside the object.
fn own_object() -> String {
    let path = format!("/dev/shm/shmd-intruder-{}", std::process::id());
    fs::write(&path, "mine").expect("anybody may make files in /dev/shm");
    path
}

fn told<T, E: std::fmt::Display>(what: &str, result: Result<T, E>) {
    match result {
        Ok(_) => eprintln!("ALLOWED: {what}"),
        Err(e) => eprintln!("denied: {what}: {e}"),
    }
}

fn map(fd: BorrowedFd<'_>, protection: ProtFlags) -> nix::Result<std::ptr::NonNull<std::ffi::c_void>> {
    let one_page = NonZeroUsize::new(4096).unwrap();
    // SAFETY: a new mapping at an address of the kernel's choice; nothing refers to it.
    unsafe { mmap(None, one_page, protection, MapFlags::MAP_SHARED, fd, 0) }
}

fn remap(fd: BorrowedFd<'_>) -> nix::Result<()> {
    let mapped = map(fd, ProtFlags::PROT_READ).expect("a reader may map for reading");
    // SAFETY: the page that was just mapped.
    unsafe { mprotect(mapped, 4096, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }
}

/// The call succeeds and changes nothing, so what counts is what the descriptor can do afterwards.
fn switched(fd: BorrowedFd<'_>) -> nix::Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::O_RDWR))?;
    nix::sys::uio::pwrite(fd, b"x", 4096).map(drop)
}

fn open(path: &str) -> std::io::Result<File> {
    File::options().read(true).write(true).open(path)
}
