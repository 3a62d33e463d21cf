//! The embedded authority of the built binary, over real TLS: real OAuth clients, bad requests, killed processes, key
//! rotation, reloads. Like the black-box tests, from whom they borrow their helpers, these never use the library.
#![allow(unreachable_pub, reason = "a test crate has no public face")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed expectation fails the test"
)]
#![allow(clippy::too_many_lines, reason = "tables")]

mod bad_requests;
mod clients;
mod crashes;
mod demo;
mod expiry;
mod introspection;
mod keys;
mod reload;
mod slowing;
mod stage;
#[path = "../blackbox/support/mod.rs"]
#[allow(dead_code, reason = "what only the black-box tests need")]
mod support;
mod transport;
