//! How identity providers tell the gate that tokens end: what arrives from outside becomes events here.
//!
//! | sender | room | speaks |
//! |---|---|---|
//! | Shared Signals transmitter | [`ssf`] | security event tokens (RFC 8417) by push (RFC 8935) |
//! | OpenID provider | [`logout`] | logout tokens (OpenID Connect Back-Channel Logout 1.0) |
//! | identity provider of an organisation | [`revocation`] | Global Token Revocation |
//! | identity provider with a directory | [`scim`] | users and groups (SCIM 2.0, RFC 7643, RFC 7644) |
//!
//! All of them send to the endpoints of [`intake`]. [`subject`] is the one place where an outside identifier becomes an
//! event, and [`SignalLog`] the one way from there into force. Knows neither sockets nor what events do.

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

/// A request to one of the endpoints that signals are sent to.
#[derive(Debug, Clone, Copy)]
pub struct SignalRequest<'a> {
    /// The method.
    pub method: &'a Method,
    /// What follows `/{kind}/{name}` in the path: empty, or it begins with `/`.
    pub path: &'a str,
    /// The query.
    pub query: Option<&'a [u8]>,
    /// The header section.
    pub headers: &'a HeaderMap,
    /// The body; `None` when it is longer than [`intake::EndpointKind::max_body`].
    pub body: Option<&'a [u8]>,
    /// The sender, as the gate knows it.
    pub address: IpAddr,
}
