//! Who holds a ring's writer role, and who will hold it next: (state, event) -> (state, actions). Pure: no descriptor,
//! no process, no page.
//!
//! | holder | how it gets the role | how it loses the role |
//! |---|---|---|
//! | a program | asks, and no holder but a helper has the role | its connection ends, or the segment is broken |
//! | the helper, a child that carries out a shrink | asks, like a program; known by pid | the same, or a program asks |
//! | the source, a thread of the daemon | the channel has one | its thread ends |
//!
//! The daemon's own thread never holds the role: a writer first walks the whole ring, and the daemon has others to
//! serve.

use std::time::{Duration, Instant};

use crate::event_loop::ClientId;

/// A helper that failed, or that could not be started, is started again after this time.
const AGAIN: Duration = Duration::from_secs(10);

/// The holder of the writer role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holder {
    /// A program, over its connection.
    Program(ClientId),
    /// The child that carries out a shrink, over its connection.
    Helper(ClientId),
    /// The source's thread.
    Source,
}

impl Holder {
    fn is_client(self, client: ClientId) -> bool {
        matches!(self, Holder::Program(holder) | Holder::Helper(holder) if holder == client)
    }
}

/// A child that was started.
#[derive(Clone, Copy, Debug)]
struct Child {
    pid: u32,
    /// The child has finished a shrink.
    has_shrunk: bool,
}

/// What to do, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Mark the holder's page as over, and wake every peer that sleeps.
    End,
    /// Tell the holder that the role is taken from it.
    Revoke,
    /// Close the holder's connection after the holder has been told.
    HangUp(ClientId),
    /// Give up the lease.
    Drop,
    /// Give up the lease, and log that a program has returned the role.
    Return,
    /// End the child, if it has not ended by itself.
    DropChild,
    /// Nobody writes: handle what waits for the writer.
    NobodyWrites,
    /// If there is a shrink in progress, start another helper for it.
    FinishShrink,
    /// Start the source again.
    Resume,
    /// Log that the shrink waits, because its helper ended early.
    ReportChild,
    /// Expect no process to carry out a shrink, for now.
    ExpectNobody,
}

/// The role's state.
#[derive(Debug, Default)]
pub(super) struct Role {
    holder: Option<Holder>,
    child: Option<Child>,
    /// When a child was last started.
    started: Option<Instant>,
    /// The source must be started again when its thread has ended.
    resumes: bool,
}

impl Role {
    /// Whether a program or a source holds the role, and not a helper of the daemon.
    pub(super) fn is_taken(&self) -> bool {
        matches!(self.holder, Some(Holder::Program(_) | Holder::Source))
    }

    /// Whether a process that asks for the role is the child.
    pub(super) fn is_child(&self, pid: u32) -> bool {
        self.child.is_some_and(|child| child.pid == pid)
    }

    /// Another holder needs the role: a helper that has the role makes way.
    pub(super) fn make_way(&mut self) -> Vec<Action> {
        if !matches!(self.holder, Some(Holder::Helper(_))) {
            return Vec::new();
        }
        (self.holder, self.child) = (None, None);
        vec![Action::Drop, Action::DropChild, Action::NobodyWrites]
    }

    /// The role was lent to this holder.
    pub(super) fn lent(&mut self, holder: Holder) {
        self.holder = Some(holder);
    }

    /// A connection is gone, or is about to be.
    pub(super) fn gone(&mut self, client: ClientId) -> Vec<Action> {
        let Some(holder) = self.holder.take_if(|holder| holder.is_client(client)) else { return Vec::new() };
        let mut actions = vec![Action::End];
        // Requests that came when the helper had done its work have not been read. A helper that failed is not
        // restarted in a loop.
        let finish = match holder {
            Holder::Helper(_) => {
                actions.extend([Action::Drop, Action::DropChild]);
                self.child.take().is_some_and(|child| child.has_shrunk)
            }
            Holder::Program(_) | Holder::Source => {
                actions.push(Action::Return);
                true
            }
        };
        actions.push(Action::NobodyWrites);
        actions.extend(finish.then_some(Action::FinishShrink));
        actions
    }

    /// The source's thread has ended, and its lease with it.
    pub(super) fn source_ended(&mut self) -> Vec<Action> {
        if self.holder.take_if(|holder| *holder == Holder::Source).is_none() {
            return Vec::new();
        }
        let mut actions = vec![Action::NobodyWrites, Action::FinishShrink];
        actions.extend(std::mem::take(&mut self.resumes).then_some(Action::Resume));
        actions
    }

    /// The segment is broken: the role is taken from its holder. A source's thread ends by itself.
    pub(super) fn broken(&mut self) -> Vec<Action> {
        let mut actions = match self.holder {
            None => return Vec::new(),
            Some(_) => vec![Action::End, Action::Revoke],
        };
        match self.holder {
            Some(Holder::Program(client) | Holder::Helper(client)) => {
                (self.holder, self.child) = (None, None);
                actions.extend([Action::HangUp(client), Action::DropChild, Action::Drop]);
            }
            _ => self.resumes = true,
        }
        actions.push(Action::NobodyWrites);
        actions
    }

    /// Whether a source that ended because its segment was broken can be started now.
    pub(super) fn may_resume(&self) -> bool {
        self.holder.is_none() && !self.resumes
    }

    /// Whether a shrink that is requested now needs a new child: nobody holds the role, and no child is running.
    pub(super) fn wants_child(&self) -> bool {
        self.holder.is_none() && self.child.is_none()
    }

    /// A child was started, or could not be started.
    pub(super) fn child_started(&mut self, now: Instant, pid: Option<u32>) {
        self.started = Some(now);
        self.child = pid.map(|pid| Child { pid, has_shrunk: false });
    }

    /// Whether enough time has passed since a child was last started.
    pub(super) fn has_rested(&self, now: Instant) -> bool {
        self.started.is_none_or(|at| now.saturating_duration_since(at) >= AGAIN)
    }

    /// The writer has finished a shrink.
    pub(super) fn has_shrunk(&mut self) {
        if let Some(child) = &mut self.child {
            child.has_shrunk = true;
        }
    }

    /// The child's process has ended.
    pub(super) fn child_ended(&mut self, success: bool) -> Vec<Action> {
        if matches!(self.holder, Some(Holder::Helper(_))) {
            // The end of the connection triggers the rest.
            return Vec::new();
        }
        self.child = None;
        let mut actions = vec![Action::DropChild];
        actions.extend((!success).then_some(Action::ReportChild));
        actions.push(Action::ExpectNobody);
        actions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROGRAM: Holder = Holder::Program(7);
    const HELPER: Holder = Holder::Helper(8);

    fn held_by(holder: Holder) -> Role {
        let mut role = Role::default();
        if holder == HELPER {
            role.child_started(Instant::now(), Some(80));
        }
        role.lent(holder);
        role
    }

    #[test]
    fn a_helper_makes_way_and_nobody_else_does() {
        let mut role = held_by(HELPER);
        assert!(!role.is_taken() && role.is_child(80) && !role.is_child(81));
        assert_eq!(role.make_way(), [Action::Drop, Action::DropChild, Action::NobodyWrites]);
        assert_eq!((role.holder, role.is_child(80)), (None, false));
        for holder in [PROGRAM, Holder::Source] {
            let mut role = held_by(holder);
            assert!(role.is_taken());
            assert_eq!((role.make_way(), role.holder), (Vec::new(), Some(holder)));
        }
    }

    #[test]
    fn only_the_holders_connection_ends_the_lease() {
        let mut role = held_by(PROGRAM);
        assert_eq!((role.gone(8), role.holder), (Vec::new(), Some(PROGRAM)));
        let over = [Action::End, Action::Return, Action::NobodyWrites, Action::FinishShrink];
        assert_eq!((role.gone(7), role.holder), (over.to_vec(), None));
        assert_eq!(role.gone(7), []);
        assert_eq!(held_by(Holder::Source).gone(7), []);
    }

    #[test]
    fn a_helper_that_failed_is_not_started_in_a_circle() {
        let left = [Action::End, Action::Drop, Action::DropChild, Action::NobodyWrites];
        let mut role = held_by(HELPER);
        assert_eq!(role.gone(8), left);
        let mut role = held_by(HELPER);
        role.has_shrunk();
        assert_eq!(role.gone(8), [&left[..], &[Action::FinishShrink]].concat());
        let now = Instant::now();
        role.child_started(now, None);
        assert!(role.wants_child() && !role.has_rested(now) && role.has_rested(now + AGAIN));
    }

    #[test]
    fn a_child_that_ends_without_the_role_is_reported_and_one_with_it_is_heard_of_by_its_connection() {
        assert_eq!(held_by(HELPER).child_ended(false), []);
        let mut role = Role::default();
        role.child_started(Instant::now(), Some(80));
        assert!(!role.wants_child());
        assert_eq!(role.child_ended(false), [Action::DropChild, Action::ReportChild, Action::ExpectNobody]);
        assert!(role.wants_child());
        assert_eq!(role.child_ended(true), [Action::DropChild, Action::ExpectNobody]);
    }

    #[test]
    fn a_broken_segment_costs_a_program_the_role_and_starts_a_source_again_when_it_has_ended() {
        let mut role = held_by(PROGRAM);
        let taken =
            [Action::End, Action::Revoke, Action::HangUp(7), Action::DropChild, Action::Drop, Action::NobodyWrites];
        assert_eq!((role.broken(), role.may_resume()), (taken.to_vec(), true));
        assert_eq!(role.broken(), []);
        let mut role = held_by(Holder::Source);
        assert_eq!(role.broken(), [Action::End, Action::Revoke, Action::NobodyWrites]);
        assert!(!role.may_resume() && role.is_taken());
        let ended = [Action::NobodyWrites, Action::FinishShrink];
        assert_eq!(role.source_ended(), [&ended[..], &[Action::Resume]].concat());
        assert!(role.may_resume());
        role.lent(Holder::Source);
        assert_eq!(role.source_ended(), ended);
    }
}
