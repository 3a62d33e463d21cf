//! Proofs of possession (RFC 9449), required with a token that is bound to a key.
//!
//! Pure: takes a header and the expected values, and returns a proven key or a fault. `replays` knows whether
//! a proof was used before.

use std::time::Duration;

pub mod proof;
mod sender;
pub mod uri;

#[cfg(test)]
pub(in crate::enforce) mod testing;

use super::bearer::{self, TokenScheme};
use super::decide::{Enforcer, NoPermit, Request};
use super::policy::Route;
use crate::replays::nonces::UnknownPeriod;
use crate::time::Timestamp;
use uri::UriOrigin;

pub use sender::SenderConstraint;

/// Settings for proofs (`[dpop]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DpopSettings {
    /// The URL at which clients reach the gate; `None`: `https://` and the host that a request names.
    pub public_url: Option<UriOrigin>,
    /// How old a proof may be, and how far in the future.
    pub max_age: Duration,
    /// Whether a proof must carry a nonce of this gate.
    pub nonce: bool,
    /// Maximum number of remembered proofs.
    pub max_tracked: usize,
    /// Whether the configuration has this table, so that challenges offer DPoP.
    pub announced: bool,
}

impl Default for DpopSettings {
    fn default() -> Self {
        let (public_url, max_age) = (None, Duration::from_secs(60));
        Self { public_url, max_age, nonce: false, max_tracked: DEFAULT_TRACKED, announced: false }
    }
}

/// Default maximum number of remembered proofs.
pub const DEFAULT_TRACKED: usize = 1_000_000;

/// The algorithms accepted for proofs, as challenges and metadata name them.
pub const ALGORITHMS: [&str; 10] =
    ["ES256", "ES384", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

/// What is wrong with the proof of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofFault {
    /// The proof is missing.
    Absent,
    /// There is more than one `DPoP` field.
    Several,
    /// It is not a signed JWT of reasonable length, or parsers could read it differently.
    Malformed,
    /// `typ` is not `dpop+jwt`.
    Type,
    /// `alg` is not one of [`ALGORITHMS`].
    Algorithm,
    /// The header has no usable public key.
    Key,
    /// The header contains the private part of the key.
    PrivateKey,
    /// The signature was not made by its key.
    Signature,
    /// A claim is missing or has an unusable form.
    Claim,
    /// It was made for another method.
    Method,
    /// It was made for another URI.
    Uri,
    /// It is too old, or from the future.
    Time,
    /// It was made for another token.
    Token,
    /// It was made with a key other than the one that the token is bound to.
    OtherKey,
    /// It was used before.
    Replayed,
    /// It has no nonce, or not a current one of this gate.
    Nonce,
}

impl ProofFault {
    /// The description for the client. The client made the proof itself, so nothing is revealed.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Absent => "The DPoP proof is missing",
            Self::Several => "The request carries more than one DPoP proof",
            Self::Malformed => "The DPoP proof is not a well-formed JWT",
            Self::Type => "The type of the DPoP proof is not dpop+jwt",
            Self::Algorithm => "The DPoP proof is signed with an algorithm that is not accepted",
            Self::Key => "The DPoP proof has no usable public key in its header",
            Self::PrivateKey => "The DPoP proof contains its private key",
            Self::Signature => "The signature of the DPoP proof does not match its key",
            Self::Claim => "The DPoP proof has a missing or invalid claim",
            Self::Method => "The DPoP proof is for another method (htm)",
            Self::Uri => "The DPoP proof is for another URI (htu)",
            Self::Time => "The DPoP proof is too old or from the future (iat)",
            Self::Token => "The DPoP proof is for another access token (ath)",
            Self::OtherKey => "The key of the DPoP proof is not the key that the access token is bound to",
            Self::Replayed => "The DPoP proof was used before (jti)",
            Self::Nonce => "The DPoP proof requires the nonce of this response",
        }
    }

    /// The `error` of a response (RFC 9449 §5, §7.1, §8).
    #[must_use]
    pub const fn error(self) -> &'static str {
        if matches!(self, Self::Nonce) { "use_dpop_nonce" } else { "invalid_dpop_proof" }
    }

    /// All faults.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 16] = [
        Self::Absent,
        Self::Several,
        Self::Malformed,
        Self::Type,
        Self::Algorithm,
        Self::Key,
        Self::PrivateKey,
        Self::Signature,
        Self::Claim,
        Self::Method,
        Self::Uri,
        Self::Time,
        Self::Token,
        Self::OtherKey,
        Self::Replayed,
        Self::Nonce,
    ];
}

/// What a denial says about proofs of possession.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PossessionDenial {
    /// The fault of the proof.
    pub fault: Option<ProofFault>,
    /// The nonce that the next proof must carry.
    pub nonce: Option<Box<str>>,
    /// The scheme of the request, which the challenge uses too.
    pub scheme: TokenScheme,
    /// Whether clients may use DPoP on the requested route.
    pub takes_dpop: bool,
}

impl Enforcer {
    /// The nonce for the next proof; `None` if proofs need none.
    ///
    /// # Errors
    /// When the key for it must be fetched first.
    pub fn current_nonce(&self, now: Timestamp) -> Result<Option<Box<str>>, UnknownPeriod> {
        let settings = &self.dpop;
        settings.nonce.then(|| self.replays().nonces().current(settings.max_age, now)).transpose()
    }

    /// Whether challenges offer DPoP: the route accepts tokens of an issuer that accepts DPoP.
    fn takes_dpop(&self, route: Option<&Route>) -> bool {
        let accepted = route.map(|route| &route.settings().issuers).filter(|names| !names.is_empty());
        let mut issuers = self.verifier.issuers().iter().map(|issuer| &issuer.rules);
        issuers.any(|rules| {
            accepted.is_none_or(|names| names.contains(&rules.issuer))
                && rules.sender_constraint.takes_dpop(self.dpop.announced)
        })
    }

    /// Completes the denial of a request with what its challenge says about schemes.
    pub(super) fn with_scheme(
        &self,
        refusal: NoPermit,
        request: &Request<'_>,
        route: Option<&Route>,
    ) -> NoPermit {
        let NoPermit::Deny(mut denial) = refusal else { return refusal };
        denial.possession.scheme = bearer::scheme(request.headers);
        denial.possession.takes_dpop = self.takes_dpop(route);
        NoPermit::Deny(denial)
    }
}
