//! `[authority]`, which this version cannot serve: read in full, so that a mistake in it is found, and refused, so that
//! nobody relies on it.

use crate::config::section::Section;
use crate::config::units;
use crate::config::values::Zero;

/// What is said of it.
pub(super) const UNSUPPORTED: &str = "is not supported by this version";

/// Refuses what asks for more than this version can do.
pub(in crate::config) fn refuse(s: &mut Section<'_>) {
    s.optional_table("authority", authority);
}

fn authority(s: &mut Section<'_>) {
    s.own_problem(UNSUPPORTED);
    s.required("issuer", units::name);
    s.required("audience", units::name);
    s.text("token_path", "/oauth/token");
    s.duration("token_lifetime", "1h", Zero::Refused);
    s.word("signing_algorithm", ("ES256", ()), &[("RS256", ()), ("EdDSA", ())]);
    s.duration("key_rotation", "30d", Zero::Refused);
    s.text("tenant_parameter", "");
    s.count("failures_per_client", 10, 1..=i64::MAX);
    s.count("failures_per_address", 100, 1..=i64::MAX);
    s.list("scopes", &[], units::scope);
    s.text("path", "portcullis.db");
}
