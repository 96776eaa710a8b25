//! A reader that was let in and tries to do what only the writer may.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect};
use nix::unistd::ftruncate;
use shm_proto::internal::ring::layout::LAYOUT_VERSION;
use shm_proto::{Client, Done, Endpoint, Request};

/// Attaches and tries everything; a line for each attempt, `denied` or `ALLOWED`. `object` is the segment's path.
pub(crate) fn intrude(endpoint: &Endpoint, object: &str) {
    let mut client = Client::connect(endpoint, shm_test_support::PATIENCE).unwrap();
    let (done, fds) =
        client.request_with_fds(&Request::Attach { channel: None, program: None, layout: LAYOUT_VERSION }).unwrap();
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

    told("truncate its own page", ftruncate(&page, 0));
    told("lengthen its own page", ftruncate(&page, 8192));
    told("seal its own page against the writer", fcntl(&page, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_WRITE)));
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
