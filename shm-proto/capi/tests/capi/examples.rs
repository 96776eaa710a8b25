//! The examples do what they say, and the README shows lines of one of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use shm_test_support::{Daemon, Proc, Run, TempDir, clean};

use crate::kit::{CFLAGS, has, home, library, text};

/// Builds an example as its first lines say, apart from where the library is.
#[track_caller]
fn build(compiler: &str, standard: &str, name: &str, dir: &TempDir) -> std::path::PathBuf {
    let to = dir.join(name.split('.').next().unwrap());
    let mut command = clean(compiler);
    command.arg(standard).args(CFLAGS).arg("-I").arg(home().join("include")).arg(home().join("examples").join(name));
    Run::of(command.arg(library("libshmd.so")).arg("-o").arg(&to)).quiet();
    if !dir.join("libshmd.so.0").exists() {
        symlink(library("libshmd.so"), dir.join("libshmd.so.0")).unwrap();
    }
    to
}

#[test]
fn a_viewer_sees_the_cameras_frames_across_a_pause() {
    let test = "a_viewer_sees_the_cameras_frames_across_a_pause";
    if !has("gcc", test) || !has("g++", test) {
        return;
    }
    let dir = TempDir::new();
    let (camera, viewer) = (build("gcc", "-std=c11", "camera.c", &dir), build("g++", "-std=c++17", "viewer.cpp", &dir));
    let daemon = Daemon::start("[[channel]]\ncapacity = \"16MiB\"\nalign = 64\n");
    let start = |program: &std::path::Path, args: &[&str]| {
        let mut command = clean(program);
        command.env("SHMD_RUNTIME_DIR", daemon.place.run_dir()).env("LD_LIBRARY_PATH", dir.path()).args(args);
        Proc::spawn(command.stdin(Stdio::piped()))
    };
    let mut viewing = start(&viewer, &["main", "40"]);
    start(&camera, &["30", "1", "main"]).wait().prints("30 frames of 307264 bytes, 0 dropped\n");
    daemon.until_stat("the frames are received", |stat| stat.readers.first().is_some_and(|r| r.received == 30));
    viewing.feed(b"\n");
    viewing.until_out_has("30 frames seen, 0 lost, mean grey ");
    start(&camera, &["10", "0"]).wait().prints("10 frames of 307264 bytes, 0 dropped\n");
    viewing.until_out_has("40 frames seen, 0 lost, mean grey ");
    viewing.wait().quiet();
    // Without a daemon, the camera ends with its sentence, and the viewer waits and says why.
    let none = TempDir::new();
    let mut command = clean(&camera);
    command.env("SHMD_RUNTIME_DIR", none.path()).env("LD_LIBRARY_PATH", dir.path());
    Run::of(command).fails(1, &["camera: no daemon at"]);
}

#[test]
fn the_readme_shows_lines_of_the_example() {
    let readme = fs::read_to_string(home().join("../../README.md")).unwrap();
    let code: String = text("examples/hello.c").lines().map(|line| format!("{}\n", line.trim())).collect();
    let shown = readme.split_once("```c\n").expect("lines in C").1.split_once("```").unwrap().0;
    assert!(shown.lines().count() >= 4 && code.contains(shown), "the README shows\n{shown}\nand hello.c has\n{code}");
}
