//! A channel in one process: writer and readers of a ring with no daemon behind it.
//!
//! Tests and benches of the data path want no daemon, no socket and no second process beside them. The daemon makes a segment
//! and a page for each reader, names the readers to the writer, and is off the data path from then on. This does the same.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use shm_proto::internal::os::barrier;
use shm_proto::internal::os::bell::Bell;
use shm_proto::internal::os::page::SharedPage;
use shm_proto::internal::ring::layout::{LeasePage, ReaderPage};
use shm_proto::internal::ring::link::ToWriter;
use shm_proto::internal::ring::record::{LEAST_ALIGN, Strides};
use shm_proto::internal::ring::thread_link::ThreadLink;
use shm_proto::internal::ring::{Owner, create_segment};
use shm_proto::{Geometry, Reader, Result, Start, Writer};

/// A ring of `capacity` bytes that loses nothing, with its writer and as many readers.
pub fn channel(capacity: u64, readers: usize) -> (Writer, Vec<Reader>) {
    try_channel(capacity, readers).expect("a channel in this process: memory for the segment, and descriptors")
}

/// A ring with one reader.
pub fn pair(capacity: u64) -> (Writer, Reader) {
    let (writer, mut readers) = channel(capacity, 1);
    (writer, readers.remove(0))
}

fn try_channel(capacity: u64, readers: usize) -> Result<(Writer, Vec<Reader>)> {
    static INSTANCES: AtomicU64 = AtomicU64::new(1);
    let instance = INSTANCES.fetch_add(1, Ordering::Relaxed);
    let mut geometry =
        Geometry::new("steps".parse()?, instance, capacity, Strides::new(LEAST_ALIGN, 0).largest_message(capacity));
    geometry.asymmetric = barrier::available();
    geometry.prefault = true;
    let segment = memfd_create("steps", MFdFlags::MFD_CLOEXEC).expect("a memfd for the segment");
    let owner = Owner { pid: std::process::id(), start: 0, boot_id: [0; 2], home: 0 };
    create_segment(segment.as_fd(), &geometry, capacity, owner)?;
    let (lines, to_writer) = mpsc::channel();
    let attached = (1..)
        .take(readers)
        .map(|id| {
            let (_, page) = SharedPage::<ReaderPage>::create("steps-reader")?;
            let (bell, bell_of_reader) = Bell::new()?;
            let reader =
                Reader::open(segment.as_fd(), page.as_fd(), bell_of_reader, geometry.clone(), Start::Oldest, None)?;
            let joined = (ToWriter::ReaderJoined { reader: id }, vec![page, bell.try_clone_fd()?]);
            lines.send(joined).expect("the link's other end, which is in this function");
            Ok(reader)
        })
        .collect::<Result<Vec<Reader>>>()?;
    let (lease, _) = SharedPage::<LeasePage>::create("steps-lease")?;
    let link = ThreadLink::new(to_writer, move |_| {
        // The link owns its other end, so it never ends. Nobody hears what the writer says.
        let _ = &lines;
        Ok(())
    });
    let writer = Writer::open(segment.as_fd(), lease, Box::new(link), geometry, capacity)?;
    assert_eq!(writer.readers(), readers, "the writer knows its readers");
    Ok((writer, attached))
}
