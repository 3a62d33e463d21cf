//! Shared Signals: the effect of every known form of a security event token, what is rejected, and the
//! responses on a socket.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use portcullis::events;
use portcullis::keys::set::KeySet;
use portcullis::keys::store::KeyStore;
use portcullis::keys::{self, jwks};
use portcullis::metrics::Metrics;
use portcullis::signals::ssf::{Accepted, KeysAsked, Settings, Transmission, Transmitter, Unaccepted};
use portcullis::signals::subject::SubjectIssuer;
use portcullis::time::Timestamp;
use serde_json::{Value, json};
use testkit::tokens::{Signer, compact};

mod examples;
mod hostile;
mod push;
mod streams;
mod subjects;

/// The second at which signals arrive.
const NOW: i64 = 1_767_225_600;
const SET: Option<&str> = Some("application/secevent+jwt");
const ISSUER: &str = "https://idp.example.com/";
const AUDIENCE: &str = "https://gate.example.com";
const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// A new signing key of a transmitter, with `kid` "a".
fn fresh_key() -> Signer {
    Signer::new("ES256", "a")
}

fn key_set(signer: &Signer) -> String {
    json!({"keys": [signer.jwk()]}).to_string()
}

/// Signs a token with any header and payload.
fn sign(signer: &Signer, header: &str, payload: &str) -> String {
    compact(signer, "ES256", header.as_bytes(), payload.as_bytes())
}

fn security_event(signer: &Signer, claims: &Value) -> String {
    sign(signer, r#"{"alg":"ES256","kid":"a","typ":"secevent+jwt"}"#, &claims.to_string())
}

fn settings() -> Settings {
    let keys = keys::Settings {
        issuer: "event_transmitters/t".to_owned(),
        algorithms: vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA],
        ..keys::Settings::default()
    };
    Settings {
        name: "t".to_owned(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        keys,
        subject_issuer: SubjectIssuer {
            issuer: events::EventIssuer {
                issuer: ISSUER.into(),
                leeway: Duration::from_secs(30),
                max_lifetime: Duration::from_secs(86_400),
            },
            has_email: false,
            has_aliases: false,
        },
        role_claims: vec!["https://example.com/rights".to_owned()],
        critical_members: Vec::new(),
        tolerant: false,
        authorization: None,
        transmission: Transmission::default(),
    }
}

fn transmitter(settings: Settings, signer: &Signer) -> Transmitter {
    let set = KeySet::new(jwks::parse(key_set(signer).as_bytes(), &settings.keys.algorithms).unwrap().keys);
    let keys = KeyStore::fixed(settings.keys.clone(), set, Metrics::new().unwrap());
    Transmitter::new(settings, keys)
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_secs(second)
}

/// Describes the result in words: `kind name @seconds` for each event, and in brackets what had no effect; or
/// the code of the rejection.
fn words(received: Result<Accepted, Unaccepted>) -> Vec<String> {
    let Accepted { events, passed_over, .. } = match received {
        Ok(accepted) => accepted,
        Err(Unaccepted::Refused(refusal)) => return vec![refusal.code.as_str().to_owned()],
        Err(other) => return vec![format!("{other:?}")],
    };
    let events = events.iter().map(|event| {
        let kind = Some(event.subject_kind.as_str()).filter(|kind| *kind != "subject");
        let subject = event
            .subject
            .as_deref()
            .map(|name| [kind, Some(name)].into_iter().flatten().collect::<Vec<_>>().join(" "));
        let name = match (&event.session, subject) {
            (Some(session), Some(subject)) => format!("{session} of {subject}"),
            (Some(name), None) => name.to_string(),
            (None, Some(subject)) => subject,
            (None, None) => event.jti.as_deref().unwrap().to_owned(),
        };
        let millis = match event.at.as_millis() % 1000 {
            0 => String::new(),
            millis => format!(".{millis:03}"),
        };
        format!("{} {name} @{}{millis}", event.kind.as_str(), event.at.as_secs())
    });
    events.chain(passed_over.iter().map(|why| format!("({})", why.as_str()))).collect()
}

/// Claims that end the sessions of `alice`.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "jti": "set-1", "iat": NOW - 1,
        "sub_id": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"},
        "events": {SESSION_REVOKED: {"event_timestamp": NOW - 2}},
    })
}

fn receive(settings: Settings, claims: &Value) -> Vec<String> {
    let signer = fresh_key();
    let token = security_event(&signer, claims);
    words(transmitter(settings, &signer).receive(token.as_bytes(), SET, KeysAsked::Nothing, at(NOW)))
}

fn tolerant() -> Settings {
    Settings { tolerant: true, ..settings() }
}

fn shared(transmitter: Transmitter) -> Vec<Arc<Transmitter>> {
    vec![Arc::new(transmitter)]
}
