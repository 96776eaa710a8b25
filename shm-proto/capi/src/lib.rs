//! `libshmd`: the C interface of `shm-proto`. `include/shmd.h` describes it; nothing in here is for programs in Rust.
//!
//! | module | what it is |
//! |---|---|
//! | `result` | numbers of results, and the last error of each thread |
//! | `failure` | which number and facts each of the library's errors has |
//! | `guard` | tells a parent's handle from a child's |
//! | `arguments` | pointers, texts and times that come from the caller |
//! | `endpoint`, `reader`, `writer`, `control` | the calls, a file for each part of the header |
//! | `held` | what a reader has lent to the program |
//! | `source` | where a reader's messages come from |
//! | `figures` | the structures that the caller passes with their size |
//!
//! A panic does not leave the library: `extern "C"` functions abort the process, after the panic's message.
// A C program passes pointers, so that every call is unsafe. Each file that has calls says so; none of the others may.
#![allow(unreachable_pub, reason = "C programs reach the calls")]

mod arguments;
mod control;
mod endpoint;
mod failure;
mod figures;
mod guard;
mod held;
mod reader;
mod result;
mod source;
mod writer;
