//! HTTP/1.1 with the upstream: our own client, because it costs less than a general one.
//!
//! `encode` and `decode` are pure; `connection` is a wire with its current exchange; `exchange` is one
//! request and its response head; `upload` and `download` are the bodies.

pub(crate) mod connection;
pub(crate) mod decode;
pub(crate) mod download;
pub(crate) mod encode;
pub(crate) mod exchange;
pub(crate) mod upload;

pub use decode::BadAnswer;
