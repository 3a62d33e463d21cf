//! What each reason means, for operators: what was found, and what usually helps. Clients never see it.

use super::Reason;

impl Reason {
    /// What was found, in one or two sentences.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a table is as long as there are reasons")]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Missing => "The request carried no Bearer token.",
            Self::Malformed => "The Authorization field does not have the form of a Bearer token.",
            Self::BadMcp => {
                "The fields that say which MCP method and tool is meant are missing, ambiguous, or of an older revision."
            }
            Self::NotJwt => "What was presented as a token is no signed JWT.",
            Self::Ambiguous => "The request carried more than one token.",
            Self::BadTarget => {
                "The path could be read in two ways, so that the gate and the upstream could disagree about it."
            }
            Self::NoRoute => "No route of the configuration matches the host, the method and the path.",
            Self::NoRouteNoToken => "No route matches, and the request carried no Bearer token.",
            Self::UnknownIssuer => "The token names an issuer that the configuration does not list.",
            Self::WrongType => {
                "The token is of another type than its issuer's access tokens, an ID token for example."
            }
            Self::BadAlgorithm => {
                "The token is signed with an algorithm that is not allowed for its issuer or its key."
            }
            Self::UnknownKey => "The token names a key that is not in its issuer's key set.",
            Self::BadSignature => {
                "The signature does not match: the token was changed, or another key signed it."
            }
            Self::MissingClaim => "The token lacks a claim that is required.",
            Self::BadClaim => "A claim of the token has a type or a value that cannot be used.",
            Self::Expired => "The token has expired. The client has to get a new one.",
            Self::NotYetValid => "The token is not valid yet. One of the two clocks may be wrong.",
            Self::IssuedInFuture => "The token was issued in the future. One of the two clocks is wrong.",
            Self::TooLongLived => "The token lives longer than max_lifetime of its issuer allows.",
            Self::WrongAudience => {
                "The token was issued for another API: its audience is none of the issuer's audiences here."
            }
            Self::TokenRevoked => "This token was revoked.",
            Self::SessionRevoked => {
                "The tokens of its log-in session that were issued until then were revoked."
            }
            Self::SubjectRevoked => "The tokens of its subject that were issued until then were revoked.",
            Self::ClientRevoked => "The tokens of its client that were issued until then were revoked.",
            Self::IssuerRevoked => "The tokens of its issuer that were issued until then were revoked.",
            Self::RoleChanged => {
                "The roles of its subject changed after the token was issued. The client has to get a new one."
            }
            Self::Idle => {
                "The token was not used for longer than idle_timeout. The client has to get a new one."
            }
            Self::InsufficientScope => "The token lacks a scope that the route requires.",
            Self::InsufficientRole => "The token lacks a role that the route requires.",
            Self::BadOrigin => {
                "The request came from a page of an origin that the route does not list in origins or cors.origins."
            }
            Self::ClaimCondition => {
                "A claim of the token is not as the conditions of its issuer or of the route demand."
            }
            Self::InsufficientAuthentication => {
                "The user was not authenticated in the way that the route demands, or too long ago."
            }
            Self::KeysUnavailable => {
                "The keys of the issuer were never loaded, or not confirmed for longer than max_stale."
            }
            Self::StateUnavailable => "The shared state was not confirmed for longer than max_staleness.",
            Self::SignalsStale => {
                "Signals about the tokens of this issuer may be missing: the heartbeat of their transmitter is overdue."
            }
            Self::CertificateMismatch => {
                "The client certificate is missing, not valid, or another one than the token is bound to."
            }
            Self::BeforeState => {
                "The token is older than the state store: what was revoked before that is not known."
            }
            Self::BadProof => {
                "The DPoP proof is missing, wrong, or was used before. Behind a proxy, dpop.public_url must be what clients see."
            }
            Self::NonceRequired => {
                "The DPoP proof lacks a nonce. Clients repeat the request with the one they are given."
            }
            Self::UnprovenToken => {
                "The token is bound to a key and came without a proof of it, or it is not bound and has to be."
            }
            Self::Overloaded => "A limit of this gate was reached.",
        }
    }

    /// The meaning of a word that users see. Where two reasons share it, that of the first.
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
