//! The name under which programs find the shared library at run time.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Grows with every change that old programs do not bear: see `symbols` and `layout`.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libshmd.so.0");
}
