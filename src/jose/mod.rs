//! Signed tokens as text (RFC 7515): strict parsing, without trust in the content.
//!
//! Knows only the format: neither keys nor the meaning of claims.

#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::wildcard_enum_match_arm)]

pub mod json;
pub mod jws;
