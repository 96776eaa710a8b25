//! `install`, and programs that find the library with `pkg-config`.

use std::fs;
use std::path::Path;

use shm_test_support::{Daemon, Run, TempDir, clean};

use crate::kit::{has, home, library};

/// Installs the libraries under test below a prefix.
#[track_caller]
fn installed(prefix: &Path, destdir: Option<&Path>) {
    let mut command = clean("bash");
    command.arg(home().join("install")).arg("--prefix").arg(prefix);
    command.arg("--from").arg(library("libshmd.so").parent().unwrap());
    match destdir {
        Some(dir) => command.env("DESTDIR", dir),
        None => command.env_remove("DESTDIR"),
    };
    let run = Run::of(command).quiet();
    assert!(run.text().starts_with("installed libshmd 0.1.0 in "), "{run:?}");
}

fn pkg_config(prefix: &Path, args: &[&str]) -> Vec<String> {
    let mut command = clean("pkg-config");
    command.env("PKG_CONFIG_PATH", prefix.join("lib/pkgconfig")).args(args).arg("shmd");
    Run::of(command).quiet().text().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn a_program_builds_with_pkg_config_and_runs_from_the_prefix() {
    let test = "a_program_builds_with_pkg_config_and_runs_from_the_prefix";
    if !has("pkg-config", test) || !has("gcc", test) || !has("g++", test) {
        return;
    }
    let prefix = TempDir::new();
    installed(&prefix, None);
    let lib = prefix.join("lib");
    assert_eq!(fs::read_link(lib.join("libshmd.so")).unwrap(), Path::new("libshmd.so.0"));
    assert_eq!(fs::read_link(lib.join("libshmd.so.0")).unwrap(), Path::new("libshmd.so.0.1.0"));
    assert_eq!(pkg_config(&prefix, &["--modversion"]), ["0.1.0"]);
    let (shared, archive) =
        (pkg_config(&prefix, &["--cflags", "--libs"]), pkg_config(&prefix, &["--libs", "--static"]));

    let hello = home().join("examples/hello.c");
    let to = prefix.join("hello");
    Run::of(clean("gcc").arg(&hello).args(&shared).arg("-o").arg(&to)).quiet();
    let daemon = Daemon::start("");
    let mut run = clean(&to);
    Run::of(run.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).env("LD_LIBRARY_PATH", &lib))
        .prints("message 0: hello\n");

    // The archive alone: without the shared library, the linker takes it.
    fs::remove_file(lib.join("libshmd.so")).unwrap();
    let mut command = clean("gcc");
    command.arg(&hello).arg(format!("-I{}", prefix.join("include").display())).args(&archive).arg("-o").arg(&to);
    Run::of(command).quiet();
    Run::of(clean(&to).env("SHMD_RUNTIME_DIR", daemon.place.run_dir())).prints("message 1: hello\n");
    // Without a daemon, it says so.
    Run::of(clean(&to).env("SHMD_RUNTIME_DIR", prefix.join("none"))).fails(1, &["no daemon at", "start shmd"]);
}

#[test]
fn a_package_is_installed_below_destdir_and_knows_only_the_prefix() {
    let dir = TempDir::new();
    installed(Path::new("/opt/shmd"), Some(&dir));
    let found = dir.join("opt/shmd");
    for file in [
        "lib/libshmd.so.0.1.0",
        "lib/libshmd.so.0",
        "lib/libshmd.so",
        "lib/libshmd.a",
        "include/shmd.h",
        "include/shmd.hpp",
        "include/shmd/base.hpp",
        "include/shmd/reader.hpp",
        "include/shmd/writer.hpp",
    ] {
        assert!(found.join(file).is_file(), "{file}");
    }
    let pc = fs::read_to_string(found.join("lib/pkgconfig/shmd.pc")).unwrap();
    assert!(pc.contains("prefix=/opt/shmd\n") && !pc.contains('@'), "{pc}");
    assert!(!pc.contains(&dir.display().to_string()), "{pc}");
}

#[test]
fn wrong_arguments_are_refused() {
    let install = home().join("install");
    let run = |args: &[&str]| Run::of(clean("bash").arg(&install).args(args));
    run(&["--colour"]).refused(1, &["unknown argument --colour"]);
    run(&["--prefix"]).refused(1, &["--prefix needs a directory"]);
    run(&["--prefix", "relative"]).refused(1, &["an absolute path"]);
}
