//! Tokens of the authority that are bound to a key: by a proof at the token endpoint, or by a client certificate.

use serde_json::{Value, json};

use crate::authority::stage::{App, Stage, part};
use testkit::now;
use testkit::pki::{Authority, Identity};
use testkit::tokens::Signer;
use testkit::wire::{Answer, Wire};

const FORM: &str = "application/x-www-form-urlencoded";

/// Requests a token with these proofs and this client certificate.
fn ask(stage: &Stage, app: &App, proofs: &[&str], identity: Option<&Identity>) -> Answer {
    let request = stage.gate.request("POST", "/oauth/token").field("Content-Type", FORM);
    let request = proofs.iter().fold(request, |request, proof| request.field("DPoP", proof));
    let config = stage.gate.settings.authority().client_config(&["http/1.1"], identity);
    let mut wire = Wire::tls(stage.gate.public, "localhost", config).unwrap();
    wire.exchange(request.body(app.form("&scope=read:deals")).bytes()).unwrap()
}

fn endpoint(stage: &Stage) -> String {
    format!("{}/oauth/token", stage.issuer())
}

#[test]
fn a_proof_at_the_token_endpoint_binds_the_token_to_its_key() {
    let stage = Stage::start();
    let (app, key) = (stage.robot(), Signer::new("ES256", "client"));
    let url = endpoint(&stage);
    let used = key.proof("POST", &url, None).build();
    let answer = ask(&stage, &app, &[&used], None);
    assert_eq!((answer.status(), &answer.json()["token_type"]), (200, &json!("DPoP")), "{}", answer.text());
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(part(&token, 1)["cnf"], json!({ "jkt": key.thumbprint() }));
    let api = |scheme: &str, proof: &str| {
        let request = stage.gate.get("/deals/7").field("Authorization", &format!("{scheme} {token}"));
        request.field("DPoP", proof).send().status()
    };
    let fresh = || key.proof("GET", "https://api.test/deals/7", Some(&token)).build();
    assert_eq!((api("DPoP", &fresh()), api("Bearer", &fresh())), (200, 401));
    let form = format!("token={token}&client_id={}&client_secret={}", app.id, app.secret);
    let told = stage.post("/oauth/introspect", &form).json();
    assert_eq!((&told["active"], &told["token_type"]), (&json!(true), &json!("DPoP")));
    assert_eq!(told["cnf"], json!({ "jkt": key.thumbprint() }));
    // Without a proof, all is as it was.
    let answer = ask(&stage, &app, &[], None).json();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(part(answer["access_token"].as_str().unwrap(), 1).get("cnf"), None);
    let proof = |uri: &str| key.proof("POST", uri, None);
    // A minute, and the leeway of thirty seconds.
    let old = proof(&url).claim("iat", now() - 70).build();
    assert_eq!(ask(&stage, &app, &[&old], None).status(), 200, "as old as clocks may differ");
    let second = proof(&url).build();
    let mut private = key.bare_jwk();
    private["d"] = json!("AAAA");
    let issuer = stage.issuer();
    for (name, proofs) in [
        ("used before", vec![used]),
        ("two fields", vec![second.clone(), second]),
        ("another endpoint", vec![proof(&format!("{issuer}/oauth/introspect")).build()]),
        ("another host", vec![proof("https://evil.test/oauth/token").build()]),
        ("another method", vec![key.proof("GET", &url, None).build()]),
        ("too old", vec![proof(&url).claim("iat", now() - 200).build()]),
        ("from the future", vec![proof(&url).claim("iat", now() + 200).build()]),
        ("typ", vec![proof(&url).head("typ", "JWT").build()]),
        ("alg none", vec![proof(&url).head("alg", "none").build()]),
        ("a private key", vec![proof(&url).head("jwk", private).build()]),
        ("another signature", vec![proof(&url).signed_by(&Signer::new("ES256", "thief")).build()]),
        ("no jti", vec![proof(&url).without("jti").build()]),
        ("nothing", vec![String::new()]),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let answer = ask(&stage, &app, &proofs, None);
        assert_eq!(
            (answer.status(), answer.json()["error"].as_str()),
            (400, Some("invalid_dpop_proof")),
            "{name}"
        );
        assert_eq!(answer.json().get("access_token"), None, "{name}");
    }
    let stranger = App { secret: "wrong".to_owned(), ..app };
    let unused = proof(&url).build();
    assert_eq!(ask(&stage, &stranger, &[&unused], None).status(), 401);
}

#[test]
fn a_proof_is_used_up_only_by_a_client_that_authenticates() {
    let stage = Stage::start();
    let (app, key) = (stage.robot(), Signer::new("EdDSA", "client"));
    let proof = key.proof("POST", &endpoint(&stage), None).build();
    let stranger = App { secret: "wrong".to_owned(), ..app.clone() };
    assert_eq!(ask(&stage, &stranger, &[&proof], None).status(), 401);
    assert_eq!(ask(&stage, &app, &[&proof], None).status(), 200);
    assert_eq!(ask(&stage, &app, &[&proof], None).status(), 400);
}

#[test]
fn the_token_endpoint_demands_nonces_where_they_are_required() {
    let stage = Stage::planned(|plan| plan.toml("[dpop]\nnonce = \"required\""));
    let (app, key) = (stage.robot(), Signer::new("ES256", "client"));
    let url = endpoint(&stage);
    let answer = ask(&stage, &app, &[&key.proof("POST", &url, None).build()], None);
    assert_eq!((answer.status(), answer.json()["error"].as_str()), (400, Some("use_dpop_nonce")));
    let nonce = answer.field("dpop-nonce").unwrap().to_owned();
    let answer = ask(&stage, &app, &[&key.proof("POST", &url, None).claim("nonce", nonce).build()], None);
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let nonce = answer.field("dpop-nonce").unwrap();
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    // The same nonces are good for the API behind the gate.
    let proof = key.proof("GET", "https://api.test/deals/7", Some(&token)).claim("nonce", nonce).build();
    let request = stage.gate.get("/deals/7").field("Authorization", &format!("DPoP {token}"));
    assert_eq!(request.field("DPoP", &proof).send().status(), 200);
    assert_eq!(ask(&stage, &app, &[], None).field("dpop-nonce"), None, "a bearer token needs none");
}

#[test]
fn a_client_certificate_binds_the_token_of_its_connection() {
    let clients = Authority::new();
    let stage = Stage::planned(|plan| plan.server_tls("clients.pem", &clients.certificate_pem()));
    let (app, key) = (stage.robot(), Signer::new("ES256", "client"));
    let (alice, bob) = (clients.client("alice"), clients.client("bob"));
    let metadata = stage.gate.get("/.well-known/oauth-authorization-server").send().json();
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    let proof = || key.proof("POST", &endpoint(&stage), None).build();
    let bound = json!({ "x5t#S256": alice.thumbprint() });
    let both = json!({ "x5t#S256": alice.thumbprint(), "jkt": key.thumbprint() });
    for (proofs, identity, token_type, cnf) in [
        (vec![], Some(&alice), "Bearer", Some(bound)),
        (vec![], None, "Bearer", None),
        (vec![proof()], Some(&alice), "DPoP", Some(both)),
    ] {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let answer = ask(&stage, &app, &proofs, identity).json();
        assert_eq!(answer["token_type"], token_type);
        let token = answer["access_token"].as_str().unwrap();
        assert_eq!(part(token, 1).get("cnf"), cnf.as_ref());
        if cnf.is_none() || token_type == "DPoP" {
            continue;
        }
        let api = |identity: Option<&Identity>| {
            let config = stage.gate.settings.authority().client_config(&["http/1.1"], identity);
            let mut wire = Wire::tls(stage.gate.public, "localhost", config).unwrap();
            wire.exchange(stage.gate.get("/deals/7").token(token).bytes()).unwrap().status()
        };
        assert_eq!([api(Some(&alice)), api(Some(&bob)), api(None)], [200, 401, 401]);
        let form = format!("token={token}&client_id={}&client_secret={}", app.id, app.secret);
        let told: Value = stage.post("/oauth/introspect", &form).json();
        assert_eq!((&told["token_type"], told.get("cnf")), (&json!("Bearer"), cnf.as_ref()));
    }
}
