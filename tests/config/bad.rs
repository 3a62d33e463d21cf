//! What is wrong with a file is named with line, key and reason.

use super::{BASE, Folder, base_with, line_of_here};

/// What is replaced in the base, by what, the key that must be named, and part of what must be said. The line is the
/// one marked `# here`.
type Row = (&'static str, &'static str, &'static str, &'static str);

fn each_is_the_only_problem(rows: &[Row]) {
    let folder = Folder::new();
    for (old, new, key, message) in rows {
        let text = base_with(&[(old, new)]);
        let found = folder.problems(&text);
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), 1, "{new}\n{shown:#?}");
        assert_eq!(found[0].line, Some(line_of_here(&text)), "{new}\n{shown:#?}");
        assert_eq!(found[0].key, *key, "{new}\n{shown:#?}");
        assert!(found[0].message.contains(message), "{new}\n{shown:#?}");
        let file = folder.path("config/portcullis.toml");
        let start = format!("{}:{}: {key}: ", file.display(), line_of_here(&text));
        assert!(shown[0].starts_with(&start), "{}", shown[0]);
        assert!(!shown[0].contains('\n'), "{}", shown[0]);
    }
}

#[test]
fn unknown_keys() {
    each_is_the_only_problem(&[
        ("#server", "drain_timout = \"1s\" # here", "server.drain_timout", "did you mean \"drain_timeout\""),
        ("#server", "frobnicate = 1 # here", "server.frobnicate", "known: listen, allow_plaintext"),
        ("#limits", "Connections = 1 # here", "server.limits.Connections", "did you mean \"connections\""),
        ("#upstream", "\"a b\" = 1 # here", "upstreams[0].\"a b\"", "unknown key"),
        ("#issuer", "audience = \"a\" # here", "issuers[0].audience", "did you mean \"audiences\""),
        (
            "#issuer",
            "[issuers.claims]\nroels = \"r\" # here",
            "issuers[0].claims.roels",
            "did you mean \"roles\"",
        ),
        ("#route", "scope = [\"a\"] # here", "routes[0].scope", "did you mean \"scopes\""),
        ("#route", "[route] # here", "route", "did you mean \"routes\""),
        ("#sessions", "timeout = \"1s\" # here", "sessions.timeout", "unknown key"),
        ("#streams", "interval = \"1s\" # here", "streams.interval", "unknown key"),
        ("#state", "stores = \"memory\" # here", "state.stores", "did you mean \"store\""),
        ("#telemetry", "level = \"info\" # here", "telemetry.level", "unknown key"),
        ("#admin", "token = [] # here", "admin.token", "did you mean \"tokens\""),
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\npermissions = [\"config\"]\nsecret = { evn = \"A\" } # here",
            "admin.tokens[0].secret.evn",
            "did you mean \"env\"",
        ),
    ]);
}

#[test]
fn wrong_types() {
    each_is_the_only_problem(&[
        (
            "listen = [\"127.0.0.1:0\"]",
            "listen = \"127.0.0.1:0\" # here",
            "server.listen",
            "must be an array of strings, not a string; put [ ] around it",
        ),
        (
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\n\"127.0.0.1:0\",\n8443, # here\n]",
            "server.listen[1]",
            "must be a string, not an integer",
        ),
        ("#server", "workers = \"2\" # here", "server.workers", "must be an integer, not a string"),
        (
            "#server",
            "workers = 1.5 # here",
            "server.workers",
            "must be an integer, not a number with a fraction",
        ),
        ("#server", "workers = 9999999999999999999999 # here", "server.workers", "more than 64 bits"),
        ("#server", "drain_timeout = 30 # here", "server.drain_timeout", "30 has no unit"),
        ("#server", "drain_timeout = true # here", "server.drain_timeout", "must be a duration"),
        ("#server", "tls = \"yes\" # here", "server.tls", "must be a table, not a string"),
        ("#limits", "body_bytes = 1979-05-27 # here", "server.limits.body_bytes", "must be a size"),
        ("#upstream", "ca = 1 # here", "upstreams[0].ca", "must be a string, not an integer"),
        (
            "#issuer",
            "discovery = \"false\" # here",
            "issuers[0].discovery",
            "must be true or false, not a string",
        ),
        ("#issuer", "claims = \"scp\" # here", "issuers[0].claims", "must be a table"),
        ("#issuer", "secret = 5 # here", "issuers[0].secret", "must be a string, { env"),
        (
            "#route",
            "scopes = { a = 1 } # here",
            "routes[0].scopes",
            "must be an array of strings, not a table",
        ),
        ("#route", "mode = [] # here", "routes[0].mode", "must be a string, not an array"),
        (
            "#identity",
            "x-user = [\"sub\"] # here",
            "identity.headers.x-user",
            "must be a string, not an array",
        ),
        (
            "#admin",
            "tokens = \"secret\" # here",
            "admin.tokens",
            "must be tables [[admin.tokens]], not a string",
        ),
        ("#admin", "tokens = [ 5 ] # here", "admin.tokens[0]", "must be a table, not an integer"),
        ("#admin", "[admin.tokens] # here", "admin.tokens", "write [[admin.tokens]]"),
    ]);
}

#[test]
fn durations_and_sizes() {
    each_is_the_only_problem(&[
        (
            "#server",
            "drain_timeout = \"30\" # here",
            "server.drain_timeout",
            "\"30\" has no unit; write a whole number and a unit",
        ),
        ("#server", "drain_timeout = \"soon\" # here", "server.drain_timeout", "not a duration"),
        ("#server", "drain_timeout = \"\" # here", "server.drain_timeout", "not a duration"),
        ("#server", "drain_timeout = \"1h30m\" # here", "server.drain_timeout", "not a duration"),
        ("#server", "drain_timeout = \"-1s\" # here", "server.drain_timeout", "not a duration"),
        ("#server", "drain_timeout = \"99999d\" # here", "server.drain_timeout", "longer than 100 years"),
        (
            "#limits",
            "handshake_timeout = \"0s\" # here",
            "server.limits.handshake_timeout",
            "longer than zero",
        ),
        ("#limits", "header_timeout = \"0ms\" # here", "server.limits.header_timeout", "longer than zero"),
        (
            "#limits",
            "idle_connection_timeout = \"0s\" # here",
            "server.limits.idle_connection_timeout",
            "longer than zero",
        ),
        ("#limits", "header_bytes = \"64KB\" # here", "server.limits.header_bytes", "not a size"),
        (
            "#limits",
            "header_bytes = 0 # here",
            "server.limits.header_bytes",
            "must be between 1024 and 16777216",
        ),
        ("#limits", "header_bytes = \"1GiB\" # here", "server.limits.header_bytes", "must be between"),
        ("#limits", "body_bytes = -1 # here", "server.limits.body_bytes", "must be at least 0"),
        ("#limits", "body_bytes = \"99999999999GiB\" # here", "server.limits.body_bytes", "too large"),
        ("#limits", "connections = 0 # here", "server.limits.connections", "must be at least 1"),
        (
            "#limits",
            "connections_per_ip = -1 # here",
            "server.limits.connections_per_ip",
            "must be at least 0",
        ),
        ("#limits", "headers = 0 # here", "server.limits.headers", "must be between 1 and"),
        ("#limits", "http2_streams = 0 # here", "server.limits.http2_streams", "must be between 1 and"),
        ("#server", "workers = -1 # here", "server.workers", "must be between 0 and 1024"),
        ("#upstream", "connect_timeout = \"0s\" # here", "upstreams[0].connect_timeout", "longer than zero"),
        (
            "#upstream",
            "response_timeout = \"0s\" # here",
            "upstreams[0].response_timeout",
            "longer than zero",
        ),
        ("#route", "response_timeout = \"0s\" # here", "routes[0].response_timeout", "longer than zero"),
        ("#route", "response_timeout = \"1 s\" # here", "routes[0].response_timeout", "not a duration"),
        ("#issuer", "max_lifetime = \"0s\" # here", "issuers[0].max_lifetime", "longer than zero"),
        ("#issuer", "refresh_interval = \"0s\" # here", "issuers[0].refresh_interval", "longer than zero"),
        ("#issuer", "refresh_cooldown = \"0s\" # here", "issuers[0].refresh_cooldown", "longer than zero"),
        ("#issuer", "max_stale = \"0s\" # here", "issuers[0].max_stale", "longer than zero"),
        ("#sessions", "max_tracked = 0 # here", "sessions.max_tracked", "must be at least 1"),
        ("#sessions", "idle_timeout = 0 # here", "sessions.idle_timeout", "0 has no unit"),
        ("#streams", "check_interval = \"0s\" # here", "streams.check_interval", "longer than zero"),
        ("#state", "flush_interval = \"0s\" # here", "state.flush_interval", "longer than zero"),
        ("#state", "max_staleness = \"0s\" # here", "state.max_staleness", "longer than zero"),
    ]);
}

#[test]
fn listeners() {
    each_is_the_only_problem(&[
        ("listen = [\"127.0.0.1:0\"]", "listen = [] # here", "server.listen", "must not be empty"),
        (
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\"localhost:8443\"] # here",
            "server.listen[0]",
            "not an address",
        ),
        (
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\"127.0.0.1\"] # here",
            "server.listen[0]",
            "not an address",
        ),
        (
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\"0.0.0.0:8443\",\n\"127.0.0.1:8443\"] # here",
            "server.listen[1]",
            "taken by another listener",
        ),
        (
            "#server",
            "trusted_proxies = [\"10.0.0.0/33\"] # here",
            "server.trusted_proxies[0]",
            "not a network",
        ),
        ("#server", "trusted_proxies = [\"proxy\"] # here", "server.trusted_proxies[0]", "not a network"),
        (
            "#server",
            "trusted_proxies = [\"10.0.0.1/8\", \"10.0.0.0/8\"] # here",
            "server.trusted_proxies[1]",
            "listed twice",
        ),
        ("#telemetry", "log_format = \"text\" # here", "telemetry.log_format", "known: json and pretty"),
        ("#telemetry", "log_level = \"verbose\" # here", "telemetry.log_level", "not a level"),
        (
            "#telemetry",
            "otlp_endpoint = \"http://127.0.0.1:4317\" # here",
            "telemetry.otlp_endpoint",
            "not supported by this version",
        ),
        (
            "[telemetry]\nlisten = \"127.0.0.1:0\"",
            "[telemetry]\nlisten = \"9464\" # here",
            "telemetry.listen",
            "not an address",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:0\"",
            "[admin]\nlisten = \"0.0.0.0:0\" # here",
            "admin.listen",
            "add [admin.tls]",
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:0\"",
            "[admin]\nlisten = \"127.0.0.1:70000\" # here",
            "admin.listen",
            "not an address",
        ),
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = \"s\"\npermissions = [\"all\"] # here",
            "admin.tokens[0].permissions[0]",
            "known: events, sessions, authority and config",
        ),
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = \"s\"\npermissions = [] # here",
            "admin.tokens[0].permissions",
            "must not be empty",
        ),
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = \"\" # here\npermissions = [\"config\"]",
            "admin.tokens[0].secret",
            "must not be empty",
        ),
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = \"two words\" # here\npermissions = [\"config\"]",
            "admin.tokens[0].secret",
            "without spaces",
        ),
        (
            "#admin",
            "[[admin.tokens]] # here\nname = \"a\"\npermissions = [\"config\"]",
            "admin.tokens[0].secret",
            "is missing",
        ),
    ]);
}

#[test]
fn clear_text_must_be_asked_for() {
    let folder = Folder::new();
    let text = base_with(&[("[server]\n", "[server] # here\n"), ("allow_plaintext = true\n", "")]);
    let found = folder.problems(&text);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].line, found[0].key.as_str()), (Some(line_of_here(&text)), "server.tls"));
    assert!(found[0].message.contains("allow_plaintext = true"), "{}", found[0]);
}

#[test]
fn certificates_and_other_files() {
    const TLS: &str =
        "[server.tls]\ncertificate = \"../certs/server.pem\"\nprivate_key = \"../certs/server.key\"";
    let with = |key: &str| -> &'static str { format!("{TLS}\n{key} # here").leak() };
    each_is_the_only_problem(&[
        (
            "#server",
            "[server.tls] # here\ncertificate = \"../certs/server.pem\"",
            "server.tls.private_key",
            "is missing",
        ),
        (
            "#server",
            "[server.tls]\ncertificate = \"../certs/none.pem\" # here\nprivate_key = \"../certs/server.key\"",
            "server.tls.certificate",
            "certs/none.pem cannot be read: No such file",
        ),
        (
            "#server",
            "[server.tls]\ncertificate = \"../certs\" # here\nprivate_key = \"../certs/server.key\"",
            "server.tls.certificate",
            "is a folder",
        ),
        (
            "#server",
            "[server.tls]\ncertificate = \"../certs/empty\" # here\nprivate_key = \"../certs/server.key\"",
            "server.tls.certificate",
            "no certificate",
        ),
        (
            "#server",
            "[server.tls]\ncertificate = \"../certs/server.pem\"\nprivate_key = \"../certs/admin.pem\" # here",
            "server.tls.private_key",
            "no private key",
        ),
        (
            "#server",
            "[server.tls]\ncertificate = \"../certs/server.pem\" # here\nprivate_key = \"../certs/admin.key\"",
            "server.tls.certificate",
            "does not belong to the private key",
        ),
        ("#server", with("min_version = \"1.1\""), "server.tls.min_version", "not known"),
        (
            "#server",
            with("client_ca = \"../certs/garbage.pem\""),
            "server.tls.client_ca",
            "certs/garbage.pem",
        ),
        (
            "#server",
            with("require_client_certificate = true"),
            "server.tls.require_client_certificate",
            "needs client_ca",
        ),
        (
            "#admin",
            "[admin.tls]\ncertificate = \"\" # here\nprivate_key = \"../certs/admin.key\"",
            "admin.tls.certificate",
            "must not be empty",
        ),
        ("#upstream", "ca = \"../certs/server.pem\" # here", "upstreams[0].ca", "has no effect"),
        (
            "url = \"http://127.0.0.1:3000\"",
            "url = \"https://127.0.0.1:3000\"\nca = \"../certs/garbage.pem\" # here",
            "upstreams[0].ca",
            "certs/garbage.pem",
        ),
        (
            "url = \"http://127.0.0.1:3000\"",
            "url = \"https://127.0.0.1:3000\"\nclient_certificate = \"../certs/server.pem\" # here",
            "upstreams[0].client_certificate",
            "needs client_key",
        ),
        (
            "url = \"http://127.0.0.1:3000\"",
            "url = \"https://127.0.0.1:3000\"\nclient_key = \"../certs/server.key\" # here",
            "upstreams[0].client_key",
            "needs client_certificate",
        ),
        (
            "url = \"http://127.0.0.1:3000\"",
            "url = \"https://127.0.0.1:3000\"\nclient_key = \"../certs/admin.key\"\nclient_certificate = \"../certs/server.pem\" # here",
            "upstreams[0].client_certificate",
            "does not belong",
        ),
        ("#issuer", "ca = \"../certs/garbage.pem\" # here", "issuers[0].ca", "certs/garbage.pem"),
        (
            "jwks_url = \"https://idp.example.com/jwks\"",
            "jwks_file = \"../certs/no-keys.json\" # here",
            "issuers[0].jwks_file",
            "certs/no-keys.json",
        ),
        (
            "jwks_url = \"https://idp.example.com/jwks\"",
            "jwks_file = \"../certs/server.pem\" # here",
            "issuers[0].jwks_file",
            "certs/server.pem",
        ),
        (
            "jwks_url = \"https://idp.example.com/jwks\"",
            "jwks_file = \"../certs/none.json\" # here",
            "issuers[0].jwks_file",
            "cannot be read",
        ),
    ]);
}

#[test]
fn upstreams() {
    const URL: &str = "url = \"http://127.0.0.1:3000\"";
    each_is_the_only_problem(&[
        ("#upstream", "[[upstreams]] # here\nname = \"b\"", "upstreams[1].url", "is missing"),
        (
            "#upstream",
            "[[upstreams]]\nname = \"api\" # here\nurl = \"http://b\"",
            "upstreams[1].name",
            "taken by the one on line",
        ),
        (
            "#upstream",
            "[[upstreams]]\nname = \"\" # here\nurl = \"http://b\"",
            "upstreams[1].name",
            "must not be empty",
        ),
        (
            "#upstream",
            "[[upstreams]]\nname = \"a\\u0007\" # here\nurl = \"http://b\"",
            "upstreams[1].name",
            "control character",
        ),
        (URL, "url = \"127.0.0.1:3000\" # here", "upstreams[0].url", "not a URL"),
        (
            URL,
            "url = \"tcp://127.0.0.1:3000\" # here",
            "upstreams[0].url",
            "must begin with http://, https:// or h2c://",
        ),
        (
            URL,
            "url = \"http://127.0.0.1:3000/v1\" # here",
            "upstreams[0].url",
            "must end after host and port",
        ),
        (
            URL,
            "url = \"http://127.0.0.1:3000?a=1\" # here",
            "upstreams[0].url",
            "must end after host and port",
        ),
        (URL, "url = \"http://127.0.0.1:3000#a\" # here", "upstreams[0].url", "fragment"),
        (
            URL,
            "url = \"http://user:hunter2@127.0.0.1:3000\" # here",
            "upstreams[0].url",
            "must not have a user or password",
        ),
        (URL, "url = \"http://127.0.0.1:99999\" # here", "upstreams[0].url", ""),
    ]);
}

#[test]
fn issuers() {
    const URL: &str = "jwks_url = \"https://idp.example.com/jwks\"";
    const HEAD: &str = "[[issuers]] #issuer-line\nissuer = \"https://idp.example.com/\"";
    const AUDIENCES: &str = "audiences = [\"https://api.example.com\"]";
    each_is_the_only_problem(&[
        (HEAD, "[[issuers]] # here", "issuers[0].issuer", "is missing"),
        (
            "#issuer",
            "[[issuers]]\nissuer = \"https://idp.example.com/\" # here\naudiences = [\"a\"]\ndiscovery = true",
            "issuers[1].issuer",
            "taken by the one on line",
        ),
        (
            "#issuer",
            "[[issuers]] # here\nissuer = \"https://b/\"\ndiscovery = true",
            "issuers[1].audiences",
            "is missing",
        ),
        (AUDIENCES, "audiences = [] # here", "issuers[0].audiences", "must not be empty"),
        (AUDIENCES, "audiences = [\"a\", \"\"] # here", "issuers[0].audiences[1]", "must not be empty"),
        (AUDIENCES, "audiences = [\"a\", \"b\", \"a\"] # here", "issuers[0].audiences[2]", "listed twice"),
        ("#issuer", "algorithms = [] # here", "issuers[0].algorithms", "must not be empty"),
        ("#issuer", "algorithms = [\"none\"] # here", "issuers[0].algorithms[0]", "not known"),
        ("#issuer", "algorithms = [\"rs256\"] # here", "issuers[0].algorithms[0]", "not known"),
        ("#issuer", "algorithms = [\"ES512\"] # here", "issuers[0].algorithms[0]", "did you mean"),
        (
            "#issuer",
            "algorithms = [\"RS256\", \"HS256\"] # here",
            "issuers[0].algorithms",
            "HS256 needs a secret",
        ),
        (
            "#issuer",
            "[[issuers]] # here\nissuer = \"https://b/\"\naudiences = [\"a\"]",
            "issuers[1]",
            "has no source of keys",
        ),
        ("#issuer", "discovery = true # here", "issuers[0].discovery", "jwks_url and discovery; keep one"),
        (
            "#issuer",
            "jwks_file = \"../certs/jwks.json\" # here",
            "issuers[0].jwks_file",
            "jwks_url and jwks_file; keep one",
        ),
        (URL, "authority = true # here", "issuers[0].authority", "not supported by this version"),
        (
            URL,
            "jwks_url = \"http://idp.example.com/jwks\" # here",
            "issuers[0].jwks_url",
            "insecure_http = true",
        ),
        (URL, "jwks_url = \"idp.example.com/jwks\" # here", "issuers[0].jwks_url", "not a URL"),
        (URL, "jwks_url = \"file:///etc/jwks\" # here", "issuers[0].jwks_url", ""),
        (
            URL,
            "jwks_url = \"https://u:hunter2@idp.example.com/jwks\" # here",
            "issuers[0].jwks_url",
            "user or password",
        ),
        (
            "issuer = \"https://idp.example.com/\"\naudiences = [\"https://api.example.com\"]\njwks_url = \"https://idp.example.com/jwks\"",
            "issuer = \"http://idp.example.com/\" # here\naudiences = [\"a\"]\ndiscovery = true",
            "issuers[0].issuer",
            "cannot be used with discovery",
        ),
        (
            URL,
            "secret = \"short\" # here\nalgorithms = [\"HS256\"]",
            "issuers[0].secret",
            "at least 32 bytes",
        ),
        (
            URL,
            "secret = \"0123456789abcdef0123456789abcdef\" # here\nalgorithms = [\"HS256\", \"HS384\"]",
            "issuers[0].secret",
            "too short for HS384: it needs at least 48",
        ),
        (
            URL,
            "secret = \"0123456789abcdef0123456789abcdef\"\nalgorithms = [\"HS256\", \"RS256\"] # here",
            "issuers[0].algorithms",
            "RS256 needs public keys",
        ),
        (
            URL,
            "secret = { env = \"PORTCULLIS_TEST_UNSET\" } # here\nalgorithms = [\"HS256\"]",
            "issuers[0].secret",
            "PORTCULLIS_TEST_UNSET is not set",
        ),
        (
            URL,
            "secret = { file = \"../certs/none\" } # here\nalgorithms = [\"HS256\"]",
            "issuers[0].secret",
            "cannot be read",
        ),
        (
            URL,
            "secret = { file = \"../certs/empty\" } # here\nalgorithms = [\"HS256\"]",
            "issuers[0].secret",
            "is empty",
        ),
        (
            URL,
            "secret = { env = \"A\", file = \"b\" } # here\nalgorithms = [\"HS256\"]",
            "issuers[0].secret",
            "keep one",
        ),
        (
            URL,
            "jwks_file = \"../certs/jwks.json\"\nca = \"../certs/server.pem\" # here",
            "issuers[0].ca",
            "has no effect",
        ),
        ("#issuer", "token_types = [] # here", "issuers[0].token_types", "must not be empty"),
        ("#issuer", "required_claims = [\"\"] # here", "issuers[0].required_claims[0]", "must not be empty"),
        (
            "#issuer",
            "[issuers.claims]\nroles = \"/a~b\" # here",
            "issuers[0].claims.roles",
            "not a JSON pointer",
        ),
        ("#issuer", "[issuers.claims]\nscope = \"\" # here", "issuers[0].claims.scope", "must not be empty"),
    ]);
}

#[test]
fn routes() {
    const PATH: &str = "path = \"/deals/{*rest}\"";
    each_is_the_only_problem(&[
        (
            "[[routes]] #route-line\npath = \"/deals/{*rest}\"",
            "[[routes]] # here",
            "routes[0].path",
            "is missing",
        ),
        (
            "upstream = \"api\"",
            "upstream = \"ap1\" # here",
            "routes[0].upstream",
            "no upstream is named \"ap1\" (known: api)",
        ),
        ("#route", "[[routes]] # here\npath = \"/b\"", "routes[1].upstream", "is missing"),
        (PATH, "path = \"\" # here", "routes[0].path", "must not be empty"),
        (PATH, "path = \"deals\" # here", "routes[0].path", ""),
        (PATH, "path = \"/{*rest}/deals\" # here", "routes[0].path", ""),
        (PATH, "path = \"/{id\" # here", "routes[0].path", ""),
        (PATH, "path = \"/a//b\" # here", "routes[0].path", ""),
        (PATH, "path = \"/a?b\" # here", "routes[0].path", ""),
        (PATH, "path = \"/a/../b\" # here", "routes[0].path", ""),
        ("#route", "methods = [\"get\"] # here", "routes[0].methods[0]", "did you mean \"GET\""),
        ("#route", "methods = [\"G ET\"] # here", "routes[0].methods[0]", "not a method"),
        ("#route", "methods = [\"CONNECT\"] # here", "routes[0].methods[0]", "never forwarded"),
        ("#route", "methods = [\"GET\", \"GET\"] # here", "routes[0].methods[1]", "listed twice"),
        ("#route", "hosts = [\"a.example:443\"] # here", "routes[0].hosts[0]", "has a port"),
        ("#route", "hosts = [\"*.example.com\"] # here", "routes[0].hosts[0]", "wildcard"),
        ("#route", "hosts = [\"https://a\"] # here", "routes[0].hosts[0]", "scheme"),
        ("#route", "hosts = [\"a b\"] # here", "routes[0].hosts[0]", "not a host name"),
        ("#route", "hosts = [\"A.example\", \"a.example.\"] # here", "routes[0].hosts[1]", "listed twice"),
        ("#route", "hosts = [\"[::g]\"] # here", "routes[0].hosts[0]", "not an IPv6 address"),
        (
            "#route",
            "scopes = [\"read write\"] # here",
            "routes[0].scopes[0]",
            "write each scope as a string of its own",
        ),
        ("#route", "any_scope = [\"a\\\"b\"] # here", "routes[0].any_scope[0]", "not a scope"),
        ("#route", "roles = [\"\"] # here", "routes[0].roles[0]", "must not be empty"),
        ("#route", "any_role = \"admin\" # here", "routes[0].any_role", "must be an array"),
        ("#route", "anonymous = true\nscopes = [\"a\"] # here", "routes[0].scopes", "anonymous route"),
        ("#route", "anonymous = true\nany_role = [\"a\"] # here", "routes[0].any_role", "anonymous route"),
        ("#route", "mode = \"shadwo\" # here", "routes[0].mode", "did you mean \"shadow\""),
        ("#route", "[[routes]]\npath = \"/deals/{*other}\" # here\nupstream = \"api\"", "routes[1].path", ""),
    ]);
}

#[test]
fn identity() {
    each_is_the_only_problem(&[
        (
            "#identity",
            "\"x user\" = \"sub\" # here",
            "identity.headers.\"x user\"",
            "not a valid header name",
        ),
        ("#identity", "x-user = \"subject\" # here", "identity.headers.x-user", "token.<claim>"),
        ("#identity", "x-user = \"token.\" # here", "identity.headers.x-user", "must not be empty"),
        ("#identity", "x-user = \"token./a~x\" # here", "identity.headers.x-user", "not a JSON pointer"),
        ("#identity", "Connection = \"sub\" # here", "identity.headers.Connection", "a meaning of its own"),
        (
            "#identity",
            "Content_Length = \"sub\" # here",
            "identity.headers.Content_Length",
            "a meaning of its own",
        ),
        ("#identity", "host = \"sub\" # here", "identity.headers.host", "a meaning of its own"),
        (
            "#identity",
            "authorization = \"sub\" # here",
            "identity.headers.authorization",
            "a meaning of its own",
        ),
        (
            "#identity",
            "transfer-encoding = \"sub\" # here",
            "identity.headers.transfer-encoding",
            "a meaning of its own",
        ),
        (
            "#identity",
            "X_User = \"client\"\nx-user = \"sub\" # here",
            "identity.headers.x-user",
            "is the same as \"X_User\"",
        ),
    ]);
}

#[test]
fn state() {
    each_is_the_only_problem(&[
        ("#state", "store = \"redis\" # here", "state.store", "not supported by this version"),
        ("#state", "store = \"sqlite\" # here", "state.store", "known: embedded, memory and redis"),
        ("#state", "path = \"\" # here", "state.path", "must not be empty"),
        ("#state", "url = \"http://127.0.0.1\" # here", "state.url", "must begin with one of redis://"),
        ("#state", "on_empty = \"reject\" # here", "state.on_empty", "known: refuse and trust"),
        ("#state", "password = { env = \"PORTCULLIS_TEST_UNSET\" } # here", "state.password", "is not set"),
        (
            "#state",
            "[authority] # here\nissuer = \"a\"\naudience = \"a\"",
            "authority",
            "not supported by this version",
        ),
        (
            "#state",
            "[[event_transmitters]] # here\nname = \"a\"\nissuer = \"a\"\naudience = \"a\"\nsubject_issuer = \"a\"",
            "event_transmitters[0]",
            "not supported by this version",
        ),
    ]);
}

#[test]
fn everything_is_reported_at_once_in_the_order_of_the_file() {
    let folder = Folder::new();
    let text = base_with(&[
        ("#server", "workers = \"two\"\ndrain_timeout = 30"),
        ("#limits", "conections = 5"),
        ("audiences = [\"https://api.example.com\"]", "audiences = 7"),
        ("upstream = \"api\"", "upstream = \"ap1\""),
        ("#route", "mode = \"off\"\nscopes = [1, \"ok\", \"\"]"),
        ("#admin", "[[admin.tokens]]\nname = \"ops\""),
    ]);
    let found = folder.problems(&text);
    let keys: Vec<_> = found.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "server.workers",
            "server.drain_timeout",
            "server.limits.conections",
            "issuers[0].audiences",
            "routes[0].upstream",
            "routes[0].mode",
            "routes[0].scopes[0]",
            "routes[0].scopes[2]",
            "admin.tokens[0].secret",
            "admin.tokens[0].permissions",
        ]
    );
    assert!(found.is_sorted_by_key(|problem| problem.line));
}

#[test]
fn broken_toml_is_reported_with_its_lines_and_nothing_else() {
    let folder = Folder::new();
    for (broken, message) in [
        ("listen = # here", "quoted"),
        ("listen = [\"a\" # here", ""),
        ("allow_plaintext = false # here", "duplicate key"),
        ("drain_timeout = 30s # here", ""),
        ("x = \"\\q\" # here", ""),
        ("[server] # here", "duplicate key"),
        ("[[server]] # here", "duplicate key"),
    ] {
        let text = base_with(&[("#server", broken)]);
        let found = folder.problems(&text);
        let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert!(
            found.iter().any(|problem| problem.line == Some(line_of_here(&text))),
            "{broken}\n{shown:#?}"
        );
        assert!(found.iter().all(|problem| problem.key.is_empty()), "{broken}\n{shown:#?}");
        assert!(shown.concat().contains(message), "{broken}\n{shown:#?}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_one_problem_without_a_line() {
    let folder = Folder::new();
    let none = portcullis::config::load(&folder.path("config/none.toml")).unwrap_err();
    assert_eq!(none.list().len(), 1);
    assert_eq!(none.list()[0].line, None);
    assert!(none.to_string().contains("config/none.toml: cannot be read: No such file"), "{none}");
    assert_eq!(none.files().paths().collect::<Vec<_>>(), [folder.path("config/none.toml")]);
    let directory = portcullis::config::load(&folder.path("config")).unwrap_err();
    assert!(directory.to_string().contains("cannot be read"), "{directory}");
    std::fs::write(folder.path("config/binary.toml"), [0xff, 0xfe, 0x00]).unwrap();
    let binary = portcullis::config::load(&folder.path("config/binary.toml")).unwrap_err();
    assert!(binary.to_string().contains("cannot be read"), "{binary}");
}

#[test]
fn no_message_repeats_a_secret() {
    const SECRET: &str = "hunter2hunter2";
    let folder = Folder::new();
    for (old, new) in [
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = \"hunter2hunter2 \"\npermissions = [\"config\"]",
        ),
        ("#admin", "[[admin.tokens]]\nname = \"a\"\nsecret = \"hunter2hunter2\npermissions = [\"config\"]"),
        (
            "#admin",
            "[[admin.tokens]]\nname = \"a\"\nsecret = [\"hunter2hunter2\"]\npermissions = [\"config\"]",
        ),
        (
            "jwks_url = \"https://idp.example.com/jwks\"",
            "secret = \"hunter2hunter2\"\nalgorithms = [\"HS256\"]",
        ),
        ("url = \"http://127.0.0.1:3000\"", "url = \"http://a:hunter2hunter2@b\""),
        ("#state", "url = \"mysql://a:hunter2hunter2@b\""),
    ] {
        let text = base_with(&[(old, new)]);
        assert!(text.contains(SECRET));
        for problem in folder.problems(&text) {
            assert!(!problem.to_string().contains(SECRET), "{problem}");
        }
    }
    assert!(!BASE.contains(SECRET));
}
