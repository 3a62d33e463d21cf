//! Subject formats, event types and times, one claim at a time.

use serde_json::{Value, json};

use super::{ISSUER, NOW, SESSION_REVOKED, Settings, claims, receive, settings, tolerant};

const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC: &str = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF: &str = "https://schemas.openid.net/secevent/ssf/event-type/";
const LOGIN_GOV: &str = "https://schemas.login.gov/secevent/risc/event-type/";

fn of_subject(settings: Settings, identifier: &Value) -> Vec<String> {
    let mut claims = claims();
    claims["sub_id"] = identifier.clone();
    receive(settings, &claims)
}

fn of_event(settings: Settings, uri: &str, event: &Value) -> Vec<String> {
    let mut claims = claims();
    claims["events"] = json!({ uri: event });
    receive(settings, &claims)
}

fn revoked(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("{name} @{}", NOW - 2)).collect()
}

#[test]
fn each_format_names_whom_it_says() {
    let alice = json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"});
    let bob = json!({"format": "opaque", "id": "bob"});
    let token = json!({"format": "jwt_id", "iss": ISSUER, "jti": "j1"});
    let phone = json!({"format": "phone_number", "phone_number": "+12065550123"});
    let stranger = json!({"format": "iss_sub", "iss": "https://other.example.com/", "sub": "alice"});
    let session = json!({"format": "opaque", "id": "session-1"});
    let both = json!({"format": "aliases", "identifiers": [alice, phone, stranger, bob]});
    for (identifier, expected) in [
        (alice.clone(), vec!["subject-revoked alice"]),
        (bob.clone(), vec!["subject-revoked bob"]),
        (json!({"format": "email", "email": "a@b.example"}), vec!["subject-revoked a@b.example"]),
        (
            json!({"format": "account", "uri": "acct:a@b.example"}),
            vec!["subject-revoked a@b.example", "subject-revoked acct:a@b.example"],
        ),
        (token.clone(), vec!["token-revoked j1"]),
        (both.clone(), vec!["subject-revoked alice", "subject-revoked bob"]),
        (json!({"format": "complex", "user": both}), vec!["subject-revoked alice", "subject-revoked bob"]),
        (
            json!({"format": "complex", "user": alice, "session": session}),
            vec!["session-revoked session-1 of alice"],
        ),
        (
            json!({"format": "complex", "user": both, "session": session}),
            vec!["session-revoked session-1 of alice", "session-revoked session-1 of bob"],
        ),
        (json!({"format": "complex", "session": session}), vec!["session-revoked session-1"]),
        (json!({"format": "complex", "user": phone, "session": session}), vec!["session-revoked session-1"]),
        (json!({"format": "complex", "user": alice, "session": phone}), vec!["subject-revoked alice"]),
        (
            json!({"format": "complex", "user": alice, "session": token, "device": phone}),
            vec!["token-revoked j1"],
        ),
        (json!({"format": "complex", "session": token}), vec!["token-revoked j1"]),
    ] {
        assert_eq!(of_subject(settings(), &identifier), revoked(&expected), "{identifier}");
    }
}

#[test]
fn an_address_or_an_identifier_names_what_the_tokens_of_the_issuer_carry() {
    let email = json!({"format": "email", "email": "a@b.example"});
    let opaque = json!({"format": "opaque", "id": "007"});
    let account = json!({"format": "account", "uri": "acct:a@b.example"});
    let narrowed = json!({"format": "complex", "user": opaque, "session": {"format": "opaque", "id": "s"}});
    for (identifier, has_email, has_aliases, expected) in [
        (&email, true, false, vec!["subject-revoked email a@b.example"]),
        (&email, false, true, vec!["subject-revoked a@b.example"]),
        (&opaque, true, false, vec!["subject-revoked 007"]),
        (&opaque, false, true, vec!["subject-revoked 007", "subject-revoked alias 007"]),
        (
            &account,
            true,
            true,
            vec![
                "subject-revoked a@b.example",
                "subject-revoked alias a@b.example",
                "subject-revoked acct:a@b.example",
                "subject-revoked alias acct:a@b.example",
            ],
        ),
        (&narrowed, false, true, vec!["session-revoked s of 007", "session-revoked s of alias 007"]),
    ] {
        let mut settings = settings();
        (settings.subject_issuer.has_email, settings.subject_issuer.has_aliases) = (has_email, has_aliases);
        assert_eq!(of_subject(settings, identifier), revoked(&expected), "{identifier}");
    }
}

#[test]
fn a_transmitter_may_name_its_users_by_its_own_issuer() {
    let named = |iss: &str| json!({"format": "iss_sub", "iss": iss, "sub": "00u1"});
    for (has_aliases, iss, expected) in [
        (true, ISSUER, revoked(&["subject-revoked 00u1", "subject-revoked alias 00u1"])),
        (false, ISSUER, revoked(&["subject-revoked 00u1"])),
        (true, "https://tokens.example.com/", revoked(&["subject-revoked 00u1"])),
        (true, "https://other.example.com/", vec!["(other-issuer)".to_owned()]),
    ] {
        let mut settings = settings();
        settings.subject_issuer.issuer.issuer = "https://tokens.example.com/".into();
        settings.subject_issuer.has_aliases = has_aliases;
        assert_eq!(of_subject(settings, &named(iss)), expected, "{iss} {has_aliases}");
    }
}

#[test]
fn others_name_nobody() {
    let alice = json!({"format": "iss_sub", "iss": ISSUER, "sub": "alice"});
    let bob = json!({"format": "opaque", "id": "bob"});
    let phone = json!({"format": "phone_number", "phone_number": "+12065550123"});
    let stranger = json!({"format": "iss_sub", "iss": "https://other.example.com/", "sub": "alice"});
    let session = json!({"format": "opaque", "id": "session-1"});
    let both = json!({"format": "aliases", "identifiers": [alice, bob]});
    for (identifier, expected) in [
        (phone.clone(), "(unknown-subject)"),
        (json!({"format": "did", "url": "did:example:1"}), "(unknown-subject)"),
        (json!({"format": "ip-addresses", "ip-addresses": ["192.0.2.1"]}), "(unknown-subject)"),
        (json!({"format": "iss-sub", "iss": ISSUER, "sub": "alice"}), "(unknown-subject)"),
        (json!({"format": "complex", "user": phone, "session": phone}), "(unknown-subject)"),
        (json!({"format": "complex", "user": stranger, "session": session}), "(other-issuer)"),
        (
            json!({"format": "complex", "user": alice, "session": {"format": "opaque", "id": ""}}),
            "invalid_request",
        ),
        (json!({"format": "complex", "device": alice, "tenant": bob}), "(unknown-subject)"),
        (json!({"format": "complex", "user": stranger}), "(other-issuer)"),
        (stranger, "(other-issuer)"),
        (json!({"format": "jwt_id", "iss": "https://idp.example.com", "jti": "j1"}), "(other-issuer)"),
        (json!({"iss": ISSUER, "sub": "alice"}), "invalid_request"),
        (json!({"subject_type": "iss_sub", "iss": ISSUER, "sub": "alice"}), "invalid_request"),
        (json!({"user": alice}), "invalid_request"),
        (json!({"format": 7, "id": "bob"}), "invalid_request"),
        (json!({"format": "iss_sub", "sub": "alice"}), "invalid_request"),
        (json!({"format": "iss_sub", "iss": ISSUER}), "invalid_request"),
        (json!({"format": "iss_sub", "iss": ISSUER, "sub": ["alice"]}), "invalid_request"),
        (json!({"format": "opaque", "id": ""}), "invalid_request"),
        (json!({"format": "opaque", "sub": "alice"}), "invalid_request"),
        (json!({"format": "email"}), "invalid_request"),
        (json!({"format": "account", "uri": "mailto:a@b.example"}), "invalid_request"),
        (json!({"format": "account", "uri": "acct:"}), "invalid_request"),
        (json!({"format": "jwt_id", "iss": ISSUER}), "invalid_request"),
        (json!({"format": "aliases", "identifiers": []}), "invalid_request"),
        (json!({"format": "aliases", "identifiers": [alice, "bob"]}), "invalid_request"),
        (json!({"format": "aliases", "identifiers": [both]}), "invalid_request"),
        (
            json!({"format": "aliases", "identifiers": [{"format": "complex", "user": bob}]}),
            "invalid_request",
        ),
        (json!({"format": "complex", "user": {"format": "complex", "user": bob}}), "invalid_request"),
        (json!({"format": "complex", "user": "alice"}), "invalid_request"),
        (json!({"format": "complex", "user": alice, "session": {"id": "s"}}), "invalid_request"),
        (json!("alice"), "invalid_request"),
        (json!([alice]), "invalid_request"),
        (Value::Null, "invalid_request"),
    ] {
        assert_eq!(of_subject(settings(), &identifier), [expected], "{identifier}");
    }
}

#[test]
fn a_critical_member_that_cannot_be_processed_discards_the_event() {
    let of_alice = |more: Value| {
        let mut identifier = json!({"format": "complex", "user": {"format": "opaque", "id": "alice"}});
        identifier.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let critical_members = ["user", "session", "tenant"].map(str::to_owned).into();
        of_subject(Settings { critical_members, ..settings() }, &identifier)
    };
    let token = json!({"format": "jwt_id", "iss": ISSUER, "jti": "j1"});
    let opaque = json!({"format": "opaque", "id": "1"});
    assert_eq!(of_alice(json!({ "device": opaque })), revoked(&["subject-revoked alice"]));
    assert_eq!(of_alice(json!({ "session": token })), revoked(&["token-revoked j1"]));
    assert_eq!(of_alice(json!({ "session": opaque })), revoked(&["session-revoked 1 of alice"]));
    let phone = json!({"format": "phone_number", "phone_number": "+12065550123"});
    for (member, identifier) in [("tenant", &opaque), ("session", &phone)] {
        assert_eq!(of_alice(json!({ member: identifier })), ["(critical-member)"], "{member}");
    }
}

#[test]
fn older_spellings_are_for_the_tolerant() {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove("sub_id");
    for subject in [
        json!({"format": "iss-sub", "iss": ISSUER, "sub": "alice"}),
        json!({"subject_type": "iss-sub", "iss": ISSUER, "sub": "alice"}),
        json!({"subject_type": "iss_sub", "iss": ISSUER, "sub": "alice"}),
        json!({"user": {"format": "iss_sub", "iss": ISSUER, "sub": "alice"}}),
    ] {
        claims["events"] = json!({SESSION_REVOKED: {"subject": subject, "event_timestamp": NOW - 2}});
        assert_eq!(receive(tolerant(), &claims), revoked(&["subject-revoked alice"]), "{subject}");
        assert_eq!(receive(settings(), &claims), ["invalid_request"], "{subject}");
    }
    // Where both are, the specification's place decides.
    claims["sub_id"] = json!({"format": "opaque", "id": "bob"});
    assert_eq!(receive(tolerant(), &claims), revoked(&["subject-revoked bob"]));
}

#[test]
fn each_event_means_what_it_should() {
    let change = |change: &str| json!({"credential_type": "password", "change_type": change});
    let claim = |name: &str| json!({"claims": {"department": "sales", name: ["x"]}});
    let ended = format!("subject-revoked alice @{}", NOW - 1);
    let changed = format!("role-changed alice @{}", NOW - 1);
    for (base, word, event, expected) in [
        (CAEP, "session-revoked", json!({}), ended.as_str()),
        (CAEP, "session-revoked", json!({"reason_admin": {"en": "x"}, "unknown": 1}), &ended),
        (CAEP, "credential-change", change("revoke"), &ended),
        (CAEP, "credential-change", change("update"), &ended),
        (CAEP, "credential-change", change("delete"), &ended),
        (CAEP, "credential-change", change("create"), "(no-effect)"),
        (CAEP, "credential-change", change("REVOKE"), "invalid_request"),
        (CAEP, "credential-change", json!({"credential_type": "password"}), "invalid_request"),
        (CAEP, "token-claims-change", claim("role"), &changed),
        (CAEP, "token-claims-change", claim("roles"), &changed),
        (CAEP, "token-claims-change", claim("scope"), &changed),
        (CAEP, "token-claims-change", claim("scp"), &changed),
        (CAEP, "token-claims-change", claim("Groups"), &changed),
        (CAEP, "token-claims-change", claim("permissions"), &changed),
        (CAEP, "token-claims-change", claim("entitlements"), &changed),
        (CAEP, "token-claims-change", claim("cognito:groups"), &changed),
        (CAEP, "token-claims-change", claim("https://example.com/rights"), &changed),
        (CAEP, "token-claims-change", claim("http://schemas.example.com/claims/role"), &changed),
        (CAEP, "token-claims-change", claim("https://example.com/roles/count"), "(no-effect)"),
        (CAEP, "token-claims-change", claim("rights"), "(no-effect)"),
        (CAEP, "token-claims-change", json!({"claims": {}}), "(no-effect)"),
        (CAEP, "token-claims-change", json!({"claims": ["role"]}), "invalid_request"),
        (CAEP, "token-claims-change", json!({}), "invalid_request"),
        (CAEP, "assurance-level-change", json!({}), "(unknown-event)"),
        (CAEP, "device-compliance-change", json!({}), "(unknown-event)"),
        (CAEP, "session-revoked/", json!({}), "(unknown-event)"),
        (RISC, "account-disabled", json!({"reason": "hijacking"}), &ended),
        (RISC, "account-purged", json!({}), &ended),
        (RISC, "credential-compromise", json!({"credential_type": "password"}), &ended),
        (RISC, "sessions-revoked", json!({}), &ended),
        (RISC, "account-enabled", json!({}), "(unknown-event)"),
        (RISC, "session-revoked", json!({}), "(unknown-event)"),
        (SSF, "verification", json!({"state": "x"}), "(verification)"),
        (SSF, "stream-updated", json!({"status": "paused"}), "(stream-updated)"),
        ("urn:example:", "whatever", json!({"deep": [[{}]]}), "(unknown-event)"),
    ] {
        for settings in [settings(), tolerant()] {
            assert_eq!(of_event(settings, &format!("{base}{word}"), &event), [expected], "{word} {event}");
        }
    }
    for word in ["password-reset", "mfa-limit-account-locked"] {
        let uri = format!("{LOGIN_GOV}{word}");
        assert_eq!(of_event(tolerant(), &uri, &json!({})), [ended.as_str()], "{word}");
        assert_eq!(of_event(settings(), &uri, &json!({})), ["(unknown-event)"], "{word}");
    }
    let reproofed = format!("{LOGIN_GOV}reproof-completed");
    assert_eq!(of_event(tolerant(), &reproofed, &json!({})), ["(unknown-event)"]);
}

#[test]
fn a_change_that_names_a_token_ends_the_token() {
    let mut claims = claims();
    claims["sub_id"] = json!({"format": "jwt_id", "iss": ISSUER, "jti": "j1"});
    claims["events"] = json!({format!("{CAEP}token-claims-change"): {"claims": {"role": "reader"}}});
    assert_eq!(receive(settings(), &claims), [format!("token-revoked j1 @{}", NOW - 1)]);
}

#[test]
fn several_events_stand_or_fall_together() {
    let mut claims = claims();
    let stranger = json!({ "x:y": {}, format!("{RISC}account-disabled"): {}, SESSION_REVOKED: {} });
    claims["events"] = stranger;
    let ended = format!("subject-revoked alice @{}", NOW - 1);
    assert_eq!(receive(settings(), &claims), [ended.as_str(), &ended, "(unknown-event)"]);
    claims["events"][format!("{CAEP}credential-change")] = json!({"change_type": 1});
    assert_eq!(receive(settings(), &claims), ["invalid_request"]);
}

#[test]
fn the_time_is_the_events_then_that_of_the_token() {
    let revoked = |second: &str| format!("subject-revoked alice @{second}");
    for (event, toe, expected) in [
        (json!(NOW - 9), json!(NOW - 5), revoked(&(NOW - 9).to_string())),
        (Value::Null, json!(NOW - 5), revoked(&(NOW - 5).to_string())),
        (Value::Null, Value::Null, revoked(&(NOW - 1).to_string())),
        (json!(1_767_225_590.25), Value::Null, revoked("1767225590.250")),
        (json!(0), Value::Null, revoked("0")),
        // A clock that is ahead, by however much: what has happened has happened by now.
        (json!(NOW + 1), Value::Null, revoked(&NOW.to_string())),
        (json!(NOW + 45), Value::Null, revoked(&NOW.to_string())),
        (Value::Null, json!(NOW + 45), revoked(&NOW.to_string())),
        (json!(NOW + 45), json!(NOW - 5), revoked(&NOW.to_string())),
        (json!(NOW - 9), json!(NOW + 45), revoked(&(NOW - 9).to_string())),
        (json!(NOW + 30 * 365 * 86_400), Value::Null, revoked(&NOW.to_string())),
        (json!(253_402_300_799_i64), Value::Null, revoked(&NOW.to_string())),
        (json!("1767225590"), Value::Null, "invalid_request".to_owned()),
        (json!(-1), Value::Null, "invalid_request".to_owned()),
        (json!(1e300), Value::Null, "invalid_request".to_owned()),
        (json!((NOW - 9) * 1000), Value::Null, "invalid_request".to_owned()),
    ] {
        let mut claims = claims();
        let members = claims["events"][SESSION_REVOKED].as_object_mut().unwrap();
        members.remove("event_timestamp");
        members.extend((!event.is_null()).then(|| ("event_timestamp".to_owned(), event.clone())));
        if !toe.is_null() {
            claims["toe"] = toe.clone();
        }
        assert_eq!(receive(settings(), &claims), [expected], "{event} {toe}");
    }
    let mut claims = claims();
    claims["events"][SESSION_REVOKED]["event_timestamp"] = json!((NOW - 9) * 1000 + 5);
    assert_eq!(receive(tolerant(), &claims), [revoked(&format!("{}.005", NOW - 9))]);
    claims["events"][SESSION_REVOKED]["event_timestamp"] = json!((NOW + 45) * 1000);
    assert_eq!(receive(tolerant(), &claims), [revoked(&NOW.to_string())]);
    claims["iat"] = json!(NOW + 45);
    claims["nbf"] = json!(NOW + 45);
    claims["events"][SESSION_REVOKED].as_object_mut().unwrap().remove("event_timestamp");
    for settings in [settings(), tolerant()] {
        assert_eq!(
            receive(settings, &claims),
            [revoked(&NOW.to_string())],
            "only the token's own time, ahead"
        );
    }
}
