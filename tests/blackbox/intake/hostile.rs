//! Invalid signals at every endpoint: each is rejected exactly as its specification says, and changes nothing.

use serde_json::{Value, json};

use testkit::gate::message;
use testkit::tokens::{Issuer, Signer, Token, compact};
use testkit::{eventually, now};

use super::{AUDIENCE, CLIENT, FORM, JSON, LOGOUT, PUBLIC_URL, SESSION_REVOKED, SET, Scene, bare};

/// The response of each endpoint to an invalid signal.
const NO_LOGOUT: &str = r#"{"error":"invalid_request"}"#;

/// A token in forged forms that no verifier may accept.
fn forged(token: &Token<'_>, stranger: &Signer) -> Vec<(&'static str, String)> {
    let good = token.build();
    let parts: Vec<&str> = good.split('.').collect();
    let [header, payload, signature] = parts[..] else { panic!("three parts") };
    let secret =
        |alg| Signer::secret(alg, b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    vec![
        ("none", compact_none(token, "none")),
        ("None", compact_none(token, "None")),
        ("no signature", format!("{header}.{payload}.")),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("an encrypted token's five parts", format!("{header}.{payload}.{signature}.{payload}.{signature}")),
        ("a padded signature", format!("{good}=")),
        ("another's signature", token.clone().signed_by(stranger).build()),
        ("another's key", token.clone().signed_by(stranger).head("kid", "stranger").build()),
        ("no such key", token.clone().head("kid", "absent").build()),
        ("a kid that is no string", token.clone().head("kid", 7).build()),
        ("an extension", token.clone().head("crit", json!(["exp"])).build()),
        ("a detached payload", token.clone().head("b64", false).build()),
        ("another algorithm", token.clone().head("alg", "RS256").build()),
        (
            "a key inside",
            token.clone().signed_by(stranger).headless("kid").head("jwk", stranger.jwk()).build(),
        ),
        ("an HMAC", {
            let header = token.header_json().replace("ES256", "HS256");
            compact(&secret("HS256"), "HS256", header.as_bytes(), token.claims_json().as_bytes())
        }),
        ("a member twice", token.with_members(r#""jti":"again""#)),
        ("a header member twice", token.with_header_members(r#""typ":"JWT""#)),
        ("claims that are no object", token.raw(token.header_json().as_bytes(), b"[]")),
        ("garbage", "garbage".to_owned()),
        ("dots", "..".to_owned()),
        ("nothing", String::new()),
    ]
}

fn compact_none(token: &Token<'_>, alg: &str) -> String {
    let good = token.clone().head("alg", alg).build();
    format!("{}.", good.rsplit_once('.').unwrap().0)
}

/// An HMAC with a public key as its secret.
fn key_as_secret(token: &Token<'_>, signer: &Signer) -> Vec<(&'static str, String)> {
    let header = token.header_json().replace("ES256", "HS256");
    let forms = signer.public_forms().into_iter();
    forms
        .map(|form| {
            let secret = Signer::secret("HS256", &form);
            (
                "a public key as secret",
                compact(&secret, "HS256", header.as_bytes(), token.claims_json().as_bytes()),
            )
        })
        .collect()
}

/// Changes that make the claims or type of a token invalid, for a kind with an `exp`.
fn wrong<'a>(token: &Token<'a>) -> Vec<(&'static str, Token<'a>)> {
    let with = |name: &str, value: Value| token.clone().claim(name, value);
    vec![
        ("no issuer", token.clone().without("iss")),
        ("another issuer", with("iss", json!("https://other.example.com/"))),
        ("an issuer without its slash", with("iss", json!("https://idp.example.com"))),
        ("issuers", with("iss", json!(["https://idp.example.com/"]))),
        ("no audience", token.clone().without("aud")),
        ("another audience", with("aud", json!("https://other.example.com"))),
        ("an audience that begins so", with("aud", json!(format!("{CLIENT}x")))),
        ("no audience in a list", with("aud", json!([]))),
        ("an audience that is no string", with("aud", json!([CLIENT, 7]))),
        ("an audience in an object", with("aud", json!({CLIENT: CLIENT}))),
        ("no id", token.clone().without("jti")),
        ("an empty id", with("jti", json!(""))),
        ("an id that is no string", with("jti", json!(7))),
        ("no time", token.clone().without("iat")),
        ("a time in text", with("iat", json!("1795807548"))),
        ("a time that is far ahead", with("iat", json!(now() + 400))),
        ("a time before 1970", with("iat", json!(-1))),
        ("no end", token.clone().without("exp")),
        ("an end in text", with("exp", json!("9999999999"))),
        ("an end long ago", with("exp", json!(now() - 400))),
        ("not valid before later", with("nbf", json!(now() + 400))),
        ("another type", token.clone().head("typ", "at+jwt")),
        ("an ID token's type", token.clone().head("typ", "id+jwt")),
        ("a type that is no string", token.clone().head("typ", json!(["logout+jwt"]))),
        ("an empty type", token.clone().head("typ", "")),
    ]
}

#[test]
fn wrong_logout_tokens_are_refused_and_change_nothing() {
    let scene = Scene::with("requests_per_sender = 1000000");
    let session = scene.issuer.token().claim("sid", "s1").build();
    assert!(scene.passes(&session));
    let right = scene.logout_token();
    let stranger = Signer::new("ES256", "key-1");
    let with = |name: &str, value: Value| right.clone().claim(name, value);
    let mut rows = forged(&right, &stranger);
    rows.extend(key_as_secret(&right, &scene.issuer.signers[0]));
    rows.extend(wrong(&right).into_iter().map(|(what, token)| (what, token.build())));
    let logout = [
        ("a nonce", with("nonce", json!("n"))),
        ("a nonce that is null", with("nonce", Value::Null)),
        ("no events", right.clone().without("events")),
        ("events in a list", with("events", json!([LOGOUT]))),
        ("no event", with("events", json!({}))),
        ("another event", with("events", json!({SESSION_REVOKED: {}}))),
        ("an event that is true", with("events", json!({LOGOUT: true}))),
        ("an event that is null", with("events", json!({LOGOUT: null}))),
        ("neither session nor subject", right.clone().without("sid")),
        ("an empty session", with("sid", json!(""))),
        ("a session that is no string", with("sid", json!(7))),
        ("a session that is null", with("sid", Value::Null)),
        ("a subject that is no string beside", with("sub", json!(["alice"]))),
        ("expired beyond the leeway", with("exp", json!(now() - 31))),
        ("a type of events", right.clone().head("typ", "secevent+jwt")),
        // Key confusion: the issuer's transmitter signs with keys of its own.
        ("the transmitter's signature", right.clone().signed_by(&scene.transmitter.signers[0])),
        ("an access token", scene.issuer.token()),
        (
            "an access token for the client",
            scene.issuer.token().claim("aud", CLIENT).headless("typ").claim("sid", "s1"),
        ),
        ("a security event token", scene.security_event()),
        ("an authorization to revoke", scene.authorization()),
    ];
    rows.extend(logout.into_iter().map(|(what, token)| (what, token.build())));
    for (what, token) in &rows {
        let answer = scene.log_out(token);
        assert_eq!((answer.status(), answer.text().as_str()), (400, NO_LOGOUT), "{what}");
        assert_eq!(answer.field("content-type"), Some("application/json"), "{what}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
    }
    let token = right.build();
    let bodies = [
        (JSON, format!(r#"{{"logout_token":"{token}"}}"#)),
        ("", format!("logout_token={token}")),
        (&format!("{FORM}{FORM}"), format!("logout_token={token}")),
        ("Content-Type: multipart/form-data\r\n", format!("logout_token={token}")),
        (FORM, format!("logout_token={token}&logout_token={token}")),
        (FORM, format!("logout_token={token}&state=a&state=b")),
        (FORM, format!("Logout_Token={token}")),
        (FORM, format!("logout_token=%zz{token}")),
        (FORM, token.clone()),
        (FORM, String::new()),
    ];
    for (fields, body) in &bodies {
        let answer = scene.post("/signals/logout/op", fields, body);
        assert_eq!((answer.status(), answer.text().as_str()), (400, NO_LOGOUT), "{fields} {body}");
    }
    let in_query = scene.post(&format!("/signals/logout/op?logout_token={token}"), FORM, "");
    assert_eq!(in_query.status(), 400, "tokens in queries would be logged");
    assert!(scene.passes(&session) && scene.events().is_empty());
    refusals_are_counted(&scene, "logout", rows.len() + bodies.len() + 1);
    assert!(!scene.gate.log().text().contains(token.rsplit_once('.').unwrap().1), "a token is in the log");
    // The last word on all of it: the token that they were made from is right.
    assert_eq!(scene.log_out(&token).status(), 200);
    assert!(!scene.passes(&session));
}

#[test]
fn wrong_authorizations_to_revoke_are_refused_and_change_nothing() {
    let scene = Scene::with("requests_per_sender = 1000000");
    let session = scene.issuer.good();
    assert!(scene.passes(&session));
    let right = scene.authorization();
    let stranger = Signer::new("ES256", "key-1");
    let with = |name: &str, value: Value| right.clone().claim(name, value);
    let mut rows = forged(&right, &stranger);
    // Without a token, or with what is none, the request has no bearer token at all.
    rows.retain(|(what, _)| *what != "nothing");
    rows.extend(key_as_secret(&right, &scene.organisation.signers[0]));
    rows.extend(wrong(&right).into_iter().map(|(what, token)| (what, token.build())));
    let other = format!("{PUBLIC_URL}/signals/global-token-revocation/other");
    let revocation = [
        ("the URL of another endpoint", with("aud", json!(other))),
        ("the URL without its path", with("aud", json!(PUBLIC_URL))),
        (
            "the address of the listener",
            with("aud", json!(format!("http://{}/signals/global-token-revocation/okta", scene.gate.public))),
        ),
        ("no type", right.clone().headless("typ")),
        ("the type of any JWT", right.clone().head("typ", "JWT")),
        ("the type of a logout token", right.clone().head("typ", "logout+jwt")),
        ("expired beyond five minutes", with("exp", json!(now() - 301))),
        // Key confusion: keys of others, under the name of the organisation and under their own.
        ("the issuer's signature", right.clone().signed_by(&scene.issuer.signers[0])),
        (
            "the issuer's token",
            bare(&scene.issuer).head("typ", "global-token-revocation+jwt").claim("exp", now() + 60),
        ),
        ("a logout token", scene.logout_token()),
        ("a security event token", scene.security_event()),
        ("an access token", scene.issuer.token()),
    ];
    rows.extend(revocation.into_iter().map(|(what, token)| (what, token.build())));
    let body = json!({"sub_id": {"format": "opaque", "id": "alice"}});
    for (what, token) in &rows {
        let answer = scene.revoke(token, &body);
        assert_eq!((answer.status(), &answer.json()["error"]), (401, &json!("invalid_token")), "{what}");
        let challenge = r#"Bearer realm="portcullis-signals", error="invalid_token""#;
        assert_eq!(answer.field("www-authenticate"), Some(challenge), "{what}");
        assert_eq!(answer.field("cache-control"), Some("no-store"), "{what}");
    }
    let token = right.build();
    let missing = [
        String::new(),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer \r\n".to_owned(),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
    ];
    for fields in &missing {
        let fields = format!("{JSON}{fields}");
        let answer = scene.post("/signals/global-token-revocation/okta", &fields, body.to_string());
        assert_eq!(answer.status(), 401, "{fields}");
        assert_eq!(
            answer.field("www-authenticate"),
            Some(r#"Bearer realm="portcullis-signals""#),
            "{fields}"
        );
    }
    for fields in [FORM, ""] {
        let fields = format!("{fields}Authorization: Bearer {token}\r\n");
        let answer = scene.post("/signals/global-token-revocation/okta", &fields, body.to_string());
        assert_eq!((answer.status(), &answer.json()["error"]), (400, &json!("invalid_request")), "{fields}");
    }
    assert!(scene.passes(&session) && scene.events().is_empty());
    refusals_are_counted(&scene, "gtr", rows.len() + missing.len() + 2);
    assert_eq!(scene.revoke(&token, &body).status(), 204);
    assert!(!scene.passes(&session));
}

#[test]
fn wrong_pushes_are_refused_and_change_nothing() {
    let scene = Scene::with("requests_per_sender = 1000000");
    let session = scene.issuer.good();
    assert!(scene.passes(&session));
    let right = scene.security_event();
    let stranger = Signer::new("ES256", "key-1");
    let mut rows = forged(&right, &stranger);
    rows.extend(key_as_secret(&right, &scene.transmitter.signers[0]));
    let set = [
        ("another issuer", right.clone().claim("iss", "https://other.example.com/")),
        ("another audience", right.clone().claim("aud", CLIENT)),
        ("no type", right.clone().headless("typ")),
        ("another type", right.clone().head("typ", "logout+jwt")),
        ("an end", right.clone().claim("exp", now() + 60)),
        ("the issuer's signature", right.clone().signed_by(&scene.issuer.signers[0])),
        ("a logout token", scene.logout_token().claim("aud", AUDIENCE)),
        ("an access token", scene.issuer.token()),
    ];
    rows.extend(set.into_iter().map(|(what, token)| (what, token.build())));
    for (what, token) in &rows {
        let answer = scene.post("/signals/ssf/t", SET, token);
        assert_eq!(answer.status(), 400, "{what}");
        assert!(answer.json()["err"].is_string() && answer.json()["description"].is_string(), "{what}");
        assert_eq!(answer.field("content-language"), Some("en"), "{what}");
        assert_eq!(answer.field("content-type"), Some("application/json"), "{what}");
    }
    let token = right.build();
    let fields = [
        "",
        "Authorization: Bearer of-the-strea\r\n",
        "Authorization: Bearer of-the-streams\r\n",
        "Authorization: bearer of-the-stream\r\n",
        "Authorization: Bearer  of-the-stream\r\n",
        "Authorization: of-the-stream\r\n",
        "Authorization: Bearer of-the-stream\r\nAuthorization: Bearer of-the-stream\r\n",
    ];
    for field in fields {
        let answer = scene.post("/signals/ssf/secret", &format!("{SET}{field}"), &token);
        assert_eq!(
            (answer.status(), &answer.json()["err"]),
            (401, &json!("authentication_failed")),
            "{field}"
        );
        assert_eq!(answer.field("www-authenticate"), Some(r#"Bearer realm="portcullis-signals""#), "{field}");
    }
    assert!(scene.passes(&session) && scene.events().is_empty());
    refusals_are_counted(&scene, "ssf", rows.len() + fields.len());
    let agreed = format!("{SET}Authorization: Bearer of-the-stream\r\n");
    assert_eq!(scene.post("/signals/ssf/secret", &agreed, &token).status(), 202);
    assert!(!scene.passes(&session));
}

#[test]
fn signals_are_no_access_tokens() {
    let scene = Scene::start();
    for token in [scene.logout_token(), scene.security_event(), scene.authorization()] {
        let token =
            token.claim("sub", "alice").claim("exp", now() + 60).claim("aud", scene.issuer.audience.as_str());
        assert!(!scene.passes(&token.build()));
    }
    let other = Issuer::named(super::ORGANISATION);
    assert!(!scene.passes(&other.good()), "the organisation issues no access tokens");
}

#[test]
fn endpoints_take_one_method_and_names_that_are_configured() {
    let scene = Scene::with("requests_per_sender = 1000000");
    for (path, body) in [
        (
            "/signals/ssf/t",
            r#"{"description":"the endpoint does not support this method","err":"invalid_request"}"#,
        ),
        ("/signals/logout/op", NO_LOGOUT),
        (
            "/signals/global-token-revocation/okta",
            r#"{"error":"invalid_request","error_description":"the endpoint does not support this method"}"#,
        ),
    ] {
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "post"] {
            let answer = scene.gate.request(method, path).body("").send();
            assert_eq!((answer.status(), answer.field("allow")), (405, Some("POST")), "{method} {path}");
            assert_eq!(answer.text(), body, "{method} {path}");
        }
        let head = scene.gate.request("HEAD", path).bytes();
        let mut wire = scene.gate.connect();
        wire.send(head).unwrap();
        let answer = wire.answer_to(true).unwrap();
        assert_eq!((answer.status(), answer.field("allow")), (405, Some("POST")), "HEAD {path}");
    }
    for (path, body) in [
        ("/signals", r#"{"error":"not_found"}"#),
        ("/signals/", r#"{"error":"not_found"}"#),
        ("/signals/none/op", r#"{"error":"not_found"}"#),
        ("/signals/LOGOUT/op", r#"{"error":"not_found"}"#),
        ("/signals/logout", NO_LOGOUT),
        ("/signals/logout/", NO_LOGOUT),
        ("/signals/logout/t", NO_LOGOUT),
        ("/signals/logout/op/", NO_LOGOUT),
        ("/signals/logout/op/more", NO_LOGOUT),
        ("/signals/logout//op", NO_LOGOUT),
        (
            "/signals/ssf/op",
            r#"{"description":"no sender of this name is configured","err":"invalid_request"}"#,
        ),
        (
            "/signals/global-token-revocation/op",
            r#"{"error":"invalid_request","error_description":"no sender of this name is configured"}"#,
        ),
    ] {
        let answer = scene.post(path, FORM, format!("logout_token={}", scene.logout_token().build()));
        assert_eq!((answer.status(), answer.text().as_str()), (404, body), "{path}");
    }
    for path in [
        "/signals/ssf/op",
        "/signals/logout/t",
        "/signals/global-token-revocation/op",
        "/signals/scim/op/v2/Users",
    ] {
        let mut wire = scene.gate.connect();
        wire.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{FORM}Content-Length: 100\r\n\r\n")).unwrap();
        assert_eq!(wire.answer().unwrap().status(), 404, "{path}: its body is not waited for");
    }
    let page = scene.gate.metrics();
    for route in ["ssf/{name}", "logout/{name}", "global-token-revocation/{name}", "scim/{name}", "*"] {
        let route = format!("/signals/{route}");
        assert!(page.sum("portcullis_requests_total", &[("route", &route)]) > 0.0, "{route}");
    }
    assert!(scene.events().is_empty());
    // One spelling more of the same path (RFC 3986 §6.2.2.2).
    assert_eq!(
        scene
            .post("/signals/%6cogout/op", FORM, format!("logout_token={}", scene.logout_token().build()))
            .status(),
        200
    );
    assert_eq!(scene.upstream.count(), 0, "nothing of it reaches the upstream");
}

/// Asserts that every rejected signal was counted and logged with its reason.
fn refusals_are_counted(scene: &Scene, source: &str, count: usize) {
    let labels = [("source", source), ("type", "none"), ("matched", "no")];
    let counted = scene.gate.metrics().sum("portcullis_signals_total", &labels);
    assert!((counted - count as f64).abs() < 0.5, "{counted} of {count} are counted");
    let refused = |record: &&Value| {
        message(record) == Some("signal rejected") && record["source"] == source && record["why"].is_string()
    };
    // Lines are written behind the answers.
    eventually("every refusal has its line", || {
        (scene.gate.log().records().iter().filter(refused).count() == count).then_some(())
    });
}
