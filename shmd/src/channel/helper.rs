//! Shrinking a channel that nobody writes: a child of the daemon borrows the writer role for it.

use std::time::{Duration, Instant};

use super::Channel;
use crate::connections::Connections;
use crate::event_loop::{Interest, Token};
use crate::lease::Lease;
use crate::maintenance::Helper;
use crate::operation_log::operation;

/// A helper that has failed, or that there was no process for, is started again after this time.
const AGAIN: Duration = Duration::from_secs(10);

impl Channel {
    /// Starts the helper, unless somebody holds the writer role. The helper asks for the role like any other program.
    pub(super) fn start_helper(&mut self, connections: &mut Connections) {
        if self.lease.is_some() || self.helper.is_some() || connections.helpers.are_busy() {
            return;
        }
        let started =
            Helper::start(&connections.helpers, &connections.runtime_dir, &self.config.name).and_then(|helper| {
                connections.events.add(helper.end(), Token::Helper(self.id), Interest::READ)?;
                Ok(helper)
            });
        self.helped = Some(Instant::now());
        match started {
            Ok(helper) => {
                self.helper = Some(helper);
                self.sizing.expect_writer();
            }
            Err(e) => operation("shrink-waits").on(&self.config.name).reason(e).warn(),
        }
    }

    /// Whether a shrink that begins now finds somebody to carry it out.
    pub(super) fn may_shrink(&self, connections: &Connections) -> bool {
        self.lease.is_some() || !connections.helpers.are_busy()
    }

    /// Looks for a shrink that nobody carries out.
    pub(super) fn resume_shrink(&mut self, connections: &mut Connections, now: Instant) {
        let rested = self.helped.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN);
        if rested && self.sizing.shrinking().is_some() {
            self.start_helper(connections);
        }
    }

    /// A writer has left a shrink unfinished.
    pub(super) fn take_over_shrink(&mut self, connections: &mut Connections) {
        if self.sizing.shrinking().is_some() {
            self.start_helper(connections);
        }
    }

    /// The helper's connection is gone, and with it the role.
    pub(super) fn helper_left(&mut self, connections: &mut Connections) {
        let has_shrunk = self.helper.take().is_some_and(|helper| helper.has_shrunk);
        let actions = self.sizing.writer(Instant::now(), false);
        self.carry_out(connections, actions);
        // What was asked for when the helper had done its work, nobody has read. A helper that failed is not started in a circle.
        if has_shrunk {
            self.take_over_shrink(connections);
        }
    }

    /// The helper's process has ended.
    pub(crate) fn helper_ended(&mut self, connections: &mut Connections) {
        let Some(helper) = &mut self.helper else { return };
        let Some(status) = helper.status() else { return };
        connections.events.remove(helper.end());
        if self.lease.as_ref().is_some_and(Lease::is_own) {
            // The connection says the rest.
            return;
        }
        self.helper = None;
        if !status.success() {
            let reason = format!("the process that was to shrink the channel ended early: {status}");
            operation("shrink-waits").on(&self.config.name).reason(reason).warn();
        }
        let actions = self.sizing.expect_nobody();
        self.carry_out(connections, actions);
    }

    /// Takes the role from the helper.
    pub(super) fn drop_own(&mut self, connections: &mut Connections) {
        if self.lease.as_ref().is_some_and(Lease::is_own) {
            self.lease = None;
            self.helper = None;
            let actions = self.sizing.writer(Instant::now(), false);
            self.carry_out(connections, actions);
        }
    }
}
