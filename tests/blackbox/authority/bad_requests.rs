//! Requests that the OAuth endpoints reject, always in the form of RFC 6749 §5.2.

use serde_json::json;

use crate::authority::stage::{App, Stage, basic};
use testkit::gate::Request;
use testkit::wire::Answer;

const FORM: &str = "application/x-www-form-urlencoded";
const PATHS: [&str; 3] = ["/oauth/token", "/oauth/revoke", "/oauth/introspect"];

/// A valid request to an endpoint; `{id}` and `{secret}` stand for the client's.
fn good(path: &str) -> &'static str {
    match path {
        "/oauth/token" => "grant_type=client_credentials&client_id={id}&client_secret={secret}",
        _ => "token=x&client_id={id}&client_secret={secret}",
    }
}

fn filled(template: &str, app: &App) -> String {
    template.replace("{id}", &app.id).replace("{secret}", &app.secret)
}

/// Asserts that a rejection has the required form.
#[track_caller]
fn is_refusal(name: &str, answer: &Answer, status: u16, error: &str) {
    assert_eq!(answer.status(), status, "{name}: {}", answer.text());
    assert_eq!(answer.field("content-type"), Some("application/json"), "{name}");
    assert_eq!(answer.field("cache-control"), Some("no-store"), "{name}");
    assert_eq!(answer.field("pragma"), Some("no-cache"), "{name}");
    assert!(answer.field("x-request-id").is_some_and(|id| !id.is_empty()), "{name}");
    let body = answer.json();
    assert_eq!(body["error"], error, "{name}: {body}");
    let description = body["error_description"].as_str().unwrap_or_else(|| panic!("{name}: {body}"));
    let allowed = |c: char| matches!(c, '\x20'..='\x21' | '\x23'..='\x5b' | '\x5d'..='\x7e');
    assert!(!description.is_empty() && description.chars().all(allowed), "{name}: {description:?}");
    let challenge = answer.field("www-authenticate");
    match status {
        401 => {
            assert!(challenge.is_some_and(|field| field.starts_with("Basic realm=")), "{name}: {challenge:?}")
        }
        _ => assert_eq!(challenge, None, "{name}"),
    }
    assert_eq!(answer.field("retry-after").is_some(), matches!(status, 429 | 503), "{name}");
}

fn post<'a>(stage: &'a Stage, path: &str, content_type: Option<&str>, body: &[u8]) -> Request<'a> {
    let request = stage.gate.request("POST", path);
    let request = match content_type {
        Some(value) => request.field("Content-Type", value),
        None => request,
    };
    request.body(body)
}

#[test]
fn bodies_that_are_not_one_clean_form_are_refused() {
    let stage =
        Stage::planned(|plan| plan.authority("failures_per_client = 1000\nfailures_per_address = 1000"));
    let app = stage.robot();
    for path in PATHS {
        let whole = filled(good(path), &app);
        let first = whole.split('&').next().unwrap();
        let multipart = "--b\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nclient_credentials\r\n--b--\r\n";
        let json =
            json!({"grant_type": "client_credentials", "client_id": app.id, "client_secret": app.secret});
        let short: String = (0..16_000).map(|n| format!("&{n:x}")).collect();
        let rows: [(&str, Option<&str>, Vec<u8>); 16] = [
            ("no content type", None, whole.clone().into()),
            ("text", Some("text/plain"), whole.clone().into()),
            ("JSON", Some("application/json"), json.to_string().into()),
            ("JSON that says it is a form", Some(FORM), json.to_string().into()),
            ("multipart", Some("multipart/form-data; boundary=b"), multipart.into()),
            ("nothing", Some(FORM), Vec::new()),
            ("a parameter twice", Some(FORM), format!("{whole}&{first}").into()),
            ("an unknown parameter twice", Some(FORM), format!("{whole}&x=1&x=1").into()),
            ("an empty one beside a full one", Some(FORM), format!("client_id=&{whole}").into()),
            ("twice by an escape", Some(FORM), format!("{whole}&%63lient_id={}", app.id).into()),
            ("more than 50 parameters", Some(FORM), format!("{whole}{}", &short[..150]).into()),
            ("parameters by the thousand", Some(FORM), format!("{whole}&{}", &short[..60_000]).into()),
            ("no UTF-8", Some(FORM), [whole.as_bytes(), b"&x=\xff"].concat()),
            ("an escape that is no UTF-8", Some(FORM), format!("{whole}&x=%ff").into()),
            ("half an escape", Some(FORM), format!("{whole}&x=%4").into()),
            ("UTF-16", Some(FORM), whole.encode_utf16().flat_map(u16::to_be_bytes).collect()),
        ];
        for (name, content_type, body) in rows {
            let answer = post(&stage, path, content_type, &body).send();
            // A form without a client is that, whatever else it lacks.
            let unnamed = answer.status() == 401 && path != "/oauth/token";
            let (status, error) = if unnamed { (401, "invalid_client") } else { (400, "invalid_request") };
            is_refusal(&format!("{path}: {name}"), &answer, status, error);
            let unnameable = matches!(name, "nothing" | "JSON that says it is a form" | "UTF-16");
            assert!(!unnamed || unnameable, "{path}: {name}: {}", answer.text());
        }
        for content_type in [
            FORM,
            "Application/X-WWW-Form-URLencoded",
            "application/x-www-form-urlencoded; charset=UTF-8",
            "application/x-www-form-urlencoded;charset=iso-8859-1",
        ] {
            let answer = post(&stage, path, Some(content_type), whole.as_bytes()).send();
            assert_eq!(answer.status(), 200, "{path}: {content_type}: {}", answer.text());
            assert_eq!(answer.field("cache-control"), Some("no-store"), "{path}");
            assert!(answer.field("x-request-id").is_some(), "{path}");
        }
        let twice =
            post(&stage, path, Some(FORM), whole.as_bytes()).field("Content-Type", "text/plain").send();
        is_refusal(&format!("{path}: two content types"), &twice, 400, "invalid_request");
        let large = format!("{whole}&x={}", "a".repeat(64 * 1024));
        let answer = post(&stage, path, Some(FORM), large.as_bytes()).send();
        is_refusal(&format!("{path}: a large body"), &answer, 413, "request_too_large");
        let padded = format!("{whole}&x={}", "a".repeat(64 * 1024 - whole.len() - 3));
        assert_eq!(padded.len(), 64 * 1024);
        assert_eq!(post(&stage, path, Some(FORM), padded.as_bytes()).send().status(), 200, "{path}: 64 KiB");
    }
    assert_eq!(stage.upstream.seen().len(), 0, "nothing of this is the upstream's business");
}

#[test]
fn requests_that_ask_for_what_there_is_not_are_refused_by_name() {
    let stage = Stage::planned(|plan| {
        plan.authority(
            "failures_per_client = 1000\nfailures_per_address = 1000\ntenant_parameter = \"tenant_id\"",
        )
    });
    stage.user("ada", &["case-reader"]);
    let app = stage.credential(&json!({
        "name": "Desk", "owner": "ada", "scopes": ["read:deals"], "tenant": "acme",
    }));
    let client = "client_id={id}&client_secret={secret}&tenant_id=acme";
    let rows = [
        ("no grant", client, 400, "invalid_request"),
        ("an empty grant", "{client}&grant_type=", 400, "invalid_request"),
        (
            "the grant of passwords",
            "{client}&grant_type=password&username=ada&password=x",
            400,
            "unsupported_grant_type",
        ),
        ("codes", "{client}&grant_type=authorization_code&code=x", 400, "unsupported_grant_type"),
        ("refreshing", "{client}&grant_type=refresh_token&refresh_token=x", 400, "unsupported_grant_type"),
        ("an implicit grant", "{client}&grant_type=implicit", 400, "unsupported_grant_type"),
        ("a grant in capitals", "{client}&grant_type=CLIENT_CREDENTIALS", 400, "unsupported_grant_type"),
        ("a grant of a stranger", "grant_type=password&tenant_id=acme", 400, "unsupported_grant_type"),
        ("a scope it does not have", "{client}&{grant}&scope=read:users", 400, "invalid_scope"),
        ("a scope that there is not", "{client}&{grant}&scope=write:deals", 400, "invalid_scope"),
        ("one good scope and one not", "{client}&{grant}&scope=read:deals+read:users", 400, "invalid_scope"),
        ("scopes with two spaces", "{client}&{grant}&scope=read:deals++read:deals", 400, "invalid_scope"),
        ("scopes with a comma", "{client}&{grant}&scope=read:deals,read:users", 400, "invalid_scope"),
        ("a scope outside the grammar", "{client}&{grant}&scope=%22%5C%C3%A9", 400, "invalid_scope"),
        ("no tenant", "{grant}&client_id={id}&client_secret={secret}", 400, "invalid_request"),
        (
            "an empty tenant",
            "{grant}&client_id={id}&client_secret={secret}&tenant_id=",
            400,
            "invalid_request",
        ),
        (
            "another tenant",
            "{grant}&client_id={id}&client_secret={secret}&tenant_id=other",
            401,
            "invalid_client",
        ),
        (
            "a tenant in capitals",
            "{grant}&client_id={id}&client_secret={secret}&tenant_id=ACME",
            401,
            "invalid_client",
        ),
        ("no client", "{grant}&tenant_id=acme", 401, "invalid_client"),
        ("no secret", "{grant}&tenant_id=acme&client_id={id}", 401, "invalid_client"),
        ("an empty secret", "{grant}&tenant_id=acme&client_id={id}&client_secret=", 401, "invalid_client"),
        ("no id", "{grant}&tenant_id=acme&client_secret={secret}", 401, "invalid_client"),
        (
            "a wrong secret",
            "{grant}&tenant_id=acme&client_id={id}&client_secret=wrong",
            401,
            "invalid_client",
        ),
        (
            "the owner's id",
            "{grant}&tenant_id=acme&client_id=ada&client_secret={secret}",
            401,
            "invalid_client",
        ),
        (
            "the id in capitals",
            "{grant}&tenant_id=acme&client_id={ID}&client_secret={secret}",
            401,
            "invalid_client",
        ),
    ];
    for (name, template, status, error) in rows {
        let template =
            template.replace("{client}", client).replace("{grant}", "grant_type=client_credentials");
        let body = filled(&template.replace("{ID}", &app.id.to_uppercase()), &app);
        is_refusal(name, &stage.post("/oauth/token", &body), status, error);
    }
    let body =
        filled(&format!("{client}&grant_type=client_credentials&scope=&unknown=x&refresh_token="), &app);
    let answer = stage.post("/oauth/token", &body);
    assert_eq!(answer.status(), 200, "empty is left out, unknown is ignored: {}", answer.text());
    assert_eq!((answer.field("cache-control"), answer.field("pragma")), (Some("no-store"), Some("no-cache")));
    let body = answer.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(3600)));
    assert_eq!(body["scope"], "read:deals", "what was not asked for is told");
    assert!(body.get("refresh_token").is_none(), "RFC 6749, section 4.4.3");
    for path in ["/oauth/revoke", "/oauth/introspect"] {
        let credentials = filled("client_id={id}&client_secret={secret}", &app);
        for tokenless in [credentials.clone(), format!("{credentials}&token=")] {
            is_refusal(
                &format!("{path} without a token"),
                &stage.post(path, &tokenless),
                400,
                "invalid_request",
            );
        }
        is_refusal(&format!("{path} without a client"), &stage.post(path, "token=x"), 401, "invalid_client");
    }
}

#[test]
fn a_client_authenticates_in_one_way_and_never_in_the_query() {
    let stage =
        Stage::planned(|plan| plan.authority("failures_per_client = 1000\nfailures_per_address = 1000"));
    let app = stage.robot();
    let other = stage.credential(&json!({"name": "Other", "owner": "ada", "scopes": ["read:deals"]}));
    for path in PATHS {
        let about = if path == "/oauth/token" { "grant_type=client_credentials" } else { "token=x" };
        let whole = filled(good(path), &app);
        let send = |target: &str, authorization: &[&str], body: &str| {
            let request = post(&stage, target, Some(FORM), body.as_bytes());
            authorization.iter().fold(request, |request, value| request.field("Authorization", value)).send()
        };
        let (own, others) = (app.basic(), other.basic());
        let in_body = format!("&client_id={}&client_secret={}", app.id, app.secret);
        let rows: [(&str, &[&str], String); 4] = [
            ("header and body", &[&own], format!("{about}{in_body}")),
            ("header and a secret", &[&own], format!("{about}&client_secret={}", app.secret)),
            ("two headers", &[&own, &own], about.to_owned()),
            ("another's id beside the header", &[&others], format!("{about}&client_id={}", app.id)),
        ];
        for (name, authorization, body) in rows {
            is_refusal(&format!("{path}: {name}"), &send(path, authorization, &body), 400, "invalid_request");
        }
        for (name, value) in [
            ("a bearer token", "Bearer abc".to_owned()),
            ("no base64", "Basic !!!".to_owned()),
            ("nothing after the scheme", "Basic".to_owned()),
            ("no colon", "Basic YWJj".to_owned()),
            ("no UTF-8", "Basic /zr/".to_owned()),
            ("the secret of another", basic(&app.id, &other.secret)),
            ("the secret with a space", basic(&app.id, &format!("{} ", app.secret))),
        ] {
            is_refusal(&format!("{path}: {name}"), &send(path, &[&value], about), 401, "invalid_client");
        }
        for query in [
            format!("?client_id={}&client_secret={}", app.id, app.secret),
            format!("?client_secret={}", app.secret),
            format!("?client%5fid={}", app.id),
            "?grant_type=client_credentials".to_owned(),
            "?token=x".to_owned(),
            "?x=1&x=2".to_owned(),
        ] {
            let name = format!("{path}{query}");
            is_refusal(&name, &send(&format!("{path}{query}"), &[], &whole), 400, "invalid_request");
            is_refusal(&name, &send(&format!("{path}{query}"), &[], about), 400, "invalid_request");
        }
        assert_eq!(send(&format!("{path}?trace=1"), &[], &whole).status(), 200, "{path}: another query");
        let every = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
        for (name, value) in [
            ("raw", app.basic()),
            ("every byte form-encoded", basic(&every(&app.id), &every(&app.secret))),
            ("the id form-encoded", basic(&app.id.replace('_', "%5F"), &app.secret)),
            ("the scheme in capitals", app.basic().replace("Basic", "BASIC")),
            ("without padding", app.basic().trim_end_matches('=').to_owned()),
        ] {
            let answer = send(path, &[&value], about);
            assert_eq!(answer.status(), 200, "{path}: {name}: {}", answer.text());
        }
        let again = send(path, &[&own], &format!("{about}&client_id={}", app.id));
        assert_eq!(again.status(), 200, "{path}: one's own id is no second way: {}", again.text());
    }
}

#[test]
fn other_methods_are_405_and_say_which_there_are() {
    let stage = Stage::start();
    let app = stage.robot();
    for path in PATHS {
        let body = filled(good(path), &app);
        for method in ["GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FROBNICATE"] {
            let request = stage.gate.request(method, path).field("Content-Type", FORM);
            let answer = request.body(&body).send();
            is_refusal(&format!("{method} {path}"), &answer, 405, "method_not_allowed");
            assert_eq!(answer.field("allow"), Some("POST"), "{method} {path}");
        }
        let head = stage.gate.connect().exchange(stage.gate.request("HEAD", path).bytes()).unwrap();
        assert_eq!((head.status(), head.field("allow")), (405, Some("POST")), "{path}");
        assert!(head.body.is_empty());
    }
    for path in ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = stage.gate.request(method, path).body("x").send();
            is_refusal(&format!("{method} {path}"), &answer, 405, "method_not_allowed");
            assert_eq!(answer.field("allow"), Some("GET, HEAD"), "{method} {path}");
        }
        let got = stage.gate.get(path).send();
        let head = stage.gate.connect().exchange(stage.gate.request("HEAD", path).bytes()).unwrap();
        assert_eq!((got.status(), head.status(), head.body.len()), (200, 200, 0), "{path}");
        assert_eq!(head.field("content-length"), Some(got.body.len().to_string().as_str()), "{path}");
        assert!(got.field("cache-control").is_some_and(|value| value.starts_with("public")), "{path}");
    }
}

#[test]
fn whatever_is_wrong_with_a_client_looks_the_same() {
    let stage = Stage::planned(|plan| {
        plan.authority(
            "failures_per_client = 1000\nfailures_per_address = 1000\ntenant_parameter = \"tenant_id\"",
        )
    });
    stage.user("ada", &["case-reader"]);
    let document = |expires_at: Option<f64>| json!({"name": "Desk", "owner": "ada", "roles": ["case-reader"], "tenant": "acme", "expires_at": expires_at});
    let app = stage.credential(&document(None));
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
    let soon = testkit::now() as f64 + 4.0;
    let short = stage.credential(&document(Some(soon)));
    let gone = stage.credential(&document(None));
    assert_eq!(stage.admin("DELETE", &format!("/v1/credentials/{}", gone.id), &json!(null)).status(), 204);
    let ask = |id: &str, secret: &str, tenant: &str, header: bool| {
        let form = format!("grant_type=client_credentials&tenant_id={tenant}");
        let (form, authorization) = if header {
            (form, Some(basic(id, secret)))
        } else {
            (format!("{form}&client_id={id}&client_secret={secret}"), None)
        };
        let request = post(&stage, "/oauth/token", Some(FORM), form.as_bytes());
        authorization
            .map_or_else(|| request.clone(), |value| request.clone().field("Authorization", &value))
            .send()
    };
    testkit::eventually("the credential has expired", || {
        (ask(&short.id, &short.secret, "acme", false).status() == 401).then_some(())
    });
    for header in [false, true] {
        let seen: Vec<_> = [
            ("unknown", "app_unknown", app.secret.as_str(), "acme"),
            ("deleted", &gone.id, &gone.secret, "acme"),
            ("wrong secret", &app.id, "wrong", "acme"),
            ("expired", &short.id, &short.secret, "acme"),
            ("expired, with a wrong secret", &short.id, "wrong", "acme"),
            ("wrong tenant", &app.id, &app.secret, "other"),
            ("everything wrong", "nobody", "x", "other"),
        ]
        .into_iter()
        .map(|(name, id, secret, tenant)| {
            let answer = ask(id, secret, tenant, header);
            is_refusal(name, &answer, 401, "invalid_client");
            let mut fields = answer.head.fields.clone();
            fields.retain(|(name, _)| name != "x-request-id" && name != "date");
            (name, answer.body, fields)
        })
        .collect();
        for (name, body, fields) in &seen {
            assert_eq!((body, fields), (&seen[0].1, &seen[0].2), "{name}");
        }
    }
    assert_eq!(ask(&app.id, &app.secret, "acme", true).status(), 200);
}

#[test]
fn lists_as_long_as_a_body_may_be_are_read_once() {
    let stage = Stage::start();
    let app = stage.robot();
    let repeated = vec!["read:deals"; 5_000].join("+");
    let answer = stage.post("/oauth/token", &app.form(&format!("&scope={repeated}")));
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["scope"], "read:deals");
    let unknown = format!("&scope={}", vec!["x"; 30_000].join("+"));
    is_refusal("unknown", &stage.post("/oauth/token", &app.form(&unknown)), 400, "invalid_scope");

    let user = |id: &str, roles: &[String]| {
        stage.admin("POST", "/v1/users", &json!({"id": id, "name": id, "roles": roles}))
    };
    let same = user("same", &vec!["reader".to_owned(); 5_000]);
    assert_eq!((same.status(), &same.json()["roles"]), (201, &json!(["reader"])));
    let different = |count: usize| (0..count).map(|n| format!("r{n}")).collect::<Vec<_>>();
    assert_eq!(user("most", &different(256)).status(), 201);
    for count in [257, 6_000] {
        let answer = user("more", &different(count));
        assert_eq!(answer.status(), 400, "{count}");
        assert!(answer.text().contains("more than 256"), "{count}: {}", answer.text());
    }
    // An owner and a credential with as many roles as there can be.
    let full = stage.credential(&json!({"name": "Full", "owner": "most", "roles": different(256)}));
    let claims = crate::authority::stage::part(&stage.token(&full), 1);
    assert_eq!(claims["roles"].as_array().unwrap().len(), 256);
}
