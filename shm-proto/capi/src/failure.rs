//! Which number and facts each of the library's errors has.

use std::ffi::c_int;

use shm_proto::{
    Error, ErrorKind, HandoffError, ProtocolError, ReaderError, Refusal, RequestError, SystemError, WriterError,
};

use crate::figures::ErrorFacts;
use crate::result::*;

/// Why a call failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) facts: ErrorFacts,
    pub(crate) message: String,
}

impl Failure {
    #[cold]
    pub(crate) fn new(code: c_int, message: impl Into<String>) -> Self {
        Failure { facts: ErrorFacts { code, ..ErrorFacts::default() }, message: message.into() }
    }

    #[cold]
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ERR_INVALID, message)
    }

    #[cold]
    pub(crate) fn state(message: impl Into<String>) -> Self {
        Self::new(ERR_STATE, message)
    }

    pub(crate) fn with_number(mut self, number: u64) -> Self {
        self.facts.number = number;
        self
    }

    /// Of a code that stands for one message, the reader goes on with the next one.
    pub(crate) fn is_about_one_message(&self) -> bool {
        matches!(self.facts.code, ERR_OVERWRITTEN | ERR_WITHDRAWN)
    }
}

fn protocol(error: &ProtocolError) -> (c_int, c_int) {
    match error {
        ProtocolError::System(error) => system(error),
        _ => (ERR_PROTOCOL, 0),
    }
}

fn system(error: &SystemError) -> (c_int, c_int) {
    (ERR_SYSTEM, error.source.raw_os_error().unwrap_or(0))
}

fn refused(kind: ErrorKind) -> c_int {
    match kind {
        ErrorKind::BadRequest => ERR_BAD_REQUEST,
        ErrorKind::BadVersion => ERR_BAD_VERSION,
        ErrorKind::NoSuchChannel => ERR_NO_SUCH_CHANNEL,
        ErrorKind::NotPermitted => ERR_NOT_PERMITTED,
        ErrorKind::WriterTaken => ERR_WRITER_TAKEN,
        ErrorKind::TooMany => ERR_TOO_MANY,
        ErrorKind::OtherContent => ERR_OTHER_CONTENT,
        ErrorKind::OutOfRange => ERR_OUT_OF_RANGE,
        ErrorKind::NoSpace => ERR_NO_MEMORY,
        ErrorKind::NoSuchReader => ERR_NO_SUCH_READER,
        ErrorKind::BadConfig => ERR_BAD_CONFIG,
        ErrorKind::Busy => ERR_BUSY,
        ErrorKind::TryLater => ERR_TRY_LATER,
        ErrorKind::Internal => ERR_INTERNAL,
        _ => ERR_REFUSED,
    }
}

impl From<ReaderError> for Failure {
    #[cold]
    fn from(error: ReaderError) -> Self {
        (&error).into()
    }
}

impl From<&ReaderError> for Failure {
    #[cold]
    fn from(error: &ReaderError) -> Self {
        let ((code, errno), number) = match error {
            ReaderError::TimedOut { .. } => ((ERR_TIMED_OUT, 0), 0),
            ReaderError::Closed { .. } => ((ERR_CLOSED, 0), 0),
            ReaderError::Disconnected { .. } => ((ERR_DISCONNECTED, 0), 0),
            ReaderError::Evicted { .. } => ((ERR_EVICTED, 0), 0),
            ReaderError::Lapped { lost, .. } => ((ERR_OVERWRITTEN, 0), *lost),
            ReaderError::Withdrawn { seq, .. } => ((ERR_WITHDRAWN, 0), *seq),
            ReaderError::OtherLayout { .. } => ((ERR_OTHER_LAYOUT, 0), 0),
            ReaderError::Corrupt { .. } => ((ERR_CORRUPT, 0), 0),
            ReaderError::Protocol(error) => (protocol(error), 0),
            ReaderError::System(error) => (system(error), 0),
            _ => ((ERR_OTHER, 0), 0),
        };
        failure(code, errno, number, error.to_string())
    }
}

impl From<WriterError> for Failure {
    #[cold]
    fn from(error: WriterError) -> Self {
        let ((code, errno), number) = match &error {
            WriterError::TooLarge { limit, .. } => ((ERR_TOO_LARGE, 0), *limit),
            WriterError::TimedOut { .. } => ((ERR_TIMED_OUT, 0), 0),
            WriterError::WouldBlock { .. } => ((ERR_WOULD_BLOCK, 0), 0),
            WriterError::Interrupted { .. } => ((ERR_INTERRUPTED, 0), 0),
            WriterError::NoSpace { .. } => ((ERR_NO_SPACE, 0), 0),
            WriterError::Unacknowledged { seq, .. } => ((ERR_UNACKNOWLEDGED, 0), *seq),
            WriterError::Revoked { .. } => ((ERR_REVOKED, 0), 0),
            WriterError::Superseded { seq, .. } => ((ERR_SUPERSEDED, 0), *seq),
            WriterError::OtherLayout { .. } => ((ERR_OTHER_LAYOUT, 0), 0),
            WriterError::Corrupt { .. } => ((ERR_CORRUPT, 0), 0),
            WriterError::Protocol(error) => (protocol(error), 0),
            WriterError::System(error) => (system(error), 0),
            _ => ((ERR_OTHER, 0), 0),
        };
        failure(code, errno, number, error.to_string())
    }
}

impl From<HandoffError> for Failure {
    #[cold]
    fn from(error: HandoffError) -> Self {
        let (code, errno) = match &error {
            HandoffError::Locked { .. } => (ERR_LOCKED, 0),
            HandoffError::TimedOut { .. } => (ERR_TIMED_OUT, 0),
            HandoffError::Closed { .. } => (ERR_CLOSED, 0),
            HandoffError::Evicted { .. } => (ERR_EVICTED, 0),
            HandoffError::Disconnected { .. } => (ERR_DISCONNECTED, 0),
            HandoffError::Corrupt { .. } => (ERR_CORRUPT, 0),
            HandoffError::System(error) => system(error),
            _ => (ERR_OTHER, 0),
        };
        failure(code, errno, 0, error.to_string())
    }
}

impl From<RequestError> for Failure {
    #[cold]
    fn from(error: RequestError) -> Self {
        let (code, errno) = match &error {
            RequestError::NoDaemon { .. } => (ERR_NO_DAEMON, 0),
            RequestError::Refused(refusal) => return refusal.into(),
            RequestError::TimedOut { .. } => (ERR_TIMED_OUT, 0),
            RequestError::Protocol(error) => protocol(error),
            RequestError::System(error) => system(error),
            _ => (ERR_OTHER, 0),
        };
        failure(code, errno, 0, error.to_string())
    }
}

impl From<&Refusal> for Failure {
    fn from(refusal: &Refusal) -> Self {
        let mut failure = Failure::new(refused(refusal.kind), refusal.to_string());
        failure.facts.retry_after_ms = refusal.retry_after_ms.unwrap_or(0);
        failure
    }
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Self {
        let (code, errno) = match error {
            Error::Reader(error) => return error.into(),
            Error::Writer(error) => return error.into(),
            Error::Request(error) => return error.into(),
            Error::Handoff(error) => return error.into(),
            Error::IsHandoff { .. } => (ERR_UNSUPPORTED, 0),
            Error::Protocol(ref error) => protocol(error),
            Error::System(ref error) => system(error),
            Error::BadName(_) => (ERR_BAD_NAME, 0),
            _ => (ERR_OTHER, 0),
        };
        failure(code, errno, 0, error.to_string())
    }
}

fn failure(code: c_int, system_errno: c_int, number: u64, message: String) -> Failure {
    Failure { facts: ErrorFacts { code, system_errno, number, retry_after_ms: 0 }, message }
}
