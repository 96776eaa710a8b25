//! Asking the daemon.

use std::path::PathBuf;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use shm_proto::{ChannelName, Client, Done, Error, Request};

use crate::errors;
use crate::reader::endpoint;
use crate::wait::{self, duration};

/// Asks the daemon, and returns what Python makes of the answer's JSON.
fn ask<'py>(
    py: Python<'py>,
    runtime_dir: Option<PathBuf>,
    timeout: f64,
    request: Request,
) -> PyResult<Bound<'py, PyAny>> {
    let endpoint = endpoint(runtime_dir, None)?;
    let timeout = duration(timeout, "timeout")?;
    let asked = wait::in_background(py, move || Client::connect(&endpoint, timeout)?.request(&request))?;
    let done = asked.map_err(|e| errors::raise(py, e))?;
    let json = match &done {
        Done::Stat(channels) => serde_json::to_string(channels),
        Done::List(channels) => serde_json::to_string(channels),
        Done::Resize(resized) => serde_json::to_string(resized),
        other => return Err(PyRuntimeError::new_err(format!("the daemon answered with something else: {other:?}"))),
    };
    let json = json.map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
    py.import("json")?.call_method1("loads", (json,))
}

fn name(py: Python<'_>, channel: Option<&str>) -> PyResult<Option<ChannelName>> {
    channel.map(str::parse).transpose().map_err(|e| errors::raise(py, Error::BadName(e)))
}

/// Everything about one channel, or about all channels when none is named, as shmctl stat shows it.
#[pyfunction]
#[pyo3(signature = (channel=None, *, runtime_dir=None, timeout=10.0))]
pub(crate) fn stat<'py>(
    py: Python<'py>,
    channel: Option<&str>,
    runtime_dir: Option<PathBuf>,
    timeout: f64,
) -> PyResult<Bound<'py, PyAny>> {
    let channels = ask(py, runtime_dir, timeout, Request::Stat { channel: name(py, channel)? })?;
    if channel.is_some() { channels.get_item(0) } else { Ok(channels) }
}

/// The text of a channel's schema, or None if its configuration declares none. Without a name, of the daemon's only channel.
#[pyfunction]
#[pyo3(signature = (channel=None, *, runtime_dir=None, timeout=10.0))]
pub(crate) fn schema<'py>(
    py: Python<'py>,
    channel: Option<&str>,
    runtime_dir: Option<PathBuf>,
    timeout: f64,
) -> PyResult<Option<Bound<'py, PyBytes>>> {
    let (endpoint, channel) = (endpoint(runtime_dir, None)?, name(py, channel)?);
    let timeout = duration(timeout, "timeout")?;
    let asked = wait::in_background(py, move || Client::connect(&endpoint, timeout)?.schema(channel))?;
    let text = asked.map_err(|e| errors::raise(py, e))?;
    Ok(text.map(|text| PyBytes::new(py, &text)))
}

/// The channels that this user may see.
#[pyfunction]
#[pyo3(signature = (*, runtime_dir=None, timeout=10.0))]
pub(crate) fn channels(py: Python<'_>, runtime_dir: Option<PathBuf>, timeout: f64) -> PyResult<Bound<'_, PyAny>> {
    ask(py, runtime_dir, timeout, Request::List)
}

/// Changes the capacity of a channel; without a name, of the daemon's only one.
#[pyfunction]
#[pyo3(name = "resize", signature = (nbytes, channel=None, *, runtime_dir=None, timeout=10.0))]
pub(crate) fn resize<'py>(
    py: Python<'py>,
    nbytes: u64,
    channel: Option<&str>,
    runtime_dir: Option<PathBuf>,
    timeout: f64,
) -> PyResult<Bound<'py, PyAny>> {
    ask(py, runtime_dir, timeout, Request::Resize { channel: name(py, channel)?, bytes: nbytes })
}
