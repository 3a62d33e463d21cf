//! Restarts as supervisors do them: the next gate takes over from the one that shuts down, and clients hardly notice.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use testkit::app::{App, Speaks};
use testkit::gate::{Gate, path_text, portcullis};
use testkit::operator::admin_call;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;
use testkit::wire::Wire;
use testkit::{PATIENCE, eventually, now};

/// A gate with fixed addresses and a state file, whose last uses are saved only when it ends.
fn lasting(upstream: &str, issuer: &Issuer) -> Settings {
    let [public, telemetry, admin] = [(); 3].map(|()| testkit::ports::reserved());
    Settings::plaintext()
        .server(&format!("listen = [\"{public}\"]\ndrain_timeout = \"10m\""))
        .telemetry(&format!("listen = \"{telemetry}\""))
        .guarding(upstream, issuer)
        .toml("[state]\npath = \"state.db\"\non_empty = \"trust\"\nflush_interval = \"1h\"\n")
        .toml(&format!(
            "[admin]\nlisten = \"{admin}\"\n[[admin.tokens]]\nname = \"ops\"\nsecret = \"{ADMIN_TOKEN}\"\n\
             permissions = [\"events\", \"sessions\", \"config\"]\n"
        ))
}

/// How often a client whose request failed retries, and after which pause. Together a small part of `drain_timeout`.
const ATTEMPTS: usize = 400;
const PAUSE: Duration = Duration::from_millis(25);

/// Sends a request on new connections until there is a response; returns how often there was none.
fn insist(address: SocketAddr, request: &[u8], status: u16) -> usize {
    for refused in 0..ATTEMPTS {
        if let Ok(answer) = Wire::try_plain(address).and_then(|mut wire| wire.exchange(request)) {
            assert_eq!(answer.status(), status, "{}", answer.text());
            return refused;
        }
        testkit::let_pass(PAUSE);
    }
    panic!("{address} refused {ATTEMPTS} connections in turn");
}

/// What clients and administrators do during restarts.
struct Load {
    public: SocketAddr,
    admin: SocketAddr,
    request: Vec<u8>,
    over: AtomicBool,
    served: AtomicUsize,
    /// Subjects whose revocation was acknowledged.
    revoked: Mutex<Vec<String>>,
}

impl Load {
    fn ask(&self) {
        while !self.over.load(Ordering::SeqCst) {
            insist(self.public, &self.request, 200);
            self.served.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn publish(&self) {
        for number in 0.. {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            let subject = format!("gone-{number}");
            let event = json!({"type": "subject-revoked", "subject": subject}).to_string();
            insist(self.admin, admin_call("POST", "/v1/events", &event).as_bytes(), 202);
            self.revoked.lock().unwrap().push(subject);
            testkit::let_pass(Duration::from_millis(10));
        }
    }

    fn goes_on(&self) {
        let before = self.served.load(Ordering::SeqCst);
        eventually("clients are served", || (self.served.load(Ordering::SeqCst) > before + 20).then_some(()));
    }
}

/// Restarts a gate three times under load, each time with a stream open; `restart` starts the next gate.
fn under_load(restart: impl Fn(&mut Gate) -> Gate) {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = lasting(&app.url(), &issuer);
    let mut gate = Gate::start(&settings);
    let load = Load {
        public: gate.public,
        admin: gate.admin,
        request: gate.get("/hello").token(&issuer.good()).field("Connection", "close").bytes(),
        over: AtomicBool::new(false),
        served: AtomicUsize::new(0),
        revoked: Mutex::default(),
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| load.ask());
        }
        scope.spawn(|| load.publish());
        // Whatever fails in here must not leave the others running.
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            for round in 0..3 {
                load.goes_on();
                let mut stream = gate.connect();
                stream.send(gate.get("/events").token(&issuer.good()).bytes()).unwrap();
                assert_eq!(stream.head().unwrap().status, 200);
                let visitor = format!("visitor-{round}");
                let token = issuer.token().claim("sub", &*visitor).build();
                assert_eq!(gate.get("/hello").token(&token).send().status(), 200);
                let mut next = restart(&mut gate);
                next.wait_until_ready();
                assert!(stream.chunk().is_err(), "the stream ends, and visibly so");
                // Long before the time for requests in flight is over.
                assert_eq!(gate.wait_for_exit(PATIENCE).code(), Some(0));
                let listed = next.list(&format!("/v1/sessions?subject={visitor}"));
                assert_eq!(listed.len(), 1, "the last use before the restart is known: {listed:?}");
                std::mem::swap(&mut gate, &mut next);
            }
            load.goes_on();
        }));
        load.over.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| resume_unwind(panic));
    });
    let revoked = load.revoked.lock().unwrap();
    assert!(revoked.len() > 3, "{revoked:?}");
    for subject in revoked.iter() {
        let listed = gate.list(&format!("/v1/revocations?subject={subject}"));
        // More than once where the answer was lost and the event sent again.
        assert!(!listed.is_empty(), "{subject} was acknowledged");
        let token = issuer.token().claim("sub", &**subject).claim("iat", now() - 30).build();
        assert_eq!(gate.would_say(&token), "subject_revoked");
    }
}

/// Holds docs/operations.md, Failure modes: a restart
#[test]
fn a_gate_that_starts_beside_one_that_leaves_takes_over_at_once() {
    under_load(|gate| {
        gate.signal("TERM");
        Gate::launch(&gate.settings)
    });
}

/// Holds docs/operations.md, Failure modes: a restart
#[test]
fn a_supervisor_that_waits_for_the_end_does_not_wait_for_streams() {
    under_load(|gate| {
        gate.signal("TERM");
        eventually("the gate ends", || (!gate.is_alive()).then_some(()));
        Gate::launch(&gate.settings)
    });
}

#[test]
fn a_gate_that_takes_over_does_not_wait_for_requests_in_flight_nor_for_the_delay() {
    let upstream = RawUpstream::scripted(|exchange| match exchange.request.target().as_str() {
        "/held" => exchange.wait_for_close(),
        _ => exchange.ok("served"),
    });
    let issuer = Issuer::new();
    let settings = lasting(&upstream.url(), &issuer).server("shutdown_delay = \"10m\"");
    let mut leaving = Gate::start(&settings);
    let token = issuer.good();
    let mut held = leaving.connect();
    held.send(leaving.get("/held").token(&token).bytes()).unwrap();
    upstream.wait_for(1);
    leaving.signal("TERM");
    eventually("not ready", || (leaving.readiness().0 == 503).then_some(()));
    assert_eq!(leaving.get("/").token(&token).send().status(), 200, "still served by the gate that leaves");
    let next = Gate::start(&settings);
    assert_eq!(next.get("/").token(&token).send().status(), 200);
    assert!(next.log().text().contains("\"listening\""));
    leaving.log().wait_for_text("released the state store");
    assert!(leaving.is_alive(), "the request in flight has its time");
    assert_eq!(next.list("/v1/sessions?subject=alice").len(), 1);
    // And is itself replaced, while the first one still leaves.
    let mut next = next;
    next.signal("TERM");
    let third = Gate::start(&settings);
    assert_eq!(next.wait_for_exit(PATIENCE).code(), Some(0));
    assert!(leaving.is_alive());
    let next = third;
    upstream.hang_up();
    assert_eq!(held.answer().unwrap().status(), 502);
    assert_eq!(leaving.wait_for_exit(PATIENCE).code(), Some(0));
    // It has not touched the state since.
    assert_eq!(next.list("/v1/sessions?subject=alice").len(), 1);
}

#[test]
fn what_ends_a_token_after_the_takeover_ends_its_requests_in_flight_at_the_gate_that_leaves() {
    let upstream = RawUpstream::scripted(|exchange| {
        exchange.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        exchange.wait_for_close()
    });
    let issuer = Issuer::new();
    let settings = lasting(&upstream.url(), &issuer).toml("[streams]\ncheck_interval = \"100ms\"\n");
    let mut leaving = Gate::start(&settings);
    let download = |subject: &str| {
        let mut wire = leaving.connect();
        let token = issuer.token().claim("sub", subject).build();
        wire.send(leaving.get("/large").token(&token).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        assert_eq!(wire.chunk().unwrap().unwrap(), b"begun");
        wire
    };
    let (mut ended, mut other) = (download("alice"), download("bob"));
    leaving.signal("TERM");
    let next = Gate::start(&settings);
    leaving.log().wait_for_text("released the state store");
    next.publish(&json!({"type": "subject-revoked", "subject": "alice"}));
    assert!(ended.chunk().is_err(), "cut");
    leaving.log().wait_for("the reason", |record| record["reason"] == "subject_revoked");
    assert!(leaving.is_alive(), "the other download goes on");
    upstream.hang_up();
    assert!(other.chunk().is_err());
    assert_eq!(leaving.wait_for_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_gate_that_serves_gives_up_nothing() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = lasting(&upstream.url(), &issuer);
    let gate = Gate::start(&settings);
    let (said, code) = Gate::attempt(&settings).err().expect("it does not start");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&gate.public.to_string()), "{said}");
    // The same state behind other addresses.
    let [public, telemetry] = [(); 2].map(|()| testkit::ports::reserved());
    let beside = settings
        .clone()
        .server(&format!("listen = [\"{public}\"]"))
        .telemetry(&format!("listen = \"{telemetry}\""));
    let text = beside.to_toml().replace(&gate.admin.to_string(), "127.0.0.1:0");
    let (said, code) = attempt_with(&beside, &text);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("state.db.lock"), "{said}");
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
    assert_eq!(gate.readiness().0, 200);
}

/// Runs a gate with this configuration, which must fail; returns its output and exit code.
fn attempt_with(settings: &Settings, text: &str) -> (String, Option<i32>) {
    let path = settings.file("beside.toml", text);
    let outcome = portcullis(&["run", "--config", path_text(&path)]);
    (outcome.err, Some(outcome.code))
}
