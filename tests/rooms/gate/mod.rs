//! The public listener over real sockets, with an upstream that records what reaches it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

mod bed;
mod cors;
mod drain;
mod http1;
mod http2;
mod http2_upstream;
mod limits;
mod record;
mod secure;
