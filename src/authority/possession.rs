//! Proof-of-possession keys that a client proves in a token request, and to which its token is bound: DPoP (RFC 9449 §5)
//! and the client certificate of its connection (RFC 8705 §3).

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::endpoints::EndpointCall;
use super::error::OauthError;
use super::{Authority, Settings};
use crate::enforce::decide::Enforcer;
use crate::enforce::dpop::ProofFault;
use crate::enforce::dpop::proof::{self, DPOP, ExpectedProof, ProvenKey};
use crate::enforce::dpop::uri::UriOrigin;
use crate::replays::ProofUse;
use crate::time::Now;

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// What a token is bound to, as it says itself (RFC 7800 `cnf`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct ProvenKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) jkt: Option<String>,
    #[serde(rename = "x5t#S256", skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<String>,
}

impl ProvenKeys {
    /// Whether nothing was proven.
    pub(super) fn is_empty(&self) -> bool {
        self.jkt.is_none() && self.certificate.is_none()
    }

    /// How a token that is bound to them is to be presented (RFC 9449 §5).
    pub(super) fn token_type(&self) -> &'static str {
        if self.jkt.is_some() { "DPoP" } else { "Bearer" }
    }
}

impl Authority {
    /// The keys that a request for a token proves. Its proof is used up, so its client must have authenticated.
    pub(super) async fn proven_keys(
        &self,
        call: &EndpointCall<'_>,
        enforcer: &Enforcer,
    ) -> Result<ProvenKeys, OauthError> {
        let certificate = call.certificate.map(|hash| URL_SAFE_NO_PAD.encode(hash));
        if !call.headers.contains_key(DPOP) {
            return Ok(ProvenKeys { jkt: None, certificate });
        }
        let (settings, now) = (self.settings(), Now::read());
        let window = enforcer.dpop().max_age + self.event_issuer().leeway;
        let proven = settings.judge(call, window, now).map_err(OauthError::Proof)?;
        check_nonce(enforcer, &proven, now).await?;
        let keep = proven.issued_at.plus(window).since(now.wall);
        match enforcer.replays().claim(proven.replay, keep, now.monotonic).await {
            ProofUse::First => {}
            ProofUse::Again => return Err(OauthError::Proof(ProofFault::Replayed)),
            ProofUse::Unknown => return Err(OauthError::Unavailable),
        }
        Ok(ProvenKeys { jkt: Some(URL_SAFE_NO_PAD.encode(proven.thumbprint)), certificate })
    }
}

impl Settings {
    /// Judges a proof that is made for the token endpoint, by the URL that the metadata name.
    fn judge(&self, call: &EndpointCall<'_>, window: Duration, now: Now) -> Result<ProvenKey, ProofFault> {
        let origin = UriOrigin::parse(self.origin());
        let path = proof::canonical_path(&self.token_path);
        proof::judge(
            proof::field(call.headers)?,
            &ExpectedProof {
                method: call.method,
                origin: origin.as_ref(),
                path: path.as_deref().unwrap_or_default(),
                token: None,
                window,
                now: now.wall,
            },
        )
    }
}

async fn check_nonce(enforcer: &Enforcer, proven: &ProvenKey, now: Now) -> Result<(), OauthError> {
    let (settings, nonces) = (enforcer.dpop(), enforcer.replays().nonces());
    if !settings.nonce {
        return Ok(());
    }
    let Some(nonce) = proven.nonce.as_deref() else { return Err(OauthError::Proof(ProofFault::Nonce)) };
    let good = match nonces.is_good(nonce, settings.max_age, now.wall) {
        Err(period) if nonces.learn(period).await => nonces.is_good(nonce, settings.max_age, now.wall),
        told => told,
    };
    match good {
        Ok(true) => Ok(()),
        Ok(false) => Err(OauthError::Proof(ProofFault::Nonce)),
        Err(_unknown) => Err(OauthError::Unavailable),
    }
}

/// The nonce that the client's next proof must carry, for any answer to a request with a proof.
pub(super) async fn hand_out_nonce(enforcer: &Enforcer, asked: &HeaderMap, answer: &mut HeaderMap) {
    if !asked.contains_key(DPOP) {
        return;
    }
    let nonce = match enforcer.current_nonce(Now::read().wall) {
        Err(period) if enforcer.replays().nonces().learn(period).await => {
            enforcer.current_nonce(Now::read().wall)
        }
        told => told,
    };
    if let Some(nonce) = nonce.ok().flatten().and_then(|nonce| HeaderValue::from_str(&nonce).ok()) {
        answer.insert(DPOP_NONCE, nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::decide::InForce;
    use crate::enforce::dpop::DpopSettings;
    use crate::enforce::policy::IdentitySettings;
    use crate::enforce::{self, bearer::BearerSettings};
    use crate::identity::Key;
    use crate::metrics::Metrics;

    fn enforcer(nonce: bool) -> Enforcer {
        let settings = enforce::Settings {
            routes: Vec::new(),
            identity: IdentitySettings::default(),
            bearer: BearerSettings::default(),
            dpop: DpopSettings { nonce, ..DpopSettings::default() },
            proofs: 10,
        };
        Enforcer::new(settings, Vec::new(), InForce::unlimited(), &Metrics::new().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_nonce_is_handed_to_who_sends_a_proof_and_asked_for_where_proofs_need_one() {
        let with_proof = HeaderMap::from_iter([(DPOP, HeaderValue::from_static("any"))]);
        let handed_out = async |enforcer: &Enforcer, asked: &HeaderMap| {
            let mut answer = HeaderMap::new();
            hand_out_nonce(enforcer, asked, &mut answer).await;
            answer.get(DPOP_NONCE).map(|nonce| nonce.to_str().unwrap().to_owned())
        };
        let (with, without) = (enforcer(true), enforcer(false));
        assert_eq!(handed_out(&with, &HeaderMap::new()).await, None);
        assert_eq!(handed_out(&without, &with_proof).await, None);
        let good = handed_out(&with, &with_proof).await.unwrap();
        let rejected = Err(OauthError::Proof(ProofFault::Nonce));
        for (enforcer, nonce, expected) in [
            (&without, None, Ok(())),
            (&without, Some("any"), Ok(())),
            (&with, None, rejected),
            (&with, Some("any"), rejected),
            (&with, Some(&*good), Ok(())),
            (&super::tests::enforcer(true), Some(&*good), rejected),
        ] {
            let proven = ProvenKey {
                thumbprint: [1; 32],
                replay: Key::from_bytes([1; 16]),
                issued_at: Now::read().wall,
                nonce: nonce.map(Box::from),
            };
            assert_eq!(check_nonce(enforcer, &proven, Now::read()).await, expected, "{nonce:?}");
        }
    }

    #[test]
    fn a_token_that_is_bound_to_a_key_is_presented_with_proofs() {
        let text = |is_there: bool, text: &str| is_there.then(|| text.to_owned());
        for (key, certificate, is_empty, token_type, claim) in [
            (false, false, true, "Bearer", r"{}"),
            (true, false, false, "DPoP", r#"{"jkt":"k"}"#),
            (false, true, false, "Bearer", r#"{"x5t#S256":"c"}"#),
            (true, true, false, "DPoP", r#"{"jkt":"k","x5t#S256":"c"}"#),
        ] {
            let keys = ProvenKeys { jkt: text(key, "k"), certificate: text(certificate, "c") };
            assert_eq!(keys.is_empty(), is_empty, "{claim}");
            assert_eq!(keys.token_type(), token_type, "{claim}");
            assert_eq!(serde_json::to_string(&keys).unwrap(), claim);
        }
    }
}
