//! Messages that are plain data, with feature `zerocopy`: structures that consist of nothing but their bytes.
//!
//! The bytes are those of the structure in memory, so all fields are little-endian on every machine that this library runs on.

use std::time::Duration;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::reader::ReaderError;
use super::writer::WriterError;
use super::{Batch, Message, Reader, Received, Slot, Writer};

impl Writer {
    /// Publishes a value as a message, as [`publish`](Self::publish) does with bytes. A slice of values is a value, too.
    ///
    /// ```no_run
    /// use shm_proto::{Endpoint, Writer};
    /// use zerocopy::{Immutable, IntoBytes};
    ///
    /// #[derive(IntoBytes, Immutable)]
    /// #[repr(C)]
    /// struct Sample {
    ///     time_ns: u64,
    ///     value: f64,
    /// }
    ///
    /// let mut writer = Writer::attach(&Endpoint::find(None), Some("imu"))?;
    /// writer.publish_value(&Sample { time_ns: 1, value: 0.5 })?;
    /// # Ok::<(), shm_proto::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    #[inline]
    pub fn publish_value<T>(&mut self, value: &T) -> Result<Option<u64>, WriterError>
    where
        T: IntoBytes + Immutable + ?Sized,
    {
        self.publish(value.as_bytes())
    }
}

impl Batch<'_> {
    /// Adds a value as a message, as [`push`](Self::push) does with bytes.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_value<T>(&mut self, value: &T) -> Result<Option<u64>, WriterError>
    where
        T: IntoBytes + Immutable + ?Sized,
    {
        self.push(value.as_bytes())
    }
}

impl Slot<'_> {
    /// The reserved bytes as a value, to be filled in place. Until then, the value is whatever the bytes were before.
    ///
    /// # Panics
    /// If not as many bytes were reserved as the value has, or if the channel's `align` is less than the value's.
    #[inline]
    #[must_use]
    pub fn as_value_mut<T: FromBytes + IntoBytes + KnownLayout>(&mut self) -> &mut T {
        let (len, align) = (self.len(), align_of::<T>());
        match T::mut_from_bytes(self) {
            Ok(value) => value,
            Err(_) => panic!("a value of {} bytes, aligned to {align}, in {len} bytes", size_of::<T>()),
        }
    }
}

impl Message<'_> {
    /// The message as a value, which is copied out. `None` if the message does not have as many bytes as the value.
    ///
    /// Ask [`finish`](Message::finish) afterwards whether the bytes were still the message's.
    #[inline]
    #[must_use]
    pub fn value<T: FromBytes + IntoBytes>(&self) -> Option<T> {
        let mut value = T::new_zeroed();
        (self.len() == size_of::<T>()).then(|| {
            self.copy_to(value.as_mut_bytes());
            value
        })
    }

    /// The message as values, which are copied out and replace the contents of `out`. Returns false, and empties `out`,
    /// if the message's bytes are not those of a number of values.
    ///
    /// Ask [`finish`](Message::finish) afterwards whether the bytes were still the message's.
    #[must_use = "when it is false there are no values"]
    pub fn copy_values<T: FromBytes + IntoBytes + Clone>(&self, out: &mut Vec<T>) -> bool {
        out.clear();
        let is_whole = size_of::<T>() > 0 && self.len().is_multiple_of(size_of::<T>());
        if is_whole {
            out.resize(self.len() / size_of::<T>(), T::new_zeroed());
            self.copy_to(out.as_mut_slice().as_mut_bytes());
        }
        is_whole
    }
}

impl Reader {
    /// Waits for the next message and copies it out as a value. If a message is overwritten during the copy, it counts as
    /// lost, and the next message is received instead.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and [`ReaderError::NoSuchValue`] if the message does not have as many bytes as the value. The
    /// message is passed then.
    pub fn recv_value<T>(&mut self, timeout: Option<Duration>) -> Result<(T, Received), ReaderError>
    where
        T: FromBytes + IntoBytes,
    {
        let mut value = T::new_zeroed();
        let received = self.recv_with(timeout, |message| {
            let (len, expected) = (message.len(), size_of::<T>());
            if len == expected {
                message.copy_to(value.as_mut_bytes());
            }
            (len != expected).then_some((len, expected))
        })?;
        match received {
            (received, None) => Ok((value, received)),
            (Received { seq, .. }, Some((len, expected))) => {
                let channel = self.geometry().channel.to_string();
                Err(ReaderError::NoSuchValue { channel, seq, len, expected })
            }
        }
    }
}
