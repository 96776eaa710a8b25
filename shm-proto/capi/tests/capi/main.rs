//! The C library from the outside: programs in C and C++, which the tests compile, against the real daemon and `shmctl`.

mod abi;
mod examples;
mod faults;
mod install;
mod kit;
mod rules;
mod streams;
