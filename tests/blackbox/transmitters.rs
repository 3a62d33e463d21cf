//! Streams that the gate creates and maintains at a Shared Signals transmitter: created, found again, verified,
//! stale, lost; and signals by push and by poll that must not be lost.

use std::time::Duration;

use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::{Gate, field, message};
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::transmitter::{AUDIENCE, Lie, SignalTransmitter};
use testkit::{eventually, let_pass};

/// A gate with one transmitter, the test's.
struct Bed {
    transmitter: SignalTransmitter,
    issuer: Issuer,
    upstream: RawUpstream,
}

impl Bed {
    fn new() -> Self {
        Self {
            transmitter: SignalTransmitter::start(),
            issuer: Issuer::new(),
            upstream: RawUpstream::start(),
        }
    }

    /// The configuration with these lines in the transmitter's two tables, and a store that survives a restart.
    fn settings(&self, lines: &str, stream: &str) -> Settings {
        let transmitter = self.transmitter.toml(&self.issuer.name, lines, stream);
        let settings = Settings::plaintext().guarding(&self.upstream.url(), &self.issuer).admin();
        let store = settings.folder().join("state.db");
        settings.toml(&format!("{transmitter}[state]\npath = {store:?}\non_empty = \"trust\"\n"))
    }

    /// Starts the gate that the transmitter pushes to.
    fn start(&self, lines: &str, stream: &str) -> Gate {
        self.run(&self.settings(lines, stream))
    }

    fn run(&self, settings: &Settings) -> Gate {
        let gate = Gate::launch(settings);
        self.transmitter.state().push_to = Some(gate.public);
        gate.wait_until_ready();
        gate
    }

    fn status(&self, gate: &Gate) -> u16 {
        gate.get("/").token(&self.issuer.good()).send().status()
    }

    fn ends_alice(&self) -> (String, String) {
        self.transmitter.session_revoked(&self.issuer.name, "alice")
    }
}

fn condition(gate: &Gate) -> String {
    gate.readiness().1["components"]["signals:t"].as_str().unwrap_or_default().to_owned()
}

fn wait_for_condition(gate: &Gate, beginning: &str) {
    eventually(&format!("/ready says {beginning:?} of the transmitter"), || {
        condition(gate).starts_with(beginning).then_some(())
    });
}

/// Waits until a verification that is requested from now on has been confirmed.
fn wait_for_heartbeat(bed: &Bed, gate: &Gate) {
    let before = bed.transmitter.state().pushed.len();
    eventually("the next verification is pushed", || {
        (bed.transmitter.state().pushed.len() > before + 1).then_some(())
    });
    wait_for_condition(gate, "ok");
}

fn events(gate: &Gate) -> Vec<Value> {
    gate.list("/v1/events")
}

fn said(gate: &Gate, text: &str) -> Value {
    gate.log().wait_for(&format!("the log says {text:?}"), |record| message(record) == Some(text))
}

/// Holds docs/configuration.md, Settings: event_transmitters[].discovery
/// Holds docs/configuration.md, Settings: event_transmitters[].stream.scopes, .token_url, .client_id, .client_secret, .access_token
#[test]
fn a_stream_is_made_and_verified_and_its_signals_end_tokens() {
    let bed = Bed::new();
    let gate = bed.start(
        "authorization = \"Bearer of the stream\"\nheartbeat = \"200ms\"",
        "scopes = [\"ssf.manage\"]",
    );
    let token = bed.issuer.good();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    let id = bed.transmitter.stream();
    let [asked] = &*bed.transmitter.calls("POST", "/token") else { panic!("one access token") };
    assert_eq!(asked.text, "grant_type=client_credentials&scope=ssf.manage");
    assert_eq!(asked.authorization, "Basic Z2F0ZTpvZit0aGUrZ2F0ZQ==", "gate:of+the+gate");
    let [made] = &*bed.transmitter.calls("POST", "/streams") else { panic!("one stream") };
    assert!(made.authorization.starts_with("Bearer "), "{made:?}");
    let delivery = json!({
        "method": "urn:ietf:rfc:8935", "endpoint_url": "https://gate.example.com/signals/ssf/t",
        "authorization_header": "Bearer of the stream",
    });
    assert_eq!(made.body["delivery"], delivery);
    assert!(made.body["events_requested"].as_array().unwrap().len() == 7, "{made:?}");
    for verification in &bed.transmitter.wait_for("POST", "/verify", 3) {
        assert_eq!(verification.body["stream_id"], json!(id));
        assert_eq!(verification.body["state"].as_str().map(str::len), Some(32));
    }
    eventually("verifications are accepted", || {
        let pushed = bed.transmitter.state().pushed.clone();
        assert!(pushed.iter().all(|status| *status == 202), "{pushed:?}");
        (pushed.len() >= 3).then_some(())
    });
    assert_eq!(condition(&gate), "ok");
    let age = gate.metrics().sum("portcullis_signals_age_seconds", &[("transmitter", "t")]);
    assert!((0.0..60.0).contains(&age), "{age}");
    assert_eq!(bed.transmitter.push(&bed.ends_alice().1).status(), 202);
    assert_eq!(gate.get("/").token(&token).send().status(), 401);
    assert_eq!(bed.transmitter.calls("POST", "/streams").len(), 1);
}

#[test]
fn a_restart_finds_its_stream_again() {
    let bed = Bed::new();
    let settings = bed.settings("heartbeat = \"200ms\"", "");
    let mut gate = bed.run(&settings);
    let id = bed.transmitter.stream();
    wait_for_heartbeat(&bed, &gate);
    gate.stop();
    let gate = bed.run(&settings);
    said(&gate, "the stream is up to date");
    wait_for_heartbeat(&bed, &gate);
    assert_eq!(bed.transmitter.state().streams.keys().collect::<Vec<_>>(), [&id]);
    assert_eq!(bed.transmitter.calls("POST", "/streams").len(), 1);
    assert!(bed.transmitter.calls("PATCH", "/streams").is_empty());
    assert!(!gate.log().text().contains("signals_gap"));
}

#[test]
fn the_stream_of_an_earlier_configuration_is_changed_and_a_removed_one_is_left() {
    let bed = Bed::new();
    let settings = bed.settings("heartbeat = \"200ms\"", "");
    let gate = bed.run(&settings);
    let id = bed.transmitter.stream();
    let other = settings.to_toml().replace("heartbeat = \"200ms\"", "heartbeat = \"300ms\"").replace(
        "[event_transmitters.stream]",
        "[event_transmitters.stream]\nevents = [\"https://schemas.openid.net/secevent/caep/event-type/session-revoked\"]",
    );
    settings.file("portcullis.toml", &other);
    gate.wait_for_reloads("ok", 1.0);
    let [changed] = &*bed.transmitter.wait_for("PATCH", "/streams", 1) else { panic!("one change") };
    assert_eq!(changed.body["stream_id"], json!(id));
    assert_eq!(changed.body["events_requested"].as_array().unwrap().len(), 1);
    wait_for_heartbeat(&bed, &gate);
    let (before, rest) = other.split_once("[[event_transmitters]]").unwrap();
    let (_, store) = rest.split_once("[state]").unwrap();
    settings.file("portcullis.toml", format!("{before}[state]{store}"));
    gate.wait_for_reloads("ok", 2.0);
    said(
        &gate,
        "the gate no longer maintains the stream; delete it at the transmitter if it is no longer needed",
    );
    assert_eq!(bed.transmitter.state().streams.keys().collect::<Vec<_>>(), [&id]);
    assert!(bed.transmitter.calls("DELETE", "/streams").is_empty());
    eventually("the series leave", || {
        gate.metrics().family("portcullis_signals_age_seconds").next().is_none().then_some(())
    });
}

/// Holds docs/operations.md, Failure modes: a transmitter forgets its stream, or the gate was down for longer than it keeps signals
#[test]
fn a_stream_that_the_transmitter_forgot_is_made_again_and_the_gap_is_told() {
    let bed = Bed::new();
    let gate = bed.start("heartbeat = \"200ms\"", "");
    let id = bed.transmitter.stream();
    wait_for_heartbeat(&bed, &gate);
    assert!(!gate.log().text().contains("signals_gap"));
    bed.transmitter.forget();
    let again = bed.transmitter.stream();
    assert_ne!(again, id);
    wait_for_heartbeat(&bed, &gate);
    let gap = said(&gate, "signals_gap");
    assert_eq!(field(&gap, "transmitter"), Some("t"), "{gap}");
    let remedy = format!("portcullis event issuer-revoked --issuer {}", bed.issuer.name);
    assert!(field(&gap, "remedy").unwrap().ends_with(&remedy), "{gap}");
    assert_eq!(bed.transmitter.calls("POST", "/streams").len(), 2);
}

/// Holds docs/configuration.md, Settings: event_transmitters[].heartbeat, .when_stale
/// Holds docs/operations.md, Failure modes: the heartbeat of a transmitter's stream is overdue, or the transmitter paused it
#[test]
fn tokens_are_refused_while_the_heartbeat_is_overdue_and_accepted_when_it_is_back() {
    let bed = Bed::new();
    let gate = bed.start("heartbeat = \"300ms\"\nwhen_stale = \"refuse\"", "");
    bed.transmitter.stream();
    wait_for_heartbeat(&bed, &gate);
    let token = bed.issuer.good();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    bed.transmitter.state().verifies = false;
    wait_for_condition(&gate, "stale: no heartbeat was confirmed for");
    let (answer, decision) = gate.decision(|| gate.get("/").token(&token).send());
    assert_eq!((answer.status(), decision.as_str()), (503, "unavailable/signals_stale"));
    assert_eq!(answer.json()["error"], "temporarily_unavailable");
    assert_eq!(gate.would_say(&token), "signals_stale");
    assert_eq!(gate.readiness().0, 503, "the tokens of the only issuer cannot be judged");
    bed.transmitter.state().verifies = true;
    wait_for_condition(&gate, "ok");
    eventually("tokens are good again", || (bed.status(&gate) == 200).then_some(()));
    bed.transmitter.state().true_states = false;
    wait_for_condition(&gate, "stale: no heartbeat was confirmed for");
    assert!(bed.transmitter.state().pushed.contains(&400), "a state that nobody asked for");
    assert_eq!(bed.status(&gate), 503);
}

#[test]
fn a_response_that_lasts_is_cut_while_the_heartbeat_is_overdue() {
    let (bed, app) = (Bed::new(), App::start(Speaks::Http1));
    let transmitter =
        bed.transmitter.toml(&bed.issuer.name, "heartbeat = \"300ms\"\nwhen_stale = \"refuse\"", "");
    let lines = format!("{transmitter}[streams]\ncheck_interval = \"100ms\"\n");
    let gate = bed.run(&Settings::plaintext().guarding(&app.url(), &bed.issuer).admin().toml(&lines));
    wait_for_heartbeat(&bed, &gate);
    let mut stream = gate.connect();
    stream.send(gate.get("/events").token(&bed.issuer.good()).bytes()).unwrap();
    assert_eq!(stream.head().unwrap().status, 200);
    bed.transmitter.state().verifies = false;
    eventually("the stream is cut", || stream.chunk().is_err().then_some(()));
    assert_eq!(gate.cuts("signals_stale"), 1.0);
}

#[test]
fn a_transmitter_behind_tls_is_trusted_by_the_configured_roots_and_no_others() {
    let authority = Authority::new();
    let transmitter = SignalTransmitter::with_tls(&authority.server(&["127.0.0.1"]));
    let bed = Bed { transmitter, issuer: Issuer::new(), upstream: RawUpstream::start() };
    let settings = bed.settings("heartbeat = \"200ms\"\nca = \"roots.pem\"", "");
    settings.file("roots.pem", Authority::new().certificate_pem());
    let gate = bed.run(&settings);
    let line = said(&gate, "cannot maintain the stream of the transmitter");
    assert!(field(&line, "why").unwrap().contains("TLS"), "{line}");
    assert!(bed.transmitter.state().streams.is_empty());
    settings.file("roots.pem", authority.certificate_pem());
    gate.wait_for_reloads("ok", 1.0);
    wait_for_heartbeat(&bed, &gate);
}

#[test]
fn tokens_are_accepted_on_a_stale_stream_where_that_was_not_forbidden() {
    let bed = Bed::new();
    bed.transmitter.state().verifies = false;
    let gate = bed.start("heartbeat = \"100ms\"", "");
    wait_for_condition(&gate, "stale: no heartbeat was confirmed for");
    assert_eq!((bed.status(&gate), gate.readiness().0), (200, 200));
    let unasked = bed.transmitter.push(&bed.transmitter.verification(None));
    assert_eq!(unasked.status(), 202, "valid, and proves nothing");
    let wrong = bed.transmitter.push(&bed.transmitter.verification(Some("guessed")));
    assert_eq!((wrong.status(), &wrong.json()["err"]), (400, &json!("invalid_state")));
    assert!(condition(&gate).starts_with("stale"));
}

#[test]
fn a_paused_or_disabled_stream_is_stale_at_once() {
    for status in ["paused", "disabled"] {
        let bed = Bed::new();
        let gate = bed.start("heartbeat = \"1h\"\nwhen_stale = \"refuse\"", "");
        bed.transmitter.stream();
        wait_for_condition(&gate, "ok");
        eventually("the first heartbeat", || (!bed.transmitter.state().pushed.is_empty()).then_some(()));
        assert_eq!(bed.status(&gate), 200);
        bed.transmitter.state().status = if status == "paused" { "paused" } else { "disabled" };
        assert_eq!(bed.transmitter.push(&bed.transmitter.stream_updated(status)).status(), 202);
        assert_eq!(
            (condition(&gate).as_str(), bed.status(&gate)),
            ("stale: the transmitter has stopped sending signals", 503)
        );
        said(&gate, "the transmitter stopped sending on the stream");
        bed.transmitter.state().status = "enabled";
        assert_eq!(bed.transmitter.push(&bed.transmitter.stream_updated("enabled")).status(), 202);
        wait_for_condition(&gate, "ok");
        assert_eq!(bed.status(&gate), 200, "verified at once");
        let resumed = said(&gate, "the transmitter sends on the stream again");
        assert_eq!(field(&resumed, "before"), Some(status));
        assert_eq!(gate.log().text().contains("signals_gap"), status == "disabled");
    }
}

/// Holds docs/configuration.md, Settings: event_transmitters[].delivery, .poll_url, .poll_authorization
#[test]
fn signals_are_fetched_from_a_stream_that_was_made_by_hand() {
    let bed = Bed::new();
    let url = bed.transmitter.issuer();
    let settings = Settings::plaintext().guarding(&bed.upstream.url(), &bed.issuer).admin().toml(&format!(
        "[[event_transmitters]]\nname = \"t\"\nissuer = {url:?}\naudience = \"{AUDIENCE}\"\n\
         jwks_url = \"{url}/jwks\"\nsubject_issuer = {:?}\ndelivery = \"poll\"\npoll_url = \"{url}/poll\"\n\
         poll_authorization = \"Bearer of the operator\"\n",
        bed.issuer.name
    ));
    let gate = bed.run(&settings);
    let token = bed.issuer.good();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    let (jti, set) = bed.ends_alice();
    bed.transmitter.offer((jti.clone(), set));
    eventually("the signal is acknowledged", || {
        bed.transmitter.state().acknowledged.contains(&jti).then_some(())
    });
    assert_eq!(gate.get("/").token(&token).send().status(), 401);
    let polls = bed.transmitter.calls("POST", "/poll");
    assert_eq!(polls[0].body, json!({"maxEvents": 100, "returnImmediately": false, "ack": []}));
    assert_eq!(bed.transmitter.state().calls_to("/streams"), 0);
}

#[test]
fn a_kept_stream_is_polled_and_what_is_wrong_is_said() {
    let bed = Bed::new();
    let gate = bed.start("delivery = \"poll\"\nheartbeat = \"300ms\"\nwhen_stale = \"refuse\"", "");
    let token = bed.issuer.good();
    let [made] = &*bed.transmitter.wait_for("POST", "/streams", 1) else { panic!("one stream") };
    assert_eq!(made.body["delivery"], json!({"method": "urn:ietf:rfc:8936"}));
    bed.transmitter.wait_for("POST", "/verify", 3);
    wait_for_condition(&gate, "ok");
    let (jti, set) = bed.ends_alice();
    let (other, _) = bed.ends_alice();
    bed.transmitter.offer(("forged".to_owned(), set[..set.len() - 8].to_owned() + "AAAAAAAA"));
    bed.transmitter.offer(("garbage".to_owned(), "garbage".to_owned()));
    bed.transmitter.offer((jti.clone(), set));
    let errors = eventually("both are described", || {
        let errors = bed.transmitter.state().errors.clone();
        (errors.len() == 2).then_some(errors)
    });
    let codes: Vec<(&str, &str)> =
        errors.iter().map(|(jti, error)| (jti.as_str(), error["err"].as_str().unwrap())).collect();
    assert!(codes.contains(&("forged", "authentication_failed")), "{codes:?}");
    assert!(codes.contains(&("garbage", "invalid_request")), "{codes:?}");
    eventually("the signal is acknowledged", || {
        bed.transmitter.state().acknowledged.contains(&jti).then_some(())
    });
    assert!(!bed.transmitter.state().acknowledged.contains(&other));
    assert_eq!(gate.get("/").token(&token).send().status(), 401);
    assert_eq!(events(&gate).len(), 1);
}

#[test]
fn a_signal_that_is_durable_and_not_acknowledged_is_delivered_again_and_counts_once() {
    let bed = Bed::new();
    let settings = bed.settings("delivery = \"poll\"\nheartbeat = \"0s\"", "");
    let mut gate = bed.run(&settings);
    let token = bed.issuer.good();
    bed.transmitter.wait_for("POST", "/poll", 1);
    let (jti, set) = bed.ends_alice();
    bed.transmitter.offer((jti.clone(), set));
    // The acknowledgement comes with the next poll, which nobody answers.
    eventually("the signal is durable", || {
        bed.transmitter.lie("/poll", Lie::HangUp);
        (!events(&gate).is_empty()).then_some(())
    });
    gate.kill();
    assert!(bed.transmitter.state().acknowledged.is_empty(), "nobody heard");
    bed.transmitter.tell_the_truth();
    let gate = bed.run(&settings);
    assert_eq!(gate.get("/").token(&token).send().status(), 401, "in force before it is fetched again");
    eventually("the signal is acknowledged", || {
        bed.transmitter.state().acknowledged.contains(&jti).then_some(())
    });
    assert_eq!(events(&gate).len(), 1);
}

#[test]
fn access_tokens_are_renewed_before_they_expire_and_when_they_are_rejected() {
    let bed = Bed::new();
    bed.transmitter.state().expires_in = 1;
    let gate = bed.start("delivery = \"poll\"\nheartbeat = \"200ms\"", "");
    bed.transmitter.wait_for("POST", "/token", 4);
    let rejected = |bed: &Bed| bed.transmitter.state().rejected();
    assert_eq!(rejected(&bed), 0, "none was used after its time");
    bed.transmitter.state().expires_in = 3600;
    let polls = bed.transmitter.calls("POST", "/poll").len();
    let verified = bed.transmitter.calls("POST", "/verify").len();
    bed.transmitter.revoke_tokens();
    let (jti, set) = bed.ends_alice();
    bed.transmitter.offer((jti.clone(), set));
    eventually("the signal is acknowledged", || {
        bed.transmitter.state().acknowledged.contains(&jti).then_some(())
    });
    bed.transmitter.wait_for("POST", "/poll", polls + 1);
    bed.transmitter.wait_for("POST", "/verify", verified + 3);
    wait_for_condition(&gate, "ok");
}

#[test]
fn a_transmitter_that_lies_gets_no_stream_until_it_tells_the_truth() {
    let huge = format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20));
    for (path, lie, said) in [
        (
            "/.well-known/ssf-configuration",
            Lie::Body(
                json!({"issuer": "https://evil.example", "configuration_endpoint": "https://evil.example/s"})
                    .to_string(),
            ),
            "another issuer",
        ),
        ("/.well-known/ssf-configuration", Lie::Body(huge.clone()), "larger than 1 MiB"),
        (
            "/.well-known/ssf-configuration",
            Lie::Body("<html>".to_owned()),
            "must be a JSON object without repeated members",
        ),
        (
            "/.well-known/ssf-configuration",
            Lie::Status("302 Found", "location: /x\r\n".to_owned()),
            "redirects are not followed",
        ),
        ("/.well-known/ssf-configuration", Lie::Silence, "did not respond in time"),
        ("/token", Lie::Status("401 Unauthorized", String::new()), "the token endpoint responded with 401"),
        ("/token", Lie::Body("{}".to_owned()), "returned no access_token"),
        ("/token", Lie::Body(huge.clone()), "larger than 1 MiB"),
        ("/streams", Lie::Status("500 Internal Server Error", String::new()), "responded with 500"),
        ("/streams", Lie::Status("302 Found", "location: /x\r\n".to_owned()), "redirects are not followed"),
        ("/streams", Lie::Body("\"s1\"".to_owned()), "not a list of streams"),
        ("/streams", Lie::Body(huge), "larger than 1 MiB"),
        ("/streams", Lie::HangUp, "connection closed"),
    ] {
        let bed = Bed::new();
        // The keys come from the same metadata.
        let keys = bed.transmitter.issuer();
        bed.transmitter.lie(path, lie.clone());
        let gate = bed.start("heartbeat = \"200ms\"", "");
        let line = gate.log().wait_for(&format!("a complaint about {path} {lie:?}"), |record| {
            message(record) == Some("cannot maintain the stream of the transmitter")
        });
        assert!(field(&line, "why").unwrap().contains(said), "{keys} {line}");
        assert!(bed.transmitter.state().streams.is_empty(), "{path}");
        assert_eq!(bed.status(&gate), 200);
        bed.transmitter.tell_the_truth();
        bed.transmitter.stream();
        eventually("a verification is accepted", || {
            bed.transmitter.state().pushed.contains(&202).then_some(())
        });
    }
}

#[test]
fn polls_that_bring_garbage_or_the_same_signals_again_lose_nothing_and_do_not_hurry() {
    let bed = Bed::new();
    let gate = bed.start("delivery = \"poll\"\nheartbeat = \"0s\"", "");
    bed.transmitter.wait_for("POST", "/poll", 1);
    for (lie, said) in [
        (Lie::Body("<html>".to_owned()), "not a JSON object"),
        (Lie::Body("{\"sets\":[]}".to_owned()), "is not an object"),
        (Lie::Body(format!("{{\"x\":\"{}\"}}", "x".repeat(2 << 20))), "larger than 1 MiB"),
        (Lie::Status("500 Internal Server Error", String::new()), "responded with 500"),
        (Lie::Status("429 Too Many Requests", "retry-after: 1\r\n".to_owned()), "responded with 429"),
    ] {
        bed.transmitter.lie("/poll", lie);
        gate.log().wait_for(said, |record| {
            message(record) == Some("cannot poll for signals") && field(record, "why").unwrap().contains(said)
        });
        bed.transmitter.tell_the_truth();
        let (jti, set) = bed.ends_alice();
        bed.transmitter.offer((jti.clone(), set));
        eventually("the next signal is acknowledged", || {
            bed.transmitter.state().acknowledged.contains(&jti).then_some(())
        });
    }
    let before = events(&gate).len();
    bed.transmitter.state().repeats = true;
    let (jti, set) = bed.ends_alice();
    bed.transmitter.offer((jti.clone(), set));
    eventually("it is acknowledged", || bed.transmitter.state().acknowledged.contains(&jti).then_some(()));
    let polls = bed.transmitter.calls("POST", "/poll").len();
    let_pass(Duration::from_secs(3));
    let more = bed.transmitter.calls("POST", "/poll").len() - polls;
    assert!(more <= 10, "{more} polls in three seconds: it hurries in vain");
    assert_eq!(events(&gate).len(), before + 1);
}

#[test]
fn a_polled_endpoint_that_is_gone_is_looked_for_anew() {
    let bed = Bed::new();
    let gate = bed.start("delivery = \"poll\"\nheartbeat = \"0s\"", "");
    bed.transmitter.wait_for("POST", "/poll", 1);
    bed.transmitter.lie("/poll", Lie::Status("404 Not Found", String::new()));
    bed.transmitter.forget();
    bed.transmitter.stream();
    bed.transmitter.tell_the_truth();
    let (jti, set) = bed.ends_alice();
    bed.transmitter.offer((jti.clone(), set));
    eventually("the signal is acknowledged", || {
        bed.transmitter.state().acknowledged.contains(&jti).then_some(())
    });
    said(&gate, "signals_gap");
}

#[test]
fn the_only_stream_that_a_transmitter_allows_is_taken_over() {
    let bed = Bed::new();
    {
        let mut state = bed.transmitter.state();
        state.one_stream = true;
        let theirs = json!({
            "stream_id": "theirs", "iss": "x", "aud": "y", "events_requested": [], "description": "by hand",
            "delivery": {"method": "urn:ietf:rfc:8935", "endpoint_url": "https://old.example/"},
        });
        state.streams.insert("theirs".to_owned(), theirs);
    }
    let gate = bed.start("heartbeat = \"200ms\"", "access_token = \"of the operator\"");
    let [changed] = &*bed.transmitter.wait_for("PATCH", "/streams", 1) else { panic!("one change") };
    assert_eq!(changed.body["stream_id"], "theirs");
    assert_eq!(changed.authorization, "Bearer of the operator");
    wait_for_heartbeat(&bed, &gate);
    assert!(bed.transmitter.calls("POST", "/token").is_empty());
    assert_eq!(bed.transmitter.state().streams.len(), 1);
}

/// Holds docs/configuration.md, Settings: event_transmitters[].stream.events, .add_subjects
#[test]
fn each_subject_is_added_once_when_its_first_token_is_seen() {
    let bed = Bed::new();
    let gate = bed.start("heartbeat = \"0s\"", "add_subjects = true");
    bed.transmitter.stream();
    let use_token = |subject: &str| {
        let token = bed.issuer.token().claim("sub", subject).build();
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
        assert_eq!(gate.get("/").token(&token).send().status(), 200);
    };
    ["alice", "bob", "alice"].iter().for_each(|subject| use_token(subject));
    let added = |count: usize| {
        let calls = bed.transmitter.wait_for("POST", "/subjects", count);
        calls.iter().map(|call| call.body["subject"].clone()).collect::<Vec<_>>()
    };
    let named = |subject: &str| json!({"format": "iss_sub", "iss": bed.issuer.name, "sub": subject});
    assert_eq!(added(2), [named("alice"), named("bob")]);
    bed.transmitter.lie("/subjects", Lie::Status("404 Not Found", String::new()));
    use_token("carol");
    assert_eq!(added(3)[2], named("carol"));
    bed.transmitter.tell_the_truth();
    use_token("dave");
    assert_eq!(added(4)[3], named("dave"), "carol is not wanted, and not asked for again");
}

#[test]
fn a_gate_that_was_down_for_longer_than_the_transmitter_keeps_signals_says_so() {
    let bed = Bed::new();
    bed.transmitter.state().describes.insert("inactivity_timeout".to_owned(), json!(1));
    let settings = bed.settings("heartbeat = \"200ms\"", "");
    let mut gate = bed.run(&settings);
    wait_for_heartbeat(&bed, &gate);
    gate.stop();
    let_pass(Duration::from_millis(1500));
    let gate = bed.run(&settings);
    let gap = said(&gate, "signals_gap");
    assert!(field(&gap, "why").unwrap().contains("longer than it keeps signals"), "{gap}");
}
