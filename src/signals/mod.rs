//! How identity providers tell the gate that tokens end: what arrives from outside becomes events here.
//!
//! | sender | room | speaks |
//! |---|---|---|
//! | Shared Signals transmitter | [`ssf`] | security event tokens (RFC 8417) by push (RFC 8935) |
//!
//! Knows neither sockets nor what events do.

mod concealed;
pub mod ssf;

pub use concealed::Concealed;
