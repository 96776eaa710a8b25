//! The events of the operation log.

use crate::control::words::words;

words! {
    /// What happened.
    pub enum LogEvent {
        /// The daemon starts.
        Start = "start",
        /// Every channel is there, and clients are admitted.
        Ready = "ready",
        /// The daemon stops.
        Stop = "stop",
        /// Something delays the daemon's end.
        StopLate = "stop-late",
        /// The daemon ends because something failed.
        Failed = "failed",
        /// The daemon before this one ended without being stopped.
        Died = "died",
        /// The operation log could not be kept for a daemon that comes after a crash.
        LogUnsaved = "log-unsaved",
        /// Something that a killed start had left was removed.
        Sweep = "sweep",
        /// The search for leftovers failed.
        SweepFailed = "sweep-failed",
        /// The limit on descriptors is below what the configuration may need.
        FewDescriptors = "few-descriptors",
        /// The configuration was read again.
        Reload = "reload",
        /// The configuration could not be applied; nothing was changed.
        ReloadFailed = "reload-failed",
        /// The daemon's file was executed anew.
        Reexec = "reexec",
        /// The daemon's file could not be executed anew; the program before goes on.
        ReexecFailed = "reexec-failed",
        /// A reload changed a setting.
        Change = "change",
        /// A setting is written differently, and stays as it was.
        Kept = "kept",
        /// A channel was created.
        Create = "create",
        /// A channel that was asked for at run time, or kept from an earlier run, could not be created.
        CreateFailed = "create-failed",
        /// A channel that was made at run time is not made again.
        Forget = "forget",
        /// A channel goes on in the segment that a dead daemon has left.
        Adopt = "adopt",
        /// A channel is removed.
        Remove = "remove",
        /// A channel goes on in a new segment.
        Move = "move",
        /// A segment, or a part of a channel, was found to be invalid.
        Broken = "broken",
        /// An object that nobody uses any more was replaced.
        Replace = "replace",
        /// An object lost its name.
        Unlink = "unlink",
        /// An object could not be removed.
        UnlinkFailed = "unlink-failed",
        /// A reader attached.
        Attach = "attach",
        /// A reader is gone.
        Detach = "detach",
        /// A reader was evicted.
        Evict = "evict",
        /// A peer shows no sign of life.
        Stalled = "stalled",
        /// A peer that was stalled shows signs of life again.
        Recovered = "recovered",
        /// A program borrowed the writer role.
        Lend = "lend",
        /// A reader or a writer of a dead daemon has come back.
        Resume = "resume",
        /// Readers of a dead daemon have not come back.
        Missing = "missing",
        /// A program gave the writer role back.
        Return = "return",
        /// Messages are dropped or overwritten, or the writer waits.
        Overflow = "overflow",
        /// A channel has grown.
        Grow = "grow",
        /// A channel could not grow.
        GrowFailed = "grow-failed",
        /// A channel has shrunk.
        Shrink = "shrink",
        /// A shrink without a writer is tried again later.
        ShrinkWaits = "shrink-waits",
        /// Memory of a segment could not be given back.
        PunchFailed = "punch-failed",
        /// A segment's file could not be cut.
        TruncateFailed = "truncate-failed",
        /// A source feeds its channel.
        Source = "source",
        /// A source cannot start, and is tried again.
        SourceWaits = "source-waits",
        /// A source refused an input, or met an error that it survives.
        SourceError = "source-error",
        /// A source has ended.
        SourceEnd = "source-end",
        /// A source had to give up.
        SourceFailed = "source-failed",
        /// A source's thread does not end.
        SourceStuck = "source-stuck",
        /// A source waits until its channel can take a message.
        InputWaits = "input-waits",
        /// A message of a source was not acknowledged in time.
        AckLate = "ack-late",
        /// A source has started its child.
        ChildStart = "child-start",
        /// A source's child has ended.
        ChildExit = "child-exit",
        /// A FIFO that had lost its name was made again.
        Recreate = "recreate",
        /// A source follows a file from now on.
        Follow = "follow",
        /// A followed file was cut short, and is read from its beginning.
        Rewind = "rewind",
        /// A handoff cannot hand a message over now, and tries again.
        HandoffWaits = "handoff-waits",
        /// Readers of a handoff channel did not keep to the protocol.
        HandoffTrouble = "handoff-trouble",
        /// A handoff channel's thread failed.
        HandoffFailed = "handoff-failed",
        /// A handoff channel's thread has ended.
        HandoffEnd = "handoff-end",
        /// A handoff channel's thread does not end.
        HandoffStuck = "handoff-stuck",
        /// No client can be admitted for lack of descriptors.
        AcceptPaused = "accept-paused",
        /// A client was turned away.
        TurnedAway = "turned-away",
        /// A client that made a mistake, or was too slow, was disconnected.
        Dismiss = "dismiss",
    }
}
