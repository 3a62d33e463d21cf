//! Every example SET in the specifications, and what real transmitters send.

use portcullis::signals::ssf::{Answer, KeysAsked};
use portcullis::time::Timestamp;
use serde_json::{Value, json};

use super::{NOW, SET, Settings, at, fresh_key, security_event, settings, sign, transmitter, words};

fn sets(document: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(document).unwrap();
    document["sets"].as_array().unwrap().clone()
}

/// A transmitter whose issuer and audience match these claims.
fn fitting(claims: &Value, tolerant: bool) -> Settings {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let audience = if claims["aud"].is_array() { &claims["aud"][1] } else { &claims["aud"] };
    let mut settings = Settings { issuer: text(&claims["iss"]), audience: text(audience), ..settings() };
    settings.subject_issuer.issuer.issuer = claims["iss"].as_str().unwrap().into();
    Settings { tolerant, ..settings }
}

#[test]
fn every_example_of_the_specifications_has_its_outcome() {
    let signer = fresh_key();
    let sets = sets(include_str!("../../data/ssf/specification.json"));
    assert_eq!(sets.len(), 26);
    for set in sets {
        let (claims, expected) = (&set["claims"], &set["expect"]);
        let token = security_event(&signer, claims);
        for tolerant in [false, true] {
            let transmitter = transmitter(fitting(claims, tolerant), &signer);
            let received = transmitter.receive(token.as_bytes(), SET, KeysAsked::Nothing, at(NOW));
            assert_eq!(json!(words(received)), *expected, "tolerant: {tolerant}, {set}");
        }
    }
}

#[test]
fn what_real_transmitters_send_is_understood() {
    let signer = fresh_key();
    let sets = sets(include_str!("../../data/ssf/transmitters.json"));
    assert_eq!(sets.len(), 7);
    for set in sets {
        let claims = &set["claims"];
        let now = Timestamp::from_secs(claims["iat"].as_i64().unwrap());
        let typ = if set.get("typ").is_some() { "" } else { r#","typ":"secevent+jwt""# };
        let token = sign(&signer, &format!(r#"{{"alg":"ES256","kid":"a"{typ}}}"#), &claims.to_string());
        let (body, content_type, answer) = match set.get("envelope") {
            Some(_) => (json!({ "payload": token }).to_string(), Some("application/json"), Answer::Ok),
            None => (token, SET, Answer::Accepted),
        };
        for (tolerant, expected) in [(true, &set["tolerant"]), (false, &set["strict"])] {
            let transmitter = transmitter(fitting(claims, tolerant), &signer);
            let received = transmitter.receive(body.as_bytes(), content_type, KeysAsked::Nothing, now);
            if let Ok(accepted) = &received {
                assert_eq!(accepted.answer, answer);
            }
            let words = words(received);
            let expected = if expected.is_string() { json!([expected]) } else { expected.clone() };
            assert_eq!(json!(words), expected, "tolerant: {tolerant}, {set}");
        }
    }
}
