//! Programs in C and C++ that are linked with the library under test.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use shm_test_support::{Daemon, Proc, Run, TempDir, clean, skip};

pub(crate) const CFLAGS: [&str; 6] = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"];
/// What the static library needs, as `shmd.pc` has it in `Libs.private`.
pub(crate) const STATIC_LIBS: [&str; 6] = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"];

pub(crate) fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where cargo puts the libraries for a test program: beside it.
pub(crate) fn library(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap().with_file_name(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

/// Whether this compiler or tool can be started. If not, a note says so.
pub(crate) fn has(tool: &str, test: &str) -> bool {
    let works = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !works {
        skip(test, &format!("{tool} is not installed"));
    }
    works
}

/// Where sources come from, and how they are built.
#[derive(Clone, Copy)]
pub(crate) struct Recipe {
    pub(crate) compiler: &'static str,
    pub(crate) standard: &'static str,
    pub(crate) sources: &'static [&'static str],
    /// For AddressSanitizer and UndefinedBehaviorSanitizer, with the static library.
    pub(crate) sanitized: bool,
}

/// A program without a name: the user who runs the tests may not be able to write where they were built, and nothing is left.
pub(crate) struct Program {
    file: File,
    sanitized: bool,
}

impl Recipe {
    pub(crate) const C: Recipe = Recipe {
        compiler: "gcc",
        standard: "-std=c11",
        sources: &["tests/peer.c", "tests/rules.c", "tests/waiting.c", "tests/handoff.c"],
        sanitized: false,
    };
    pub(crate) const CPP: Recipe =
        Recipe { compiler: "g++", standard: "-std=c++17", sources: &["tests/peer.cpp"], sanitized: false };

    /// Compiles and links. `None`, with a note, where there is no such compiler.
    #[track_caller]
    pub(crate) fn build(&self) -> Option<Program> {
        if !has(self.compiler, "programs of this compiler") {
            return None;
        }
        let dir = TempDir::new();
        let to = dir.join("program");
        let mut command = clean(self.compiler);
        command.arg(self.standard).args(CFLAGS).arg("-I").arg(home().join("include"));
        command.args(self.sources.iter().map(|source| home().join(source))).arg("-pthread").arg("-o").arg(&to);
        if self.sanitized {
            command.arg("-fsanitize=address,undefined").arg("-fno-sanitize-recover=all").arg("-fno-omit-frame-pointer");
            command.arg(library("libshmd.a")).args(STATIC_LIBS);
        } else {
            command.arg(library("libshmd.so"));
        }
        Run::of(command).quiet();
        Some(Program { file: File::open(&to).unwrap(), sanitized: self.sanitized })
    }
}

/// The program in C, compiled once; `None` where there is no compiler.
pub(crate) fn c() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    PROGRAM.get_or_init(|| Recipe::C.build()).as_ref()
}

/// The program in C++, compiled once; `None` where there is no compiler.
pub(crate) fn cpp() -> Option<&'static Program> {
    static PROGRAM: OnceLock<Option<Program>> = OnceLock::new();
    PROGRAM.get_or_init(|| Recipe::CPP.build()).as_ref()
}

/// A directory in which the shared library has the name under which programs look for it.
fn run_time_library() -> TempDir {
    let dir = TempDir::new();
    symlink(library("libshmd.so"), dir.join("libshmd.so.0")).unwrap();
    dir
}

/// A program that runs, and what it runs with.
pub(crate) struct Peer {
    pub(crate) proc: Proc,
    _library: TempDir,
}

impl Program {
    /// Where it can be executed, as long as this process runs.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }

    /// Starts it with a pipe as its standard input, behind another program if there is one.
    #[track_caller]
    pub(crate) fn start_behind(&self, before: &[&str], daemon: &Daemon, args: &[&str]) -> Peer {
        let library = run_time_library();
        let mut command = match before {
            [] => clean(self.path()),
            [first, rest @ ..] => {
                let mut command = clean(first);
                command.args(rest).arg(self.path());
                command
            }
        };
        let (name, rest) = args.split_first().unwrap();
        command.arg(name).arg(daemon.place.run_dir()).args(rest).stdin(Stdio::piped());
        command.env("LD_LIBRARY_PATH", library.path());
        if self.sanitized {
            command.env("ASAN_OPTIONS", "detect_stack_use_after_return=1").env("UBSAN_OPTIONS", "print_stacktrace=1");
        }
        Peer { proc: Proc::spawn(command), _library: library }
    }

    #[track_caller]
    pub(crate) fn start(&self, daemon: &Daemon, args: &[&str]) -> Peer {
        self.start_behind(&[], daemon, args)
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(&self, daemon: &Daemon, args: &[&str]) -> Run {
        self.start(daemon, args).wait()
    }
}

impl Peer {
    /// Waits for its end, with nothing more on its standard input.
    #[track_caller]
    pub(crate) fn wait(self) -> Run {
        self.proc.wait()
    }

    #[track_caller]
    pub(crate) fn until(mut self, text: &str) -> Self {
        self.proc.until_out_has(text);
        self
    }
}

/// A text of this package.
pub(crate) fn text(name: &str) -> String {
    let path = home().join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
