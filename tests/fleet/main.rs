//! Several gates, each a process, that share state through real Redis servers, which the tests start,
//! stop, empty and kill.
#![allow(unreachable_pub, reason = "a test crate has no public face")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed expectation fails the test"
)]

mod authority;
mod chaos;
mod clocks;
mod dpop;
mod events;
mod gaps;
mod init;
mod logout;
mod monitoring;
mod outage;
mod retention;
mod scene;
mod scim;
mod setup;
mod topologies;
mod transmitters;
