//! A segment that will take the place of a channel's present one.

use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;

use shm_proto::internal::os::{random, reserve, shm};
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::{Beginning, begin_segment, copy_notes};
use shm_proto::{Geometry, SystemError};

use super::name::lock;
use super::segment::{Segment, no_room};
use crate::config::ChannelConfig;

/// A segment that has memory, and nothing else yet.
#[derive(Debug)]
pub(super) struct NextSegment {
    object: shm::Unnamed,
    read_only: OwnedFd,
    name: String,
    geometry: Geometry,
}

impl Segment {
    /// The segment that will replace this one, with memory for `capacity` bytes.
    ///
    /// # Errors
    /// If there is no memory.
    pub(super) fn successor(
        &self,
        config: &ChannelConfig,
        geometry: &Geometry,
        capacity: u64,
    ) -> Result<NextSegment, SystemError> {
        let gid = config.group.as_ref().map(|(_, gid)| *gid);
        let object = shm::Unnamed::create(&self.name, config.mode, gid)?;
        reserve::in_child(object.file(), 0, DATA_OFFSET + capacity, &AtomicBool::new(false))
            .map_err(|e| no_room(config, e))?;
        let read_only = object.read_only()?;
        let mut geometry = geometry.clone();
        geometry.instance = random::u64();
        Ok(NextSegment { object, read_only, name: self.name.clone(), geometry })
    }
}

impl NextSegment {
    /// Replaces the segment `before`: the chain begins here, the daemon's notes are copied, and the name leads to this
    /// segment.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub(super) fn begin(
        mut self,
        capacity: u64,
        before: &Segment,
        beginning: &Beginning,
    ) -> Result<(Segment, Geometry), SystemError> {
        let owner = before.owner;
        begin_segment(self.object.file(), &self.geometry, capacity, owner, beginning)?;
        // Notes of another thread wait until the name is this segment's.
        let note_file = before.note_file.as_ref().map(|file| file.lock().unwrap_or_else(PoisonError::into_inner));
        let writable = self.object.file().try_clone_to_owned();
        let writable = writable.map_err(|e| SystemError::new("duplicate a segment's descriptor", e))?;
        if let Err(e) = copy_notes(before.file(), self.object.file()) {
            log::debug!("event=no-note segment={} reason={:?}", self.name, e.to_string());
        }
        lock(&self.object)?;
        self.object.replace()?;
        let mut segment = Segment::new(self.name, self.object.into_file(), self.read_only, capacity, owner);
        if let Some(mut file) = note_file {
            *file = writable;
            segment.note_file.clone_from(&before.note_file);
        }
        Ok((segment, self.geometry))
    }
}
