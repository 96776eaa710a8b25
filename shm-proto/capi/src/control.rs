//! Asking the daemon.
#![allow(unsafe_code)]

use std::ffi::{c_char, c_int};
use std::ptr;
use std::time::Duration;

use shm_proto::internal::control::stat::{ChannelStat, Mode};
use shm_proto::{ChannelName, Client, Done, Request};

use crate::arguments::{self, allocated, out, put};
use crate::endpoint::ShmdEndpoint;
use crate::failure::Failure;
use crate::figures::{self, Stat};
use crate::result::{ERR_BAD_NAME, ERR_NO_SUCH_CHANNEL, ERR_PROTOCOL, OK, finish};

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// # Safety
/// `endpoint` is NULL or a handle that was not freed.
unsafe fn ask(endpoint: *const ShmdEndpoint, request: &Request) -> Result<Done, Failure> {
    // SAFETY: promised by the caller.
    let endpoint = unsafe { arguments::endpoint(endpoint) };
    Ok(Client::connect(&endpoint, ANSWER)?.request(request)?)
}

/// # Safety
/// `channel` is NULL or a text.
unsafe fn name(channel: *const c_char) -> Result<Option<ChannelName>, Failure> {
    // SAFETY: promised by the caller.
    let text = unsafe { arguments::text(channel, "channel's name")? };
    text.map(str::parse::<ChannelName>).transpose().map_err(|e| Failure::new(ERR_BAD_NAME, e.to_string()))
}

fn strange(what: &str) -> Failure {
    Failure::new(ERR_PROTOCOL, format!("the daemon answered {what} with something else"))
}

/// # Safety
/// As [`ask`] and [`name`].
unsafe fn stat(endpoint: *const ShmdEndpoint, channel: *const c_char) -> Result<Vec<ChannelStat>, Failure> {
    // SAFETY: promised by the caller.
    match unsafe { ask(endpoint, &Request::Stat { channel: name(channel)? })? } {
        Done::Stat(channels) => Ok(channels),
        _ => Err(strange("stat")),
    }
}

fn figures_of(channel: &ChannelStat) -> Stat {
    Stat {
        capacity: channel.capacity,
        min_capacity: channel.min,
        max_capacity: channel.max,
        pending_capacity: channel.pending.unwrap_or(0),
        memory: channel.memory,
        used: channel.used,
        retained: channel.retained,
        max_message: channel.max_message,
        messages: channel.messages,
        bytes: channel.bytes,
        dropped: channel.dropped,
        overwritten: channel.overwritten,
        resizes: channel.resizes,
        evicted: channel.evicted,
        lag_messages: channel.readers.iter().map(|reader| reader.lag_messages).max().unwrap_or(0),
        messages_per_s: channel.messages_per_s,
        bytes_per_s: channel.bytes_per_s,
        align: channel.align,
        readers: u32::try_from(channel.readers.len()).unwrap_or(u32::MAX),
        max_readers: channel.max_readers,
        writer_pid: channel.writer.as_ref().map_or(0, |writer| writer.pid),
        handoff: u32::from(channel.mode == Mode::Handoff),
        reserved: 0,
    }
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text, `stat` is NULL or has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_stat_get(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    stat: *mut Stat,
    size: usize,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let channels = unsafe { self::stat(endpoint, channel)? };
        match channels.as_slice() {
            // SAFETY: promised by the caller.
            [only] => unsafe { figures::give(stat, size, figures_of(only), "stat") },
            several => {
                let names: Vec<_> = several.iter().map(|channel| channel.channel.as_str()).collect();
                let message =
                    format!("the daemon has {} channels, name one of them: {}", names.len(), names.join(", "));
                Err(Failure::new(ERR_NO_SUCH_CHANNEL, message))
            }
        }
    })())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text, `json` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_stat_json(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    json: *mut *mut c_char,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, channels) = unsafe { (out(json, "json")?, stat(endpoint, channel)?) };
        let text = serde_json::to_string(&channels).map_err(|e| Failure::new(ERR_PROTOCOL, e.to_string()))?;
        *place = copied(text.as_bytes())?;
        Ok(OK)
    })())
}

/// A copy for the caller, with a zero behind it.
fn copied(text: &[u8]) -> Result<*mut c_char, Failure> {
    let memory = allocated(text.len() + 1)?;
    // SAFETY: the memory has room for the text and a zero.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr(), memory, text.len());
        memory.add(text.len()).write(0);
    }
    Ok(memory.cast())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text; the others are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_schema_get(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    text: *mut *mut c_char,
    len: *mut usize,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, len) = unsafe { (out(text, "text")?, out(len, "len")?) };
        // SAFETY: promised by the caller.
        let (endpoint, channel) = unsafe { (arguments::endpoint(endpoint), name(channel)?) };
        let text = Client::connect(&endpoint, ANSWER)?.schema(channel)?;
        (*place, *len) = match &text {
            None => (ptr::null_mut(), 0),
            Some(text) => (copied(text)?, text.len()),
        };
        Ok(OK)
    })())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed; the others are NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_channels(
    endpoint: *const ShmdEndpoint,
    names: *mut *mut *mut c_char,
    count: *mut usize,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        let (place, done) = unsafe { (out(names, "names")?, ask(endpoint, &Request::List)?) };
        let Done::List(channels) = done else { return Err(strange("list")) };
        let table = (channels.len() + 1) * size_of::<*mut c_char>();
        let texts: usize = channels.iter().map(|channel| channel.channel.len() + 1).sum();
        let memory = allocated(table + texts)?;
        let (pointers, mut text) = (memory.cast::<*mut c_char>(), memory.wrapping_add(table));
        for (n, channel) in channels.iter().enumerate() {
            let name = channel.channel.as_bytes();
            // SAFETY: the memory has room for a pointer for each name and a NULL, and behind them for each name and a zero.
            unsafe {
                pointers.add(n).write(text.cast());
                ptr::copy_nonoverlapping(name.as_ptr(), text, name.len());
                text.add(name.len()).write(0);
                text = text.add(name.len() + 1);
            }
        }
        // SAFETY: as above; and `count` as promised by the caller.
        unsafe {
            pointers.add(channels.len()).write(ptr::null_mut());
            put(count, channels.len());
        }
        *place = pointers;
        Ok(OK)
    })())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text, `now` is NULL or may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_resize(
    endpoint: *const ShmdEndpoint,
    channel: *const c_char,
    bytes: u64,
    now: *mut u64,
) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        match unsafe { ask(endpoint, &Request::Resize { channel: name(channel)?, bytes })? } {
            Done::Resize(resized) => {
                // SAFETY: promised by the caller.
                unsafe { put(now, resized.new) };
                Ok(OK)
            }
            _ => Err(strange("resize")),
        }
    })())
}

/// # Safety
/// `endpoint` is NULL or a handle that was not freed, `channel` is NULL or a text.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn shmd_evict(endpoint: *const ShmdEndpoint, channel: *const c_char, reader: u32) -> c_int {
    finish((|| {
        // SAFETY: promised by the caller.
        match unsafe { ask(endpoint, &Request::Evict { channel: name(channel)?, reader })? } {
            Done::Evict {} => Ok(OK),
            _ => Err(strange("evict")),
        }
    })())
}
