//! The bytes of an HTTP/1.1 connection, of clients and of upstreams: what was read and not yet taken, and what is to be
//! written.
//!
//! Knows nothing of messages beyond how the pieces of a body are framed.

mod outbox;
mod wire;

pub(crate) use self::outbox::Outbox;
pub(crate) use self::wire::Http1Wire;
