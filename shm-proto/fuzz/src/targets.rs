//! The targets by their names.

mod adoption;
mod chain;
mod configuration;
mod control;
mod framing;
mod geometry;
mod resume;

/// A target: its name, and what it does with an input. A fault is a panic, a signal, or that it does not return.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which its corpus has, too.
    pub name: &'static str,
    /// Takes an input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "chain", run: chain::run },
    Target { name: "geometry", run: geometry::run },
    Target { name: "adoption", run: adoption::run },
    Target { name: "resume", run: resume::run },
    Target { name: "control", run: control::run },
    Target { name: "configuration", run: configuration::run },
    Target { name: "framing", run: framing::run },
];

/// The target with this name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
