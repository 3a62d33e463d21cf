//! Signals from identity providers, end to end: which tokens in use they end, and how they are logged and counted.

use serde_json::{Value, json};
use testkit::app::{App, Speaks};
use testkit::gate::{Gate, binary, path_text};
use testkit::settings::Settings;
use testkit::tokens::{Issuer, unique};
use testkit::{eventually, now};

const AUDIENCE: &str = "https://gate.example.com";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const CLAIMS: &str = "[issuers.claims]\nemail = \"email\"\naliases = [\"oid\"]";

/// A gate with one issuer, and one transmitter that reports on its users.
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

/// A security event token that reports this event about a subject.
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

#[test]
fn explain_tells_what_a_recorded_signal_would_do_and_why_not() {
    let (issuer, transmitter) = (Issuer::new(), Issuer::named("https://transmitter.example.com/"));
    let settings = Settings::plaintext().upstream("api", "http://127.0.0.1:9", "").route("/{*rest}", "");
    let jwks = settings.file("transmitter.json", transmitter.jwks().to_string());
    let settings = settings.issuer_with(&issuer, CLAIMS).toml(&format!(
        "[signals]\n[[event_transmitters]]\nname = \"idp\"\nissuer = \"https://transmitter.example.com/\"\n\
         audience = \"{AUDIENCE}\"\njwks_file = {:?}\nsubject_issuer = {:?}\n\
         [[logout]]\nname = \"op\"\nissuer = {:?}\naudiences = [\"web\"]\n",
        jwks.display().to_string(),
        issuer.name,
        issuer.name,
    ));
    let config = settings.write();
    let explain = |token: &str, more: &[&str]| {
        let file = settings.file("recorded.jwt", token);
        let mut command = std::process::Command::new(binary());
        command.args(["explain", "--config", path_text(&config), "--signal", path_text(&file)]).args(more);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let subject = json!({"format": "opaque", "id": "ada"});
    let good = signal(&transmitter, "session-revoked", &subject, &json!({}));
    let forged = {
        let other = Issuer::named("https://transmitter.example.com/");
        signal(&other, "session-revoked", &subject, &json!({}))
    };
    let nothing = signal(&transmitter, "session-established", &subject, &json!({}));
    let logout = |nonce: bool| {
        let token = issuer.token().head("typ", "logout+jwt").claim("aud", "web").claim("sid", "s1");
        let token = token.claim("jti", unique()).claim("iat", now());
        let events = json!({"http://schemas.openid.net/event/backchannel-logout": {}});
        let token = token.claim("events", events);
        if nonce { token.claim("nonce", "n").build() } else { token.build() }
    };
    for (token, more, code, words) in [
        (&good, &[][..], 0, &["idp", "subject-revoked", "\"ada\"", "would end tokens"][..]),
        (&good, &["--transmitter", "idp"], 0, &["would end tokens"]),
        (&good, &["--transmitter", "other"], 1, &["\"other\" is not configured; configured: idp, op"]),
        (&forged, &[], 1, &["FAIL", "would end no token"]),
        (&nothing, &[], 1, &["passed over", "unknown-event", "would end no token"]),
        (&logout(false), &[], 0, &["op", "session-revoked", "session \"s1\"", "would end tokens"]),
        (&logout(true), &[], 1, &["`nonce` is not allowed", "would end no token"]),
        (&issuer.good(), &[], 1, &["no sender has the issuer", "would end no token"]),
        (&"rubbish".to_owned(), &[], 1, &["does not contain a signed token"]),
    ] {
        let (exit, text) = explain(token, more);
        assert_eq!(exit, Some(code), "{more:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert!(!text.contains(token.as_str()), "the token is not repeated");
    }
    let (code, text) = explain(&good, &["--json"]);
    let verdict: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code, &verdict["would_end_tokens"], &verdict["refusal"]),
        (Some(0), &json!(true), &Value::Null)
    );
    assert_eq!(verdict["events"][0]["subject"], "ada", "{verdict}");
    assert_eq!(explain(&good, &["--path", "/x"]).0, Some(2), "a signal has no path");
    let missing = std::process::Command::new(binary())
        .args(["explain", "--config", path_text(&config), "--signal", "/nowhere/at/all"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
}
