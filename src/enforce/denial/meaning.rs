//! Explains each reason to operators: what was found, and what usually helps. Never sent to clients.

use super::Reason;

impl Reason {
    /// What was found, in one or two sentences.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table is as long as there are reasons")]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Missing => "The request has no bearer token.",
            Self::Malformed => "The Authorization header does not contain a well-formed bearer token.",
            Self::BadMcp => {
                "The MCP headers that name the method and tool are missing, ambiguous, or of an unsupported protocol version."
            }
            Self::NotJwt => "The token is not a signed JWT.",
            Self::Ambiguous => "The request has more than one token.",
            Self::BadTarget => {
                "The path is ambiguous: the gate and the upstream could interpret it differently."
            }
            Self::NoRoute => "No configured route matches the host, method and path.",
            Self::NoRouteNoToken => "No route matches, and the request has no bearer token.",
            Self::UnknownIssuer => "The issuer of the token is not configured.",
            Self::WrongType => "The type of the token is not accepted for its issuer; it may be an ID token.",
            Self::BadAlgorithm => {
                "The signature algorithm of the token is not allowed for its issuer or key."
            }
            Self::UnknownKey => "The token is signed with a key that is not in the key set of its issuer.",
            Self::BadSignature => {
                "The signature is invalid: the token was altered or signed with a different key."
            }
            Self::MissingClaim => "The token lacks a required claim.",
            Self::BadClaim => "A claim of the token has an invalid type or value.",
            Self::Expired => "The token has expired. The client must request a new one.",
            Self::NotYetValid => {
                "The token is not valid yet. The clock of the gate or of the issuer may be wrong."
            }
            Self::IssuedInFuture => {
                "The token was issued in the future. The clock of the gate or of the issuer is wrong."
            }
            Self::TooLongLived => "The lifetime of the token exceeds max_lifetime of its issuer.",
            Self::WrongAudience => {
                "The token was issued for another API: none of its audiences is configured for its issuer."
            }
            Self::TokenRevoked => "This token has been revoked.",
            Self::SessionRevoked => {
                "All tokens of its login session issued up to the revocation have been revoked."
            }
            Self::SubjectRevoked => {
                "All tokens of its subject issued up to the revocation have been revoked."
            }
            Self::ClientRevoked => "All tokens of its client issued up to the revocation have been revoked.",
            Self::IssuerRevoked => "All tokens of its issuer issued up to the revocation have been revoked.",
            Self::RoleChanged => {
                "The roles of its subject changed after the token was issued. The client must request a new one."
            }
            Self::Idle => {
                "The token has been inactive for longer than idle_timeout. The client must request a new one."
            }
            Self::InsufficientScope => "The token lacks a scope required by the route.",
            Self::InsufficientRole => "The token lacks a role required by the route.",
            Self::BadOrigin => {
                "The Origin of the request is not listed in origins or cors.origins of the route."
            }
            Self::ClaimCondition => {
                "A claim of the token does not meet the conditions of its issuer or of the route."
            }
            Self::InsufficientAuthentication => {
                "The user authentication is too old or too weak for the route."
            }
            Self::KeysUnavailable => {
                "The keys of the issuer have never been loaded, or have not been confirmed for longer than max_stale."
            }
            Self::StateUnavailable => {
                "The shared state has not been confirmed for longer than max_staleness."
            }
            Self::SignalsStale => {
                "Signals about the tokens of this issuer may be missing: the heartbeat of their transmitter is overdue."
            }
            Self::CertificateMismatch => {
                "The client certificate is missing, invalid, or not the one that the token is bound to."
            }
            Self::BeforeState => {
                "The token is older than the state store, so it is unknown whether it has been revoked."
            }
            Self::BadProof => {
                "The DPoP proof is missing, invalid, or has already been used. Behind a proxy, set dpop.public_url to the origin that clients see."
            }
            Self::NonceRequired => {
                "The DPoP proof lacks a valid nonce. The client must repeat the request with the nonce of the response."
            }
            Self::UnprovenToken => {
                "The token is bound to a key but came without a proof, or it is not bound although it must be."
            }
            Self::Overloaded => "The gate reached a limit.",
        }
    }

    /// The meaning of a word that users see. If two reasons share the word, that of the first.
    #[must_use]
    pub fn meaning_of(word: &str) -> Option<&'static str> {
        Self::ALL.iter().find(|reason| reason.as_str() == word).map(|reason| reason.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_meaning_of_its_own() {
        let mut meanings = Reason::ALL.map(Reason::meaning);
        meanings.sort_unstable();
        assert!(meanings.iter().all(|meaning| meaning.ends_with('.')));
        assert!(meanings.windows(2).all(|pair| pair[0] != pair[1]), "{meanings:?}");
        assert_eq!(Reason::meaning_of("expired"), Some(Reason::Expired.meaning()));
        assert_eq!(Reason::meaning_of("none"), None);
    }
}
