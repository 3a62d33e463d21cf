//! The embedded authority of the built binary, over real TLS: real OAuth clients, bad requests, killed processes, key
//! rotation, reloads.

mod bad_requests;
mod clients;
mod console;
mod crashes;
mod demo;
mod expiry;
mod introspection;
mod keys;
mod overload;
mod possession;
mod reload;
mod scim;
mod slowing;
pub mod stage;
mod transport;
