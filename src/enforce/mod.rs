//! The decision: may this request be forwarded?
//!
//! Pure: no `async`, no clock, no I/O. It is given the request head, snapshots and `now`, and answers with a value:
//! a `Permit`, a `Denial`, or an `Ask` that the caller answers once before it asks again.

pub mod bearer;
pub mod claims;
pub mod decide;
pub mod denial;
pub mod policy;
pub mod target;
pub mod token;
pub mod verify;
