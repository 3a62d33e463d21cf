//! A Shared Signals transmitter (SSF 1.0): metadata, streams, status, verification and subjects, signals by
//! push (RFC 8935) and by poll (RFC 8936). Behaves well by default, and misbehaves on request.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::pki::Identity;
use crate::raw_upstream::{Exchange, Next, RawUpstream};
use crate::tokens::{Signer, compact, unique};
use crate::wire::{Answer, Wire};
use crate::{PATIENCE, eventually, let_pass, now};

/// Event types of CAEP.
pub const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";

/// The audience that tokens must contain.
pub const AUDIENCE: &str = "https://gate.example.com/signals";

/// The public URL in the gate's configuration.
pub const PUBLIC_URL: &str = "https://gate.example.com";

/// A call of the transmitter's API, as it arrived.
#[derive(Debug, Clone)]
pub struct ApiCall {
    /// The method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The whole target.
    pub target: String,
    /// The value of the `Authorization` field.
    pub authorization: String,
    /// The body as text.
    pub text: String,
    /// The body as JSON; null when it is none.
    pub body: Value,
}

/// How an endpoint misbehaves.
#[derive(Debug, Clone)]
pub enum Lie {
    /// This status with these fields, each ended by CRLF.
    Status(&'static str, String),
    /// 200 with this body.
    Body(String),
    /// The connection is closed at once.
    HangUp,
    /// No response until the client closes the connection.
    Silence,
}

/// Its behaviour, and what it has observed.
pub struct TransmitterState {
    /// The address it pushes to, whatever the host of a stream's endpoint.
    pub push_to: Option<SocketAddr>,
    /// Whether requested verifications are sent.
    pub verifies: bool,
    /// Whether they contain the requested state.
    pub true_states: bool,
    /// The lifetime of an access token, in seconds.
    pub expires_in: u64,
    /// How long a poll is held back.
    pub hold: Duration,
    /// Whether signals stay after they were acknowledged.
    pub repeats: bool,
    /// Whether it allows only one stream, whose description is its own.
    pub one_stream: bool,
    /// Additional members in each new stream's description.
    pub describes: Map<String, Value>,
    /// The streams by id.
    pub streams: BTreeMap<String, Value>,
    /// The response of the status endpoint.
    pub status: &'static str,
    /// Signals that wait to be polled, by `jti`.
    pub waiting: BTreeMap<String, String>,
    /// The acknowledged signals.
    pub acknowledged: Vec<String>,
    /// The signals that were reported as invalid.
    pub errors: Vec<(String, Value)>,
    /// The statuses of the responses to pushed verifications.
    pub pushed: Vec<u16>,
    /// The valid access tokens.
    tokens: Vec<String>,
    lies: HashMap<String, Lie>,
    calls: Vec<ApiCall>,
    rejected: usize,
    stopped: bool,
}

/// A transmitter, whose issuer is its URL.
pub struct SignalTransmitter {
    upstream: RawUpstream,
    signer: Arc<Signer>,
    state: Arc<Mutex<TransmitterState>>,
}

impl SignalTransmitter {
    /// Starts a transmitter without streams.
    pub fn start() -> Self {
        Self::with(|script| RawUpstream::scripted(move |exchange| script(exchange, "http")))
    }

    /// Like [`Self::start`], over TLS.
    pub fn with_tls(identity: &Identity) -> Self {
        let tls = identity.server_config(&[], None);
        Self::with(|script| RawUpstream::with_tls(tls, move |exchange| script(exchange, "https")))
    }

    fn with(upstream: impl FnOnce(Script) -> RawUpstream) -> Self {
        let state = TransmitterState {
            push_to: None,
            verifies: true,
            true_states: true,
            expires_in: 3600,
            hold: Duration::from_millis(1500),
            repeats: false,
            one_stream: false,
            describes: Map::new(),
            streams: BTreeMap::new(),
            status: "enabled",
            waiting: BTreeMap::new(),
            acknowledged: Vec::new(),
            errors: Vec::new(),
            pushed: Vec::new(),
            tokens: Vec::new(),
            lies: HashMap::new(),
            calls: Vec::new(),
            rejected: 0,
            stopped: false,
        };
        let (state, signer) = (Arc::new(Mutex::new(state)), Arc::new(Signer::new("ES256", "signals-1")));
        let (of_script, its_signer) = (Arc::clone(&state), Arc::clone(&signer));
        let script: Script =
            Box::new(move |exchange, scheme| serve(exchange, (&of_script, &its_signer), scheme));
        Self { upstream: upstream(script), signer, state }
    }

    /// Its issuer.
    pub fn issuer(&self) -> String {
        self.upstream.url()
    }

    /// The configuration tables for a stream that the gate creates, named `t`, with further lines of both tables.
    pub fn toml(&self, subject_issuer: &str, lines: &str, stream: &str) -> String {
        let credential = if stream.contains("access_token") {
            String::new()
        } else {
            let url = self.issuer();
            format!("token_url = \"{url}/token\"\nclient_id = \"gate\"\nclient_secret = \"of the gate\"\n")
        };
        format!(
            "[signals]\npublic_url = \"{PUBLIC_URL}\"\n[[event_transmitters]]\nname = \"t\"\nissuer = {:?}\n\
             audience = \"{AUDIENCE}\"\nsubject_issuer = {subject_issuer:?}\ndiscovery = true\n{lines}\n\
             [event_transmitters.stream]\n{credential}{stream}\n",
            self.issuer()
        )
    }

    /// Its behaviour and observations.
    pub fn state(&self) -> MutexGuard<'_, TransmitterState> {
        self.state.lock().unwrap()
    }

    /// Makes the endpoint with this path misbehave.
    pub fn lie(&self, path: &str, lie: Lie) {
        self.state().lies.insert(path.to_owned(), lie);
    }

    /// Makes all endpoints behave again.
    pub fn tell_the_truth(&self) {
        self.state().lies.clear();
    }

    /// The calls of an endpoint with this method so far.
    pub fn calls(&self, method: &str, path: &str) -> Vec<ApiCall> {
        let is_it = |call: &&ApiCall| call.method == method && call.path == path;
        self.state().calls.iter().filter(is_it).cloned().collect()
    }

    /// Waits until an endpoint was called this often.
    pub fn wait_for(&self, method: &str, path: &str, count: usize) -> Vec<ApiCall> {
        eventually(&format!("{count} calls of {method} {path}"), || {
            let calls = self.calls(method, path);
            (calls.len() >= count).then_some(calls)
        })
    }

    /// Waits until there is a stream, and returns its id.
    pub fn stream(&self) -> String {
        eventually("a stream", || self.state().streams.keys().next().cloned())
    }

    /// Deletes all streams.
    pub fn forget(&self) {
        self.state().streams.clear();
    }

    /// Invalidates all access tokens issued so far.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// A token that ends the sessions of a subject, and its `jti`.
    pub fn session_revoked(&self, issuer: &str, subject: &str) -> (String, String) {
        let (jti, subject) = (unique(), json!({"format": "iss_sub", "iss": issuer, "sub": subject}));
        let set = signed(&self.signer, &self.issuer(), &jti, &subject, &json!({SESSION_REVOKED: {}}));
        (jti, set)
    }

    /// A token that reports the stream's status.
    pub fn stream_updated(&self, status: &str) -> String {
        let stream = self.state().streams.keys().next().cloned().unwrap_or_default();
        let subject = json!({"format": "opaque", "id": stream});
        let events =
            json!({format!("{SSF}stream-updated"): {"status": status, "reason": "as the test says"}});
        signed(&self.signer, &self.issuer(), &unique(), &subject, &events)
    }

    /// A verification that was not requested, with this state or none.
    pub fn verification(&self, state: Option<&str>) -> String {
        let stream = self.state().streams.keys().next().cloned().unwrap_or_default();
        verification(&self.signer, &self.issuer(), &stream, state)
    }

    /// Makes a token available for polling.
    pub fn offer(&self, (jti, set): (String, String)) {
        self.state().waiting.insert(jti, set);
    }

    /// Pushes a token to the endpoint that the first stream names.
    pub fn push(&self, set: &str) -> Answer {
        let (to, delivery) = {
            let state = self.state();
            let stream = state.streams.values().next().expect("a stream");
            (state.push_to.expect("an address to push to"), stream["delivery"].clone())
        };
        push(to, &delivery, set).expect("an answer to a push")
    }
}

impl TransmitterState {
    /// How often an endpoint was called.
    pub fn calls_to(&self, path: &str) -> usize {
        self.calls.iter().filter(|call| call.path == path).count()
    }

    /// How often an access token was rejected.
    pub fn rejected(&self) -> usize {
        self.rejected
    }
}

impl Drop for SignalTransmitter {
    fn drop(&mut self) {
        if let Ok(mut state) = self.state.lock() {
            state.stopped = true;
        }
    }
}

fn push(to: SocketAddr, delivery: &Value, set: &str) -> std::io::Result<Answer> {
    let endpoint = delivery["endpoint_url"].as_str().unwrap_or_default();
    let path = endpoint.strip_prefix(PUBLIC_URL).unwrap_or(endpoint);
    let authorization = match delivery["authorization_header"].as_str() {
        Some(value) => format!("Authorization: {value}\r\n"),
        None => String::new(),
    };
    Wire::try_plain(to)?.exchange(format!(
        "POST {path} HTTP/1.1\r\nHost: gate.example.com\r\nContent-Type: application/secevent+jwt\r\n\
         Accept: application/json\r\n{authorization}Content-Length: {}\r\n\r\n{set}",
        set.len()
    ))
}

fn signed(signer: &Signer, issuer: &str, jti: &str, subject: &Value, events: &Value) -> String {
    let header = json!({"alg": signer.alg, "kid": signer.kid, "typ": "secevent+jwt"});
    let claims = json!({
        "iss": issuer, "aud": AUDIENCE, "iat": now(), "jti": jti, "sub_id": subject, "events": events,
    });
    compact(signer, signer.alg, header.to_string().as_bytes(), claims.to_string().as_bytes())
}

fn verification(signer: &Signer, issuer: &str, stream: &str, state: Option<&str>) -> String {
    let subject = json!({"format": "opaque", "id": stream});
    let event = state.map_or(json!({}), |state| json!({"state": state}));
    signed(signer, issuer, &unique(), &subject, &json!({format!("{SSF}verification"): event}))
}

const JSON: &str = "content-type: application/json\r\n";

type Script = Box<dyn Fn(&mut Exchange<'_>, &str) -> Next + Send + Sync>;

fn serve(
    exchange: &mut Exchange<'_>,
    (shared, signer): (&Mutex<TransmitterState>, &Signer),
    scheme: &str,
) -> Next {
    let Ok(body) = exchange.read_body() else { return Next::Close };
    let target = exchange.request.target();
    let path = target.split('?').next().unwrap_or_default().to_owned();
    let issuer = format!("{scheme}://{}", exchange.request.field("host").unwrap());
    let call = ApiCall {
        method: exchange.request.method(),
        path: path.clone(),
        target,
        authorization: exchange.request.field("authorization").unwrap_or_default(),
        text: String::from_utf8_lossy(&body).into_owned(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
    };
    let lie = {
        let mut state = shared.lock().unwrap();
        state.calls.push(call.clone());
        state.lies.get(&path).cloned()
    };
    match lie {
        Some(Lie::Status(status, fields)) => return exchange.answer(status, &fields, "{}"),
        Some(Lie::Body(body)) => return exchange.answer("200 OK", JSON, &body),
        Some(Lie::HangUp) => return Next::Close,
        Some(Lie::Silence) => return exchange.wait_for_close(),
        None => {}
    }
    let (status, body) = answer(&call, shared, (signer, &issuer));
    exchange.answer(status, JSON, &body.to_string())
}

/// Status and body of the response.
fn answer(
    call: &ApiCall,
    shared: &Mutex<TransmitterState>,
    (signer, issuer): (&Signer, &str),
) -> (&'static str, Value) {
    let url = |path: &str| format!("{issuer}{path}");
    let mut state = shared.lock().unwrap();
    match (call.method.as_str(), call.path.as_str()) {
        ("GET", "/.well-known/ssf-configuration") => {
            let metadata = json!({
                "issuer": issuer, "jwks_uri": url("/jwks"), "configuration_endpoint": url("/streams"),
                "status_endpoint": url("/status"), "verification_endpoint": url("/verify"),
                "add_subject_endpoint": url("/subjects"), "spec_version": "1_0",
                "delivery_methods_supported": ["urn:ietf:rfc:8935", "urn:ietf:rfc:8936"],
            });
            return ("200 OK", metadata);
        }
        ("GET", "/jwks") => return ("200 OK", json!({"keys": [signer.jwk()]})),
        ("POST", "/token") => {
            let token = unique();
            state.tokens.push(format!("Bearer {token}"));
            let expires_in = state.expires_in;
            return (
                "200 OK",
                json!({"access_token": token, "token_type": "Bearer", "expires_in": expires_in}),
            );
        }
        _ => {}
    }
    let is_known =
        state.tokens.contains(&call.authorization) || call.authorization == "Bearer of the operator";
    if !is_known {
        state.rejected += 1;
        return ("401 Unauthorized", json!({"error": "invalid_token"}));
    }
    let named = call.body["stream_id"].as_str().map(str::to_owned);
    let in_query = call.target.split_once("stream_id=").map(|(_, id)| id.to_owned());
    let stream = named.or(in_query).and_then(|id| state.streams.contains_key(&id).then_some(id));
    match (call.method.as_str(), call.path.as_str(), stream) {
        ("GET", "/streams", _) => ("200 OK", state.streams.values().cloned().collect()),
        ("POST", "/streams", _) if state.one_stream && !state.streams.is_empty() => {
            ("409 Conflict", json!({}))
        }
        ("POST", "/streams", _) => {
            let id = format!("stream-{}", unique());
            let mut described = described(&call.body, &id, issuer);
            described.extend(state.describes.clone());
            state.streams.insert(id, Value::Object(described.clone()));
            ("201 Created", Value::Object(described))
        }
        ("PATCH" | "PUT", "/streams", Some(id)) => {
            let described = Value::Object(described(&call.body, &id, issuer));
            state.streams.insert(id, described.clone());
            ("200 OK", described)
        }
        ("GET", "/status", Some(id)) => ("200 OK", json!({"stream_id": id, "status": state.status})),
        ("POST", "/verify", Some(id)) => {
            let asked = call.body["state"].as_str();
            let told = if state.true_states { asked } else { Some("of another") };
            if state.verifies {
                let set = verification(signer, issuer, &id, told);
                let delivery = state.streams[&id]["delivery"].clone();
                if delivery["method"] == "urn:ietf:rfc:8935" {
                    drop(state);
                    push_verification(shared, &delivery, set);
                } else {
                    state.waiting.insert(format!("verification-{}", unique()), set);
                }
            }
            ("204 No Content", Value::Null)
        }
        ("POST", "/subjects", Some(_)) => ("200 OK", json!({})),
        ("POST", "/poll", _) => {
            drop(state);
            ("200 OK", polled(call, shared))
        }
        _ => ("404 Not Found", json!({})),
    }
}

/// Pushes a verification. A gate may request one before the test has read where that gate listens.
fn push_verification(shared: &Mutex<TransmitterState>, delivery: &Value, set: String) {
    for _ in 0..300 {
        let to = shared.lock().unwrap().push_to;
        if let Some(to) = to {
            if let Ok(answer) = push(to, delivery, &set) {
                shared.lock().unwrap().pushed.push(answer.status());
            }
            return;
        }
        // Nothing announces it: the test sets it in between, or never does.
        let_pass(Duration::from_millis(10));
    }
    shared.lock().unwrap().waiting.insert(format!("verification-{}", unique()), set);
}

fn described(body: &Value, id: &str, issuer: &str) -> Map<String, Value> {
    let mut described = body.as_object().cloned().unwrap_or_default();
    described.insert("stream_id".to_owned(), json!(id));
    described.insert("iss".to_owned(), json!(issuer));
    described.insert("aud".to_owned(), json!([AUDIENCE]));
    described.insert("events_delivered".to_owned(), body["events_requested"].clone());
    if body["delivery"]["method"] == "urn:ietf:rfc:8936" {
        let place = format!("{issuer}/poll");
        described
            .insert("delivery".to_owned(), json!({"method": "urn:ietf:rfc:8936", "endpoint_url": place}));
    }
    described
}

/// The response to a poll, held back until there is something to deliver.
fn polled(call: &ApiCall, shared: &Mutex<TransmitterState>) -> Value {
    let most = usize::try_from(call.body["maxEvents"].as_u64().unwrap_or(1)).unwrap();
    let hold = {
        let mut state = shared.lock().unwrap();
        let acks = call.body["ack"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let acks: Vec<String> = acks.map(str::to_owned).collect();
        let errors: Vec<_> =
            call.body["setErrs"].as_object().cloned().unwrap_or_default().into_iter().collect();
        if !state.repeats {
            let over = |jti: &String| acks.contains(jti) || errors.iter().any(|(wrong, _)| wrong == jti);
            state.waiting.retain(|jti, _| !over(jti));
        }
        state.acknowledged.extend(acks);
        state.errors.extend(errors);
        state.hold
    };
    let began = std::time::Instant::now();
    loop {
        let (sets, left, stopped) = {
            let state = shared.lock().unwrap();
            let sets: Map<String, Value> =
                state.waiting.iter().take(most).map(|(jti, set)| (jti.clone(), json!(set))).collect();
            (sets, state.waiting.len().saturating_sub(most), state.stopped)
        };
        if !sets.is_empty() || began.elapsed() > hold.min(PATIENCE) || stopped {
            return json!({"sets": sets, "moreAvailable": left > 0});
        }
        let_pass(Duration::from_millis(5));
    }
}
