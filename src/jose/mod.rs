//! Signed tokens as texts (RFC 7515): taken apart strictly, and believed in nothing.
//!
//! Knows form only: neither keys nor what any claim means.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

pub mod json;
pub mod jws;
