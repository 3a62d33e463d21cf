//! Key-bound tokens (RFC 9449, RFC 8705): proofs of every kind over real sockets, why they are rejected, and
//! what the upstream receives.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::gate::Gate;
use testkit::pki::Authority;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer};
use testkit::wire::{Answer, Wire};
use testkit::{b64, eventually, now};

const URL: &str = "https://api.test/deals/7";
const ALGS: &str = "algs=\"ES256 ES384 EdDSA Ed25519 PS256 PS384 PS512 RS256 RS384 RS512\"";

struct Scene {
    upstream: RawUpstream,
    issuer: Issuer,
    key: Signer,
    gate: Gate,
}

/// A gate behind TLS with these lines for its issuer and `[dpop]`.
fn scene(issuer_lines: &str, lines: &str) -> Scene {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&issuer, issuer_lines)
        .route("/deals/{*rest}", "")
        .route("/scope", "scopes = [\"write:deals\"]")
        .route("/open", "anonymous = true")
        .route("/shadow", "mode = \"shadow\"");
    let gate = Gate::start(&settings.toml(lines));
    Scene { upstream, issuer, key: Signer::new("ES256", "client"), gate }
}

impl Scene {
    fn bound(&self) -> String {
        self.issuer.token().claim("cnf", json!({ "jkt": self.key.thumbprint() })).build()
    }

    /// Sends a request with this token and these proofs.
    fn send(&self, token: &str, proofs: &[&str]) -> Answer {
        let mut request = self.gate.get("/deals/7").field("Authorization", &format!("DPoP {token}"));
        for proof in proofs {
            request = request.field("DPoP", proof);
        }
        request.send()
    }

    /// Like [`Self::send`], and returns the decision as well.
    fn decided(&self, token: &str, proofs: &[&str]) -> (Answer, String) {
        self.gate.decision(|| self.send(token, proofs))
    }
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.head.all("www-authenticate")
}

/// Holds docs/configuration.md, Settings: dpop.max_age
#[test]
fn hostile_proofs_are_refused_and_never_reach_the_upstream() {
    let scene = scene("leeway = \"0s\"", "");
    let (token, key, thief) = (scene.bound(), &scene.key, Signer::new("ES256", "thief"));
    let good = || key.proof("GET", URL, Some(&token));
    assert_eq!(scene.send(&token, &[&good().build()]).status(), 200);
    let forwarded = scene.upstream.seen().len();
    let (rsa, secret) = (Signer::new("RS256", "r"), Signer::secret("HS256", &[7; 32]));
    let mut private = key.bare_jwk();
    private["d"] = json!(b64([7; 32]));
    let used = good().build();
    assert_eq!(scene.send(&token, &[&used]).status(), 200);
    let one = good().build();
    let (two_fields, joined) = (vec![one.clone(), good().build()], format!("{one}, {}", good().build()));
    let alg_none = good().head("alg", "none").build();
    let unsigned = format!("{}.", alg_none.rsplit_once('.').unwrap().0);
    let twice = {
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": key.bare_jwk() }).to_string();
        let claims = format!(
            "{{\"jti\":\"a\",\"jti\":\"b\",\"htm\":\"GET\",\"htu\":\"{URL}\",\"iat\":{},\"ath\":\"x\"}}",
            now()
        );
        testkit::tokens::compact(key, "ES256", header.as_bytes(), claims.as_bytes())
    };
    let rows: Vec<(&str, Vec<String>)> = vec![
        ("no proof", vec![]),
        ("two fields", two_fields),
        ("two proofs in one field", vec![joined]),
        ("an empty field", vec![String::new()]),
        ("no JWT", vec!["proof".to_owned()]),
        ("used before", vec![used]),
        ("another path", vec![key.proof("GET", "https://api.test/deals/8", Some(&token)).build()]),
        ("another host", vec![key.proof("GET", "https://evil.test/deals/7", Some(&token)).build()]),
        ("another port", vec![key.proof("GET", "https://api.test:8443/deals/7", Some(&token)).build()]),
        ("another scheme", vec![key.proof("GET", "http://api.test/deals/7", Some(&token)).build()]),
        ("a relative URI", vec![key.proof("GET", "/deals/7", Some(&token)).build()]),
        ("another method", vec![key.proof("POST", URL, Some(&token)).build()]),
        ("a method in lower case", vec![key.proof("get", URL, Some(&token)).build()]),
        ("another token", vec![key.proof("GET", URL, Some(&scene.issuer.good())).build()]),
        ("no ath", vec![key.proof("GET", URL, None).build()]),
        ("padded ath", vec![good().claim("ath", format!("{}=", b64([0; 32]))).build()]),
        (
            "not the key that the access token is bound to",
            vec![thief.proof("GET", URL, Some(&token)).build()],
        ),
        ("its key, signed by another", vec![good().signed_by(&thief).build()]),
        ("an RSA key that is not the token's", vec![rsa.proof("GET", URL, Some(&token)).build()]),
        ("alg none", vec![unsigned]),
        ("alg none, signed", vec![alg_none]),
        ("a secret", vec![secret.proof("GET", URL, Some(&token)).build()]),
        ("HMAC with the public key", vec![good().head("alg", "HS256").build()]),
        ("an algorithm of another key", vec![good().head("alg", "ES384").build()]),
        ("a private key in the header", vec![good().head("jwk", private).build()]),
        (
            "a symmetric key in the header",
            vec![good().head("jwk", json!({"kty": "oct", "k": "AAAA"})).build()],
        ),
        ("no key in the header", vec![good().headless("jwk").build()]),
        ("a key URL", vec![good().headless("jwk").head("jku", "https://evil.test/jwks").build()]),
        ("no typ", vec![good().headless("typ").build()]),
        ("typ JWT", vec![good().head("typ", "JWT").build()]),
        ("typ at+jwt", vec![good().head("typ", "at+jwt").build()]),
        ("a critical extension", vec![good().head("crit", json!(["x"])).head("x", 1).build()]),
        ("no jti", vec![good().without("jti").build()]),
        ("an empty jti", vec![good().claim("jti", "").build()]),
        ("a jti that is too long", vec![good().claim("jti", "j".repeat(257)).build()]),
        ("a jti that is a number", vec![good().claim("jti", 7).build()]),
        ("no htm", vec![good().without("htm").build()]),
        ("no htu", vec![good().without("htu").build()]),
        ("no iat", vec![good().without("iat").build()]),
        ("an iat that is text", vec![good().claim("iat", now().to_string()).build()]),
        ("too old", vec![good().claim("iat", now() - 65).build()]),
        ("from the future", vec![good().claim("iat", now() + 3600).build()]),
        ("trailing data", vec![format!("{}.AAAA", good().build())]),
        ("a padded signature", vec![format!("{}=", good().build())]),
        ("a member twice", vec![twice]),
        ("very long", vec![good().claim("x", "y".repeat(9_000)).build()]),
        ("the access token itself", vec![token.clone()]),
    ];
    assert!(rows.len() >= 40);
    for (name, proofs) in &rows {
        let proofs: Vec<&str> = proofs.iter().map(String::as_str).collect();
        let (answer, decision) = scene.decided(&token, &proofs);
        assert_eq!(
            (answer.status(), decision.as_str()),
            (401, "deny/bad_proof"),
            "{name}: {}",
            answer.text()
        );
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert_eq!(answer.json()["error"], "invalid_dpop_proof", "{name}");
        let expected = format!(
            "DPoP realm=\"portcullis\", error=\"invalid_dpop_proof\", error_description=\"{description}\", {ALGS}"
        );
        assert_eq!(challenges(&answer), [expected], "{name}");
        assert_eq!(answer.field("dpop-nonce"), None, "{name}");
    }
    assert_eq!(scene.upstream.seen().len(), forwarded + 1, "no refused request was forwarded");
    assert_eq!(scene.send(&token, &[&good().build()]).status(), 200, "the token is as good as before");
    let inside = [now() - 30, now() + 30].map(|iat| good().claim("iat", iat).build());
    for proof in &inside {
        assert_eq!(scene.send(&token, &[proof]).status(), 200, "a clock that differs by less than max_age");
    }
}

#[test]
fn a_proof_is_for_the_uri_without_its_query_however_it_is_written() {
    let scene = scene("", "");
    let token = scene.bound();
    for (host, target, uri) in [
        ("api.test", "/deals/7?page=2", URL),
        ("api.test", "/deals/7", "https://api.test/deals/7?page=2#top"),
        ("API.test:443", "/deals/7", URL),
        ("api.test", "/deals/7", "HTTPS://API.TEST:443/deals/%37"),
        ("api.test:8443", "/de%61ls/7", "https://api.test:8443/deals/7"),
        ("api.test", "/deals/%c3%a4", "https://api.test/deals/%C3%A4"),
    ] {
        let proof = scene.key.proof("GET", uri, Some(&token)).build();
        let request = scene.gate.get(target).field("Host", host).field("DPoP", &proof);
        let answer = request.field("authorization", &format!("dpop {token}")).send();
        assert_eq!(answer.status(), 200, "{host} {target} {uri}: {}", answer.text());
    }
}

#[test]
fn every_kind_of_key_works() {
    let scene = scene("", "");
    for alg in ["ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        let key = Signer::new(alg, "client");
        let token = scene.issuer.token().claim("cnf", json!({ "jkt": key.thumbprint() })).build();
        assert_eq!(
            scene.send(&token, &[&key.proof("GET", URL, Some(&token)).build()]).status(),
            200,
            "{alg}"
        );
        if alg == "EdDSA" {
            let renamed = key.proof("GET", URL, Some(&token)).head("alg", "Ed25519").build();
            assert_eq!(scene.send(&token, &[&renamed]).status(), 200, "the name of RFC 9864");
        }
    }
}

#[test]
fn a_bound_token_is_no_bearer_token_and_another_is_not_bound() {
    let scene = scene("", "");
    let (bound, free) = (scene.bound(), scene.issuer.good());
    let invalid_token = |answer: &Answer| {
        let description = answer.json()["error_description"].as_str().unwrap().to_owned();
        format!(
            "DPoP realm=\"portcullis\", error=\"invalid_token\", error_description=\"{description}\", {ALGS}"
        )
    };
    let as_bearer = |with_proof: bool| {
        let request = scene.gate.get("/deals/7").token(&bound);
        let proof = scene.key.proof("GET", URL, Some(&bound)).build();
        if with_proof { request.field("DPoP", &proof) } else { request }.send()
    };
    for with_proof in [false, true] {
        let (answer, decision) = scene.gate.decision(|| as_bearer(with_proof));
        assert_eq!((answer.status(), decision.as_str()), (401, "deny/bad_proof"));
        assert_eq!(challenges(&answer), [invalid_token(&answer)]);
    }
    let (answer, decision) = scene.decided(&free, &[&scene.key.proof("GET", URL, Some(&free)).build()]);
    assert_eq!((answer.status(), decision.as_str()), (401, "deny/bad_proof"));
    assert_eq!(challenges(&answer), [invalid_token(&answer)]);
    assert_eq!(scene.gate.get("/deals/7").token(&free).send().status(), 200);
    // Both schemes at once, and a token in the query beside one.
    let both = scene.gate.get("/deals/7").token(&bound).field("Authorization", &format!("DPoP {bound}"));
    let query = scene.gate.get("/deals/7?access_token=x").field("Authorization", &format!("DPoP {bound}"));
    for request in [both, query] {
        let (answer, decision) = scene.gate.decision(|| request.send());
        assert_eq!((answer.status(), decision.as_str()), (400, "deny/ambiguous"));
        assert_eq!(answer.json()["error"], "invalid_request");
    }
    // What is wrong with the token or its scopes is said in the scheme of the request.
    let expired = scene.issuer.token().claim("exp", now() - 90).claim("iat", now() - 100).build();
    let (answer, decision) = scene.decided(&expired, &[]);
    assert_eq!((answer.status(), decision.as_str()), (401, "deny/expired"));
    assert!(challenges(&answer)[0].starts_with("DPoP realm=\"portcullis\", error=\"invalid_token\""));
    let proof = scene.key.proof("GET", "https://api.test/scope", Some(&bound)).build();
    let request =
        scene.gate.get("/scope").field("Authorization", &format!("DPoP {bound}")).field("DPoP", &proof);
    let answer = request.send();
    assert_eq!(answer.status(), 403);
    let challenge = challenges(&answer)[0];
    assert!(challenge.starts_with("DPoP ") && challenge.contains("scope=\"write:deals\""), "{challenge}");
}

/// Holds docs/configuration.md, Settings: issuers[].sender_constraint
#[test]
fn issuers_say_what_their_tokens_must_be_bound_to() {
    // A token without anything, a bound one with its proof, a bound one as bearer.
    for (constraint, expected) in [
        ("when_bound", ["allow", "allow", "deny/bad_proof"]),
        ("dpop", ["deny/bad_proof", "allow", "deny/bad_proof"]),
        ("mtls", ["deny/certificate_mismatch", "deny/certificate_mismatch", "deny/certificate_mismatch"]),
        ("either", ["deny/bad_proof", "allow", "deny/bad_proof"]),
        ("ignore_dpop", ["allow", "allow", "allow"]),
    ] {
        let scene = scene(&format!("sender_constraint = \"{constraint}\""), "");
        let (bound, free) = (scene.bound(), scene.issuer.good());
        let proof = scene.key.proof("GET", URL, Some(&bound)).build();
        let found = [
            scene.gate.decision(|| scene.gate.get("/deals/7").token(&free).send()).1,
            scene.decided(&bound, &[&proof]).1,
            scene.gate.decision(|| scene.gate.get("/deals/7").token(&bound).send()).1,
        ];
        let found = found.map(|decision| decision.trim_end_matches("/none").to_owned());
        assert_eq!(found, expected, "{constraint}");
        let bare = scene.gate.get("/deals/7").send();
        let schemes: Vec<_> = challenges(&bare).iter().map(|it| it.split(' ').next().unwrap()).collect();
        let both = matches!(constraint, "dpop" | "either");
        assert_eq!(schemes, if both { vec!["Bearer", "DPoP"] } else { vec!["Bearer"] }, "{constraint}");
    }
}

#[test]
fn who_presents_nothing_is_challenged_for_both_schemes_where_dpop_is_set_up() {
    let scene = scene("", "[dpop]\n");
    for target in ["/deals/7", "/nowhere"] {
        let answer = scene.gate.get(target).send();
        assert_eq!(answer.status(), 401);
        let dpop = format!("DPoP realm=\"portcullis\", {ALGS}");
        assert_eq!(challenges(&answer), ["Bearer realm=\"portcullis\"", &dpop], "{target}");
    }
    let mtls = self::scene("sender_constraint = \"mtls\"", "[dpop]\n");
    assert_eq!(challenges(&mtls.gate.get("/deals/7").send()), ["Bearer realm=\"portcullis\""]);
}

/// Holds docs/configuration.md, Settings: dpop.nonce
#[test]
fn a_nonce_is_demanded_handed_out_and_taken() {
    let scene = scene("", "[dpop]\nnonce = \"required\"\n");
    let token = scene.bound();
    let proof = |nonce: Option<&str>| {
        let proof = scene.key.proof("GET", URL, Some(&token));
        nonce.map_or(proof.clone(), |nonce| proof.claim("nonce", nonce)).build()
    };
    for nonce in [None, Some(""), Some("made up"), Some("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")] {
        let (answer, decision) = scene.decided(&token, &[&proof(nonce)]);
        assert_eq!((answer.status(), decision.as_str()), (401, "deny/bad_proof"), "{nonce:?}");
        assert!(answer.field("dpop-nonce").is_some());
        assert!(challenges(&answer)[0].starts_with("DPoP realm=\"portcullis\", error=\"use_dpop_nonce\""));
        assert_eq!(answer.json()["error"], "use_dpop_nonce");
    }
    let mut nonce = scene.send(&token, &[&proof(None)]).field("dpop-nonce").unwrap().to_owned();
    for _ in 0..3 {
        let answer = scene.send(&token, &[&proof(Some(&nonce))]);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        nonce = answer.field("dpop-nonce").unwrap().to_owned();
    }
    let free = scene.issuer.good();
    let answer = scene.gate.get("/deals/7").token(&free).send();
    assert_eq!((answer.status(), answer.field("dpop-nonce")), (200, None), "bearer tokens need none");
}

/// Holds docs/configuration.md, Settings: dpop.public_url
#[test]
fn behind_a_proxy_the_public_url_counts() {
    let scene = scene("", "[dpop]\npublic_url = \"https://public.test:8443\"\n");
    let token = scene.bound();
    for (uri, status) in [("https://public.test:8443/deals/7", 200), (URL, 401)] {
        let proof = scene.key.proof("GET", uri, Some(&token)).build();
        assert_eq!(scene.send(&token, &[&proof]).status(), status, "{uri}");
    }
}

/// Holds docs/configuration.md, Settings: dpop.max_tracked
#[test]
fn what_cannot_be_remembered_is_not_let_through() {
    let scene = scene("", "[dpop]\nmax_tracked = 2\n");
    let token = scene.bound();
    let proofs: Vec<String> = (0..4).map(|_| scene.key.proof("GET", URL, Some(&token)).build()).collect();
    let told = |proof: &str| {
        let (answer, decision) = scene.decided(&token, &[proof]);
        (answer.status(), decision)
    };
    assert_eq!([told(&proofs[0]).0, told(&proofs[1]).0], [200, 200]);
    for proof in &proofs[2..] {
        assert_eq!(told(proof), (503, "unavailable/state_unavailable".to_owned()));
    }
    assert_eq!(told(&proofs[0]), (401, "deny/bad_proof".to_owned()));
    assert_eq!(scene.gate.get("/deals/7").token(&scene.issuer.good()).send().status(), 200);
}

#[test]
fn a_refused_proof_is_no_use_of_its_token() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let gate = Gate::start(&Settings::tls().guarding(&app.url(), &issuer).admin());
    let key = Signer::new("ES256", "client");
    let token = issuer.token().claim("cnf", json!({ "jkt": key.thumbprint() })).build();
    let send = |proof: &str| {
        let request = gate.get("/deals/7").field("Authorization", &format!("DPoP {token}"));
        request.field("DPoP", proof).send().status()
    };
    let good = key.proof("GET", URL, Some(&token)).build();
    assert_eq!(send(&key.proof("POST", URL, Some(&token)).build()), 401);
    assert_eq!(gate.list("/v1/sessions?subject=alice"), Vec::<Value>::new());
    assert_eq!(send(&good), 200);
    let used = || gate.list("/v1/sessions?subject=alice")[0]["last_used_at"].as_str().unwrap().to_owned();
    let first = used();
    assert_eq!(send(&good), 401);
    assert_eq!(used(), first);
}

#[test]
fn the_upstream_sees_the_proof_with_the_token_or_neither() {
    for strip in [false, true] {
        let scene = scene("", &format!("[identity]\nstrip_authorization = {strip}\n"));
        let token = scene.bound();
        let proof = scene.key.proof("GET", URL, Some(&token)).build();
        assert_eq!(scene.send(&token, &[&proof]).status(), 200);
        let seen = scene.upstream.last();
        let expected = |value: String| if strip { None } else { Some(value) };
        assert_eq!(seen.field("authorization"), expected(format!("DPoP {token}")));
        assert_eq!(seen.field("dpop"), expected(proof));
        assert_eq!(seen.field("x-auth-subject").as_deref(), Some("alice"));
    }
}

#[test]
fn a_token_bound_to_a_key_and_a_certificate_needs_both() {
    let (clients, upstream, issuer) = (Authority::new(), RawUpstream::start(), Issuer::new());
    let settings = Settings::tls().server_tls("client_ca = \"clients.pem\"");
    settings.file("clients.pem", clients.certificate_pem());
    let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer));
    let (alice, key) = (clients.client("alice"), Signer::new("ES256", "client"));
    let cnf = json!({ "jkt": key.thumbprint(), "x5t#S256": alice.thumbprint() });
    let token = issuer.token().claim("cnf", cnf).build();
    let send = |with_certificate: bool, with_proof: bool| {
        let identity = with_certificate.then_some(&alice);
        let config = gate.settings.authority().client_config(&["http/1.1"], identity);
        let request = gate.get("/deals/7");
        let request = if with_proof {
            let proof = key.proof("GET", URL, Some(&token)).build();
            request.field("Authorization", &format!("DPoP {token}")).field("DPoP", &proof)
        } else {
            request.token(&token)
        };
        let (answer, decision) = gate.decision(|| {
            Wire::tls(gate.public, "localhost", config).unwrap().exchange(request.bytes()).unwrap()
        });
        (answer.status(), decision.trim_end_matches("/none").to_owned())
    };
    assert_eq!(send(true, true), (200, "allow".to_owned()));
    assert_eq!(send(false, true), (401, "deny/certificate_mismatch".to_owned()));
    assert_eq!(send(true, false), (401, "deny/bad_proof".to_owned()));
}

#[test]
fn routes_that_need_or_enforce_nothing_say_what_they_found() {
    let scene = scene("", "");
    let token = scene.bound();
    let at = |path: &str, scheme: &str, proof: &str| {
        let request = scene.gate.get(path).field("Authorization", &format!("{scheme} {token}"));
        let (answer, decision) = scene.gate.decision(|| request.field("DPoP", proof).send());
        (answer.status(), decision.trim_end_matches("/none").to_owned())
    };
    let fresh = |path: &str| scene.key.proof("GET", &format!("https://api.test{path}"), Some(&token)).build();
    assert_eq!(at("/open", "Bearer", "x"), (401, "deny/bad_proof".to_owned()));
    assert_eq!(at("/open", "DPoP", "x"), (401, "deny/bad_proof".to_owned()));
    assert_eq!(at("/open", "DPoP", &fresh("/open")), (200, "allow".to_owned()));
    let proof = fresh("/shadow");
    assert_eq!(at("/shadow", "DPoP", &proof), (200, "allow".to_owned()));
    assert_eq!(at("/shadow", "DPoP", &proof), (200, "shadow_deny/bad_proof".to_owned()));
}

#[test]
fn a_stream_that_began_with_a_proof_lasts_over_a_reload() {
    let (app, issuer) = (App::start(Speaks::Http1), Issuer::new());
    let settings = Settings::tls().guarding(&app.url(), &issuer).admin();
    let often = "[streams]\ncheck_interval = \"100ms\"\n";
    let gate = Gate::start(&settings.clone().toml(often));
    let key = Signer::new("ES256", "client");
    let jkt = key.thumbprint();
    let open = |jti: &str| {
        let token = issuer.token().claim("jti", jti).claim("cnf", json!({ "jkt": jkt })).build();
        let proof = key.proof("GET", "https://api.test/events", Some(&token)).build();
        let mut wire = gate.connect();
        let request = gate.get("/events").field("Authorization", &format!("DPoP {token}"));
        wire.send(request.field("DPoP", &proof).bytes()).unwrap();
        assert_eq!(wire.head().unwrap().status, 200);
        wire
    };
    let (mut lasting, mut revoked) = (open("lasting"), open("revoked"));
    let tick = |wire: &mut Wire| assert_eq!(wire.chunk().unwrap().unwrap(), b"data: tick\n\n");
    app.emit("tick");
    tick(&mut lasting);
    tick(&mut revoked);
    for (count, age) in [(1.0, "61s"), (2.0, "62s")] {
        settings.clone().toml(&format!("{often}[dpop]\nmax_age = \"{age}\"\n")).write();
        gate.signal("HUP");
        gate.wait_for_reloads("ok", count);
    }
    gate.publish(&json!({ "type": "token-revoked", "jti": "revoked" }));
    eventually("the other one is cut", || {
        let cut = gate.metrics().sum("portcullis_streams_cut_total", &[("reason", "token_revoked")]);
        (cut == 1.0).then_some(())
    });
    app.emit("tick");
    tick(&mut lasting);
    assert_eq!(gate.metrics().sum("portcullis_streams_cut_total", &[]), 1.0, "nothing else was cut");
    // Under a rule that its token does not meet, a stream ends as any.
    let mtls = settings.to_toml().replace("[[issuers]]", "[[issuers]]\nsender_constraint = \"mtls\"");
    gate.settings.file("portcullis.toml", format!("{mtls}{often}"));
    gate.signal("HUP");
    eventually("the rule ends it", || {
        let cut = gate.metrics().sum("portcullis_streams_cut_total", &[("reason", "certificate_mismatch")]);
        (cut == 1.0).then_some(())
    });
}

#[test]
fn a_grpc_call_without_its_proof_is_refused_in_its_own_form() {
    let scene = scene("", "");
    let token = scene.bound();
    let request = scene.gate.request("POST", "/deals/7").token(&token);
    let answer = request.field("Content-Type", "application/grpc").body("").send();
    assert_eq!((answer.status(), answer.field("grpc-status")), (200, Some("16")));
    let schemes: BTreeSet<_> = challenges(&answer).iter().map(|it| it.split(' ').next().unwrap()).collect();
    assert_eq!(schemes, BTreeSet::from(["DPoP"]));
}
