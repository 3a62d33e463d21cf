//! The settings that valid files produce.

use std::num::NonZeroUsize;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use portcullis::config::{OnEmpty, StoreSettings};
use portcullis::enforce::dpop::uri::UriOrigin;
use portcullis::enforce::dpop::{DpopSettings, SenderConstraint};
use portcullis::enforce::policy::{
    ClaimName, CorsOrigins, CorsSettings, EncodedSlashes, IdentityClaim, Mode, OnOverflow, WebOrigin,
};
use portcullis::forward::{Address, Scheme, TrustedFields};
use portcullis::keys::KeySource;
use portcullis::keys::authorization::KeyAuthorization;
use portcullis::signals::Concealed;
use portcullis::state::redis::endpoint::Topology;

use super::{BASE, Folder, base_with};

#[test]
fn the_defaults_are_those_of_the_manual() {
    let loaded = Folder::new().good(BASE);
    let s = loaded.settings;
    assert!(s.gate.workers >= 1);
    assert_eq!(s.gate.drain_timeout, Duration::from_secs(30));
    assert_eq!(s.gate.shutdown_delay, Duration::ZERO);
    assert_eq!(s.gate.stream_drain_timeout, Duration::from_secs(2));
    assert_eq!(s.gate.limits.header_bytes, 65_536);
    assert_eq!((s.gate.limits.connections_per_ip, s.gate.limits.body_bytes), (None, None));
    assert_eq!((s.gate.limits.requests, s.upstreams[0].max_requests), (None, None));
    assert_eq!(s.upstreams[0].response_timeout, Duration::from_secs(30));
    let issuer = &s.issuers[0];
    assert_eq!(issuer.rules.algorithms, [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]);
    assert_eq!(issuer.rules.max_lifetime, Duration::from_secs(86_400));
    assert_eq!(issuer.rules.claims.client, ClaimName::Member("client_id".to_owned()));
    assert_eq!(issuer.keys.source, KeySource::Url("https://idp.example.com/jwks".to_owned()));
    assert_eq!(issuer.keys.issuer, "https://idp.example.com/");
    assert_eq!(s.sessions.idle_timeouts, Some(Duration::from_secs(1800)).into());
    assert_eq!(s.sessions.max_tracked, 1_000_000);
    assert!(s.streams.cut_on_revocation);
    assert_eq!(s.state.on_empty, OnEmpty::Refuse);
    assert_eq!(s.enforce.identity.headers.len(), 5);
    assert!(!s.enforce.identity.strip_authorization);
    assert_eq!((s.enforce.identity.max_value, s.enforce.identity.on_overflow), (4096, OnOverflow::Refuse));
    assert_eq!(s.enforce.dpop, DpopSettings::default());
    assert_eq!(issuer.rules.sender_constraint, SenderConstraint::WhenBound);
}

#[test]
fn every_notation_arrives() {
    let folder = Folder::new();
    let text = base_with(&[
        ("server", "workers = 3\ntrusted_proxies = [\"10.1.2.3/8\", \"192.0.2.1\", \"::1\"]"),
        ("limits", "header_bytes = \"16KiB\"\nbody_bytes = 10\nconnections_per_ip = 0x10\nrequests = 1_000"),
        ("upstream.url", "url = \"h2c://[::1]:50051\"\nmax_requests = 1"),
        ("issuer", "[issuers.claims]\nroles = \"/realm_access/roles\"\nscope = \"scp\""),
        (
            "route",
            "hosts = [\"API.Example.com.\"]\nmethods = [\"GET\", \"PURGE\"]\nany_role = [\"a\", \"b\"]\nmode = \"shadow\"\nresponse_timeout = \"500ms\"",
        ),
        (
            "identity",
            "X_Auth_Subject = \"token.email\"\nx-auth-roles = \"\"\nx-groups = \"token./a/b\"\n[identity]\nmax_value = 65536\non_overflow = \"omit\"",
        ),
        (
            "sessions",
            "idle_timeout = \"0s\"\n[dpop]\npublic_url = \"HTTPS://API.test:443\"\nmax_age = \"1h\"\nnonce = \"required\"\nmax_tracked = 7",
        ),
        ("state", "store = \"memory\"\non_empty = \"trust\""),
    ]);
    let s = folder.good(&text).settings;
    assert_eq!(s.gate.workers, 3);
    let proxies: Vec<_> = s.gate.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(proxies, ["10.0.0.0/8", "192.0.2.1/32", "::1/128"]);
    assert_eq!((s.gate.limits.header_bytes, s.gate.limits.body_bytes), (16_384, Some(10)));
    assert_eq!(s.gate.limits.connections_per_ip, Some(16));
    let requests = (s.gate.limits.requests, s.upstreams[0].max_requests);
    assert_eq!(requests, (NonZeroUsize::new(1000), NonZeroUsize::new(1)));
    let upstream = &s.upstreams[0];
    let address = Address::Tcp { host: "::1".to_owned(), port: 50_051 };
    assert_eq!((upstream.scheme, &upstream.addresses), (Scheme::H2c, &vec![address]));
    let claims = &s.issuers[0].rules.claims;
    assert_eq!(claims.roles, [ClaimName::Pointer(vec!["realm_access".to_owned(), "roles".to_owned()])]);
    assert_eq!(claims.scope, [ClaimName::Member("scp".to_owned())]);
    let route = &s.enforce.routes[0];
    assert_eq!(route.hosts, ["api.example.com"]);
    assert_eq!(route.methods, [http::Method::GET, http::Method::from_bytes(b"PURGE").unwrap()]);
    assert_eq!(route.requirement.any_role, ["a", "b"]);
    assert_eq!((route.mode, route.response_timeout), (Mode::Shadow, Some(Duration::from_millis(500))));
    assert_eq!((s.enforce.identity.max_value, s.enforce.identity.on_overflow), (65_536, OnOverflow::Omit));
    let headers: Vec<_> =
        s.enforce.identity.headers.iter().map(|(name, claim)| (name.as_str(), claim.clone())).collect();
    let token = |claim| IdentityClaim::Token(claim);
    assert_eq!(
        headers,
        [
            ("x-auth-client", IdentityClaim::Client),
            ("x-auth-scope", IdentityClaim::Scope),
            ("x-auth-tenant", IdentityClaim::Tenant),
            ("x-groups", token(ClaimName::Pointer(vec!["a".to_owned(), "b".to_owned()]))),
            ("x_auth_subject", token(ClaimName::Member("email".to_owned()))),
        ]
    );
    assert_eq!(s.sessions.idle_timeouts, None.into());
    let public_url = UriOrigin::parse("https://api.test");
    assert!(public_url.is_some());
    let max_age = Duration::from_secs(3600);
    let dpop = DpopSettings { public_url, max_age, nonce: true, max_tracked: 7, announced: true };
    assert_eq!(s.enforce.dpop, dpop);
    assert_eq!((s.state.store, s.state.on_empty), (StoreSettings::Memory, OnEmpty::Trust));
}

#[test]
fn an_issuer_may_have_an_idle_timeout_of_its_own() {
    let folder = Folder::new();
    let (hour, half) = (Some(Duration::from_secs(3_600)), Some(Duration::from_secs(1_800)));
    for (common, own, expected) in [
        ("", "", (half, half)),
        ("", "idle_timeout = \"\"", (half, half)),
        ("", "idle_timeout = \"1h\"", (half, hour)),
        ("", "idle_timeout = \"0s\"", (half, None)),
        ("idle_timeout = \"0s\"", "", (None, None)),
        ("idle_timeout = \"0s\"", "idle_timeout = \"\"", (None, None)),
        ("idle_timeout = \"0s\"", "idle_timeout = \"1h\"", (None, hour)),
        ("idle_timeout = \"1h\"", "idle_timeout = \"30m\"", (hour, half)),
    ] {
        let s = folder.good(&base_with(&[("sessions", common), ("issuer", own)])).settings;
        let timeouts = &s.sessions.idle_timeouts;
        let found = (*timeouts.of("https://other.example/"), *timeouts.of("https://idp.example.com/"));
        assert_eq!(found, expected, "{common} {own}");
        assert_eq!(s.terms().longest_idle, expected.0.max(expected.1), "{common} {own}");
    }
}

#[test]
fn what_a_route_says_about_browsers_arrives() {
    let lines = "origins = [\"HTTPS://App.Example.com:443\", \"null\"]\n[routes.cors]\n\
                 origins = [\"https://app.example.com\"]\nmethods = [\"GET\"]\nheaders = [\"DPoP\"]\nexpose = []\n\
                 credentials = true\nmax_age = \"1h\"";
    let text = base_with(&[("route", lines)]);
    let route = Folder::new().good(&text).settings.enforce.routes[0].clone();
    let origin = |text| WebOrigin::parse(text).unwrap();
    assert_eq!(route.origins, [origin("https://app.example.com"), origin("null")]);
    let cors = CorsSettings {
        origins: CorsOrigins::Listed(vec![origin("https://app.example.com")]),
        methods: vec![http::Method::GET],
        headers: vec![http::HeaderName::from_static("dpop")],
        expose: Vec::new(),
        credentials: true,
        max_age: Duration::from_secs(3600),
    };
    assert_eq!(route.cors.as_ref(), Some(&cors));
    let bare = Folder::new().good(BASE).settings.enforce.routes[0].clone();
    assert_eq!((bare.origins.len(), bare.cors), (0, None));
    let text = base_with(&[("route", "[routes.cors]\norigins = [\"*\"]")]);
    let cors = Folder::new().good(&text).settings.enforce.routes[0].cors.clone().unwrap();
    let expected = CorsSettings {
        origins: CorsOrigins::Any,
        methods: Vec::new(),
        headers: vec![http::header::AUTHORIZATION, http::header::CONTENT_TYPE],
        expose: vec![http::header::WWW_AUTHENTICATE, http::HeaderName::from_static("x-request-id")],
        credentials: false,
        max_age: Duration::from_secs(600),
    };
    assert_eq!(cors, expected);
}

#[test]
fn resources_take_what_is_left_out_from_issuers_routes_and_the_listener() {
    let folder = Folder::new();
    let resource = |lines: &str| {
        format!(
            "[[resources]]\nname = \"deals\"\npath = \"/deals\"\nurl = \"https://api.example.com/deals\"\n{lines}"
        )
    };
    let nested = "[[resources]]\nname = \"notes\"\npath = \"/deals/notes\"\nurl = \"https://api.example.com/notes\"\n\
                  [[routes]]\npath = \"/deals/notes\"\nupstream = \"api\"\nscopes = [\"notes\"]";
    let plain = "certificate = \"../certs/server.pem\"\nprivate_key = \"../certs/server.key\"";
    for (lines, tls, servers, scopes, certificates) in [
        ("", "", &["https://idp.example.com/"][..], &["a", "b", "c", "d"][..], false),
        ("scopes = [\"x\"]", plain, &["https://idp.example.com/"], &["x"], false),
        (
            "authorization_servers = [\"https://login.example.com\"]",
            &format!("{plain}\nclient_ca = \"../certs/server.pem\""),
            &["https://login.example.com"],
            &["a", "b", "c", "d"],
            true,
        ),
    ] {
        let tls = if tls.is_empty() { "#".to_owned() } else { format!("[server.tls]\n{tls}") };
        let text = base_with(&[
            ("server", &tls),
            (
                "route",
                "scopes = [\"a\", \"b\"]\nany_scope = [\"c\", \"offline_access\"]\nallow = [{ roles = [\"r\"] }, { scopes = [\"d\", \"a\"] }]",
            ),
            ("admin", &format!("{}\n{nested}", resource(lines))),
        ]);
        let settings = folder.good(&text).settings;
        let (deals, notes) = (&settings.resources[0], &settings.resources[1]);
        assert_eq!(
            (&deals.authorization_servers[..], &deals.scopes[..]),
            (
                &servers.iter().map(ToString::to_string).collect::<Vec<_>>()[..],
                &scopes.iter().map(ToString::to_string).collect::<Vec<_>>()[..]
            ),
            "{lines}"
        );
        assert_eq!((deals.takes_certificates, deals.require_audience), (certificates, true));
        assert_eq!(notes.scopes, ["notes"], "of its own routes only");
        let names =
            settings.enforce.routes.iter().map(|route| route.resource.as_ref().map(|it| it.name.as_str()));
        assert_eq!(names.collect::<Vec<_>>(), [Some("deals"), Some("notes")], "the longest path counts");
    }
}

#[test]
fn every_source_of_keys_can_be_used() {
    let folder = Folder::new();
    for (keys, source) in [
        ("discovery = true", KeySource::Discovery),
        ("jwks_url = \"http://127.0.0.1:1/jwks\"", KeySource::Url("http://127.0.0.1:1/jwks".to_owned())),
        (
            "jwks_url = \"http://idp.internal/jwks\"\ninsecure_http = true",
            KeySource::Url("http://idp.internal/jwks".to_owned()),
        ),
        ("jwks_file = \"../certs/jwks.json\"", KeySource::File(folder.path("config/../certs/jwks.json"))),
        (
            "secret = { file = \"../certs/secret\" }\nalgorithms = [\"HS256\"]",
            KeySource::Secret(b"0123456789abcdef0123456789abcdef".to_vec()),
        ),
        (
            "secret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"HS256\"]",
            KeySource::Secret(b"0123456789abcdef0123456789abcdef".to_vec()),
        ),
    ] {
        let text = base_with(&[("issuer.keys", keys)]);
        assert_eq!(folder.good(&text).settings.issuers[0].keys.source, source);
    }
}

#[test]
fn a_pod_is_its_own_guide_to_the_issuer_of_its_cluster() {
    const CLUSTER: &str = "https://kubernetes.default.svc.cluster.local";
    let folder = Folder::new();
    let account = folder.path("certs/account");
    let part = |json: &str| testkit::b64(json);
    let token = |json: &str| format!("{}.{}.c2ln\n", part(r#"{"alg":"RS256"}"#), part(json));
    folder.write("certs/account/token", &token(&format!(r#"{{"iss":"{CLUSTER}"}}"#)));
    let lines = "kubernetes = true\nkubernetes_path = \"../certs/account\"";
    let unnamed = base_with(&[("issuer.name", ""), ("issuer.keys", lines)]);
    for (text, issuer) in
        [(unnamed.clone(), CLUSTER), (base_with(&[("issuer.keys", lines)]), "https://idp.example.com/")]
    {
        let loaded = folder.good(&text);
        let keys = &loaded.settings.issuers[0].keys;
        assert_eq!((&*loaded.settings.issuers[0].rules.issuer, keys.issuer.as_str()), (issuer, issuer));
        let url = "https://kubernetes.default.svc/openid/v1/jwks".to_owned();
        assert_eq!(keys.source, KeySource::Url(url));
        let beside = folder.path("config").join("../certs/account");
        assert_eq!(keys.ca.as_deref(), Some(&*beside.join("ca.crt")));
        assert_eq!(keys.authorization, Some(KeyAuthorization::File(beside.join("token"))));
        assert_eq!(loaded.redacted["issuers"][0]["issuer"], issuer);
        let watched: Vec<_> = loaded.files.paths().filter(|path| path.starts_with(&beside)).collect();
        assert_eq!(watched, [&beside.join("ca.crt")], "a token that is exchanged is no change");
    }
    for (content, message) in [
        (token(r#"{"iss":"kubernetes/serviceaccount"}"#), "never expires"),
        (token(r#"{"sub":"x"}"#), "not a token with an issuer"),
        ("abc".to_owned(), "not a token with an issuer"),
    ] {
        folder.write("certs/account/token", &content);
        let found = folder.problems(&unnamed);
        assert_eq!((found.len(), found[0].key.as_str()), (1, "issuers[0].kubernetes"), "{found:?}");
        assert!(found[0].message.contains(message) && found[0].message.contains("set issuer"), "{found:?}");
    }
    std::fs::remove_file(account.join("token")).unwrap();
    let found = folder.problems(&unnamed);
    assert!(found.len() == 1 && found[0].message.contains("token cannot be read"), "{found:?}");
    std::fs::remove_file(account.join("ca.crt")).unwrap();
    let found = folder.problems(&base_with(&[("issuer.keys", lines)]));
    assert!(found.len() == 1 && found[0].message.contains("ca.crt"), "{found:?}");
}

#[test]
fn a_trust_domain_names_its_issuer_and_has_algorithms_of_its_own() {
    let folder = Folder::new();
    let keys = "jwks_url = \"https://spire.example.com/bundle\"\nspiffe_trust_domain = \"example.org\"";
    let text = base_with(&[("issuer.name", ""), ("issuer.keys", keys)]);
    let issuer = &folder.good(&text).settings.issuers[0];
    assert_eq!(
        (&*issuer.rules.issuer, issuer.rules.trust_domain.as_deref()),
        ("spiffe://example.org", Some("example.org"))
    );
    use Algorithm::{ES256, ES384, PS256, PS384, PS512, RS256, RS384, RS512};
    assert_eq!(issuer.rules.algorithms, [RS256, RS384, RS512, ES256, ES384, PS256, PS384, PS512]);
    assert_eq!(issuer.rules.token_types, ["JWT", "JOSE"]);
    assert!(issuer.keys.for_svids);
    let named = &folder.good(&base_with(&[("issuer.keys", keys)])).settings.issuers[0];
    assert_eq!(&*named.rules.issuer, "https://idp.example.com/");
}

#[test]
fn what_is_sent_for_keys_is_a_token_or_the_file_that_has_it() {
    let folder = Folder::new();
    folder.write("certs/token", "abc\n");
    for (written, expected) in [
        ("\"abc\"", KeyAuthorization::Token("abc".to_owned())),
        (
            "{ file = \"../certs/token\" }",
            KeyAuthorization::File(folder.path("config").join("../certs/token")),
        ),
    ] {
        for source in ["jwks_url = \"https://idp.example.com/jwks\"", "discovery = true"] {
            let text = base_with(&[("issuer.keys", &format!("{source}\njwks_authorization = {written}"))]);
            let loaded = folder.good(&text);
            assert_eq!(loaded.settings.issuers[0].keys.authorization, Some(expected.clone()));
            assert_eq!(loaded.redacted["issuers"][0]["jwks_authorization"], "[redacted]");
            assert!(!format!("{:?}", loaded.settings).contains("abc"));
        }
    }
}

#[test]
fn one_issuer_in_two_tables_has_one_source_of_keys_for_the_algorithms_of_both() {
    let folder = Folder::new();
    let second = "[[issuers]]\nissuer = \"https://idp.example.com/\"\naudiences = [\"reports\"]\n\
        jwks_url = \"https://idp.example.com/jwks\"\nalgorithms = [\"PS256\", \"ES256\"]\n\
        leeway = \"50s\"\nmax_lifetime = \"2h\"";
    let settings =
        folder.good(&base_with(&[("issuer", &format!("max_lifetime = \"3h\"\n{second}"))])).settings;
    let all = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA, Algorithm::PS256];
    let [one, two] = &settings.issuers[..] else { panic!("two tables") };
    assert_eq!(one.keys, two.keys);
    assert_eq!(one.keys.algorithms, all);
    assert_eq!((&one.rules.algorithms[..], &two.rules.algorithms[..]), (&all[..3], &[all[3], all[1]][..]));
    let [known] = &settings.event_issuers()[..] else { panic!("one issuer") };
    assert_eq!((known.leeway, known.max_lifetime), (Duration::from_secs(50), Duration::from_secs(3 * 3600)));
}

#[test]
fn a_gate_without_issuers_may_have_anonymous_routes_only() {
    let folder = Folder::new();
    let only = |route: &str| {
        format!(
            "[server]\nallow_plaintext = true\n[[upstreams]]\nname = \"a\"\nurl = \"http://a\"\n\
             [[routes]]\npath = \"/a\"\nupstream = \"a\"\n{route}"
        )
    };
    assert!(folder.good(&only("anonymous = true")).settings.issuers.is_empty());
    let found = folder.problems(&only(""));
    assert_eq!((found.len(), found[0].line, found[0].key.as_str()), (1, Some(6), "routes[0]"));
}

#[test]
fn the_effective_configuration_is_complete_and_holds_no_secret() {
    let folder = Folder::new();
    let text = base_with(&[
        ("issuer.keys", "secret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"HS256\"]"),
        ("state", "password = \"hunter2\"\nurl = \"redis://me:hunter2@127.0.0.1:6379\""),
        (
            "admin",
            "[[admin.tokens]]\nname = \"ops\"\nsecret = { file = \"../certs/secret\" }\npermissions = [\"config\"]",
        ),
    ]);
    let loaded = folder.good(&text);
    let shown = loaded.redacted;
    for secret in ["hunter2", "0123456789abcdef"] {
        assert!(!shown.to_string().contains(secret), "{shown:#}");
        assert!(!format!("{:?}", loaded.settings).contains(secret));
    }
    assert_eq!(shown["issuers"][0]["secret"], "[redacted]");
    assert_eq!(shown["admin"]["tokens"][0]["secret"], "[redacted]");
    assert_eq!(shown["state"]["password"], "[redacted]");
    assert_eq!(shown["state"]["url"], "redis://[redacted]@127.0.0.1:6379");
    assert_eq!(shown["server"]["listen"], serde_json::json!(["127.0.0.1:0"]));
    assert_eq!(shown["server"]["limits"]["header_timeout"], "10s");
    assert_eq!(shown["server"]["tls"], serde_json::Value::Null);
    assert_eq!(shown["identity"]["headers"]["x-auth-subject"], "sub");
}

#[test]
fn every_file_that_is_named_is_watched() {
    let folder = Folder::new();
    let text = base_with(&[
        (
            "server",
            "[server.tls]\ncertificate = \"../certs/server.pem\"\nprivate_key = \"../certs/server.key\"\nclient_ca = \"../certs/admin.pem\"\n\
             [[server.tls.certificates]]\nnames = [\"shop.example.com\", \"*.Example.org\", \"API.example.net\", \"b.example.org\"]\n\
             certificate = \"../certs/shop.pem\"\nprivate_key = \"../certs/shop.key\"",
        ),
        ("issuer.keys", "jwks_file = \"../certs/jwks.json\""),
        (
            "admin",
            "[[admin.tokens]]\nname = \"ops\"\nsecret = { file = \"../certs/secret\" }\npermissions = [\"config\"]",
        ),
    ]);
    let loaded = folder.good(&text);
    let mut expected: Vec<_> =
        ["server.pem", "server.key", "admin.pem", "jwks.json", "secret", "shop.pem", "shop.key"]
            .iter()
            .map(|name| folder.path("config").join("../certs").join(name))
            .collect();
    expected.push(folder.path("config/portcullis.toml"));
    expected.sort();
    assert_eq!(loaded.files.paths().collect::<Vec<_>>(), expected);
    let names = &loaded.settings.gate.tls.unwrap().certificates[0].names;
    assert_eq!(names, &["shop.example.com", "*.example.org", "api.example.net", "b.example.org"]);
    // Files of a configuration that is wrong are watched as well: one of them may be what is to be mended.
    let text = text.replace("server.key", "absent.key");
    let problems = folder.load(&text).unwrap_err();
    assert!(problems.files().paths().any(|path| path.ends_with("certs/absent.key")));
}

#[test]
fn a_transmitter_speaks_of_the_subjects_of_a_configured_issuer() {
    let folder = Folder::new();
    let written = [
        "[[event_transmitters]]",
        "name = \"apple-1\"",
        "issuer = \"https://signals.example.com\"",
        "audience = \"com.example.app\"",
        "jwks_file = \"../certs/jwks.json\"",
        "subject_issuer = \"https://idp.example.com/\"",
        "tolerant = true",
        "authorization = \"Bearer of the stream\"",
    ];
    let claims = "leeway = \"5s\"\n[issuers.claims]\nroles = \"/realm_access/roles\"";
    let s = folder.good(&base_with(&[("issuer", claims), ("state", &written.join("\n"))])).settings;
    let [transmitter] = s.transmitters.as_slice() else { panic!("{:?}", s.transmitters) };
    assert_eq!(transmitter.name, "apple-1");
    assert_eq!(transmitter.issuer, "https://signals.example.com");
    assert_eq!(transmitter.audience, "com.example.app");
    assert_eq!(&*transmitter.subject_issuer.issuer.issuer, "https://idp.example.com/");
    assert_eq!(transmitter.subject_issuer.issuer.leeway, Duration::from_secs(5));
    assert_eq!(transmitter.subject_issuer.issuer.max_lifetime, Duration::from_secs(86_400));
    assert_eq!(transmitter.role_claims, ["realm_access", "scope"]);
    assert_eq!(transmitter.keys.source, KeySource::File(folder.path("config/../certs/jwks.json")));
    assert!(transmitter.tolerant && transmitter.critical_members.is_empty());
    assert_eq!(transmitter.authorization.as_ref().map(Concealed::reveal), Some("Bearer of the stream"));
    assert!(transmitter.keys.algorithms.contains(&Algorithm::PS256));
    assert!(!transmitter.keys.algorithms.contains(&Algorithm::HS256));
}

#[test]
fn a_shared_store_has_one_address_and_the_credentials_beside_it() {
    let folder = Folder::new();
    let lines = "store = \"redis\"\nurl = \"redis-sentinel://u:from-url@a,b:1/main\"\nevents_url = \"redis://r:2\"\npassword = \"from-key\"";
    let loaded = folder.good(&base_with(&[("state", lines)]));
    let StoreSettings::Redis(redis) = &loaded.settings.state.store else {
        panic!("{:?}", loaded.settings.state)
    };
    let endpoint = &redis.endpoint;
    assert_eq!(endpoint.topology, Topology::Sentinel("main".to_owned()));
    assert_eq!(endpoint.hosts.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a:26379", "b:1"]);
    for endpoint in [endpoint, redis.events.as_ref().unwrap()] {
        assert_eq!(endpoint.credentials.password, "from-key", "a key of its own goes before the URL");
    }
    assert_eq!(endpoint.credentials.username, "u");
    assert_eq!(loaded.redacted["state"]["url"], "redis-sentinel://[redacted]@a,b:1/main");
    assert_eq!(loaded.redacted["state"]["events_url"], "redis://r:2");
    let terms = loaded.settings.terms();
    assert!(terms.kept > loaded.settings.issuers[0].rules.max_lifetime);
}

#[test]
fn an_upstream_may_have_several_addresses_or_a_socket() {
    let folder = Folder::new();
    let lines = "urls = [\"https://a\", \"https://b:8443\"]\nhost = \"api.internal:81\"\nsni = \"api.internal\"\nbody_timeout = \"20s\"";
    let text = base_with(&[
        ("upstream.url", lines),
        ("server", "trusted_fields = \"forwarded\""),
        ("route", "request_body_timeout = \"0s\"\nencoded_slashes = \"keep\"\naccess_log = false"),
    ]);
    let s = folder.good(&text).settings;
    let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
    let upstream = &s.upstreams[0];
    assert_eq!((upstream.scheme, &upstream.addresses), (Scheme::Https, &vec![tcp("a", 443), tcp("b", 8443)]));
    assert_eq!(upstream.host.as_ref().unwrap(), "api.internal:81");
    assert_eq!(upstream.sni.as_deref(), Some("api.internal"));
    assert_eq!(upstream.body_timeout, Some(Duration::from_secs(20)));
    assert_eq!(s.gate.trusted_fields, TrustedFields::Forwarded);
    let route = &s.enforce.routes[0];
    assert_eq!(
        (route.request_body_timeout, route.encoded_slashes, route.access_log),
        (None, EncodedSlashes::Keep, false)
    );

    let text = base_with(&[("upstream.url", "urls = [\"unix:/run/api.sock\", \"http://b\"]")]);
    let s = folder.good(&text).settings;
    let upstream = &s.upstreams[0];
    assert_eq!(upstream.scheme, Scheme::Http);
    assert_eq!(upstream.addresses, [Address::Unix("/run/api.sock".into()), tcp("b", 80)]);
    assert_eq!((upstream.body_timeout, s.gate.trusted_fields), (None, TrustedFields::Either));
    let route = &s.enforce.routes[0];
    assert_eq!(route.request_body_timeout, Some(Duration::from_secs(60)));
    assert_eq!((route.encoded_slashes, route.access_log), (EncodedSlashes::Reject, true));
}

#[test]
fn conditions_are_values_or_tables_of_tests() {
    use portcullis::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue, Glob};
    use portcullis::enforce::policy::ClaimName;
    let folder = Folder::new();
    let route = r#"
claims = { id = "123", level = 7, share = 0.5, staff = true, "/kubernetes.io/namespace" = { in = ["prod", 2, false] } }
allow = [{ scopes = ["a"], claims = { ref = { prefix = "refs/", glob = "refs/*/main" } } }, { roles = ["r"] }]
issuers = ["https://idp.example.com/"]
audiences = ["https://api.example.com/deals"]
acr_values = ["urn:gold"]
max_age = "10m"
"#;
    let issuer = "conditions = { aal = { at_least = 1, at_most = 2.5 }, blocked = { exists = false } }";
    let loaded = folder.good(&base_with(&[("route", route), ("issuer", issuer)]));
    let text = |text: &str| ClaimValue::Text(text.to_owned());
    let one = |claim: &str, tests: Vec<ClaimTest>| ClaimCondition {
        claim: ClaimName::Member(claim.to_owned()),
        tests,
    };
    let fraction = |value: f64| serde_json::Number::from_f64(value).unwrap();
    let route = &loaded.settings.enforce.routes[0];
    let mut claims = route.requirement.claims.clone();
    claims.sort_by_key(|condition| condition.claim.to_string());
    let namespace = ["kubernetes.io", "namespace"].map(str::to_owned).to_vec();
    let values = vec![text("prod"), ClaimValue::Number(2.into()), ClaimValue::Flag(false)];
    assert_eq!(
        claims,
        [
            ClaimCondition { claim: ClaimName::Pointer(namespace), tests: vec![ClaimTest::In(values)] },
            one("id", vec![ClaimTest::Equals(text("123"))]),
            one("level", vec![ClaimTest::Equals(ClaimValue::Number(7.into()))]),
            one("share", vec![ClaimTest::Equals(ClaimValue::Number(fraction(0.5)))]),
            one("staff", vec![ClaimTest::Equals(ClaimValue::Flag(true))]),
        ]
    );
    let shape = ClaimTest::Glob(Glob::new("refs/*/main").unwrap());
    assert_eq!(route.allow.len(), 2);
    assert_eq!(route.allow[0].scopes, ["a"]);
    assert_eq!(route.allow[0].claims, [one("ref", vec![ClaimTest::Prefix("refs/".to_owned()), shape])]);
    assert_eq!(route.allow[1].roles, ["r"]);
    assert_eq!(route.issuers, [std::sync::Arc::from("https://idp.example.com/")]);
    assert_eq!(route.audiences, ["https://api.example.com/deals"]);
    assert_eq!(route.authentication.acr_values, ["urn:gold"]);
    assert_eq!(route.authentication.max_age, Some(Duration::from_secs(600)));
    let bounds = vec![ClaimTest::AtLeast(1.into()), ClaimTest::AtMost(fraction(2.5))];
    let mut conditions = loaded.settings.issuers[0].rules.conditions.clone();
    conditions.sort_by_key(|condition| condition.claim.to_string());
    assert_eq!(conditions, [one("aal", bounds), one("blocked", vec![ClaimTest::Exists(false)])]);
    let shown = serde_json::to_string(&loaded.redacted).unwrap();
    for part in [
        r#""staff":true"#,
        r#""/kubernetes.io/namespace":{"in":["prod",2,false]}"#,
        r#""blocked":{"exists":false}"#,
        r#""at_most":2.5"#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[test]
fn a_resource_says_whether_tokens_may_or_must_be_bound_to_a_key() {
    use portcullis::enforce::resource::DpopUse::{Accepted, Required, Unannounced};
    let folder = Folder::new();
    for (constraint, table, expected) in [
        ("when_bound", "", Unannounced),
        ("when_bound", "[dpop]", Accepted),
        ("dpop", "", Required),
        ("either", "", Accepted),
        ("mtls", "[dpop]", Unannounced),
        ("ignore_dpop", "[dpop]", Unannounced),
    ] {
        let issuer = format!("sender_constraint = \"{constraint}\"");
        let tables = format!(
            "{table}\n[[resources]]\nname = \"a\"\npath = \"/deals\"\nurl = \"https://a.example/deals\""
        );
        let loaded = folder.good(&base_with(&[("issuer", &issuer), ("sessions", &tables)]));
        let told: Vec<_> = loaded.settings.resources.iter().map(|resource| resource.dpop).collect();
        assert_eq!(told, [expected], "{constraint} {table}");
    }
}
