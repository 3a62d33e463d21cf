//! The real gate without its sockets: decision, sessions, revocations, event log and store, on clocks that are told.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jsonwebtoken::Algorithm::HS256;
use portcullis::enforce::again::Grounds;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::claims::IssuerRules;
use portcullis::enforce::decide::{Asked, Enforcer, InForce, Permit, Request, TrustedIssuer, Verdict};
use portcullis::enforce::denial::Reason;
use portcullis::enforce::policy::{IdentitySettings, RouteSettings};
use portcullis::enforce::target::RequestTarget;
use portcullis::events::{self, EventLog, parse};
use portcullis::identity::TokenKey;
use portcullis::keys::set::KeySet;
use portcullis::keys::store::KeyStore;
use portcullis::keys::{self, KeySource};
use portcullis::metrics::Metrics;
use portcullis::revocations::Revocations;
use portcullis::sessions::{self, IdleTimeouts, Sessions};
use portcullis::state::redis::{ReplicaChange, ReplicaChanges};
use portcullis::state::{Store, record};
use portcullis::time::{Clock, Now, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::specification::Why;
use crate::steps::{ISSUERS, Settings};

pub(crate) const NAMES: [&str; ISSUERS] = ["https://a.example/", "https://b.example/"];
pub(crate) const AUDIENCE: &str = "api";
pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

const FLUSH: Duration = Duration::from_secs(5);

pub(crate) struct Gate {
    store: Store,
    log: Arc<EventLog>,
    in_force: InForce,
    enforcer: Arc<Enforcer>,
    keys: Vec<Arc<KeyStore>>,
    metrics: Metrics,
    settings: Settings,
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

/// A gate that follows the log of another.
pub(crate) struct Follower {
    gate: Gate,
    changes: mpsc::Sender<ReplicaChanges>,
}

impl Follower {
    /// Returns when all of it is in force.
    pub(crate) async fn hear(&self, items: Vec<ReplicaChange>) {
        let (done, heard) = oneshot::channel();
        let changes = ReplicaChanges { items, created_at: None, removed: None, idle: None, done };
        assert!(self.changes.send(changes).await.is_ok());
        heard.await.expect("it follows");
    }

    pub(crate) fn judge(&self, headers: &HeaderMap, asked: Asked, now: Now) -> Verdict {
        self.gate.judge(headers, asked, now)
    }
}

impl Gate {
    pub(crate) async fn start(path: &Path, settings: Settings, now: Now, clock: Clock) -> Self {
        let store = Store::open_on(path, now, clock).expect("a store");
        let sessions = Sessions::new(session_settings(settings));
        sessions.restore(&store, now).await.expect("sessions");
        // The first flush comes at once.
        sessions.save(&store).await.expect("a disk");
        let not_before = Some(store.not_before());
        Self::with(store, sessions, not_before, settings).await
    }

    /// One of several gates: what the store they share says is played.
    pub(crate) async fn replica(settings: Settings, now: Now) -> Self {
        let store = Store::in_memory(now).expect("a store");
        let sessions = Sessions::sharing(session_settings(settings), store.clone(), FLUSH);
        Self::with(store, sessions, None, settings).await
    }

    async fn with(
        store: Store,
        sessions: Sessions,
        not_before: Option<Timestamp>,
        settings: Settings,
    ) -> Self {
        let revocations = Arc::new(Revocations::new(not_before));
        let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.expect("a log");
        let in_force = InForce {
            revocations,
            sessions: Arc::new(sessions),
            freshness: store.freshness(),
            ..InForce::unlimited()
        };
        let metrics = Metrics::new().expect("instruments");
        let keys: Vec<_> = NAMES.iter().map(|name| key_store(name, &metrics)).collect();
        let enforcer = Arc::new(enforcer(settings, &keys, &in_force, &metrics));
        Self { store, log, in_force, enforcer, keys, metrics, settings }
    }

    /// The first use of a token that is in use.
    pub(crate) fn first_use(&self, token: TokenKey) -> Option<i64> {
        Some(self.in_force.sessions.find(token)?.first_used_at().as_millis())
    }

    /// What the gate would write behind.
    pub(crate) async fn flush(&self) -> Vec<(TokenKey, i64)> {
        self.in_force.sessions.save(&self.store).await.expect("a store");
        let rows = self.store.sessions(None, usize::MAX).await.expect("a store");
        rows.into_iter().map(|row| (row.token, row.last_used_at.as_millis())).collect()
    }

    /// A gate that follows this one's log.
    pub(crate) async fn follower(&self) -> Follower {
        let sessions = Sessions::sharing(session_settings(self.settings), self.store.clone(), FLUSH);
        let gate = Self::with(self.store.clone(), sessions, None, self.settings).await;
        let (changes, heard) = mpsc::channel(1);
        let (log, metrics) = (Arc::clone(&gate.log), gate.metrics.clone());
        let sessions = Arc::clone(&gate.in_force.sessions);
        drop(tokio::spawn(async move { log.follow(heard, &sessions, false, metrics).await }));
        Follower { gate, changes }
    }

    /// An event as others hear of it.
    pub(crate) async fn news(&self, sequence: u64) -> ReplicaChange {
        let events = self.store.events(sequence - 1, 1).await.expect("a store");
        ReplicaChange::Event(events.into_iter().next().expect("an event"), false)
    }

    pub(crate) async fn reload(&mut self, settings: Settings, now: Now) {
        let sessions = &self.in_force.sessions;
        let _longer = sessions.reconfigure(&idle_timeouts(settings), leeway(settings), now);
        let next = enforcer(settings, &self.keys, &self.in_force, &self.metrics);
        self.enforcer = Arc::new(next.after(&self.enforcer));
        self.settings = settings;
    }

    pub(crate) fn decide(&self, headers: &HeaderMap, now: Now) -> Result<Permit, Why> {
        match self.judge(headers, Asked::NOTHING, now) {
            Verdict::Allow(permit) => Ok(permit),
            Verdict::Deny(denial) => Err(why(denial.reason)),
            Verdict::Ask(ask) => panic!("nobody else could know {ask:?}"),
        }
    }

    pub(crate) fn judge(&self, headers: &HeaderMap, asked: Asked, now: Now) -> Verdict {
        let target = RequestTarget::from(&Uri::from_static("/x"));
        let request =
            Request { method: &Method::GET, target: &target, host: None, headers, certificate: None };
        self.enforcer.decide(&request, asked, now).verdict
    }

    pub(crate) fn begin(&self, permit: &Permit, now: Now) -> Result<(), Why> {
        self.enforcer.begin(permit, now).map_err(why)
    }

    /// What a stream was opened by.
    pub(crate) fn grounds(&self, permit: &Permit) -> Grounds {
        Grounds::new(&self.enforcer, permit)
    }

    /// Looks at a stream as the gate does: by what may have changed of itself, or as at a new request.
    pub(crate) fn judge_again(
        &self,
        grounds: &mut Grounds,
        headers: &HeaderMap,
        now: Now,
    ) -> Result<(), Why> {
        if grounds.stand(&self.enforcer) {
            return grounds.judge(None, now).map_err(why);
        }
        *grounds = self.grounds(&self.decide(headers, now)?);
        Ok(())
    }

    /// The event's sequence; or that it is refused.
    pub(crate) async fn publish(&self, json: &str, now: Now) -> Result<u64, String> {
        let issuers = event_issuers(self.settings);
        let events = parse::events(json.as_bytes(), &issuers, now.wall).map_err(|invalid| invalid.what)?;
        let published = self.log.publish(events, record::EventSource::Admin, now).await.expect("a disk");
        Ok(published.sequence)
    }

    pub(crate) async fn undo(&self, sequence: u64, now: Now) -> bool {
        self.log.undo(sequence, record::EventSource::Admin, now).await.expect("a disk").is_some()
    }

    pub(crate) async fn save(&self, now: Now) {
        self.log.correct_creation(now.wall).await.expect("a disk");
        self.in_force.sessions.save(&self.store).await.expect("a disk");
    }

    pub(crate) fn sweep(&self, now: Now) {
        self.in_force.sessions.sweep(now);
        self.enforcer.sweep(now.monotonic);
    }

    pub(crate) async fn trim(&self, now: Now) {
        self.log.trim(now, &event_issuers(self.settings)).await.expect("a disk");
        self.in_force.sessions.trim(&self.store, now.monotonic).await.expect("a disk");
    }
}

fn session_settings(settings: Settings) -> sessions::Settings {
    sessions::Settings {
        idle_timeouts: idle_timeouts(settings),
        max_tracked: 100_000,
        leeway: leeway(settings),
        saved: true,
    }
}

fn idle_timeouts(settings: Settings) -> IdleTimeouts {
    let own = NAMES.iter().zip(settings.idle).map(|(name, idle)| ((*name).into(), idle.map(millis)));
    IdleTimeouts::new(settings.idle[settings.common].map(millis), own)
}

fn leeway(settings: Settings) -> Duration {
    millis(settings.leeway.into_iter().max().unwrap_or(0))
}

fn event_issuers(settings: Settings) -> Vec<events::EventIssuer> {
    let issuer = |(index, name): (usize, &&str)| events::EventIssuer {
        issuer: (*name).into(),
        leeway: millis(settings.leeway[index]),
        max_lifetime: millis(settings.max_lifetime[index]),
    };
    NAMES.iter().enumerate().map(issuer).collect()
}

fn key_store(issuer: &str, metrics: &Metrics) -> Arc<KeyStore> {
    let settings = keys::Settings {
        issuer: issuer.to_owned(),
        source: KeySource::File("keys.json".into()),
        algorithms: vec![HS256],
        ..keys::Settings::default()
    };
    KeyStore::fixed(settings, KeySet::of_secret(SECRET, &[HS256]).expect("a long secret"), metrics.clone())
}

fn enforcer(settings: Settings, keys: &[Arc<KeyStore>], in_force: &InForce, metrics: &Metrics) -> Enforcer {
    let rules = |(index, name): (usize, &&str)| IssuerRules {
        issuer: (*name).into(),
        audiences: vec![AUDIENCE.to_owned()],
        algorithms: vec![HS256],
        leeway: millis(settings.leeway[index]),
        max_lifetime: millis(settings.max_lifetime[index]),
        token_types: vec!["JWT".to_owned()],
        ..IssuerRules::default()
    };
    let issuers = NAMES.iter().enumerate().map(rules).zip(keys);
    let issuers = issuers.map(|(rules, keys)| TrustedIssuer { rules, keys: Arc::clone(keys) }).collect();
    let route = RouteSettings { path: "/x".into(), ..RouteSettings::default() };
    let settings = portcullis::enforce::Settings {
        routes: vec![route],
        identity: IdentitySettings::default(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: 1_000,
    };
    Enforcer::new(settings, issuers, in_force.clone(), metrics).expect("sound routes")
}

pub(crate) fn why(reason: Reason) -> Why {
    match reason {
        Reason::Expired => Why::Expired,
        Reason::IssuedInFuture => Why::FromTheFuture,
        Reason::TooLongLived => Why::TooLongLived,
        Reason::TokenRevoked
        | Reason::SubjectRevoked
        | Reason::ClientRevoked
        | Reason::IssuerRevoked
        | Reason::RoleChanged => Why::Ended,
        Reason::BeforeState => Why::BeforeState,
        Reason::Idle => Why::Idle,
        Reason::StateUnavailable | Reason::SignalsStale => Why::Unavailable,
        other => panic!("denied for {other:?}, which never happens here"),
    }
}

/// A token in the header section of a request.
pub(crate) fn presented(claims: &serde_json::Value) -> HeaderMap {
    use base64::Engine as _;
    let text = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let input = format!("{}.{}", text(br#"{"alg":"HS256"}"#), text(claims.to_string().as_bytes()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET);
    let signature = text(aws_lc_rs::hmac::sign(&key, input.as_bytes()).as_ref());
    let value = HeaderValue::from_str(&format!("Bearer {input}.{signature}")).expect("a field value");
    HeaderMap::from_iter([(AUTHORIZATION, value)])
}

/// A moment of both clocks.
pub(crate) fn moment(wall: i64, monotonic: i64) -> Now {
    Now { wall: Timestamp::from_millis(wall), monotonic: portcullis::time::Monotonic::from_millis(monotonic) }
}
