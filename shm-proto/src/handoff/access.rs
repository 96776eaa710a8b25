//! Changing the mode and the group of the objects while their writer works.

use std::os::fd::OwnedFd;

use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, fchown, getegid};

use super::Names;
use super::objects::Objects;
use crate::error::{Result, SystemError};
use crate::os::shm;
use crate::os::{file_id::FileId, named_sem};

/// Mode and group of a writer's objects, from any thread.
#[derive(Clone, Debug)]
pub struct Access {
    /// Each object's name for `shm_open`, and the file that must have the name.
    objects: [(String, FileId); 3],
}

impl Access {
    pub(super) fn of(objects: &Objects) -> Self {
        let Names { segment, avail, done } = &objects.names;
        Self {
            objects: [
                (segment.clone(), objects.segment.id()),
                (named_sem::object(avail), objects.avail.id()),
                (named_sem::object(done), objects.done.id()),
            ],
        }
    }

    /// Gives all three objects this mode and group; `None` is the group of this process. Processes that have the objects open
    /// keep them.
    ///
    /// # Errors
    /// [`SystemError`], with a source of kind `NotFound` if a name leads to no object or to another one, and `PermissionDenied`
    /// if this user may not give files to the group. The mode is not changed then.
    pub fn set(&self, mode: u32, gid: Option<u32>) -> Result<()> {
        let open = self.objects.iter().map(|(name, id)| open(name, *id)).collect::<Result<Vec<_>>>()?;
        let gid = gid.map_or_else(getegid, Gid::from_raw);
        let failed = |step: &str, name: &str| {
            let action = format!("{step} of handoff object {name}");
            move |e| SystemError::new(action, e)
        };
        for (file, (name, _)) in open.iter().zip(&self.objects) {
            fchown(file, None, Some(gid)).map_err(failed("change the group", name))?;
        }
        for (file, (name, _)) in open.iter().zip(&self.objects) {
            fchmod(file, Mode::from_bits_truncate(mode)).map_err(failed("change the mode", name))?;
        }
        Ok(())
    }
}

fn open(name: &str, id: FileId) -> Result<OwnedFd> {
    let file = shm::open(name, true)?;
    let found = FileId::of(&file).map_err(|e| SystemError::new(format!("look at shared memory {name}"), e))?;
    if found != id {
        let gone = std::io::Error::new(std::io::ErrorKind::NotFound, "another object has its name now");
        return Err(SystemError::new(format!("find handoff object {name}"), gone));
    }
    Ok(file)
}
