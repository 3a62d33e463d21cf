//! Streams that the gate maintains at a real transmitter: created, found, verified, lost, stopped and polled, by one
//! process or by one of several that share a store.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use portcullis::client::{Client, Url};
use portcullis::enforce::signals::SignalClock;
use portcullis::events::EventLog;
use portcullis::keys::jwks;
use portcullis::keys::set::KeySet;
use portcullis::keys::store::KeyStore;
use portcullis::log;
use portcullis::metrics::Metrics;
use portcullis::shutdown::{self, Phase, Trigger};
use portcullis::signals::Concealed;
use portcullis::signals::ssf::streams::{
    HeardStream, StreamKeeper, StreamShared, replica_name, signal_clock,
};
use portcullis::signals::ssf::{
    Code, KeptStream, PollByHand, Receiver, Settings, SignalDelivery, StreamAccess, Transmission,
    Transmitter, Undelivered,
};
use portcullis::state::Store;
use portcullis::state::redis::endpoint::RedisEndpoint;
use portcullis::state::redis::{self, RedisTerms};
use portcullis::time::{Monotonic, Now};
use portcullis::tls;
use serde_json::{Value, json};
use testkit::eventually_async;
use testkit::redis_server::RedisServer;
use testkit::transmitter::{ApiCall, Lie, SESSION_REVOKED, SignalTransmitter};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing::subscriber::NoSubscriber;

use super::{ISSUER, SET, settings};
use crate::secrecy::Printed;
use crate::signal_log::Published;
use crate::transfer::follow;

const ENDPOINT: &str = "https://gate.example.com/signals/ssf/t";
const OWNER: &str = "t:{t.signals.t}:owner";
const HOUR: Duration = Duration::from_secs(3600);

/// While there is only one subscriber, a thread of another test may turn off a call site that it reaches first.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// The lines that the thread of the test logs.
struct Said {
    printed: Printed,
    _guard: log::Guard,
    _default: DefaultGuard,
}

impl Said {
    fn listen() -> Self {
        LazyLock::force(&SECOND);
        let (settings, printed) = (
            log::Settings {
                format: log::Format::Json,
                level: "info".to_owned(),
                access_log: false,
                log_paths: false,
            },
            Printed::default(),
        );
        let (_, guard, events) = log::open(&settings, &Metrics::new().unwrap(), printed.clone()).unwrap();
        Self { printed, _guard: guard, _default: dispatcher::set_default(&events) }
    }

    /// The lines with this message.
    fn lines(&self, message: &str) -> Vec<Value> {
        let text = self.printed.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|line| line["message"] == message).collect()
    }

    /// Waits for a line with this message.
    async fn wait_for(&self, message: &str) -> Value {
        let found = || self.lines(message).into_iter().next();
        eventually_async(&format!("the log says {message:?}"), found).await
    }
}

/// A process that maintains the stream of a transmitter, or polls it.
struct Keeper {
    log: Arc<EventLog>,
    receiver: Arc<Receiver>,
    clock: Arc<SignalClock>,
    subjects: Option<mpsc::Sender<Box<str>>>,
    running: Trigger,
    task: JoinHandle<()>,
}

impl Keeper {
    async fn start(transmitter: &SignalTransmitter, store: &Store, transmission: Transmission) -> Self {
        let client = Client::new(tls::client_config(None, None, &[b"http/1.1"]).unwrap());
        let (url, metrics) = (transmitter.issuer(), Metrics::new().unwrap());
        let settings = Settings {
            issuer: url.clone(),
            audience: testkit::transmitter::AUDIENCE.to_owned(),
            authorization: Some(Concealed::new("Bearer of the stream".to_owned())),
            transmission,
            ..settings()
        };
        let document = client.get(&self::url(&url, "/jwks")).await.unwrap();
        let keys = KeySet::new(jwks::parse(&document, &settings.keys.algorithms).unwrap().keys);
        let keys = KeyStore::fixed(settings.keys.clone(), keys, metrics.clone());
        let Published { log, signals, .. } = Published::over(store.clone(), &metrics).await;
        let clock = signal_clock(&settings);
        let adds = settings.transmission.stream.as_ref().is_some_and(|stream| stream.add_subjects);
        let (subjects, arriving) = adds.then(|| mpsc::channel(10)).unzip();
        let heard = HeardStream::new(&settings, Arc::clone(&clock), store.clone(), arriving);
        let watch = heard.as_ref().map(|heard| Arc::clone(heard.watch()));
        let known = Transmitter::new(settings.clone(), keys).watched_by(watch);
        let receiver = Arc::new(Receiver::new(vec![Arc::new(known)], signals));
        let shared = StreamShared {
            receiver: Arc::clone(&receiver),
            store: store.clone(),
            holder: replica_name().into(),
        };
        let (running, shutdown) = shutdown::channel();
        let task = spawn_local(StreamKeeper::new(Arc::new(settings), client, shared, heard).run(shutdown));
        Self { log, receiver, clock, subjects, running, task }
    }

    /// Receives a token that the transmitter pushes.
    async fn hear(&self, set: &str) -> Result<(), Undelivered> {
        let transmitter = self.receiver.transmitter("t").unwrap();
        self.receiver.deliver(&transmitter, set.as_bytes(), SET).await.map(drop)
    }

    async fn events(&self) -> usize {
        self.log.events(0, 100).await.unwrap().items.len()
    }

    /// Ends as a process does, and gives the stream up.
    async fn stop(self) {
        self.running.advance(Phase::Stopped);
        self.task.await.unwrap();
    }
}

fn url(base: &str, path: &str) -> Url {
    Url::parse(&format!("{base}{path}"), false).unwrap()
}

/// Credentials by which the gate fetches access tokens.
fn client_of(transmitter: &SignalTransmitter, scopes: &[&str]) -> StreamAccess {
    StreamAccess::Client {
        token_url: url(&transmitter.issuer(), "/token"),
        id: "gate".to_owned(),
        secret: Concealed::new("of the gate".to_owned()),
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    }
}

fn stream(access: StreamAccess) -> KeptStream {
    KeptStream { access, events: vec![SESSION_REVOKED.to_owned()], add_subjects: false }
}

/// A stream that the transmitter pushes on, verified this often.
fn pushed(transmitter: &SignalTransmitter, heartbeat: Duration) -> Transmission {
    transmitter.state().verifies = false;
    Transmission {
        delivery: SignalDelivery::Push(Some(ENDPOINT.to_owned())),
        stream: Some(stream(client_of(transmitter, &[]))),
        heartbeat: Some(heartbeat),
        ..Transmission::default()
    }
}

/// A stream that the gate polls and never verifies.
fn polled(transmitter: &SignalTransmitter) -> Transmission {
    Transmission {
        delivery: SignalDelivery::Poll(None),
        stream: Some(stream(client_of(transmitter, &[]))),
        ..Transmission::default()
    }
}

/// Waits until an endpoint was called this often.
async fn called(transmitter: &SignalTransmitter, method: &str, path: &str, count: usize) -> Vec<ApiCall> {
    eventually_async(&format!("{count} calls of {method} {path}"), || {
        let calls = transmitter.calls(method, path);
        (calls.len() >= count).then_some(calls)
    })
    .await
}

/// The states of the verifications that were requested so far.
fn states(transmitter: &SignalTransmitter) -> Vec<String> {
    let asked = transmitter.calls("POST", "/verify");
    asked.iter().map(|call| call.body["state"].as_str().unwrap().to_owned()).collect()
}

async fn acknowledged(transmitter: &SignalTransmitter, jti: &str) {
    eventually_async("the signal is acknowledged", || {
        transmitter.state().acknowledged.iter().any(|known| known == jti).then_some(())
    })
    .await;
}

/// Makes a signal about alice available for polling, and waits until it is acknowledged.
async fn fetched(transmitter: &SignalTransmitter) {
    let (jti, set) = transmitter.session_revoked(ISSUER, "alice");
    transmitter.offer((jti.clone(), set));
    acknowledged(transmitter, &jti).await;
}

async fn remembered(store: &Store) -> Value {
    let text = store.remembered_stream("t").await.unwrap();
    text.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap())
}

/// Runs a test whose tasks are those of one thread, with the lines that it logs.
async fn on_one_thread(test: impl AsyncFnOnce(&Said)) {
    let said = Said::listen();
    LocalSet::new().run_until(test(&said)).await;
}

fn store() -> Store {
    Store::in_memory(Now::read()).unwrap()
}

#[test]
fn each_process_has_a_name_of_its_own() {
    let (one, other) = (replica_name(), replica_name());
    assert_ne!(one, other);
    assert!([one, other].iter().all(|name| name.len() == 32), "128 bits");
}

#[tokio::test]
async fn a_stream_is_created_verified_remembered_and_found_again() {
    on_one_thread(async |said| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        let access = client_of(&transmitter, &["ssf.manage", "ssf.read"]);
        let transmission = Transmission { stream: Some(stream(access)), ..pushed(&transmitter, HOUR) };
        let keeper = Keeper::start(&transmitter, &store, transmission.clone()).await;
        called(&transmitter, "GET", "/status", 1).await;
        let [asked] = &*transmitter.calls("POST", "/token") else { panic!("one access token") };
        assert_eq!(asked.text, "grant_type=client_credentials&scope=ssf.manage+ssf.read");
        assert_eq!(asked.authorization, "Basic Z2F0ZTpvZit0aGUrZ2F0ZQ==", "gate:of+the+gate");
        let [found] = &*transmitter.calls("GET", "/streams") else { panic!("looked for once") };
        assert!(found.authorization.starts_with("Bearer ") && found.text.is_empty(), "{found:?}");
        let [made] = &*transmitter.calls("POST", "/streams") else { panic!("one stream") };
        let expected = json!({
            "events_requested": [SESSION_REVOKED], "description": "Portcullis, event transmitter t",
            "delivery": {
                "method": "urn:ietf:rfc:8935", "endpoint_url": ENDPOINT,
                "authorization_header": "Bearer of the stream",
            },
        });
        assert_eq!((&made.body, &made.authorization), (&expected, &found.authorization));
        let id = transmitter.state().streams.keys().next().unwrap().clone();
        let [verified] = &*transmitter.calls("POST", "/verify") else { panic!("verified once in an hour") };
        let [state] = &*states(&transmitter) else { panic!("one state") };
        assert_eq!(verified.body, json!({"stream_id": id, "state": state}));
        assert_eq!(state.len(), 32);
        assert_eq!(transmitter.calls("GET", "/status")[0].target, format!("/status?stream_id={id}"));
        said.wait_for("created the stream").await;
        let kept = json!({"stream_id": id, "heard_at": null, "kept_ms": 3_600_000});
        assert_eq!(remembered(&store).await, kept, "nothing was heard yet");

        let guessed = keeper.hear(&transmitter.verification(Some("guessed"))).await;
        assert!(
            matches!(guessed, Err(Undelivered::Refused(why)) if why.code == Code::InvalidState),
            "{guessed:?}"
        );
        assert_eq!(keeper.hear(&transmitter.verification(Some(state))).await, Ok(()));
        assert!(remembered(&store).await["heard_at"].is_i64());
        keeper.stop().await;

        // The next process finds what the first one made.
        let keeper = Keeper::start(&transmitter, &store, transmission).await;
        said.wait_for("the stream is up to date").await;
        assert_eq!(transmitter.calls("POST", "/streams").len(), 1);
        assert_eq!(remembered(&store).await["stream_id"], json!(id));
        assert!(said.lines("signals_gap").is_empty() && said.lines("the stream is not usable").is_empty());
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_of_other_settings_is_changed_and_a_lost_one_is_made_again_with_a_warning() {
    on_one_thread(async |said| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        let keeper = Keeper::start(&transmitter, &store, pushed(&transmitter, HOUR)).await;
        said.wait_for("created the stream").await;
        keeper.stop().await;
        let mut other = pushed(&transmitter, Duration::from_millis(100));
        let access = StreamAccess::Token(Concealed::new("of the operator".to_owned()));
        other.stream = Some(KeptStream { events: Vec::new(), ..stream(access) });
        let keeper = Keeper::start(&transmitter, &store, other).await;
        said.wait_for("updated the stream").await;
        let id = transmitter.state().streams.keys().next().unwrap().clone();
        let [changed] = &*transmitter.calls("PATCH", "/streams") else { panic!("one change") };
        assert_eq!(
            (&changed.body["stream_id"], &*changed.authorization),
            (&json!(id), "Bearer of the operator")
        );
        assert_eq!(transmitter.calls("POST", "/token").len(), 1, "the configured token is used");
        called(&transmitter, "POST", "/verify", 3).await;
        assert!(said.lines("signals_gap").is_empty());

        transmitter.forget();
        let gap = said.wait_for("signals_gap").await;
        assert_eq!(said.lines("the transmitter no longer has the stream").len(), 1);
        assert!(gap["why"].as_str().unwrap().starts_with("created the stream again"), "{gap}");
        eventually_async("another stream", || (!transmitter.state().streams.contains_key(&id)).then_some(()))
            .await;
        assert_eq!(said.lines("created the stream").len(), 2);
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_stopped_stream_is_stale_until_the_transmitter_resumes_it_and_a_gap_if_it_discarded_signals() {
    on_one_thread(async |said| {
        for (status, is_gap) in [("paused", false), ("disabled", true)] {
            let (transmitter, store) = (SignalTransmitter::start(), store());
            let keeper = Keeper::start(&transmitter, &store, pushed(&transmitter, HOUR)).await;
            called(&transmitter, "GET", "/status", 1).await;
            assert!(!keeper.clock.is_stale(Monotonic::now()));
            assert_eq!(keeper.hear(&transmitter.stream_updated(status)).await, Ok(()));
            assert!(keeper.clock.is_suspended(), "at once");
            let is_about = |line: &Value, member: &str| line[member] == status;
            let stopped = "the transmitter stopped sending on the stream";
            eventually_async("the owner notices", || {
                said.lines(stopped).iter().any(|line| is_about(line, "status")).then_some(())
            })
            .await;
            assert_eq!(keeper.hear(&transmitter.stream_updated("enabled")).await, Ok(()));
            called(&transmitter, "POST", "/verify", 2).await;
            let resumed = "the transmitter sends on the stream again";
            eventually_async("the owner says so", || {
                said.lines(resumed).iter().any(|line| is_about(line, "before")).then_some(())
            })
            .await;
            if is_gap {
                said.wait_for("signals_gap").await;
            }
            assert!(keeper.clock.is_suspended(), "until it is verified");
            let state = states(&transmitter).pop().unwrap();
            assert_eq!(keeper.hear(&transmitter.verification(Some(&state))).await, Ok(()));
            assert!(!keeper.clock.is_stale(Monotonic::now()));
            assert_eq!(said.lines("signals_gap").len(), usize::from(is_gap), "{status}");
            keeper.stop().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_is_paused_as_far_as_its_status_says_stays_stale_whatever_arrives_late() {
    on_one_thread(async |_| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        transmitter.state().status = "paused";
        let heartbeat = Duration::from_millis(100);
        let keeper = Keeper::start(&transmitter, &store, pushed(&transmitter, heartbeat)).await;
        let is_suspended = || keeper.clock.is_suspended().then_some(());
        eventually_async("the status is read", is_suspended).await;
        let state = states(&transmitter).pop().unwrap();
        assert_eq!(
            keeper.hear(&transmitter.verification(Some(&state))).await,
            Ok(()),
            "it ends the suspension"
        );
        eventually_async("the status is read again", is_suspended).await;
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn signals_are_polled_until_acknowledged_with_a_credential_that_is_renewed() {
    on_one_thread(async |said| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        let keeper = Keeper::start(&transmitter, &store, polled(&transmitter)).await;
        let first = called(&transmitter, "POST", "/poll", 1).await.remove(0);
        assert_eq!(first.body, json!({"maxEvents": 100, "returnImmediately": false, "ack": []}));
        let [made] = &*transmitter.calls("POST", "/streams") else { panic!("one stream") };
        assert_eq!(made.body["delivery"], json!({"method": "urn:ietf:rfc:8936"}));
        assert_eq!(first.authorization, made.authorization);
        transmitter.offer(("garbage".to_owned(), "garbage".to_owned()));
        fetched(&transmitter).await;
        eventually_async("the other one is described", || {
            let errors = transmitter.state().errors.clone();
            errors.iter().any(|(jti, why)| jti == "garbage" && why["err"] == "invalid_request").then_some(())
        })
        .await;
        assert_eq!(keeper.events().await, 1);

        // Only a poll notices this: there is no heartbeat, and the status was read a moment ago.
        assert_eq!(transmitter.calls("POST", "/token").len(), 1);
        transmitter.revoke_tokens();
        fetched(&transmitter).await;
        assert!(transmitter.calls("POST", "/token").len() > 1, "another one");
        said.wait_for("polling for signals works again").await;
        let [failed] = &*said.lines("cannot poll for signals") else { panic!("one failure") };
        assert_eq!(failed["why"], "the poll endpoint responded with 401 Unauthorized");
        assert_eq!(keeper.events().await, 2);
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_poll_endpoint_that_fails_is_reported_once_and_one_that_is_gone_ends_the_stream() {
    on_one_thread(async |said| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        let keeper = Keeper::start(&transmitter, &store, polled(&transmitter)).await;
        fetched(&transmitter).await;
        assert!(said.lines("polling for signals works again").is_empty(), "it never failed");
        let polls = || transmitter.calls("POST", "/poll").len();
        // The poll that is under way brings a signal; the next one, which acknowledges it, fails.
        let fails = |status| {
            transmitter.lie("/poll", Lie::Status(status, String::new()));
            transmitter.offer(transmitter.session_revoked(ISSUER, "bob"));
        };
        fails("500 Internal Server Error");
        let failed = said.wait_for("cannot poll for signals").await;
        assert_eq!(failed["why"], "the poll endpoint responded with 500 Internal Server Error");
        assert_eq!(failed["transmitter"], "t");
        called(&transmitter, "POST", "/poll", polls() + 1).await;
        transmitter.tell_the_truth();
        fetched(&transmitter).await;
        said.wait_for("polling for signals works again").await;
        assert_eq!(said.lines("cannot poll for signals").len(), 1, "for the same reason");

        fails("404 Not Found");
        said.wait_for("the transmitter no longer has the stream").await;
        called(&transmitter, "GET", "/streams", 2).await;
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_was_made_by_hand_is_only_polled() {
    on_one_thread(async |_| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        let authorization = Some(Concealed::new("Bearer of the operator".to_owned()));
        let by_hand = PollByHand { url: url(&transmitter.issuer(), "/poll"), authorization };
        let transmission =
            Transmission { delivery: SignalDelivery::Poll(Some(by_hand)), ..Transmission::default() };
        let keeper = Keeper::start(&transmitter, &store, transmission).await;
        fetched(&transmitter).await;
        assert_eq!(keeper.events().await, 1);
        assert_eq!(transmitter.calls("POST", "/poll")[0].authorization, "Bearer of the operator");
        for path in ["/.well-known/ssf-configuration", "/streams", "/token", "/verify", "/status"] {
            assert_eq!(transmitter.state().calls_to(path), 0, "{path}");
        }
        assert_eq!(remembered(&store).await, Value::Null);
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_transmitter_that_cannot_be_used_is_reported_once_and_so_is_a_stream_that_is_not_as_wanted() {
    on_one_thread(async |said| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        transmitter.lie("/streams", Lie::Status("500 Internal Server Error", String::new()));
        transmitter.state().describes =
            [("aud".to_owned(), json!(["https://another.example"]))].into_iter().collect();
        let keeper = Keeper::start(&transmitter, &store, pushed(&transmitter, HOUR)).await;
        let failed = said.wait_for("cannot maintain the stream of the transmitter").await;
        assert!(failed["why"].as_str().unwrap().contains("responded with 500"), "{failed}");
        called(&transmitter, "GET", "/streams", 2).await;
        assert!(said.lines("the transmitter responds again").is_empty());
        assert_eq!(said.lines("cannot maintain the stream of the transmitter").len(), 1);
        transmitter.tell_the_truth();
        said.wait_for("the transmitter responds again").await;
        let unusable = said.wait_for("the stream is not usable").await;
        assert_eq!(unusable["transmitter"], "t");
        assert!(unusable["complaint"].as_str().is_some_and(|why| !why.is_empty()), "{unusable}");
        called(&transmitter, "GET", "/status", 1).await;
        assert_eq!(said.lines("the transmitter responds again").len(), 1);
        keeper.stop().await;
    })
    .await;
}

#[tokio::test]
async fn each_subject_is_added_to_the_stream_once() {
    on_one_thread(async |_| {
        let (transmitter, store) = (SignalTransmitter::start(), store());
        let mut transmission = pushed(&transmitter, HOUR);
        transmission.stream.as_mut().unwrap().add_subjects = true;
        let keeper = Keeper::start(&transmitter, &store, transmission).await;
        for subject in ["alice", "alice", "bob"] {
            keeper.subjects.as_ref().unwrap().send(subject.into()).await.unwrap();
        }
        let added = called(&transmitter, "POST", "/subjects", 2).await;
        let id = transmitter.state().streams.keys().next().unwrap().clone();
        for (call, subject) in added.iter().zip(["alice", "bob"]) {
            let named = json!({"format": "iss_sub", "iss": ISSUER, "sub": subject});
            assert_eq!(call.body, json!({"stream_id": id, "subject": named, "verified": true}));
        }
        assert_eq!(added.len(), 2);
        keeper.stop().await;
    })
    .await;
}

/// Opens a store that processes share, and waits until it can be used.
async fn shared_store(server: &RedisServer) -> Store {
    let endpoint = RedisEndpoint::parse(&server.url()).unwrap();
    let settings = redis::Settings { endpoint, events: None, ca: None, key_prefix: "t".to_owned() };
    let terms = RedisTerms {
        max_staleness: Duration::from_secs(2),
        flush_interval: Duration::from_secs(5),
        longest_idle: None,
        kept: HOUR,
    };
    follow(&settings, terms).await
}

#[tokio::test]
async fn one_of_two_processes_maintains_the_stream_and_the_other_passes_subjects_until_it_takes_over() {
    on_one_thread(async |said| {
        let (transmitter, server) = (SignalTransmitter::start(), RedisServer::start());
        let (one, two) = (shared_store(&server).await, shared_store(&server).await);
        let mut transmission = pushed(&transmitter, Duration::from_millis(200));
        transmission.stream.as_mut().unwrap().add_subjects = true;
        let owns = "this gate maintains the stream of the transmitter";
        let first = Keeper::start(&transmitter, &one, transmission.clone()).await;
        said.wait_for(owns).await;
        let holder: String = server.ask(&["GET", OWNER]);
        assert_eq!(holder.len(), 32);
        // The other one has credentials of its own, by which its calls are told apart.
        let StreamAccess::Client { id, .. } = &mut transmission.stream.as_mut().unwrap().access else {
            panic!("a client")
        };
        "other".clone_into(id);
        let others = || {
            let tokens = transmitter.calls("POST", "/token").into_iter();
            tokens.filter(|call| call.authorization == "Basic b3RoZXI6b2YrdGhlK2dhdGU=").count()
        };
        let second = Keeper::start(&transmitter, &two, transmission).await;
        called(&transmitter, "POST", "/verify", 1).await;

        // What the other process sees is added by the owner; what it hears counts for both.
        second.subjects.as_ref().unwrap().send("alice".into()).await.unwrap();
        let added = called(&transmitter, "POST", "/subjects", 1).await;
        assert_eq!(added[0].body["subject"]["sub"], "alice");
        assert_eq!(first.hear(&transmitter.stream_updated("paused")).await, Ok(()));
        eventually_async("the other hears of it", || second.clock.is_suspended().then_some(())).await;
        assert_eq!(second.hear(&transmitter.stream_updated("enabled")).await, Ok(()));
        let is_first = || server.ask::<Option<String>>(&["GET", OWNER]).as_ref() == Some(&holder);
        // A machine that stops for seconds loses the lease.
        assert!(!is_first() || others() == 0, "one maintains it");

        first.stop().await;
        eventually_async("the other one takes over", || (others() > 0).then_some(())).await;
        assert!(!is_first());
        said.wait_for("the stream is up to date").await;
        assert_eq!(transmitter.calls("POST", "/streams").len(), 1, "the same stream");
        second.stop().await;
        assert_eq!(server.ask::<u64>(&["EXISTS", OWNER]), 0, "nobody waits for the end of the lease");
    })
    .await;
}
