//! A segment that makes no sense: what it is checked against, and what a reader does then.
//!
//! Published places, jumps and records are checked against the file, because memory past its end must not be touched. The length
//! that is `known` is looked up when something lies beyond it. It is never more than the capacity that the writer shows, unless
//! the reader itself stands above that: a writer that has made the ring smaller says so before the daemon cuts the file.
//!
//! A reader that finds something broken tells its program once, and the daemon, which looks for itself. If the daemon finds it,
//! too, the channel goes on in a new segment; meanwhile the reader is as if nothing were published.

use std::os::fd::{AsFd, BorrowedFd};

use super::Reader;
use crate::error::{Error, Result};
use crate::os::clock::monotonic_ns;
use crate::os::reserve;
use crate::ring::chain::implausible;
use crate::ring::geometry::Geometry;
use crate::ring::layout::DATA_OFFSET;
use crate::ring::link::FromReader;
use crate::ring::published::Place;
use crate::ring::record::{HEADER, Header, align_header};

/// How long the daemon is waited for that may replace the segment, before the program is told once more that it is broken.
pub(super) const VERDICT_NS: u64 = 3_000_000_000;

/// A reader says no more often than this that something is broken.
const REPORT_NS: u64 = 100_000_000;

/// Something is wrong with the segment, and the program has been told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    /// Until then the daemon may still replace the segment, `CLOCK_MONOTONIC` nanoseconds.
    pub(super) until_ns: u64,
}

/// Bytes of data that the file has, as far as they are mapped.
pub(super) fn data_length(file: BorrowedFd<'_>, geometry: &Geometry) -> Result<u64> {
    Ok(reserve::length(file)?.saturating_sub(DATA_OFFSET).min(geometry.max_capacity))
}

impl Reader {
    /// Whether there are so many bytes of data, as far as is known or after another look at the file.
    pub(super) fn reaches(&mut self, end: u64) -> bool {
        if end > self.known
            && let Ok(length) = data_length(self.file.as_fd(), &self.geometry)
        {
            self.known = length;
        }
        end <= self.known
    }

    /// The writer shows another capacity, or this reader has come below it.
    pub(super) fn know_less(&mut self) {
        self.known = self.known.min(self.capacity.max(self.at.off.saturating_add(HEADER)));
    }

    /// A place that the writer has published, if a reader may go there. The file is looked at in any case.
    pub(super) fn believe(&mut self, place: Option<Place>) -> Result<Place> {
        let place = place.ok_or_else(|| self.broken("a published place changes all the time".to_owned()))?;
        self.known = data_length(self.file.as_fd(), &self.geometry)?;
        match implausible(place, &self.geometry, self.known) {
            None => Ok(place),
            Some(reason) => Err(self.broken(reason)),
        }
    }

    /// Whether a header may stand at this offset at all.
    pub(super) fn check(&mut self, off: u64) -> Result<()> {
        if off > self.geometry.max_capacity - HEADER || align_header(off, self.strides.align()) != off {
            return Err(self.broken(format!("offset {off} is no place for a header")));
        }
        if !self.reaches(off + HEADER) {
            let length = self.known;
            return Err(self.broken(format!("offset {off} is outside the {length} bytes of data that there are")));
        }
        Ok(())
    }

    #[cold]
    pub(super) fn corrupt(&self, header: Header) -> Error {
        let (off, seq) = (self.at.off, self.at.seq);
        self.broken(format!("{:#x} at offset {off} is no header of message {seq}", header.0))
    }

    #[cold]
    pub(super) fn broken(&self, reason: String) -> Error {
        Error::Corrupt { channel: self.geometry.channel.to_string(), reason }
    }

    /// What is to be told of an error, and what follows from one that says that the segment is broken. `None`: nothing yet.
    #[cold]
    pub(super) fn on_error(&mut self, error: Error) -> Result<Option<Error>> {
        let Error::Corrupt { reason, channel } = error else { return Err(error) };
        self.joined = false;
        self.listen();
        if self.end().is_some() {
            // The daemon knows already. A reader that has been told is spared its reason.
            let told = self.trouble.is_some();
            let reason = self.go_over_broken()?.unwrap_or(reason);
            return Ok((!told).then_some(Error::Corrupt { channel, reason }));
        }
        let now = monotonic_ns();
        if self.trouble.is_some_and(|trouble| now < trouble.until_ns) {
            return Ok(None);
        }
        if let Some(link) = &mut self.link {
            self.trouble = Some(Trouble { until_ns: now.saturating_add(VERDICT_NS) });
            // One broken segment after the other: the daemon knows without being told again.
            if now.saturating_sub(self.reported_ns) >= REPORT_NS {
                self.reported_ns = now;
                // A daemon that is gone is noticed by the next look.
                let _ = link.send(FromReader::Broken { reason: reason.clone() });
            }
        }
        Ok(Some(Error::Corrupt { channel, reason }))
    }

    /// Whether the program knows of the trouble, and the daemon has time to do something about it.
    pub(super) fn awaits_verdict(&self) -> bool {
        self.trouble.is_some_and(|trouble| monotonic_ns() < trouble.until_ns) && self.link.is_some()
    }
}
