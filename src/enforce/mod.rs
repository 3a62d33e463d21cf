//! The decision: may this request be forwarded?
//!
//! Pure: no `async`, no clock, no I/O. It is given the request head, snapshots and `now`, and returns a
//! value: a `Permit`, a `Denial`, or an `Ask` that the caller answers once before it asks again.

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

/// The settings of the decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The routes, in configuration order.
    pub routes: Vec<RouteSettings>,
    /// What upstreams learn about tokens.
    pub identity: IdentitySettings,
    /// How tokens may be presented.
    pub bearer: BearerSettings,
    /// How proofs of possession are judged.
    pub dpop: DpopSettings,
    /// Maximum number of cached proofs of signatures.
    pub proofs: usize,
}

/// Default maximum number of cached proofs, one for each tracked token.
pub const DEFAULT_PROOFS: usize = 1_000_000;

#[cfg(test)]
pub(crate) mod testing;
