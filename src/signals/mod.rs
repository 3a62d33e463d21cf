//! The signals by which identity providers report that tokens end; translates them into events.
//!
//! | sender | room | speaks |
//! |---|---|---|
//! | Shared Signals transmitter | [`ssf`] | security event tokens (RFC 8417) by push (RFC 8935) |
//! | OpenID provider | [`logout`] | logout tokens (OpenID Connect Back-Channel Logout 1.0) |
//! | identity provider of an organisation | [`revocation`] | Global Token Revocation |
//! | identity provider with a directory | [`scim`] | users and groups (SCIM 2.0, RFC 7643, RFC 7644) |
//!
//! All of them send to the endpoints of [`intake`]. [`subject`] is the one place where an outside identifier
//! becomes an event, and [`SignalLog`] the only way for events to take effect from there. Knows nothing about
//! sockets or about the effect of events.

use std::net::IpAddr;

use http::{HeaderMap, Method};

mod concealed;
pub mod intake;
pub mod logout;
mod proof;
mod publisher;
pub mod revocation;
pub mod scim;
pub mod ssf;
pub mod subject;
pub mod token;

pub use concealed::Concealed;
pub use publisher::{Signal, SignalLog};
pub use token::TokenFault;

/// A request to one of the signal endpoints.
#[derive(Debug, Clone, Copy)]
pub struct SignalRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path after `/{kind}/{name}`: empty, or beginning with `/`.
    pub path: &'a str,
    /// The query.
    pub query: Option<&'a [u8]>,
    /// The header fields.
    pub headers: &'a HeaderMap,
    /// The body; `None` if it is longer than [`intake::EndpointKind::max_body`].
    pub body: Option<&'a [u8]>,
    /// The client address as determined by the gate.
    pub address: IpAddr,
}
