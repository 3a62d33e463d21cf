//! The admin API over real sockets, with a real store in a file of its own.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a broken promise fails the test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use portcullis::admin::{
    Access, AdminLimits, Api, Control, Ledger, Permission, Settings, Token, serve_admin,
};
use portcullis::authority::{self, Authority};
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::decide::{self, Enforcer};
use portcullis::enforce::policy::IdentitySettings;
use portcullis::enforce::{self, DEFAULT_PROOFS};
use portcullis::events::{self, EventLog};
use portcullis::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use portcullis::log::Refusals;
use portcullis::metrics::Metrics;
use portcullis::revocations::{Ended, Revocations, TokenFacts};
use portcullis::sessions::{self, Introduction, Sessions};
use portcullis::shutdown::{self, Trigger};
use portcullis::signals::SignalLog;
use portcullis::signals::ssf::Receiver;
use portcullis::state::Store;
use portcullis::time::{Now, Timestamp};
use portcullis::usage::Usage;
use serde_json::Value;
use testkit::wire::Answer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::issuing;

mod accounts;
mod accounts_bad;
mod bad;
mod command;
mod events_log;
mod in_use;

const HOUR: Duration = Duration::from_secs(3600);
const A: &str = "https://a.example.com/";
const B: &str = "https://b.example.com/";

/// An admin listener on a store in a file; stops when dropped.
struct Gate {
    address: SocketAddr,
    folder: tempfile::TempDir,
    ledger: Ledger,
    metrics: Metrics,
    authority: Option<Arc<Authority>>,
    _trigger: Trigger,
}

/// Reads responses of the admin API.
trait Shown {
    /// The items of a page.
    fn items(&self) -> Vec<Value>;
    /// The `detail` of a problem document with this status.
    fn problem(&self, status: u16) -> String;
}

impl Shown for Answer {
    #[track_caller]
    fn items(&self) -> Vec<Value> {
        assert_eq!(self.status(), 200, "{self:?}");
        self.json()["items"].as_array().unwrap().clone()
    }

    #[track_caller]
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        self.json()["detail"].as_str().unwrap().to_owned()
    }
}

impl Gate {
    /// Starts a gate that issues no tokens.
    async fn start(issuers: &[&str]) -> Self {
        Self::start_as(issuers, false).await
    }

    /// Starts a gate that is the issuer [`A`] itself.
    async fn issuing() -> Self {
        Self::start_as(&[A], true).await
    }

    async fn start_as(issuers: &[&str], issuing: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (metrics, now) = (Metrics::new().unwrap(), Timestamp::now());
        let store = Store::open(&folder.path().join("gate.db"), Now { wall: now.minus(HOUR), ..Now::read() })
            .unwrap();
        let revocations = Arc::new(Revocations::new(Some(store.created_at())));
        let settings = sessions::Settings {
            idle_timeouts: Some(HOUR).into(),
            max_tracked: 100_000,
            leeway: Duration::from_secs(30),
            saved: false,
        };
        let issuer = |name: &&str| events::EventIssuer {
            issuer: (*name).into(),
            leeway: Duration::from_secs(30),
            max_lifetime: HOUR,
        };
        let log = EventLog::start(store.clone(), Arc::clone(&revocations)).await.unwrap();
        let sessions = Arc::new(Sessions::new(settings));
        let signals =
            SignalLog::start(Arc::clone(&log), Arc::clone(&revocations), Arc::clone(&sessions), &metrics);
        let ledger = Ledger {
            receiver: Arc::new(Receiver::new(Vec::new(), signals)),
            log,
            revocations,
            sessions,
            usage: Usage::start(metrics.usage.clone(), store.clone()).await.unwrap(),
            issuers: Arc::new(ArcSwap::from_pointee(issuers.iter().map(issuer).collect())),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (trigger, shutdown) = shutdown::channel();
        let access = Arc::new(Access::new(&settings_of_callers(), None));
        let enforcer = Arc::new(ArcSwap::from_pointee(refuses_everything(&metrics)));
        let authority = if issuing { Some(open(store, &ledger, &metrics).await) } else { None };
        let commands = mpsc::channel(1).0;
        let issuing = authority.clone();
        let refusals = Refusals::default();
        let control = Control { commands, effective: Arc::default(), enforcer, authority, refusals };
        let (served, instruments) = (ledger.clone(), metrics.clone());
        tokio::spawn(serve_admin(
            listener,
            access,
            Api::new(control, served, instruments, AdminLimits::default()),
            Router::new(),
            shutdown,
        ));
        Self { address, folder, ledger, metrics, authority: issuing, _trigger: trigger }
    }

    async fn call(&self, line: &str, body: &str) -> Answer {
        self.call_as("all", line, body).await
    }

    async fn call_as(&self, token: &str, line: &str, body: &str) -> Answer {
        let authorization = format!("authorization: Bearer {token}");
        let mut fields = vec![authorization.as_str(), "content-type: application/json"];
        if body.is_empty() {
            fields.push("content-length: 0");
        }
        testkit::call::call(self.address, line, &fields, body).await
    }

    /// Publishes events and returns the highest sequence.
    async fn publish(&self, events: &str) -> u64 {
        let answer = self.call("POST /v1/events", events).await;
        assert_eq!(answer.status(), 202, "{answer:?}");
        answer.json()["sequence"].as_u64().unwrap()
    }

    fn judge(&self, issuer: &str, subject: &str, issued_at: Timestamp) -> Option<Ended> {
        self.ledger.revocations.load().judge(&facts(issuer, subject, issued_at), Now::read())
    }

    /// Forwards a request with a token of alice and the app.
    fn used(&self, issuer: &str, subject: &str, jti: &str) -> TokenKey {
        let (token, now) = (TokenKey::new(issuer, jti), Timestamp::now());
        let introduction = Introduction {
            token,
            issuer: &issuer.into(),
            subject: Some(SubjectKey::new(issuer, subject)),
            client: Some(&"app".into()),
            issued_at: now.minus(Duration::from_secs(10)),
            known_since: now.minus(Duration::from_secs(10)),
            expires_at: now.plus(HOUR),
            names: None,
        };
        self.ledger.sessions.begin(None, &introduction, None, Now::read()).unwrap();
        token
    }

    #[track_caller]
    fn shows(&self, line: &str) {
        let page = self.metrics.render().unwrap();
        assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
    }
}

/// Opens an authority in the store of the state.
async fn open(store: Store, ledger: &Ledger, metrics: &Metrics) -> Arc<Authority> {
    let (revocations, sessions) = (Arc::clone(&ledger.revocations), Arc::clone(&ledger.sessions));
    let parts = authority::Parts {
        store,
        log: Arc::clone(&ledger.log),
        in_force: decide::InForce { revocations, sessions, ..decide::InForce::unlimited() },
        issuers: Arc::clone(&ledger.issuers),
        metrics: metrics.clone(),
    };
    issuing::open(A, parts).await
}

/// An enforcer for tests that need no explanations.
fn refuses_everything(metrics: &Metrics) -> Enforcer {
    let settings = enforce::Settings {
        routes: Vec::new(),
        identity: IdentitySettings::default(),
        bearer: BearerSettings::default(),
        dpop: Default::default(),
        proofs: DEFAULT_PROOFS,
    };
    Enforcer::new(settings, Vec::new(), decide::InForce::unlimited(), metrics).unwrap()
}

fn facts(issuer: &str, subject: &str, issued_at: Timestamp) -> TokenFacts {
    TokenFacts {
        token: TokenKey::new(issuer, "jti"),
        issuer: IssuerKey::new(issuer),
        subject: Some(SubjectKey::new(issuer, subject)),
        client: Some(ClientKey::new(issuer, "app")),
        issued_at,
        role_version: None,
        names: None,
    }
}

fn settings_of_callers() -> Settings {
    let token = |secret: &str, permissions: &[Permission]| Token {
        name: secret.to_owned(),
        secret: secret.to_owned(),
        permissions: permissions.to_vec(),
    };
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        tokens: vec![
            token("all", &[Permission::Events, Permission::Sessions, Permission::Authority]),
            token("events", &[Permission::Events]),
            token("sessions", &[Permission::Sessions]),
            token("authority", &[Permission::Authority]),
            token("config", &[Permission::Config]),
        ],
    }
}
