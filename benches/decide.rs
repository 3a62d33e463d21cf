//! The cost of a decision in nanoseconds: `cargo bench --bench decide`.
//!
//! Ten thousand ES256 tokens and a million HS256 tokens, each seen before, in random order, on a route that
//! checks a scope and a role, with idle clocks and revocations. A decision includes recording the use of the
//! token. Requests are timed in small batches whose heads have just been written, as after parsing; the median
//! excludes batches that were interrupted. For comparison, a SHA-256 of the token is timed, too: on a busy
//! machine both times rise, but their ratio changes less.

#![expect(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::cell::Cell;
use std::fs;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use jsonwebtoken::Algorithm;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::claims::{ClaimNames, IssuerRules};
use portcullis::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue};
use portcullis::enforce::decide::{Asked, Enforcer, InForce, Proof, Request, TrustedIssuer, Verdict};
use portcullis::enforce::denial::Reason;
use portcullis::enforce::policy::{
    Authentication, ClaimName, IdentityClaim, IdentitySettings, Requirement, RouteSettings,
};
use portcullis::enforce::target::RequestTarget;
use portcullis::enforce::{DEFAULT_PROOFS, Settings};
use portcullis::identity::{SessionKey, SubjectKey};
use portcullis::keys;
use portcullis::keys::key::VerificationKey;
use portcullis::keys::set::KeySet;
use portcullis::keys::store::KeyStore;
use portcullis::metrics::Metrics;
use portcullis::revocations::{Ends, Revocations};
use portcullis::sessions::{self, Sessions};
use portcullis::time::{Monotonic, Now, Timestamp};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const KID: &str = "2026-01-key";
const BATCHES: usize = 40_000;
const PER_BATCH: usize = 16;
const ISSUER: &str = "https://idp.example.com/";
const NOW: i64 = 1_800_000_000;

fn main() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let key = VerificationKey::public(Some(KID), &[Algorithm::ES256], pair.public_key().as_ref());
    let signed =
        |input: &[u8]| pair.sign(&SystemRandom::new(), input).expect("a signature").as_ref().to_vec();
    measure(10_000, Algorithm::ES256, KeySet::new(vec![key.expect("a key")]), signed);

    compare_names();
    compare_conditions();
    compare_proofs(&pair);
    compare_bad(&pair);

    let secret = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let keys = KeySet::of_secret(&[7; 32], &[Algorithm::HS256]).expect("long enough");
    measure(1_000_000, Algorithm::HS256, keys, |input| hmac::sign(&secret, input).as_ref().to_vec());
}

fn measure(count: usize, algorithm: Algorithm, keys: KeySet, sign: impl Fn(&[u8]) -> Vec<u8>) {
    let tokens: Vec<String> = (0..count).map(|index| token(algorithm, &sign, index)).collect();
    let (enforcer, _) = enforcer(algorithm, keys);
    let target = Bytes::from_static(b"/deals/81723/lines?limit=50&after=1029");
    let target = RequestTarget::from_bytes(target).expect("a target");
    let mut order = Order(0x9e37_79b9_7f4a_7c15);
    let mut batch = || (0..PER_BATCH).map(|_| head(&tokens[order.next(count)])).collect::<Vec<_>>();
    let clock = Cell::new(NOW * 1_000);

    let before = resident();
    let fresh = median(tokens.iter().map(|token| vec![head(token)]), |headers| {
        assert_eq!(decide(&enforcer, &target, headers, clock.get()), Proof::Fresh);
    });
    let kept = resident().saturating_sub(before) / count;
    let decided = median((0..BATCHES).map(|_| batch()), |headers| {
        clock.set(clock.get() + 1);
        assert_eq!(decide(&enforcer, &target, headers, clock.get()), Proof::Cached);
    });
    let hashed = median((0..BATCHES).map(|_| batch()), |headers| {
        black_box(digest(&SHA256, headers[AUTHORIZATION].as_bytes()));
    });
    println!("{count} {algorithm:?} tokens of {} bytes; medians", tokens[0].len());
    println!("seen before: {decided} ns; a SHA-256 of the token: {hashed} ns");
    println!("seen for the first time: {fresh} ns");
    println!("resident for each, proof and idle clock: {kept} bytes");
}

/// Measures what five conditions, an alternative, an issuer, an audience and step-up on a route add to a decision.
fn compare_conditions() {
    const COUNT: usize = 10_000;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let sign = |input: &[u8]| hmac::sign(&secret, input).as_ref().to_vec();
    let claims = format!(
        r#","repository_id":"123","ref":"refs/heads/main","environment":"prod","level":7,"acr":"gold","auth_time":{NOW}"#
    );
    let target = RequestTarget::from_bytes(Bytes::from_static(b"/deals/81723/lines")).expect("a target");
    let plain = route("/deals/{id}/lines");
    let mut scenes = [plain.clone(), demanding(plain)].map(|route| {
        let keys = KeySet::of_secret(&[7; 32], &[Algorithm::HS256]).expect("long enough");
        let (enforcer, _) = enforcer_of(Algorithm::HS256, keys, vec![route]);
        let tokens: Vec<String> =
            (0..COUNT).map(|index| token_with(Algorithm::HS256, sign, index, &claims)).collect();
        for token in &tokens {
            assert_eq!(decide(&enforcer, &target, &head(token), NOW * 1_000), Proof::Fresh);
        }
        (enforcer, tokens, Vec::new())
    });
    let mut order = Order(0x9e37_79b9_7f4a_7c15);
    for round in 0..i64::try_from(BATCHES).unwrap_or(i64::MAX) {
        for (enforcer, tokens, times) in &mut scenes {
            let heads: Vec<_> = (0..PER_BATCH).map(|_| head(&tokens[order.next(COUNT)])).collect();
            let (start, millis) = (Instant::now(), NOW * 1_000 + round + 1);
            for head in &heads {
                assert_eq!(decide(enforcer, &target, head, millis), Proof::Cached);
            }
            times.push(start.elapsed().as_nanos() / heads.len() as u128);
        }
    }
    let [plain, demanding] = scenes.map(|(_, _, mut times)| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    println!("seen before, no conditions: {plain} ns; five conditions and more: {demanding} ns");
}

/// The same route with everything that a route can require of claims.
fn demanding(route: RouteSettings) -> RouteSettings {
    let condition =
        |claim: &str, test| ClaimCondition { claim: ClaimName::Member(claim.to_owned()), tests: vec![test] };
    let text = |text: &str| ClaimValue::Text(text.to_owned());
    let claims = vec![
        condition("repository_id", ClaimTest::Equals(text("123"))),
        condition("ref", ClaimTest::Prefix("refs/heads/".to_owned())),
        condition("environment", ClaimTest::In(vec![text("stage"), text("prod")])),
        condition("level", ClaimTest::AtLeast(5.into())),
        condition("blocked", ClaimTest::Exists(false)),
    ];
    let alternative = Requirement { claims: vec![claims[0].clone()], ..Requirement::default() };
    RouteSettings {
        requirement: Requirement { claims, ..route.requirement.clone() },
        allow: vec![alternative],
        issuers: vec![ISSUER.into()],
        audiences: vec!["https://api.example.com".to_owned()],
        authentication: Authentication {
            acr_values: vec!["gold".to_owned()],
            max_age: Some(Duration::from_secs(3_600)),
        },
        ..route
    }
}

/// Measures what a token's names add to a decision that must look all of them up because an event
/// came since the last one.
fn compare_names() {
    const COUNT: usize = 10_000;
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let sign = |input: &[u8]| hmac::sign(&secret, input).as_ref().to_vec();
    let more = |index: usize| {
        format!(r#","email":"user-{index:08}@example.com","oid":"{index:032x}","sid":"session-{index:024x}""#)
    };
    let target = Bytes::from_static(b"/deals/81723/lines?limit=50&after=1029");
    let target = RequestTarget::from_bytes(target).expect("a target");
    let mut scenes: Vec<_> = [false, true]
        .map(|named| {
            let keys = KeySet::of_secret(&[7; 32], &[Algorithm::HS256]).expect("long enough");
            let enforcer = enforcer(Algorithm::HS256, keys);
            let revocations = Arc::clone(&enforcer.1);
            revocations.replay((0..100_000).map(|index| ended(index, SubjectKey::new)));
            revocations.replay((0..1_000).map(|index| ended(index, SubjectKey::email)));
            revocations.replay((0..1_000).map(|index| ended(index, SubjectKey::alias)));
            let sessions = (0..1_000).map(|index: u32| SessionKey::new(ISSUER, &format!("ended-{index}")));
            revocations.replay(sessions.map(|session| Ends::Session(session, Timestamp::from_secs(1))));
            let claims = |index| if named { more(index) } else { String::new() };
            let tokens: Vec<String> =
                (0..COUNT).map(|index| token_with(Algorithm::HS256, sign, index, &claims(index))).collect();
            for token in &tokens {
                assert_eq!(decide(&enforcer.0, &target, &head(token), NOW * 1_000), Proof::Fresh);
            }
            (enforcer.0, revocations, tokens, Vec::new())
        })
        .into();
    let mut order = Order(0x9e37_79b9_7f4a_7c15);
    for round in 0..u32::try_from(BATCHES).unwrap_or(u32::MAX) {
        for (enforcer, revocations, tokens, times) in &mut scenes {
            let heads: Vec<_> = (0..PER_BATCH).map(|_| head(&tokens[order.next(COUNT)])).collect();
            revocations.apply([ended(round % 1_000, SubjectKey::new)]);
            let (start, millis) = (Instant::now(), NOW * 1_000 + i64::from(round) + 1);
            for head in &heads {
                assert_eq!(decide(enforcer, &target, head, millis), Proof::Cached);
            }
            times.push(start.elapsed().as_nanos() / heads.len() as u128);
        }
    }
    let medians = scenes.into_iter().map(|(.., mut times)| {
        times.sort_unstable();
        times[times.len() / 2]
    });
    let [one, four] = medians.collect::<Vec<_>>()[..] else { return };
    let ratio = four as f64 / one as f64;
    println!("after an event: {one} ns with one identifier, {four} ns with four; ratio {ratio:.2}");
}

/// Measures what a proof of possession (RFC 9449) adds to a request: its checks, one ES256
/// verification, and remembering it.
fn compare_proofs(issuer: &EcdsaKeyPair) {
    const COUNT: usize = 8_000;
    let random = SystemRandom::new();
    let signed = |pair: &EcdsaKeyPair, header: &str, payload: &str| {
        let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = pair.sign(&random, input.as_bytes()).expect("a signature");
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let client = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key pair");
    let (x, y) = client.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
    let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let jkt = URL_SAFE_NO_PAD.encode(digest(&SHA256, jwk.as_bytes()));
    let sign = |input: &[u8]| issuer.sign(&random, input).expect("a signature").as_ref().to_vec();
    let free = token_with(Algorithm::ES256, sign, 0, "");
    let bound = token_with(Algorithm::ES256, sign, 1, &format!(r#","cnf":{{"jkt":"{jkt}"}}"#));
    let ath = URL_SAFE_NO_PAD.encode(digest(&SHA256, bound.as_bytes()));
    let header = format!(r#"{{"typ":"dpop+jwt","alg":"ES256","jwk":{jwk}}}"#);
    let proven = |index: usize| {
        let payload = format!(
            r#"{{"jti":"{index:032x}","htm":"GET","htu":"https://api.example.com/deals/81723/lines","iat":{NOW},"ath":"{ath}"}}"#
        );
        let mut headers = head(&bound);
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("DPoP {bound}")).expect("a field value"));
        let proof = HeaderValue::try_from(signed(&client, &header, &payload)).expect("a field value");
        headers.insert("dpop", proof);
        headers
    };
    let key = VerificationKey::public(Some(KID), &[Algorithm::ES256], issuer.public_key().as_ref());
    let (enforcer, _) = enforcer(Algorithm::ES256, KeySet::new(vec![key.expect("a key")]));
    let target = Bytes::from_static(b"/deals/81723/lines?limit=50&after=1029");
    let target = RequestTarget::from_bytes(target).expect("a target");
    let heads: Vec<Vec<HeaderMap>> = (0..COUNT).map(|index| vec![proven(index)]).collect();
    let dpop = median(heads.into_iter(), |headers| prove(&enforcer, &target, headers));
    let heads = (0..COUNT).map(|_| vec![head(&free)]);
    let bearer = median(heads, |headers| {
        black_box(decide(&enforcer, &target, headers, NOW * 1_000));
    });
    let (key, message, signature) = sample(&client, &random);
    let verified = median((0..COUNT).map(|_| vec![HeaderMap::new()]), |_| {
        assert!(black_box(&key).verify(Algorithm::ES256, &message, &signature));
    });
    println!(
        "with a proof: {dpop} ns; as bearer token: {bearer} ns; one ES256 verification alone: {verified} ns"
    );
}

/// Measures a repeated bad token against a good one that was seen before: a signature that no key made, and
/// unusable claims with a valid signature. Four of each kind, in turn.
fn compare_bad(pair: &EcdsaKeyPair) {
    let random = SystemRandom::new();
    let sign = |input: &[u8]| pair.sign(&random, input).expect("a signature").as_ref().to_vec();
    let tampered = |input: &[u8]| {
        let mut signature = sign(input);
        signature[40] ^= 1;
        signature
    };
    let key = VerificationKey::public(Some(KID), &[Algorithm::ES256], pair.public_key().as_ref());
    let (enforcer, _) = enforcer(Algorithm::ES256, KeySet::new(vec![key.expect("a key")]));
    let target = Bytes::from_static(b"/deals/81723/lines?limit=50&after=1029");
    let target = RequestTarget::from_bytes(target).expect("a target");
    let four = |make: &dyn Fn(usize) -> String| [0, 1, 2, 3].map(|index| head(&make(index)));
    let good = four(&|index| token(Algorithm::ES256, sign, index));
    let forged = four(&|index| token(Algorithm::ES256, tampered, index));
    let unusable = four(&|index| token_with(Algorithm::ES256, sign, index, r#","email":7,"cnf":{}"#));
    let deny = |headers: &HeaderMap| {
        let now = Now::at_millis(NOW * 1_000);
        let (method, host) = (&Method::GET, Some("api.example.com"));
        let request = Request { method, target: &target, host, headers, certificate: None };
        let judgement = black_box(enforcer.decide(&request, Asked::NOTHING, now));
        assert!(matches!(judgement.verdict, Verdict::Deny(_)));
    };
    let first =
        median((0..1_000).map(|index| vec![head(&token(Algorithm::ES256, tampered, 9 + index))]), deny);
    let batches = |of: &[HeaderMap; 4]| vec![of.to_vec(); BATCHES].into_iter();
    let allowed = median(batches(&good), |headers| {
        black_box(decide(&enforcer, &target, headers, NOW * 1_000));
    });
    let (forged, unusable) = (median(batches(&forged), deny), median(batches(&unusable), deny));
    let ratio = forged as f64 / allowed as f64;
    println!(
        "a bad token again: {forged} ns, with unusable claims {unusable} ns; a good one seen before: {allowed} ns; \
         ratio {ratio:.2}; a bad one for the first time: {first} ns"
    );
}

/// A signature with this key.
fn sample(pair: &EcdsaKeyPair, random: &SystemRandom) -> (VerificationKey, Vec<u8>, Vec<u8>) {
    let message = vec![7; 400];
    let signature = pair.sign(random, &message).expect("a signature").as_ref().to_vec();
    let key = VerificationKey::public(None, &[Algorithm::ES256], pair.public_key().as_ref());
    (key.expect("a key"), message, signature)
}

/// Decides about a whole request with a proof: decides, claims the proof, and decides again.
fn prove(enforcer: &Enforcer, target: &RequestTarget, headers: &HeaderMap) {
    let now =
        Now { wall: Timestamp::from_millis(NOW * 1_000), monotonic: Monotonic::from_millis(NOW * 1_000) };
    let request =
        Request { method: &Method::GET, target, host: Some("api.example.com"), headers, certificate: None };
    let mut asked = Asked::NOTHING;
    loop {
        match enforcer.decide(&request, asked, now).verdict {
            Verdict::Allow(permit) => return assert_eq!(enforcer.begin(&permit, now), Ok(())),
            Verdict::Deny(denial) => return assert_eq!(Ok(()), Err(denial.reason)),
            // The memory of this process responds without waiting.
            Verdict::Ask(ask) => asked = enforcer.find_out(&ask, asked).now_or_never().expect("an answer"),
        }
    }
}

/// A subject whose tokens have ended, named by one kind of name.
fn ended(index: u32, key: fn(&str, &str) -> SubjectKey) -> Ends {
    Ends::Subject(key(ISSUER, &format!("ended-{index}")), Timestamp::from_secs(1))
}

/// The median over batches of the nanoseconds that `work` took per item.
fn median(batches: impl Iterator<Item = Vec<HeaderMap>>, work: impl Fn(&HeaderMap)) -> u128 {
    let time = |batch: Vec<HeaderMap>| {
        let start = Instant::now();
        batch.iter().for_each(&work);
        start.elapsed().as_nanos() / batch.len() as u128
    };
    let mut times: Vec<u128> = batches.map(time).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn decide(enforcer: &Enforcer, target: &RequestTarget, headers: &HeaderMap, millis: i64) -> Proof {
    let (wall, monotonic) = (Timestamp::from_millis(millis), Monotonic::from_millis(millis));
    let now = Now { wall, monotonic };
    let request =
        Request { method: &Method::GET, target, host: Some("api.example.com"), headers, certificate: None };
    let judgement = black_box(enforcer.decide(&request, Asked::NOTHING, now));
    let used = match &judgement.verdict {
        Verdict::Allow(permit) => enforcer.begin(permit, now),
        Verdict::Deny(denial) => Err(denial.reason),
        Verdict::Ask(_) => Err(Reason::UnknownKey),
    };
    assert_eq!(used, Ok(()));
    judgement.proof
}

/// Selects the next token (xorshift64).
struct Order(u64);

impl Order {
    fn next(&mut self, count: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % count as u64).expect("below the number of tokens")
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

fn token(algorithm: Algorithm, sign: impl Fn(&[u8]) -> Vec<u8>, index: usize) -> String {
    token_with(algorithm, sign, index, "")
}

fn token_with(algorithm: Algorithm, sign: impl Fn(&[u8]) -> Vec<u8>, index: usize, more: &str) -> String {
    let header = format!(r#"{{"alg":"{algorithm:?}","typ":"at+jwt","kid":"{KID}"}}"#);
    let payload = format!(
        r#"{{"iss":"{ISSUER}","aud":"https://api.example.com","sub":"user-{index:08}","client_id":"app-17","jti":"{index:032x}","iat":{},"exp":{},"scope":"read:deals read:activity read:users","roles":["editor","viewer"],"tenant":"north","role_version":3{more}}}"#,
        NOW - 60,
        NOW + 3600,
    );
    let input = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(sign(input.as_bytes())))
}

fn enforcer(algorithm: Algorithm, set: KeySet) -> (Enforcer, Arc<Revocations>) {
    let paths = ["/users/{id}", "/activity/{*rest}", "/deals/{*rest}", "/deals/{id}/lines"];
    enforcer_of(algorithm, set, paths.map(route).to_vec())
}

fn enforcer_of(
    algorithm: Algorithm,
    set: KeySet,
    routes: Vec<RouteSettings>,
) -> (Enforcer, Arc<Revocations>) {
    let metrics = Metrics::new().expect("instruments");
    let algorithms = vec![algorithm];
    let keys = KeyStore::fixed(
        keys::Settings {
            issuer: ISSUER.to_owned(),
            algorithms: algorithms.clone(),
            ..keys::Settings::default()
        },
        set,
        metrics.clone(),
    );
    let issuer = TrustedIssuer { rules: rules(algorithms), keys };
    let sessions = Sessions::new(sessions::Settings {
        idle_timeouts: Some(Duration::from_secs(1_800)).into(),
        max_tracked: DEFAULT_PROOFS,
        leeway: Duration::from_secs(30),
        saved: true,
    });
    let in_force = InForce { sessions: Arc::new(sessions), ..InForce::unlimited() };
    let settings = Settings {
        routes,
        identity: identity(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: DEFAULT_PROOFS,
    };
    let revocations = Arc::clone(&in_force.revocations);
    (Enforcer::new(settings, vec![issuer], in_force, &metrics).expect("sound routes"), revocations)
}

fn rules(algorithms: Vec<Algorithm>) -> IssuerRules {
    IssuerRules {
        trust_domain: None,
        issuer: ISSUER.into(),
        audiences: vec!["https://api.example.com".to_owned()],
        algorithms,
        leeway: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(86_400),
        token_types: vec!["at+jwt".to_owned()],
        required_claims: vec!["sub".to_owned()],
        claims: ClaimNames {
            email: Some(ClaimName::Member("email".to_owned())),
            aliases: vec![ClaimName::Member("oid".to_owned())],
            ..ClaimNames::default()
        },
        ..IssuerRules::default()
    }
}

fn route(path: &str) -> RouteSettings {
    RouteSettings {
        path: Arc::from(path),
        methods: vec![Method::GET],
        requirement: Requirement {
            scopes: vec!["read:deals".to_owned()],
            any_role: vec!["viewer".to_owned()],
            ..Requirement::default()
        },
        ..RouteSettings::default()
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
    IdentitySettings { headers, ..IdentitySettings::default() }
}

/// The resident memory of this process in bytes (pages of 4 KiB).
fn resident() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("the size of this process");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("resident pages") * 4096
}
