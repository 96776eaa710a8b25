//! The Python package `shmd`: the part in Rust.
//!
//! | module | what it is |
//! |---|---|
//! | `reader`, `inner` | the class `Reader`, and the reader behind it |
//! | `bulk` | receiving many small messages in one call |
//! | `readiness` | a reader's level-triggered descriptor |
//! | `writer`, `publishing` | the class `Writer`, and publishing with waits that signals end |
//! | `slot`, `batch` | filling the ring in place, and messages that become visible together |
//! | `views` | the buffer protocol: `Message`, the space of a slot, buffers of the program. All of the unsafe code |
//! | `requests` | `stat`, `channels`, `schema`, `resize` |
//! | `errors`, `wait`, `fork` | exceptions, waits that Ctrl-C ends, children of `os.fork()` |

mod batch;
mod bulk;
mod errors;
mod fork;
mod guarded;
mod inner;
mod publishing;
mod reader;
mod readiness;
mod requests;
mod slot;
mod views;
mod wait;
mod writer;

use pyo3::prelude::*;

/// The part of the package shmd that is written in Rust. Import shmd instead.
#[pymodule(gil_used = false)]
fn _shmd(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<reader::Reader>()?;
    module.add_class::<views::Message>()?;
    module.add_class::<writer::Writer>()?;
    module.add_class::<slot::Slot>()?;
    module.add_class::<batch::Batch>()?;
    module.add_function(wrap_pyfunction!(requests::stat, module)?)?;
    module.add_function(wrap_pyfunction!(requests::channels, module)?)?;
    module.add_function(wrap_pyfunction!(requests::schema, module)?)?;
    module.add_function(wrap_pyfunction!(requests::resize, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    fork::register(module)
}
