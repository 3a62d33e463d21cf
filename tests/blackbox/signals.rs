//! Signals from identity providers, end to end: which tokens in use they end, and what is told of it.

use serde_json::{Value, json};
use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, unique};
use testkit::{eventually, now};

const AUDIENCE: &str = "https://gate.example.com";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const CLAIMS: &str = "[issuers.claims]\nemail = \"email\"\naliases = [\"oid\"]";

/// A gate with one issuer, of whose users one transmitter speaks.
fn scene() -> (App, Issuer, Issuer, Gate) {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let transmitter = Issuer::named("https://transmitter.example.com/");
    let settings = Settings::plaintext().upstream("api", &app.url(), "").route("/{*rest}", "").admin();
    let jwks = settings.file("transmitter.json", transmitter.jwks().to_string());
    let settings = settings.issuer_with(&issuer, CLAIMS).toml(&format!(
        "[signals]\n[[event_transmitters]]\nname = \"idp\"\nissuer = \"https://transmitter.example.com/\"\n\
         audience = \"{AUDIENCE}\"\njwks_file = {:?}\nsubject_issuer = \"{}\"\n",
        jwks.display().to_string(),
        issuer.name,
    ));
    let gate = Gate::start(&settings);
    (app, issuer, transmitter, gate)
}

/// A security event token that says of a subject that this happened.
fn signal(transmitter: &Issuer, word: &str, subject: &Value, event: &Value) -> String {
    let claims =
        transmitter.token().head("typ", "secevent+jwt").claim("aud", AUDIENCE).claim("jti", unique());
    let claims = claims.claim("iat", now()).claim("sub_id", subject.clone());
    let claims = claims.claim("events", json!({format!("{CAEP}{word}"): event}));
    claims.without("exp").without("sub").without("nbf").build()
}

fn push(gate: &Gate, token: &str) -> u16 {
    let request = gate.request("POST", "/signals/ssf/idp").field("Content-Type", "application/secevent+jwt");
    request.body(token).send().status()
}

#[test]
fn a_signal_ends_the_tokens_of_whom_it_names_and_says_how_many() {
    let (_app, issuer, transmitter, gate) = scene();
    let token = |subject: &str, session: &str| {
        let token = issuer.token().claim("sub", subject).claim("email", format!("{subject}@a.test"));
        token.claim("oid", format!("oid-{subject}")).claim("sid", session).build()
    };
    let tokens =
        [token("ada", "1"), token("ada", "2"), token("bob", "3"), token("cleo", "4"), token("dan", "5")];
    for token in &tokens {
        assert_eq!(gate.get("/").token(token).send().status(), 200);
    }
    let mut sent = 0;
    let opaque = |id: &str| json!({"format": "opaque", "id": id});
    for (word, subject, event, ended, reason, kind) in [
        (
            "session-revoked",
            json!({"format": "complex", "user": opaque("ada"), "session": opaque("1")}),
            json!({}),
            &[0][..],
            "session_revoked",
            "session-revoked",
        ),
        (
            "session-revoked",
            json!({"format": "email", "email": "ada@A.TEST"}),
            json!({}),
            &[1],
            "subject_revoked",
            "subject-revoked",
        ),
        (
            "credential-change",
            opaque("oid-bob"),
            json!({"credential_type": "password", "change_type": "update"}),
            &[2],
            "subject_revoked",
            "subject-revoked",
        ),
        (
            "token-claims-change",
            json!({"format": "iss_sub", "iss": issuer.name, "sub": "cleo"}),
            json!({"claims": {"roles": ["reader"]}}),
            &[3],
            "role_changed",
            "role-changed",
        ),
        ("session-revoked", opaque("nobody"), json!({}), &[], "", "subject-revoked"),
        ("session-established", opaque("dan"), json!({}), &[], "", "none"),
    ] {
        let told = |matched: &str| {
            let labels = [("source", "ssf"), ("type", kind), ("matched", matched)];
            gate.metrics().sum("portcullis_signals_total", &labels)
        };
        let matched = if ended.is_empty() { "no" } else { "yes" };
        let before = told(matched);
        let signal = signal(&transmitter, word, &subject, &event);
        assert_eq!(push(&gate, &signal), 202, "{word} {subject}");
        for place in ended {
            assert_eq!(gate.reason(&tokens[*place]), reason, "{word} {subject}");
        }
        assert_eq!(gate.get("/").token(&tokens[4]).send().status(), 200, "dan is never meant");
        eventually("the signal is told of", || (told(matched) > before).then_some(()));
        let line = eventually("the line of the signal", || {
            let lines = gate.log().records().into_iter().filter(|line| line["message"] == "signal");
            let mut lines: Vec<Value> = lines.collect();
            (lines.len() > sent).then(|| lines.swap_remove(sent))
        });
        sent += 2;
        assert_eq!(line["types"], kind.trim_start_matches("none"), "{line}");
        assert_eq!(line["tokens_ended"], ended.len(), "{line}");
        assert_eq!((&line["source"], &line["sender"]), (&json!("ssf"), &json!("idp")), "{line}");
        // Delivered again it gets the same answer, and ends nothing more.
        let (no, yes) = (told("no"), told("yes"));
        assert_eq!(push(&gate, &signal), 202);
        eventually("the repetition is told of", || (told("no") > no).then_some(()));
        assert!((told("yes") - yes).abs() < 0.5, "{word} {subject}");
    }
}
