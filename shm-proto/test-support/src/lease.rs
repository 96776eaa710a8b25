//! A lease on a file: the kernel lets nobody else open it, for up to `/proc/sys/fs/lease-break-time`.
#![allow(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{Read, pipe};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;
use nix::unistd::{Gid, Uid, setresgid, setresuid};

use crate::fork::{Child, in_child};

/// Sets the signal for a lease that is being broken. Not in the `libc` crate.
const F_SETSIG: i32 = 10;

/// A child that holds a lease on the file, which nobody has open: a child of the file's user. Returns when the lease is there.
pub fn leased(path: &Path) -> Child {
    let owner = fs::metadata(path).unwrap();
    let (uid, gid) = (Uid::from_raw(owner.uid()), Gid::from_raw(owner.gid()));
    let (mut told, tell) = pipe().unwrap();
    let tell = tell.into_raw_fd();
    let child = in_child(|| {
        if uid != Uid::effective() && (setresgid(gid, gid, gid).is_err() || setresuid(uid, uid, uid).is_err()) {
            return 3;
        }
        let Ok(file) = OpenOptions::new().read(true).write(true).open(path) else { return 1 };
        let fd = file.as_raw_fd();
        // SAFETY: calls with numbers, descriptors that are open, and a byte that is there.
        unsafe {
            // The default signal would end the child.
            if libc::fcntl(fd, F_SETSIG, libc::SIGURG) != 0 {
                return 2;
            }
            // Another process may still be closing the file.
            while libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) != 0 {
                libc::usleep(1000);
            }
            libc::write(tell, [0u8].as_ptr().cast(), 1);
            loop {
                libc::pause();
            }
        }
    });
    // SAFETY: it is open, and nobody uses it any more.
    unsafe { libc::close(tell) };
    told.read_exact(&mut [0]).expect("the child has a lease");
    child
}

/// Whether a process has a lease on the file that nobody has asked for yet.
pub fn is_leased(path: &Path) -> bool {
    let inode = format!(":{} ", fs::metadata(path).unwrap().ino());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("LEASE") && line.contains("ACTIVE") && line.contains(&inode))
}
