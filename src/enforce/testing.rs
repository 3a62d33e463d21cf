//! Issuers with real keys, tokens in any shape, and an enforcer that judges them.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, signature::EcdsaSigningAlgorithm};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::bearer::BearerSettings;
use super::claims::IssuerRules;
use super::decide::{Asked, Enforcer, InForce, Judgement, Request, TrustedIssuer, Verdict};
use super::denial::Reason;
use super::dpop::DpopSettings;
use super::dpop::proof::DPOP;
use super::explain::{Explanation, Finding, Question};
use super::policy::{IdentityClaim, IdentitySettings, RouteSettings};
use super::target::RequestTarget;
use super::{DEFAULT_PROOFS, Settings};
use crate::keys::key::VerificationKey;
use crate::keys::set::KeySet;
use crate::keys::store::KeyStore;
use crate::keys::{self, KeySource};
use crate::metrics::Metrics;
use crate::time::{Now, Timestamp};

pub(super) const NOW: i64 = 1_800_000_000;
pub(super) const ISSUER: &str = "https://idp.example/";
pub(super) const OTHER: &str = "https://other.example/";
pub(super) const SECRET_ISSUER: &str = "https://secret.example/";
pub(super) const AUDIENCE: &str = "https://api.example";
pub(super) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

pub(super) fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

/// A private key that signs anything.
pub(super) enum Signer {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair, &'static dyn signature::RsaEncoding),
    Hmac(Box<hmac::Key>),
}

impl Signer {
    fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> Self {
        Self::Ecdsa(EcdsaKeyPair::generate(algorithm).expect("a key pair"))
    }

    pub(super) fn rsa(encoding: &'static dyn signature::RsaEncoding) -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key pair"), encoding)
    }

    pub(super) fn hmac(secret: &[u8]) -> Self {
        Self::Hmac(Box::new(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::Ecdsa(pair) => pair.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Hmac(key) => hmac::sign(key, message).as_ref().to_vec(),
            Self::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(*encoding, &random, message, &mut signature).expect("a signature");
                signature
            }
        }
    }

    /// The public key in the form that key sets use.
    pub(super) fn public(&self) -> Vec<u8> {
        match self {
            Self::Ecdsa(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Self::Rsa(pair, _) => pair.public_key().as_der().expect("a public key").as_ref().to_vec(),
            Self::Hmac(_) => Vec::new(),
        }
    }
}

/// All private keys of the tests.
pub(super) struct Signers {
    pub(super) es256: Signer,
    pub(super) es384: Signer,
    pub(super) ed25519: Signer,
    pub(super) rs256: Signer,
    pub(super) ps256: Signer,
    /// The other issuer's key, with the same `kid` as `es256`.
    pub(super) other: Signer,
    /// In no key set.
    pub(super) stranger: Signer,
    pub(super) secret: Signer,
}

pub(super) static SIGNERS: LazyLock<Signers> = LazyLock::new(|| Signers {
    es256: Signer::ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
    es384: Signer::ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
    ed25519: Signer::Ed25519(Ed25519KeyPair::generate().expect("a key pair")),
    rs256: Signer::rsa(&signature::RSA_PKCS1_SHA256),
    ps256: Signer::rsa(&signature::RSA_PSS_SHA256),
    other: Signer::ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
    stranger: Signer::ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
    secret: Signer::hmac(SECRET),
});

pub(super) fn b64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token of these texts, whatever they are.
pub(super) fn token_of(signer: &Signer, header: &str, payload: &str) -> String {
    let input = format!("{}.{}", b64(header.as_bytes()), b64(payload.as_bytes()));
    format!("{input}.{}", b64(&signer.sign(input.as_bytes())))
}

/// A token of the first issuer.
pub(super) fn token(payload: &Value) -> String {
    token_of(&SIGNERS.es256, &header(json!({})).to_string(), &payload.to_string())
}

pub(super) fn header(changes: Value) -> Value {
    merge(json!({"alg": "ES256", "kid": "es", "typ": "at+jwt"}), changes)
}

/// The claims of a good token, with some of them changed.
pub(super) fn payload(changes: Value) -> Value {
    let good = json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "jti": "token-1", "client_id": "app",
        "iat": NOW - 10, "exp": NOW + 600, "scope": "read:deals read:users", "roles": ["editor"],
    });
    merge(good, changes)
}

pub(super) fn without(mut object: Value, member: &str) -> Value {
    object.as_object_mut().expect("an object").remove(member).expect("a member to remove");
    object
}

fn merge(mut object: Value, changes: Value) -> Value {
    let members = object.as_object_mut().expect("an object");
    members.extend(changes.as_object().expect("an object").clone());
    object
}

pub(crate) fn rules(issuer: &str, algorithms: &[Algorithm]) -> IssuerRules {
    IssuerRules {
        issuer: issuer.into(),
        audiences: vec![AUDIENCE.to_owned(), "api".to_owned()],
        algorithms: algorithms.to_vec(),
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(24 * 3600),
        token_types: ["at+jwt", "application/at+jwt", "JWT"].map(str::to_owned).to_vec(),
        required_claims: vec!["sub".to_owned()],
        ..IssuerRules::default()
    }
}

pub(crate) fn key_settings(issuer: &str, algorithms: &[Algorithm]) -> keys::Settings {
    keys::Settings {
        issuer: issuer.to_owned(),
        source: KeySource::File("keys.json".into()),
        algorithms: algorithms.to_vec(),
        ..keys::Settings::default()
    }
}

pub(super) fn key(kid: &str, algorithm: Algorithm, signer: &Signer) -> VerificationKey {
    VerificationKey::public(Some(kid), &[algorithm], &signer.public()).expect("a key")
}

/// An issuer with a fixed set of keys.
pub(super) fn issuer(issuer: &str, algorithms: &[Algorithm], set: KeySet) -> TrustedIssuer {
    let metrics = Metrics::new().expect("instruments");
    let keys = KeyStore::fixed(key_settings(issuer, algorithms), set, metrics);
    TrustedIssuer { rules: rules(issuer, algorithms), keys }
}

/// All three issuers.
pub(super) fn issuers() -> Vec<TrustedIssuer> {
    use Algorithm::{ES256, ES384, EdDSA, HS256, PS256, RS256};
    let all = [ES256, ES384, EdDSA, RS256, PS256];
    let set = KeySet::new(vec![
        key("es", ES256, &SIGNERS.es256),
        key("es384", ES384, &SIGNERS.es384),
        key("ed", EdDSA, &SIGNERS.ed25519),
        key("rs", RS256, &SIGNERS.rs256),
        key("ps", PS256, &SIGNERS.ps256),
    ]);
    let others = KeySet::new(vec![key("es", ES256, &SIGNERS.other), key("others", ES256, &SIGNERS.stranger)]);
    let secret = KeySet::of_secret(SECRET, &[HS256]).expect("a long secret");
    vec![issuer(ISSUER, &all, set), issuer(OTHER, &[ES256], others), issuer(SECRET_ISSUER, &[HS256], secret)]
}

pub(super) fn route(path: &str) -> RouteSettings {
    RouteSettings { path: path.into(), ..RouteSettings::default() }
}

pub(super) fn identity() -> IdentitySettings {
    let headers = [
        ("x-auth-subject", IdentityClaim::Subject),
        ("x-auth-client", IdentityClaim::Client),
        ("x-auth-scope", IdentityClaim::Scope),
        ("x-auth-roles", IdentityClaim::Roles),
        ("x-auth-tenant", IdentityClaim::Tenant),
    ];
    IdentitySettings {
        strip_authorization: false,
        headers: headers.map(|(name, claim)| (HeaderName::from_static(name), claim)).to_vec(),
        ..IdentitySettings::default()
    }
}

pub(super) fn enforcer(issuers: Vec<TrustedIssuer>, routes: Vec<RouteSettings>) -> Enforcer {
    enforcer_with(issuers, routes, InForce::unlimited())
}

pub(crate) fn enforcer_with(
    issuers: Vec<TrustedIssuer>,
    routes: Vec<RouteSettings>,
    in_force: InForce,
) -> Enforcer {
    let settings = Settings {
        routes,
        identity: identity(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: DEFAULT_PROOFS,
    };
    Enforcer::new(settings, issuers, in_force, &Metrics::new().expect("instruments")).expect("sound routes")
}

/// As [`enforcer`], with other settings for proofs.
pub(super) fn enforcer_of_proofs(
    issuers: Vec<TrustedIssuer>,
    routes: Vec<RouteSettings>,
    dpop: DpopSettings,
) -> Enforcer {
    let (identity, bearer, proofs) = (identity(), BearerSettings::default(), DEFAULT_PROOFS);
    let settings = Settings { routes, identity, bearer, dpop, proofs };
    let metrics = Metrics::new().expect("instruments");
    Enforcer::new(settings, issuers, InForce::unlimited(), &metrics).expect("sound routes")
}

/// A test request under construction.
pub(super) struct TestRequest<'a> {
    pub(super) enforcer: &'a Enforcer,
    pub(super) path: &'a str,
    pub(super) authorization: Option<String>,
    pub(super) certificate: Option<[u8; 32]>,
    pub(super) origin: Option<&'static str>,
    /// The `DPoP` fields.
    pub(super) proofs: Vec<String>,
    pub(super) asked: Asked,
    pub(super) at: Timestamp,
}

impl<'a> TestRequest<'a> {
    pub(super) fn new(enforcer: &'a Enforcer, path: &'a str) -> Self {
        Self {
            enforcer,
            path,
            authorization: None,
            certificate: None,
            origin: None,
            proofs: Vec::new(),
            asked: Asked::NOTHING,
            at: now(),
        }
    }

    pub(super) fn token(self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..self }
    }

    /// The time on both clocks.
    pub(super) fn now(&self) -> Now {
        Now::at_millis(self.at.as_millis())
    }

    /// The field that a browser adds.
    fn origin(&self) -> HeaderMap {
        self.origin.map(|origin| (ORIGIN, HeaderValue::from_static(origin))).into_iter().collect()
    }

    pub(super) fn decide(&self) -> Judgement {
        self.decide_at(self.now())
    }

    /// Why it is denied at this moment on both clocks.
    pub(super) fn reason_at(&self, now: Now) -> Option<Reason> {
        match self.decide_at(now).verdict {
            Verdict::Allow(_) => None,
            Verdict::Deny(denial) => Some(denial.reason),
            Verdict::Ask(ask) => panic!("asked for {ask:?}"),
        }
    }

    fn decide_at(&self, now: Now) -> Judgement {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(authorization).expect("a field value"));
        }
        headers.extend(self.origin());
        for proof in &self.proofs {
            headers.append(DPOP, HeaderValue::from_str(proof).expect("a field value"));
        }
        let target = RequestTarget::from(&self.path.parse::<Uri>().expect("a target"));
        let request = Request {
            method: &Method::GET,
            target: &target,
            host: Some("api.example"),
            headers: &headers,
            certificate: self.certificate.as_ref(),
        };
        self.enforcer.decide(&request, self.asked, now)
    }

    /// Why it is denied. Every such token is also explained, before and after the decision.
    pub(super) fn reason(&self) -> Option<Reason> {
        let before = self.explain();
        let verdict = self.decide().verdict;
        let (reason, shadow) = match &verdict {
            Verdict::Allow(permit) => (None, permit.shadow().map(|denial| denial.reason)),
            Verdict::Deny(denial) => (Some(denial.reason), None),
            Verdict::Ask(ask) => panic!("asked for {ask:?}"),
        };
        for explanation in before.into_iter().chain(self.explain()) {
            match reason.or(shadow) {
                // Only a connection has a certificate.
                Some(Reason::CertificateMismatch) => assert_ne!(explanation.ok("certificate"), Some(true)),
                Some(Reason::BadProof | Reason::NonceRequired | Reason::UnprovenToken) => {
                    assert_ne!(explanation.ok("proof"), Some(true));
                }
                expected => assert_eq!(explanation.reason, expected, "{explanation:?}"),
            }
        }
        reason
    }

    /// The explanation, if the request carries a Bearer token.
    pub(super) fn explain(&self) -> Option<Explanation> {
        let token = self.authorization.as_ref()?.strip_prefix("Bearer ")?;
        Some(self.enforcer.explain(&Question {
            token,
            method: &Method::GET,
            path: self.path,
            host: Some("api.example"),
            headers: &self.origin(),
            now: self.now(),
            stateless: None,
            asked: self.asked,
        }))
    }
}

impl Explanation {
    /// The result of a check.
    pub(super) fn ok(&self, check: &str) -> Option<bool> {
        self.find(check).ok
    }

    /// What a check compared.
    pub(super) fn detail(&self, check: &str) -> &str {
        &self.find(check).detail
    }

    fn find(&self, check: &str) -> &Finding {
        self.checks.iter().find(|made| made.check == check).expect("a check of this name")
    }
}
