//! The decision: may this request be forwarded?
//!
//! Pure: no `async`, no clock, no I/O. It is given the request head, snapshots and `now`, and answers with a value:
//! a `Permit`, a `Denial`, or an `Ask` that the caller answers once before it asks again.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

use bearer::BearerSettings;
use dpop::DpopSettings;
use policy::{IdentitySettings, RouteSettings};

pub mod again;
mod ask;
pub mod bearer;
mod checks;
mod claimed;
pub mod claims;
pub mod conditions;
pub mod decide;
pub mod denial;
pub mod dpop;
pub mod explain;
mod faults;
mod first_seen;
mod glob;
pub mod identity;
pub mod inspect;
pub mod mcp;
#[cfg(any(test, feature = "parts"))]
#[path = "../../benches/parts/enforce.rs"]
pub(crate) mod parts;
mod permit;
pub mod policy;
mod proofs;
pub mod resource;
pub mod router;
pub mod signals;
pub mod spiffe;
pub(crate) mod standing;
pub mod target;
pub mod token;
mod verify;

/// What is decided on, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The routes, in the order of the configuration.
    pub routes: Vec<RouteSettings>,
    /// What upstreams learn of tokens.
    pub identity: IdentitySettings,
    /// How tokens may be presented.
    pub bearer: BearerSettings,
    /// How proofs of possession are judged.
    pub dpop: DpopSettings,
    /// How many proofs of signatures are remembered at most.
    pub proofs: usize,
}

/// As many proofs as tokens are tracked by default.
pub const DEFAULT_PROOFS: usize = 1_000_000;

#[cfg(test)]
pub(crate) mod testing;
