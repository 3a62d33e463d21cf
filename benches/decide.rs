//! What a decision costs, in nanoseconds: `cargo bench --bench decide`.
//!
//! Ten thousand ES256 tokens, each seen before, in random order, on a route with a scope and a role to check. Prints
//! the median and the best of short rounds, because the clock of a shared machine drifts.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jsonwebtoken::Algorithm;
use portcullis::enforce::claims::{ClaimNames, IssuerRules};
use portcullis::enforce::decide::{Asked, Enforcer, InForce, Issuer, Proof, Request, Verdict};
use portcullis::enforce::policy::{
    ClaimName, IdentityClaim, IdentitySettings, Mode, Requirement, RouteSettings,
};
use portcullis::enforce::{DEFAULT_PROOFS, Settings};
use portcullis::keys::key::VerificationKey;
use portcullis::keys::set::KeySet;
use portcullis::keys::store::KeyStore;
use portcullis::keys::{self, Source};
use portcullis::metrics::Metrics;
use portcullis::time::Timestamp;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const TOKENS: usize = 10_000;
const ROUNDS: usize = 40;
const PER_ROUND: usize = 20_000;
const ISSUER: &str = "https://idp.example.com/";
const NOW: i64 = 1_800_000_000;

fn main() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let heads: Vec<HeaderMap> = (0..TOKENS).map(|index| head(&token(&pair, index))).collect();
    let enforcer = enforcer(&pair);
    let uri = Uri::from_static("/deals/81723/lines?limit=50&after=1029");

    let before = resident();
    let fresh = Instant::now();
    for headers in &heads {
        assert_eq!(decide(&enforcer, &uri, headers), Proof::Fresh);
    }
    let fresh = fresh.elapsed();
    let kept = resident().saturating_sub(before);

    let mut order = Order(0x9e37_79b9_7f4a_7c15);
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..PER_ROUND {
                assert_eq!(decide(&enforcer, &uri, &heads[order.next()]), Proof::Cached);
            }
            start.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    let each = |round: Duration| round.as_nanos() / PER_ROUND as u128;
    println!("token of {} bytes, {TOKENS} tokens, ES256", heads[0][AUTHORIZATION].len() - "Bearer ".len());
    println!("seen before: median {} ns, best {} ns", each(rounds[ROUNDS / 2]), each(rounds[0]));
    println!("seen for the first time: mean {} ns", fresh.as_nanos() / TOKENS as u128);
    println!("resident per remembered proof: {} bytes", kept / TOKENS);
}

fn decide(enforcer: &Enforcer, uri: &Uri, headers: &HeaderMap) -> Proof {
    let request =
        Request { method: &Method::GET, uri, host: Some("api.example.com"), headers, certificate: None };
    let judgement = black_box(enforcer.decide(&request, Asked::NOTHING, Timestamp::from_secs(NOW)));
    assert!(matches!(judgement.verdict, Verdict::Allow(_)), "{judgement:?}");
    judgement.proof
}

/// Which token is next (xorshift64).
struct Order(u64);

impl Order {
    fn next(&mut self) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % TOKENS as u64).expect("below the number of tokens")
    }
}

fn head(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(HOST, HeaderValue::from_static("api.example.com"));
    headers.insert(USER_AGENT, HeaderValue::from_static("bench/1.0"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).expect("a field value"));
    headers
}

fn token(pair: &EcdsaKeyPair, index: usize) -> String {
    let header = r#"{"alg":"ES256","typ":"at+jwt","kid":"2026-01-key"}"#;
    let payload = format!(
        r#"{{"iss":"{ISSUER}","aud":"https://api.example.com","sub":"user-{index:08}","client_id":"app-17","jti":"{index:032x}","iat":{},"exp":{},"scope":"read:deals read:activity read:users","roles":["editor","viewer"],"tenant":"north","role_version":3}}"#,
        NOW - 60,
        NOW + 3600,
    );
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature");
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn enforcer(pair: &EcdsaKeyPair) -> Enforcer {
    let metrics = Metrics::new().expect("instruments");
    let algorithms = vec![Algorithm::ES256];
    let key = VerificationKey::public(Some("2026-01-key"), &algorithms, pair.public_key().as_ref());
    let keys = KeyStore::fixed(
        keys::Settings {
            issuer: ISSUER.to_owned(),
            source: Source::Discovery,
            algorithms: algorithms.clone(),
            ca: None,
            insecure_http: false,
            refresh_interval: Duration::from_secs(300),
            refresh_cooldown: Duration::from_secs(30),
            max_stale: Duration::from_secs(86_400),
        },
        KeySet::new(vec![key.expect("a key")]),
        metrics.clone(),
    );
    let issuer = Issuer { rules: rules(algorithms), keys };
    let routes =
        ["/users/{id}", "/activity/{*rest}", "/deals/{*rest}", "/deals/{id}/lines"].map(route).to_vec();
    Enforcer::new(
        Settings { routes, identity: identity(), proofs: DEFAULT_PROOFS },
        vec![issuer],
        InForce::unlimited(),
        &metrics,
    )
    .expect("sound routes")
}

fn rules(algorithms: Vec<Algorithm>) -> IssuerRules {
    let member = |name: &str| ClaimName::Member(name.to_owned());
    IssuerRules {
        issuer: ISSUER.into(),
        audiences: vec!["https://api.example.com".to_owned()],
        algorithms,
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
        token_types: vec!["at+jwt".to_owned()],
        required_claims: vec!["sub".to_owned()],
        claims: ClaimNames {
            scope: member("scope"),
            roles: member("roles"),
            client: member("client_id"),
            tenant: member("tenant"),
            role_version: member("role_version"),
        },
    }
}

fn route(path: &str) -> RouteSettings {
    RouteSettings {
        path: Arc::from(path),
        hosts: Vec::new(),
        methods: vec![Method::GET],
        upstream: 0,
        requirement: Requirement {
            scopes: vec!["read:deals".to_owned()],
            any_role: vec!["viewer".to_owned()],
            ..Requirement::default()
        },
        anonymous: false,
        mode: Mode::Enforce,
        response_timeout: None,
    }
}

fn identity() -> IdentitySettings {
    let headers = [
        ("x-auth-subject", IdentityClaim::Subject),
        ("x-auth-client", IdentityClaim::Client),
        ("x-auth-scope", IdentityClaim::Scope),
        ("x-auth-roles", IdentityClaim::Roles),
        ("x-auth-tenant", IdentityClaim::Tenant),
    ];
    let headers = headers.map(|(name, claim)| (HeaderName::from_static(name), claim)).to_vec();
    IdentitySettings { strip_authorization: false, headers }
}

/// Bytes of memory this process holds (pages of 4 KiB).
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("the size of this process");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("resident pages") * 4096
}
