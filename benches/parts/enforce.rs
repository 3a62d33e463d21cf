//! The decision and its parts, following the table of checks: the cost of a request with a token that was seen before.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jsonwebtoken::Algorithm;

use super::Settings;
use super::bearer::{self, BearerSettings};
use super::checks::{Again, CHECKS, Case, Subject};
use super::claims::IssuerRules;
use super::decide::{Asked, Enforcer, InForce, Proof, Request, TrustedIssuer, Verdict};
use super::policy::{IdentityClaim, IdentitySettings, Requirement, Route, RouteSettings};
use super::target::RequestTarget;
use crate::keys;
use crate::keys::key::VerificationKey;
use crate::keys::set::KeySet;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::parts::{Part, part};
use crate::sessions::{self, Sessions};
use crate::time::Now;

const ISSUER: &str = "https://idp.example.com/";
const NOW: i64 = 1_800_000_000;
const TARGET: &[u8] = b"/deals/81723/lines?limit=50&after=1029";
/// As often as the bench calls each part.
const FRESH: usize = 600;
/// More tokens than a worker has busy connections.
const MANY: usize = 2_000;
const HOST_NAME: &str = "api.example.com";

/// A gate, a request with a good token, and one with a bad signature.
struct Scene {
    enforcer: Enforcer,
    target: RequestTarget,
    good: HeaderMap,
    bad: HeaderMap,
    random: SystemRandom,
    pair: EcdsaKeyPair,
}

impl Scene {
    /// The same for every part, except for its keys. Lives as long as the process.
    fn leaked() -> &'static Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
        let key = VerificationKey::public(Some("key-1"), &[Algorithm::ES256], pair.public_key().as_ref());
        let enforcer = enforcer(KeySet::new(vec![key.expect("a key")]));
        let target = RequestTarget::from_bytes(Bytes::from_static(TARGET)).expect("a target");
        let (random, empty) = (SystemRandom::new(), HeaderMap::new());
        let mut scene = Self { enforcer, target, good: empty.clone(), bad: empty, random, pair };
        let good = scene.token(1);
        // The second last digit of the signature, because the last has unused bits.
        let (start, end) = good.split_at(good.len() - 2);
        let other = if end.starts_with('A') { 'B' } else { 'A' };
        let bad = format!("{start}{other}{}", end.chars().last().unwrap_or_default());
        (scene.good, scene.bad) = (headers_with(&good), headers_with(&bad));
        Box::leak(Box::new(scene))
    }

    fn token(&self, number: usize) -> String {
        let header = r#"{"alg":"ES256","typ":"at+jwt","kid":"key-1"}"#;
        let payload = format!(
            r#"{{"iss":"{ISSUER}","aud":"https://api.example.com","sub":"user-{number:08}","client_id":"app-17","jti":"{number:032x}","iat":{},"exp":{},"scope":"read:deals read:activity read:users","roles":["editor","viewer"],"tenant":"north"}}"#,
            NOW - 60,
            NOW + 3600,
        );
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = self.pair.sign(&self.random, input.as_bytes()).expect("a signature");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn request<'a>(&'a self, headers: &'a HeaderMap) -> Request<'a> {
        let (method, host) = (&Method::GET, Some(HOST_NAME));
        Request { method, target: &self.target, host, headers, certificate: None }
    }

    fn case(&'static self) -> Case<'static> {
        let subject = Subject::Request(self.request(&self.good));
        Case::new(&self.enforcer, subject, Asked::NOTHING, now())
    }

    /// Decides, and records the use.
    fn allow(&self, headers: &HeaderMap) -> Proof {
        let judgement = self.enforcer.decide(&self.request(headers), Asked::NOTHING, now());
        let Verdict::Allow(permit) = &judgement.verdict else { return Proof::None };
        assert_eq!(self.enforcer.begin(permit, now()), Ok(()));
        judgement.proof
    }

    fn deny(&self) {
        let judgement = self.enforcer.decide(&self.request(&self.bad), Asked::NOTHING, now());
        assert!(matches!(black_box(judgement).verdict, Verdict::Deny(_)));
    }
}

/// All parts of the decision: first what is computed from the token's string, then the checks of a token that
/// was seen before, then whole decisions.
pub(crate) fn all() -> Vec<Part> {
    let scene = Scene::leaked();
    assert_eq!([scene.allow(&scene.good), scene.allow(&scene.good)], [Proof::Fresh, Proof::Cached]);
    let find = move |query: Option<&[u8]>| bearer::presented(&scene.good, query, scene.enforcer.bearer());
    let bearer = part("bearer: find the token", move || {
        let found = find(Some(b"limit=50&after=1029"));
        assert!(black_box(found).is_ok_and(|token| token.is_some()));
    });
    let (token, verifier) = (find(None).ok().flatten().expect("a token"), &scene.enforcer.verifier);
    let proof = part("proof: find the token's", move || {
        let key = verifier.proof_key(black_box(token));
        assert!(black_box(verifier.seen(key, now().monotonic)).is_some());
    });
    let again = CHECKS.iter().filter(|check| !matches!(check.again, Again::Nothing)).map(|check| {
        // With the results of all checks before it.
        let mut case = scene.case();
        for before in CHECKS.iter().take_while(|before| before.name != check.name) {
            if !matches!(before.again, Again::Nothing) {
                run(before.again, before.judge, &mut case);
            }
        }
        part(format!("check: {}", check.name), move || run(check.again, check.judge, &mut case))
    });
    let many: Vec<HeaderMap> =
        (0..MANY).map(|number| headers_with(&scene.token(FRESH + 2 + number))).collect();
    many.iter().for_each(|headers| assert_eq!(scene.allow(headers), Proof::Fresh));
    let mut turn = 0;
    let in_turn = move || {
        turn = (turn + 1) % MANY;
        assert_eq!(many.get(turn).map(|headers| scene.allow(headers)), Some(Proof::Cached));
    };
    // Signing is not part of it.
    let mut fresh: Vec<HeaderMap> = (0..FRESH).map(|number| headers_with(&scene.token(number + 2))).collect();
    let whole = [
        part("decision: a token seen before, and its use", || {
            assert_eq!(scene.allow(&scene.good), Proof::Cached)
        }),
        part("decision: one of 2,000 tokens in turn, and its use", in_turn),
        part("decision: a bad token seen before", || scene.deny()),
        part("decision: a token seen for the first time", move || {
            if let Some(headers) = fresh.pop() {
                assert_eq!(scene.allow(&headers), Proof::Fresh);
            }
        }),
    ];
    [bearer, proof].into_iter().chain(again).chain(whole).collect()
}

fn run(again: Again, judge: super::checks::Judge, case: &mut Case<'static>) {
    let judge = match again {
        Again::Part(part) => part,
        Again::Nothing | Again::Request | Again::All => judge,
    };
    assert!(black_box(judge(case)).is_ok());
}

fn now() -> Now {
    Now::at_millis(NOW * 1_000)
}

/// A typical header section.
pub(crate) fn headers() -> HeaderMap {
    headers_with(&Scene::leaked().token(1))
}

fn headers_with(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (HOST, HOST_NAME),
        (USER_AGENT, "bench/1.0 (of the parts of a request)"),
        (ACCEPT, "application/json"),
        (ACCEPT_ENCODING, "gzip, br"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).expect("a field value"));
    headers
}

/// The same header section as a client sends it over HTTP/1.1.
pub(crate) fn head_bytes() -> Vec<u8> {
    let mut bytes = [b"GET ", TARGET, b" HTTP/1.1\r\n"].concat();
    for (name, value) in &headers() {
        bytes.extend_from_slice(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// The route of the request.
pub(crate) fn route() -> Arc<Route> {
    let scene = Scene::leaked();
    let judgement = scene.enforcer.decide(&scene.request(&scene.good), Asked::NOTHING, now());
    judgement.route.expect("a route")
}

/// What upstreams receive about tokens.
pub(crate) fn identity() -> IdentitySettings {
    let headers = [
        ("x-auth-subject", IdentityClaim::Subject),
        ("x-auth-client", IdentityClaim::Client),
        ("x-auth-scope", IdentityClaim::Scope),
        ("x-auth-roles", IdentityClaim::Roles),
    ];
    let headers = headers.map(|(name, claim)| (HeaderName::from_static(name), claim)).to_vec();
    IdentitySettings { headers, ..IdentitySettings::default() }
}

fn enforcer(set: KeySet) -> Enforcer {
    let (metrics, algorithms) = (Metrics::new().expect("instruments"), vec![Algorithm::ES256]);
    let keys = keys::Settings {
        issuer: ISSUER.to_owned(),
        algorithms: algorithms.clone(),
        ..keys::Settings::default()
    };
    let rules = IssuerRules {
        issuer: ISSUER.into(),
        audiences: vec!["https://api.example.com".to_owned()],
        algorithms,
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
        token_types: vec!["at+jwt".to_owned()],
        required_claims: vec!["sub".to_owned()],
        ..IssuerRules::default()
    };
    let issuer = TrustedIssuer { rules, keys: KeyStore::fixed(keys, set, metrics.clone()) };
    let requirement = Requirement {
        scopes: vec!["read:deals".to_owned()],
        roles: vec!["editor".to_owned()],
        ..Requirement::default()
    };
    let route = |path: &str| RouteSettings {
        path: path.into(),
        requirement: requirement.clone(),
        ..RouteSettings::default()
    };
    let paths = ["/users/{id}", "/activity/{*rest}", "/deals/{*rest}", "/deals/{id}/lines"];
    let sessions = sessions::Settings {
        idle_timeouts: Some(Duration::from_secs(1_800)).into(),
        max_tracked: 100_000,
        leeway: Duration::from_secs(30),
        saved: true,
    };
    let in_force = InForce { sessions: Arc::new(Sessions::new(sessions)), ..InForce::unlimited() };
    let (routes, bearer) = (paths.map(route).to_vec(), BearerSettings::default());
    let settings =
        Settings { routes, identity: identity(), bearer, dpop: Default::default(), proofs: 100_000 };
    Enforcer::new(settings, vec![issuer], in_force, &metrics).expect("sound routes")
}
