//! Finds the configured issuer table that a token belongs to, by its unverified claims.

use serde_json::{Map, Value};

use super::decide::TrustedIssuer;
use super::denial::Reason;
use super::spiffe;
use super::token::IssuerIndex;
use super::verify::TokenVerifier;
use crate::jose::jws::Jws;

impl TokenVerifier {
    /// The issuer table that the token claims.
    ///
    /// That is the issuer in `iss`, or else the SPIFFE trust domain in `sub`, because a JWT-SVID need not
    /// have an `iss`, and SPIFFE gives it no meaning. If an issuer has several tables, it is the first that
    /// accepts the token's audience.
    pub(super) fn claimed_issuer(&self, jws: &Jws<'_>) -> Result<(IssuerIndex, &TrustedIssuer), Reason> {
        let payload = &jws.payload;
        let issuer = payload.get("iss").map(|issuer| issuer.as_str().ok_or(Reason::BadClaim)).transpose()?;
        let named = |table: &TrustedIssuer| {
            table.rules.trust_domain.is_none() && issuer.is_some_and(|issuer| *table.rules.issuer == *issuer)
        };
        if let Some(found) = self.for_audience(payload, named) {
            return Ok(found);
        }
        let domain = spiffe::trust_domain(payload);
        let domain = |table: &TrustedIssuer| {
            table.rules.trust_domain.is_some() && table.rules.trust_domain.as_deref() == domain
        };
        self.for_audience(payload, domain).ok_or(Reason::UnknownIssuer)
    }

    /// Of the tables that fit, the one that accepts the token's audience; if no table does, the first, whose
    /// rules then say what is wrong.
    fn for_audience(
        &self,
        payload: &Map<String, Value>,
        fits: impl Fn(&TrustedIssuer) -> bool,
    ) -> Option<(IssuerIndex, &TrustedIssuer)> {
        let mut tables =
            (0..).map(IssuerIndex).zip(self.issuers()).filter(|(_, table)| fits(table)).peekable();
        let first = tables.next()?;
        // Usually there is only one, and its audience is checked later.
        if tables.peek().is_none() || first.1.rules.check_audience(payload).is_ok() {
            return Some(first);
        }
        let other = tables.find(|(_, table)| table.rules.check_audience(payload).is_ok());
        Some(other.unwrap_or(first))
    }
}
