//! The segment that a channel begins with: one that a dead daemon has left, or a new one.

use std::sync::atomic::AtomicBool;

use shm_proto::internal::os::{reserve, shm};
use shm_proto::internal::ring::layout::DATA_OFFSET;
use shm_proto::internal::ring::{Owner, create_segment};
use shm_proto::{Geometry, Prefix, SystemError};

use super::adopt::Adopted;
use super::name::{make_way, publish};
use super::segment::{Segment, geometry, no_room};
use crate::config::ChannelConfig;
use crate::operation_log::{LogEvent, operation};

/// What a channel begins with: its segment, and what is known of the segment if a dead daemon has left it.
pub(in crate::channel) type Made = (Segment, Geometry, Option<Adopted>);

impl Segment {
    /// Creates the object of a channel. If a dead daemon has left an object under this name, the object is adopted or
    /// replaced. Waits for memory, unless `ending` says that the channel is not wanted any more.
    ///
    /// # Errors
    /// If the name belongs to a living daemon or to another user, and if there is no memory.
    pub(in crate::channel) fn create(
        prefix: &Prefix,
        config: &ChannelConfig,
        owner: Owner,
        ending: &AtomicBool,
    ) -> Result<Made, SystemError> {
        let name = config.object(prefix);
        let gid = config.group.as_ref().map(|(_, gid)| *gid);
        // Before memory is reserved, because a dead daemon's object may hold that memory.
        if let Some((segment, geometry, adopted)) = make_way(&name, |left| left.adopt(config, owner))? {
            return Ok((segment, geometry, Some(adopted)));
        }
        let object = shm::Unnamed::create(&name, config.mode, gid)?;
        let geometry = geometry(config);
        reserve::in_child(object.file(), 0, DATA_OFFSET + config.capacity, ending).map_err(|e| no_room(config, e))?;
        create_segment(object.file(), &geometry, config.capacity, owner)?;
        let read_only = object.read_only()?;
        publish(&object, &name)?;
        let segment = Self::new(name, object.into_file(), read_only, config.capacity, owner);
        let entry = operation(LogEvent::Create)
            .on(&config.name)
            .text("segment", segment.name())
            .number("capacity", config.capacity)
            .number("min", config.min)
            .number("max", config.max)
            .text("mode", format_args!("{:04o}", config.mode));
        match &config.created {
            Some(created) => entry.text("by", &created.user).text("kept", created.kept).info(),
            None => entry.info(),
        }
        Ok((segment, geometry, None))
    }
}
