//! What the upstream receives: identity headers that only the gate can set, and forwarding headers.

use serde_json::json;

use testkit::gate::{Gate, field, path_text, portcullis};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Token};

fn guarded(settings: Settings) -> (Gate, RawUpstream, Issuer) {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let gate = Gate::start(&settings.guarding(&upstream.url(), &issuer));
    (gate, upstream, issuer)
}

/// Holds docs/configuration.md, Settings: identity.headers
#[test]
fn the_default_headers_carry_subject_client_scope_roles_and_tenant() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let token = issuer
        .token()
        .claim("scope", "a b")
        .claim("roles", json!(["r", "s"]))
        .claim("tenant", "acme")
        .build();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    let seen = upstream.last();
    for (name, value) in [
        ("x-auth-subject", "alice"),
        ("x-auth-client", "app"),
        ("x-auth-scope", "a b"),
        ("x-auth-roles", "r,s"),
        ("x-auth-tenant", "acme"),
        ("authorization", &format!("Bearer {token}")),
    ] {
        assert_eq!(seen.field(name).as_deref(), Some(value), "{}", seen.text());
    }
    let bare = issuer.token().without("scope").without("client_id").build();
    assert_eq!(gate.get("/").token(&bare).send().status(), 200);
    for name in ["x-auth-client", "x-auth-scope", "x-auth-roles", "x-auth-tenant"] {
        assert_eq!(upstream.last().field(name), None, "an absent claim is an absent header");
    }
}

#[test]
fn values_are_written_so_that_they_can_be_read_in_one_way() {
    let lines = "[identity.headers]\nx-claim = \"token.claim\"\nx-scope = \"scope\"\nx-roles = \"roles\"\nx-deep = \"token./a/b\"\n";
    let (gate, upstream, issuer) = guarded(Settings::plaintext().toml(lines));
    let send = |token: Token<'_>| {
        let answer = gate.get("/").token(&token.build()).send();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        upstream.last()
    };
    let rows = [
        (json!("plain"), "plain"),
        (json!("Ümlaut"), "%C3%9Cmlaut"),
        (json!("a\r\nX-Evil: 1"), "a%0D%0AX-Evil:%201"),
        (json!("tab\tnul\u{0}del\u{7f}"), "tab%09nul%00del%7F"),
        (json!(["a", "b"]), "a,b"),
        (json!(["a,b", "c"]), "a%2Cb,c"),
        (json!(7), "7"),
        (json!(true), "true"),
        (json!({"x": [1, 2]}), r#"{"x":[1,2]}"#),
    ];
    for (value, expected) in rows {
        let seen = send(issuer.token().claim("claim", value.clone()));
        let got = seen.field("x-claim").unwrap();
        // Whether a space inside a string is percent-encoded is not fixed: both are readable in one way.
        assert_eq!(got.replace("%20", " "), expected.replace("%20", " "), "{value}");
    }
    assert_eq!(
        send(issuer.token().claim("scope", json!(["a", "b"]))).field("x-scope").as_deref(),
        Some("a b")
    );
    assert_eq!(
        send(issuer.token().claim("a", json!({"b": "deep"}))).field("x-deep").as_deref(),
        Some("deep")
    );
}

/// Holds docs/configuration.md, Settings: identity.max_value, .on_overflow
#[test]
fn a_value_above_4_kib_is_refused() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let with_subject = |n: usize| issuer.token().claim("sub", "x".repeat(n)).build();
    assert_eq!(gate.get("/").token(&with_subject(4096)).send().status(), 200);
    let (answer, decision) = gate.decision(|| gate.get("/").token(&with_subject(4097)).send());
    assert_eq!((answer.status(), decision.as_str()), (401, "deny/bad_claim"));
    assert_eq!(upstream.count(), 1);
}

/// Holds docs/configuration.md, Settings: identity.max_value, .on_overflow
#[test]
fn a_user_with_a_hundred_groups_gets_through_as_configured_and_the_log_names_what_was_left_out() {
    let groups = |count: usize| {
        let group = |number| format!("{number:08}-0000-4000-8000-{number:012}");
        json!((0..count).map(group).collect::<Vec<_>>())
    };
    // 100 names of 36 characters and 99 commas.
    for (lines, count, sent) in [
        ("max_value = 3699", 100, Ok(true)),
        ("max_value = 3698", 100, Err("3698")),
        ("max_value = 3698\non_overflow = \"omit\"", 100, Ok(false)),
        ("max_value = 3699\non_overflow = \"omit\"", 100, Ok(true)),
        ("on_overflow = \"omit\"", 111, Ok(false)),
        ("max_value = \"8KiB\"", 200, Ok(true)),
    ] {
        let settings = Settings::plaintext().toml(&format!("[identity]\n{lines}\n"));
        let (gate, upstream, issuer) = guarded(settings);
        let token = issuer.token().claim("roles", groups(count)).build();
        // Twice: what a remembered token says is what a new one says.
        for proof in ["fresh", "cached"] {
            let ask = || gate.get("/").token(&token).field("X-Auth-Roles", "admin").send();
            let (answer, decision) = gate.decision(ask);
            let record = gate.record_of(answer.field("x-request-id").unwrap());
            let omitted = field(&record, "omitted_headers");
            let Ok(is_sent) = sent else {
                let outcome = (answer.status(), decision.as_str(), omitted, upstream.count());
                assert_eq!(outcome, (401, "deny/bad_claim", None, 0), "{lines}");
                continue;
            };
            assert_eq!((answer.status(), decision.as_str()), (200, "allow/none"), "{lines} {proof}");
            let seen = upstream.last();
            assert_eq!(seen.field("x-auth-subject").as_deref(), Some("alice"));
            assert_eq!(seen.all("x-auth-roles").len(), usize::from(is_sent), "{lines} {proof}");
            assert!(!seen.text().contains("admin"), "{}", seen.text());
            assert_eq!(omitted, (!is_sent).then_some("x-auth-roles"), "{lines} {proof}");
        }
        let configuration = gate.settings.folder().join("portcullis.toml");
        let explained = portcullis(&["explain", "--config", path_text(&configuration), &token]).out;
        match sent {
            Ok(true) => assert!(!explained.contains("left out"), "{explained}"),
            Ok(false) => assert!(
                explained.contains("identity headers omitted because they are too long: x-auth-roles"),
                "{explained}"
            ),
            Err(most) => {
                let why = format!("identity header x-auth-roles would have 3699 bytes; max_value is {most}");
                assert!(explained.contains(&why), "{explained}");
            }
        }
    }
}

#[test]
fn nothing_is_left_out_of_a_request_that_carries_no_identity_anyway() {
    let lines = "[identity]\nmax_value = 4\non_overflow = \"omit\"\n";
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().upstream("api", &upstream.url(), "").issuer(&issuer).toml(lines);
    let settings = settings
        .route("/open", "anonymous = true")
        .route("/shadow", "scopes = [\"none\"]\nmode = \"shadow\"")
        .route("/closed", "scopes = [\"none\"]");
    let gate = Gate::start(&settings);
    let token = issuer.good();
    for (path, status, omitted) in
        [("/open", 200, Some("x-auth-scope,x-auth-subject")), ("/shadow", 200, None), ("/closed", 403, None)]
    {
        let answer = gate.get(path).token(&token).send();
        assert_eq!(answer.status(), status, "{path}");
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(field(&record, "omitted_headers"), omitted, "{path}: {record}");
    }
}

/// Holds docs/configuration.md, Settings: identity.headers
#[test]
fn what_a_client_claims_to_be_is_stripped_in_every_spelling() {
    let (gate, upstream, issuer) = guarded(
        Settings::plaintext()
            .toml("[identity.headers]\nx-auth-subject = \"sub\"\nx-auth-tenant = \"tenant\"\n"),
    );
    let mut request = gate.get("/").token(&issuer.good());
    let spellings = [
        "X-Auth-Subject",
        "x-auth-subject",
        "X_Auth_Subject",
        "x-auth_subject",
        "X_AUTH-SUBJECT",
        "X-AUTH-SUBJECT",
        "X-Auth-Tenant",
        "X_Auth_Tenant",
        "x_auth-tenant",
    ];
    for name in spellings {
        request = request.field(name, "root");
    }
    assert_eq!(request.field("X-Auth", "kept").field("X-Auth-Subjects", "kept").send().status(), 200);
    let seen = upstream.last();
    let folded: Vec<(String, String)> =
        seen.fields().into_iter().map(|(name, value)| (name.replace('_', "-"), value)).collect();
    let subjects: Vec<&str> =
        folded.iter().filter(|(n, _)| n == "x-auth-subject").map(|(_, v)| v.as_str()).collect();
    assert_eq!(subjects, ["alice"], "{}", seen.text());
    assert!(folded.iter().all(|(name, _)| name != "x-auth-tenant"), "{}", seen.text());
    assert_eq!(
        (seen.field("x-auth").as_deref(), seen.field("x-auth-subjects").as_deref()),
        (Some("kept"), Some("kept"))
    );
}

#[test]
fn the_token_can_be_kept_from_the_upstream() {
    let (gate, upstream, issuer) =
        guarded(Settings::plaintext().toml("[identity]\nstrip_authorization = true\n"));
    let token = issuer.good();
    assert_eq!(gate.get("/").token(&token).send().status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.field("authorization"), None);
    assert!(!seen.text().contains(&token), "{}", seen.text());
    assert_eq!(seen.field("x-auth-subject").as_deref(), Some("alice"));
}

#[test]
fn overrides_of_the_method_are_removed() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let names = [
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X_HTTP_Method_Override",
        "x-http_method-override",
    ];
    let request =
        names.iter().fold(gate.get("/").token(&issuer.good()), |request, name| request.field(name, "DELETE"));
    assert_eq!(request.send().status(), 200);
    let text = upstream.last().text().to_ascii_lowercase();
    assert!(!text.contains("override") && !text.contains("x-http-method"), "{text}");
}

#[test]
fn hop_by_hop_fields_stay_behind() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let answer = gate
        .get("/")
        .token(&issuer.good())
        .field("Connection", "X-One, x-two ,X-Auth-Subject, authorization, host")
        .field("Connection", "x-three")
        .field("X-One", "1")
        .field("X-Two", "2")
        .field("X-Three", "3")
        .field("X-Four", "4")
        .field("Keep-Alive", "timeout=5")
        .field("Proxy-Connection", "keep-alive")
        .field("Proxy-Authorization", "Basic c2VjcmV0")
        .field("TE", "gzip, trailers")
        .field("Upgrade", "h2c")
        .send();
    let seen = upstream.last();
    for name in
        ["x-one", "x-two", "x-three", "keep-alive", "proxy-connection", "upgrade", "proxy-authorization"]
    {
        assert_eq!(seen.field(name), None, "{}", seen.text());
    }
    assert!(seen.field("te").is_none_or(|te| te == "trailers"), "{}", seen.text());
    assert_eq!(seen.field("x-four").as_deref(), Some("4"));
    assert_eq!(answer.status(), 200);
    // A client cannot use Connection to make the gate drop what the gate itself sets, nor the Host it judged.
    assert_eq!(seen.field("x-auth-subject").as_deref(), Some("alice"), "{}", seen.text());
    assert_eq!(seen.field("host").as_deref(), Some("api.test"), "{}", seen.text());
    assert!(seen.field("x-forwarded-for").is_some() && seen.field("via").is_some(), "{}", seen.text());
}

#[test]
fn a_connection_field_with_strange_bytes_hides_nothing() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let mut request = gate.get("/").token(&issuer.good()).field("X-Private", "1").bytes();
    request.truncate(request.len() - 2);
    request.extend_from_slice(b"Connection: \xff, x-private\r\n\r\n");
    let answer = gate.connect().exchange(request).unwrap();
    if answer.status() == 200 {
        assert_eq!(upstream.last().field("x-private"), None, "{}", upstream.last().text());
    } else {
        assert_eq!((answer.status(), upstream.count()), (400, 0));
    }
}

/// Holds docs/configuration.md, Settings: server.trusted_proxies
#[test]
fn forwarding_fields_of_a_stranger_are_replaced() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let answer = gate
        .get("/")
        .token(&issuer.good())
        .field("X-Forwarded-For", "6.6.6.6")
        .field("X-Forwarded-Proto", "https")
        .field("X-Forwarded-Host", "evil.test")
        .field("Forwarded", "for=6.6.6.6;proto=https;host=evil.test")
        .field("X-Real-IP", "6.6.6.6")
        .field("X-Request-Id", "chosen-by-the-client")
        .send();
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("127.0.0.1"), "{}", seen.text());
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("api.test"));
    let forwarded = seen.field("forwarded").unwrap();
    assert!(
        forwarded.contains("for=127.0.0.1")
            && forwarded.contains("proto=http")
            && !forwarded.contains("6.6.6.6"),
        "{forwarded}"
    );
    assert!(seen.field("via").unwrap().starts_with("1.1 "), "{}", seen.text());
    let id = seen.field("x-request-id").unwrap();
    assert_ne!(id, "chosen-by-the-client");
    assert_eq!(answer.field("x-request-id"), Some(id.as_str()), "the same id on the answer");
}

/// Holds docs/configuration.md, Settings: server.trusted_proxies
#[test]
fn forwarding_fields_of_a_trusted_proxy_are_believed() {
    let (gate, upstream, issuer) =
        guarded(Settings::plaintext().server("trusted_proxies = [\"127.0.0.0/8\"]"));
    gate.get("/")
        .token(&issuer.good())
        .field("X-Forwarded-For", "203.0.113.7")
        .field("X-Forwarded-Proto", "https")
        .field("X-Forwarded-Host", "public.test")
        .field("X-Request-Id", "id-of-the-proxy")
        .send();
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-for").as_deref(), Some("203.0.113.7, 127.0.0.1"), "{}", seen.text());
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("https"), "{}", seen.text());
    assert_eq!(seen.field("x-forwarded-host").as_deref(), Some("public.test"), "{}", seen.text());
    assert_eq!(seen.field("x-request-id").as_deref(), Some("id-of-the-proxy"), "{}", seen.text());
}

/// Holds docs/configuration.md, Settings: server.trusted_fields
#[test]
fn what_the_client_of_a_trusted_proxy_says_in_the_other_family_is_not_believed() {
    for (fields, sent, client) in [
        (
            "either",
            [("X-Forwarded-For", "203.0.113.7:4711"), ("Forwarded", "for=6.6.6.6;host=evil")],
            "203.0.113.7",
        ),
        (
            "x-forwarded",
            [("X-Forwarded-For", "[2001:db8::7]:1"), ("Forwarded", "for=6.6.6.6;host=evil")],
            "2001:db8::7",
        ),
        (
            "forwarded",
            [("Forwarded", "for=\"[2001:db8::7]:1\""), ("X-Forwarded-For", "6.6.6.6")],
            "2001:db8::7",
        ),
        ("forwarded", [("Forwarded", "for=203.0.113.7"), ("X-Forwarded-Host", "evil")], "203.0.113.7"),
        ("either", [("Forwarded", "for=203.0.113.7"), ("X-Forwarded-Host", "evil")], "203.0.113.7"),
    ] {
        let lines = format!("trusted_proxies = [\"127.0.0.0/8\"]\ntrusted_fields = \"{fields}\"");
        let (gate, upstream, issuer) = guarded(Settings::plaintext().server(&lines));
        let ask = sent.iter().fold(gate.get("/").token(&issuer.good()), |ask, (n, v)| ask.field(n, v));
        let answer = ask.send();
        let seen = upstream.last();
        for evil in ["6.6.6.6", "evil"] {
            assert!(!seen.text().contains(evil), "{fields}: {}", seen.text());
        }
        assert!(seen.field("x-forwarded-for").unwrap().contains(client), "{}", seen.text());
        assert!(seen.field("forwarded").unwrap().contains(client), "{}", seen.text());
        let record = gate.record_of(answer.field("x-request-id").unwrap());
        assert_eq!(testkit::gate::field(&record, "client_address"), Some(client), "{record}");
    }
}

#[test]
fn path_and_method_are_not_overridden_through_a_trusted_proxy() {
    for lines in ["", "trusted_proxies = [\"127.0.0.0/8\"]"] {
        let (gate, upstream, issuer) = guarded(Settings::plaintext().server(lines));
        let names = [
            "X-Original-URL",
            "X-Rewrite-URL",
            "X-Forwarded-Uri",
            "X-Forwarded-Path",
            "X-Forwarded-Method",
            "X-Original-Method",
            "X-Override-URL",
            "X_Original_URL",
            "X-HTTP-Method-Override",
        ];
        let ask = gate.get("/").token(&issuer.good()).field("X-Forwarded-For", "203.0.113.7");
        names.iter().fold(ask, |ask, name| ask.field(name, "/overridden")).send();
        assert!(!upstream.last().text().contains("overridden"), "{lines}: {}", upstream.last().text());
    }
}

#[test]
fn a_trace_goes_on_and_a_broken_one_starts_anew() {
    let (gate, upstream, issuer) = guarded(Settings::plaintext());
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    gate.get("/")
        .token(&issuer.good())
        .field("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .send();
    let continued = upstream.last().field("traceparent").unwrap();
    assert_eq!(continued.split('-').nth(1), Some(trace), "{continued}");
    for broken in ["nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-zz-zz-01", ""] {
        gate.get("/").token(&issuer.good()).field("traceparent", broken).send();
        let fresh = upstream.last().field("traceparent").unwrap();
        let parts: Vec<&str> = fresh.split('-').collect();
        assert_eq!(
            (parts.len(), parts[0], parts[1].len(), parts[2].len()),
            (4, "00", 32, 16),
            "{broken}: {fresh}"
        );
        assert!(parts[1].bytes().any(|b| b != b'0'), "{fresh}");
    }
}

#[test]
fn every_request_has_an_id_of_its_own() {
    let (gate, _upstream, issuer) = guarded(Settings::plaintext());
    let token = issuer.good();
    let ids: std::collections::BTreeSet<String> = (0..20)
        .map(|_| gate.get("/").token(&token).send().field("x-request-id").unwrap().to_owned())
        .collect();
    assert_eq!(ids.len(), 20);
}

#[test]
fn over_tls_the_upstream_is_told_https() {
    let (gate, upstream, issuer) = guarded(Settings::tls());
    gate.get("/").token(&issuer.good()).send();
    let seen = upstream.last();
    assert_eq!(seen.field("x-forwarded-proto").as_deref(), Some("https"));
    assert!(seen.field("forwarded").unwrap().contains("proto=https"), "{}", seen.text());
}
