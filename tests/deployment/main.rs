//! The files that put the gate somewhere: rendered and validated by the tools of their platforms, and their configurations loaded by the
//! built binary.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed expectation fails the test"
)]
#![allow(clippy::too_many_lines, reason = "tables")]

mod compose;
mod container;
mod helm;
mod kubernetes;
mod pods;
mod systemd;
mod tooling;
mod workflows;
