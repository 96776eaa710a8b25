//! Numbers that nobody can guess.
#![allow(unsafe_code)]

use std::io;

use nix::libc;

/// Eight bytes from the kernel's random number generator.
///
/// # Panics
/// If the kernel has no `getrandom` (before 3.17) or a sandbox forbids it: there is no safe replacement.
#[must_use]
pub fn u64() -> u64 {
    let mut bytes = [0u8; 8];
    loop {
        // SAFETY: the kernel writes at most `bytes.len()` bytes to a buffer of that size.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        if got == bytes.len() as isize {
            return u64::from_ne_bytes(bytes);
        }
        let error = io::Error::last_os_error();
        // The kernel gives up to 256 bytes whole or not at all, so a short answer cannot happen.
        assert!(got >= 0 || error.kind() == io::ErrorKind::Interrupted, "getrandom for 8 bytes: {error}");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn two_numbers_differ() {
        assert_ne!(super::u64(), super::u64());
    }
}
