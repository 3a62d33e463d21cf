//! When a reload changes each key: at once, after a restart, or not at all. A new key is missing here
//! until somebody decides.

use std::collections::BTreeSet;

use portcullis::config::Loaded;

use super::Folder;
use super::reference::{keys_read, shipped};

/// What a reload does with another value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// It is in force.
    AtOnce,
    /// The running value stays in force.
    AfterRestart,
    /// The reload is refused.
    Refused,
    /// There is no other value.
    OneValue,
}
use Effect::{AfterRestart, AtOnce, OneValue, Refused};

/// A key of the reference, other values for it and for what must fit it, and the effect.
type Row = (&'static str, &'static [(&'static str, &'static str)], Effect);

/// A service account instead of a URL.
const CLUSTER: [(&str, &str); 3] = [
    ("issuers.jwks_url", "\"\""),
    ("issuers.kubernetes", "true"),
    ("issuers.kubernetes_path", r#""../certs/account""#),
];

/// A transmitter that is polled.
const POLLED: [(&str, &str); 2] = [
    ("event_transmitters.delivery", r#""poll""#),
    ("event_transmitters.poll_url", r#""https://a.test/poll""#),
];

/// Traces with a collector.
const TRACED: (&str, &str) = ("telemetry.otlp_endpoint", r#""http://127.0.0.1:4318""#);

const ROWS: &[Row] = &[
    ("server.listen", &[("server.listen", r#"["127.0.0.1:8444"]"#)], AfterRestart),
    ("server.workers", &[("server.workers", "3")], AfterRestart),
    ("server.allow_plaintext", &[("server.allow_plaintext", "true")], AtOnce),
    ("server.drain_timeout", &[("server.drain_timeout", r#""31s""#)], AtOnce),
    ("server.stream_drain_timeout", &[("server.stream_drain_timeout", r#""3s""#)], AtOnce),
    ("server.shutdown_delay", &[("server.shutdown_delay", r#""1s""#)], AtOnce),
    (
        "server.proxy_protocol",
        &[("server.proxy_protocol", r#""v2""#), ("server.trusted_proxies", r#"["10.0.0.0/8"]"#)],
        AtOnce,
    ),
    ("server.trusted_fields", &[("server.trusted_fields", r#""forwarded""#)], AtOnce),
    ("server.trusted_proxies", &[("server.trusted_proxies", r#"["10.0.0.0/8"]"#)], AtOnce),
    ("server.tls.certificate", &ADMINS_PAIR, AtOnce),
    ("server.tls.private_key", &ADMINS_PAIR, AtOnce),
    ("server.tls.min_version", &[("server.tls.min_version", r#""1.3""#)], AtOnce),
    ("server.tls.client_ca", &[("server.tls.client_ca", ROOTS)], AtOnce),
    (
        "server.tls.require_client_certificate",
        &[("server.tls.client_ca", ROOTS), ("server.tls.require_client_certificate", "true")],
        AtOnce,
    ),
    ("server.tls.session_tickets", &[("server.tls.session_tickets", "false")], AtOnce),
    (
        "server.tls.certificates.names",
        &[("server.tls.certificates.names", r#"["shop.example.com"]"#)],
        AtOnce,
    ),
    ("server.tls.certificates.certificate", &SERVERS_PAIR_BY_NAME, AtOnce),
    ("server.tls.certificates.private_key", &SERVERS_PAIR_BY_NAME, AtOnce),
    ("server.limits.connections", &[("server.limits.connections", "7")], AtOnce),
    ("server.limits.connections_per_ip", &[("server.limits.connections_per_ip", "7")], AtOnce),
    ("server.limits.requests", &[("server.limits.requests", "7")], AtOnce),
    ("server.limits.handshake_timeout", &[("server.limits.handshake_timeout", r#""7s""#)], AtOnce),
    ("server.limits.header_timeout", &[("server.limits.header_timeout", r#""7s""#)], AtOnce),
    ("server.limits.header_bytes", &[("server.limits.header_bytes", r#""7KiB""#)], AtOnce),
    ("server.limits.headers", &[("server.limits.headers", "7")], AtOnce),
    ("server.limits.body_bytes", &[("server.limits.body_bytes", "7")], AtOnce),
    (
        "server.limits.idle_connection_timeout",
        &[("server.limits.idle_connection_timeout", r#""7s""#)],
        AtOnce,
    ),
    ("server.limits.http2_streams", &[("server.limits.http2_streams", "7")], AtOnce),
    ("upstreams.name", &OTHER_UPSTREAM, AtOnce),
    ("upstreams.url", &[("upstreams.url", r#""https://127.0.0.1:3001""#)], AtOnce),
    ("upstreams.max_requests", &[("upstreams.max_requests", "7")], AtOnce),
    ("upstreams.connect_timeout", &[("upstreams.connect_timeout", r#""7s""#)], AtOnce),
    (
        "upstreams.urls",
        &[("upstreams.url", r#""""#), ("upstreams.urls", r#"["https://a", "https://b"]"#)],
        AtOnce,
    ),
    ("upstreams.host", &[("upstreams.host", r#""api.internal""#)], AtOnce),
    ("upstreams.sni", &[("upstreams.sni", r#""api.internal""#)], AtOnce),
    ("upstreams.body_timeout", &[("upstreams.body_timeout", r#""7s""#)], AtOnce),
    ("upstreams.response_timeout", &[("upstreams.response_timeout", r#""7s""#)], AtOnce),
    ("upstreams.idle_timeout", &[("upstreams.idle_timeout", r#""7s""#)], AtOnce),
    ("upstreams.ca", &[("upstreams.ca", ROOTS)], AtOnce),
    ("upstreams.client_certificate", &UPSTREAM_PAIR, AtOnce),
    ("upstreams.client_key", &UPSTREAM_PAIR, AtOnce),
    (
        "issuers.issuer",
        &[
            ("issuers.issuer", r#""https://idp2.example.com/""#),
            ("event_transmitters.subject_issuer", r#""https://idp2.example.com/""#),
            ("logout.issuer", r#""https://idp2.example.com/""#),
            ("scim.issuer", r#""https://idp2.example.com/""#),
            ("global_token_revocation.subject_issuer", r#""https://idp2.example.com/""#),
            ("event_transmitters#2.subject_issuer", r#""https://idp2.example.com/""#),
        ],
        AtOnce,
    ),
    ("issuers.audiences", &[("issuers.audiences", r#"["other"]"#)], AtOnce),
    ("issuers.algorithms", &[("issuers.algorithms", r#"["PS256"]"#)], AtOnce),
    ("issuers.jwks_url", &[("issuers.jwks_url", r#""https://idp.example.com/2""#)], AtOnce),
    ("issuers.jwks_file", &[("issuers.jwks_url", "\"\""), ("issuers.jwks_file", KEYS)], AtOnce),
    ("issuers.discovery", &[("issuers.jwks_url", "\"\""), ("issuers.discovery", "true")], AtOnce),
    (
        "issuers.secret",
        &[
            ("issuers.jwks_url", "\"\""),
            ("issuers.algorithms", r#"["HS256"]"#),
            ("issuers.secret", r#""0123456789abcdef0123456789abcdef""#),
        ],
        AtOnce,
    ),
    // It cannot change alone: see the test of the tables below.
    ("issuers.authority", &[], OneValue),
    ("issuers.kubernetes", &CLUSTER, AtOnce),
    ("issuers.kubernetes_path", &CLUSTER, AtOnce),
    ("issuers.jwks_authorization", &[("issuers.jwks_authorization", r#""abc""#)], AtOnce),
    (
        "issuers.spiffe_trust_domain",
        &[("issuers.spiffe_trust_domain", r#""example.org""#), ("issuers.algorithms", r#"["ES256"]"#)],
        AtOnce,
    ),
    ("issuers.ca", &[("issuers.ca", ROOTS)], AtOnce),
    ("issuers.insecure_http", &[("issuers.insecure_http", "true")], AtOnce),
    ("issuers.refresh_interval", &[("issuers.refresh_interval", r#""7s""#)], AtOnce),
    ("issuers.refresh_cooldown", &[("issuers.refresh_cooldown", r#""7s""#)], AtOnce),
    ("issuers.max_stale", &[("issuers.max_stale", r#""7s""#)], AtOnce),
    ("issuers.leeway", &[("issuers.leeway", r#""7s""#)], AtOnce),
    ("issuers.sender_constraint", &[("issuers.sender_constraint", r#""either""#)], AtOnce),
    ("issuers.max_lifetime", &[("issuers.max_lifetime", r#""7s""#)], AtOnce),
    ("issuers.idle_timeout", &[("issuers.idle_timeout", r#""7s""#)], AtOnce),
    ("issuers.conditions", &[("issuers.conditions", "{ staff = true }")], AtOnce),
    ("issuers.token_types", &[("issuers.token_types", r#"["x"]"#)], AtOnce),
    ("issuers.required_claims", &[("issuers.required_claims", r#"["jti"]"#)], AtOnce),
    ("issuers.claims.subject", &[("issuers.claims.subject", r#""x""#)], AtOnce),
    ("issuers.claims.session", &[("issuers.claims.session", r#""x""#)], AtOnce),
    ("issuers.claims.token_id", &[("issuers.claims.token_id", r#""x""#)], AtOnce),
    ("issuers.claims.audience", &[("issuers.claims.audience", r#""x""#)], AtOnce),
    ("issuers.claims.email", &[("issuers.claims.email", r#""x""#)], AtOnce),
    ("issuers.claims.aliases", &[("issuers.claims.aliases", r#"["x"]"#)], AtOnce),
    ("issuers.claims.scope", &[("issuers.claims.scope", r#""x""#)], AtOnce),
    ("issuers.claims.roles", &[("issuers.claims.roles", r#"["roles", "x"]"#)], AtOnce),
    ("issuers.claims.client", &[("issuers.claims.client", r#""x""#)], AtOnce),
    ("issuers.claims.tenant", &[("issuers.claims.tenant", r#""x""#)], AtOnce),
    ("issuers.claims.role_version", &[("issuers.claims.role_version", r#""x""#)], AtOnce),
    ("sessions.idle_timeout", &[("sessions.idle_timeout", r#""7s""#)], AtOnce),
    ("sessions.max_tracked", &[("sessions.max_tracked", "7")], AfterRestart),
    ("streams.cut_on_revocation", &[("streams.cut_on_revocation", "false")], AtOnce),
    ("streams.check_interval", &[("streams.check_interval", r#""7s""#)], AtOnce),
    ("state.store", &[("state.store", r#""memory""#)], AfterRestart),
    ("state.path", &[("state.path", r#""other.db""#)], AfterRestart),
    ("state.url", &[REDIS, ("state.url", r#""redis://127.0.0.1:6380""#)], AfterRestart),
    ("state.events_url", &[REDIS, ("state.events_url", r#""redis://127.0.0.1:6380""#)], AfterRestart),
    ("state.username", &[REDIS, ("state.username", r#""gate""#)], AfterRestart),
    ("state.password", &[REDIS, ("state.password", r#""secret""#)], AfterRestart),
    ("state.ca", &[REDIS, ("state.ca", ROOTS)], AfterRestart),
    ("state.key_prefix", &[REDIS, ("state.key_prefix", r#""other""#)], AfterRestart),
    ("state.max_staleness", &[("state.max_staleness", r#""7s""#)], AtOnce),
    ("state.flush_interval", &[("state.flush_interval", r#""7s""#)], AfterRestart),
    ("state.on_empty", &[("state.on_empty", r#""trust""#)], AfterRestart),
    ("routes.path", &OTHER_PATH, AtOnce),
    ("routes.idle_counts", &[("routes.idle_counts", r#""client""#)], AtOnce),
    ("routes.mcp_methods", &[("routes.mcp_methods", r#"["tools/call"]"#)], AtOnce),
    (
        "routes.mcp_names",
        &[("routes.mcp_methods", r#"["tools/call"]"#), ("routes.mcp_names", r#"["read_*"]"#)],
        AtOnce,
    ),
    ("resources.name", &[("resources.name", r#""other""#)], AtOnce),
    ("resources.path", &[("resources.path", r#""/""#)], AtOnce),
    ("resources.url", &[("resources.url", r#""https://api.example.com/other""#)], AtOnce),
    (
        "resources.authorization_servers",
        &[("resources.authorization_servers", r#"["https://login.example.com"]"#)],
        AtOnce,
    ),
    ("resources.scopes", &[("resources.scopes", r#"["x"]"#)], AtOnce),
    ("resources.title", &[("resources.title", r#""Deals""#)], AtOnce),
    ("resources.documentation", &[("resources.documentation", r#""https://docs.example.com/""#)], AtOnce),
    ("resources.require_audience", &[("resources.require_audience", "false")], AtOnce),
    ("routes.hosts", &[("routes.hosts", r#"["a.test"]"#)], AtOnce),
    ("routes.methods", &[("routes.methods", r#"["GET"]"#)], AtOnce),
    ("routes.upstream", &OTHER_UPSTREAM, AtOnce),
    ("routes.scopes", &[("routes.scopes", r#"["x"]"#)], AtOnce),
    ("routes.any_scope", &[("routes.any_scope", r#"["x"]"#)], AtOnce),
    ("routes.roles", &[("routes.roles", r#"["x"]"#)], AtOnce),
    ("routes.any_role", &[("routes.any_role", r#"["x"]"#)], AtOnce),
    ("routes.claims", &[("routes.claims", r#"{ id = { prefix = "1" } }"#)], AtOnce),
    ("routes.allow", &[("routes.allow", r#"[{ scopes = ["x"] }]"#)], AtOnce),
    ("routes.issuers", &[("routes.issuers", r#"["https://idp.example.com/"]"#)], AtOnce),
    ("routes.audiences", &[("routes.audiences", r#"["x"]"#)], AtOnce),
    ("routes.acr_values", &[("routes.acr_values", r#"["x"]"#)], AtOnce),
    ("routes.max_age", &[("routes.max_age", r#""7s""#)], AtOnce),
    ("routes.anonymous", &[("routes.anonymous", "true")], AtOnce),
    ("routes.mode", &[("routes.mode", r#""shadow""#)], AtOnce),
    ("routes.request_body_timeout", &[("routes.request_body_timeout", r#""7s""#)], AtOnce),
    ("routes.encoded_slashes", &[("routes.encoded_slashes", r#""keep""#)], AtOnce),
    ("routes.access_log", &[("routes.access_log", "false")], AtOnce),
    ("routes.origins", &[("routes.origins", r#"["https://a.test"]"#)], AtOnce),
    ("routes.cors.origins", &[("routes.cors.origins", r#"["https://a.test"]"#)], AtOnce),
    ("routes.cors.methods", &[("routes.cors.methods", r#"["GET"]"#)], AtOnce),
    ("routes.cors.headers", &[("routes.cors.headers", r#"["dpop"]"#)], AtOnce),
    ("routes.cors.expose", &[("routes.cors.expose", r#"["dpop-nonce"]"#)], AtOnce),
    ("routes.cors.credentials", &[("routes.cors.credentials", "true")], AtOnce),
    ("routes.cors.max_age", &[("routes.cors.max_age", r#""7s""#)], AtOnce),
    ("routes.response_timeout", &[("routes.response_timeout", r#""7s""#)], AtOnce),
    ("identity.strip_authorization", &[("identity.strip_authorization", "true")], AtOnce),
    ("identity.max_value", &[("identity.max_value", r#""7KiB""#)], AtOnce),
    ("identity.on_overflow", &[("identity.on_overflow", r#""omit""#)], AtOnce),
    ("identity.headers.x-auth-subject", &[("identity.headers.x-auth-subject", r#""token.x""#)], AtOnce),
    ("identity.headers.x-auth-client", &[("identity.headers.x-auth-client", r#""token.x""#)], AtOnce),
    ("identity.headers.x-auth-scope", &[("identity.headers.x-auth-scope", r#""token.x""#)], AtOnce),
    ("identity.headers.x-auth-roles", &[("identity.headers.x-auth-roles", r#""token.x""#)], AtOnce),
    ("identity.headers.x-auth-tenant", &[("identity.headers.x-auth-tenant", r#""token.x""#)], AtOnce),
    ("bearer.websocket_protocol", &[("bearer.websocket_protocol", r#""bearer""#)], AtOnce),
    ("dpop.public_url", &[("dpop.public_url", r#""https://a.test""#)], AtOnce),
    ("dpop.max_age", &[("dpop.max_age", r#""7s""#)], AtOnce),
    ("dpop.nonce", &[("dpop.nonce", r#""required""#)], AtOnce),
    ("dpop.max_tracked", &[("dpop.max_tracked", "7")], AtOnce),
    ("telemetry.listen", &[("telemetry.listen", r#""127.0.0.1:9465""#)], AfterRestart),
    ("telemetry.log_format", &[("telemetry.log_format", r#""pretty""#)], AtOnce),
    ("telemetry.log_level", &[("telemetry.log_level", r#""debug""#)], AtOnce),
    ("console.enabled", &[("console.enabled", "false")], AtOnce),
    ("telemetry.access_log", &[("telemetry.access_log", "false")], AtOnce),
    ("telemetry.log_paths", &[("telemetry.log_paths", "true")], AtOnce),
    ("telemetry.otlp_endpoint", &[TRACED], AtOnce),
    ("telemetry.otlp_headers", &[TRACED, ("telemetry.otlp_headers", r#"{ api-key = "x" }"#)], AtOnce),
    ("telemetry.otlp_ca", &[TRACED, ("telemetry.otlp_ca", ROOTS)], AtOnce),
    ("telemetry.otlp_service_name", &[TRACED, ("telemetry.otlp_service_name", r#""gate""#)], AtOnce),
    ("telemetry.trace_sample_ratio", &[TRACED, ("telemetry.trace_sample_ratio", "0.5")], AtOnce),
    ("telemetry.ready_when", &[("telemetry.ready_when", r#""all""#)], AtOnce),
    ("admin.listen", &[("admin.listen", r#""127.0.0.1:9444""#)], AfterRestart),
    ("admin.tls.certificate", &SERVERS_PAIR, AtOnce),
    ("admin.tls.private_key", &SERVERS_PAIR, AtOnce),
    ("admin.tls.min_version", &[("admin.tls.min_version", r#""1.3""#)], AtOnce),
    ("admin.tls.client_ca", &[("admin.tls.client_ca", ROOTS)], AtOnce),
    (
        "admin.tls.require_client_certificate",
        &[("admin.tls.client_ca", ROOTS), ("admin.tls.require_client_certificate", "true")],
        AtOnce,
    ),
    ("admin.tokens.name", &[("admin.tokens.name", r#""two""#)], AtOnce),
    ("admin.tokens.secret", &[("admin.tokens.secret", r#""another-secret-of-the-admin""#)], AtOnce),
    ("admin.tokens.permissions", &[("admin.tokens.permissions", r#"["events"]"#)], AtOnce),
    ("signals.listen", &[("signals.listen", r#""127.0.0.1:9447""#)], AfterRestart),
    ("signals.path", &[("signals.path", r#""/other""#)], AtOnce),
    ("signals.public_url", &[("signals.public_url", r#""https://other.test""#)], AtOnce),
    ("signals.requests_per_sender", &[("signals.requests_per_sender", "7")], AtOnce),
    ("signals.tls.certificate", &SIGNALS_PAIR, AtOnce),
    ("signals.tls.private_key", &SIGNALS_PAIR, AtOnce),
    ("signals.tls.min_version", &[("signals.tls.min_version", r#""1.3""#)], AtOnce),
    ("signals.tls.client_ca", &[("signals.tls.client_ca", ROOTS)], AtOnce),
    (
        "signals.tls.require_client_certificate",
        &[("signals.tls.client_ca", ROOTS), ("signals.tls.require_client_certificate", "true")],
        AtOnce,
    ),
    ("logout.name", &[("logout.name", r#""two""#)], AtOnce),
    ("logout.issuer", &[("logout.issuer", r#""https://127.0.0.1:8443""#)], AtOnce),
    ("logout.audiences", &[("logout.audiences", r#"["two"]"#)], AtOnce),
    ("scim.name", &[("scim.name", r#""two""#)], AtOnce),
    ("scim.tokens", &[("scim.tokens", r#"["another-secret-of-16-bytes"]"#)], AtOnce),
    ("scim.issuer", &[("scim.issuer", r#""https://127.0.0.1:8443""#)], AtOnce),
    ("scim.subject", &[("scim.subject", r#""userName""#)], AtOnce),
    ("scim.roles.Administrators", &[("scim.roles.Administrators", r#""root""#)], AtOnce),
    ("global_token_revocation.name", &[("global_token_revocation.name", r#""two""#)], AtOnce),
    ("global_token_revocation.issuer", &[("global_token_revocation.issuer", r#""two""#)], AtOnce),
    (
        "global_token_revocation.jwks_url",
        &[("global_token_revocation.jwks_url", r#""https://a.test/2""#)],
        AtOnce,
    ),
    (
        "global_token_revocation.jwks_file",
        &[("global_token_revocation.jwks_url", "\"\""), ("global_token_revocation.jwks_file", KEYS)],
        AtOnce,
    ),
    ("global_token_revocation.ca", &[("global_token_revocation.ca", ROOTS)], AtOnce),
    ("global_token_revocation.insecure_http", &[("global_token_revocation.insecure_http", "true")], AtOnce),
    (
        "global_token_revocation.refresh_interval",
        &[("global_token_revocation.refresh_interval", r#""7s""#)],
        AtOnce,
    ),
    (
        "global_token_revocation.refresh_cooldown",
        &[("global_token_revocation.refresh_cooldown", r#""7s""#)],
        AtOnce,
    ),
    ("global_token_revocation.max_stale", &[("global_token_revocation.max_stale", r#""7s""#)], AtOnce),
    (
        "global_token_revocation.subject_issuer",
        &[("global_token_revocation.subject_issuer", r#""https://127.0.0.1:8443""#)],
        AtOnce,
    ),
    ("event_transmitters.name", &[("event_transmitters.name", r#""two""#)], AtOnce),
    ("event_transmitters.issuer", &[("event_transmitters.issuer", r#""two""#)], AtOnce),
    ("event_transmitters.audience", &[("event_transmitters.audience", r#""two""#)], AtOnce),
    ("event_transmitters.jwks_url", &[("event_transmitters.jwks_url", r#""https://a.test/2""#)], AtOnce),
    (
        "event_transmitters.jwks_file",
        &[("event_transmitters.jwks_url", "\"\""), ("event_transmitters.jwks_file", KEYS)],
        AtOnce,
    ),
    ("event_transmitters.ca", &[("event_transmitters.ca", ROOTS)], AtOnce),
    ("event_transmitters.insecure_http", &[("event_transmitters.insecure_http", "true")], AtOnce),
    ("event_transmitters.refresh_interval", &[("event_transmitters.refresh_interval", r#""7s""#)], AtOnce),
    ("event_transmitters.refresh_cooldown", &[("event_transmitters.refresh_cooldown", r#""7s""#)], AtOnce),
    ("event_transmitters.max_stale", &[("event_transmitters.max_stale", r#""7s""#)], AtOnce),
    (
        "event_transmitters.subject_issuer",
        &[("event_transmitters.subject_issuer", r#""https://127.0.0.1:8443""#)],
        AtOnce,
    ),
    ("event_transmitters.critical_members", &[("event_transmitters.critical_members", r#"["x"]"#)], AtOnce),
    ("event_transmitters.tolerant", &[("event_transmitters.tolerant", "true")], AtOnce),
    ("event_transmitters.authorization", &[("event_transmitters.authorization", r#""Bearer x""#)], AtOnce),
    (
        "event_transmitters.discovery",
        &[("event_transmitters.jwks_url", "\"\""), ("event_transmitters.discovery", "true")],
        AtOnce,
    ),
    ("event_transmitters.delivery", &POLLED, AtOnce),
    ("event_transmitters.poll_url", &POLLED, AtOnce),
    (
        "event_transmitters.poll_authorization",
        &[POLLED[0], POLLED[1], ("event_transmitters.poll_authorization", r#""Bearer x""#)],
        AtOnce,
    ),
    ("event_transmitters.heartbeat", &[("event_transmitters#2.heartbeat", r#""7m""#)], AtOnce),
    ("event_transmitters.when_stale", &[("event_transmitters#2.when_stale", r#""refuse""#)], AtOnce),
    (
        "event_transmitters.stream.token_url",
        &[("event_transmitters.stream.token_url", r#""https://a.test/token""#)],
        AtOnce,
    ),
    ("event_transmitters.stream.client_id", &[("event_transmitters.stream.client_id", r#""two""#)], AtOnce),
    (
        "event_transmitters.stream.client_secret",
        &[("event_transmitters.stream.client_secret", r#""two""#)],
        AtOnce,
    ),
    (
        "event_transmitters.stream.access_token",
        &[
            ("event_transmitters.stream.token_url", "\"\""),
            ("event_transmitters.stream.client_id", "\"\""),
            ("event_transmitters.stream.client_secret", "\"\""),
            ("event_transmitters.stream.access_token", r#""two""#),
        ],
        AtOnce,
    ),
    ("event_transmitters.stream.scopes", &[("event_transmitters.stream.scopes", r#"["x"]"#)], AtOnce),
    ("event_transmitters.stream.events", &[("event_transmitters.stream.events", r#"["urn:x"]"#)], AtOnce),
    ("event_transmitters.stream.add_subjects", &[("event_transmitters.stream.add_subjects", "true")], AtOnce),
    (
        "authority.issuer",
        &[("authority.issuer", r#""https://other.test""#), ("issuers#2.issuer", r#""https://other.test""#)],
        Refused,
    ),
    (
        "authority.audience",
        &[("authority.audience", r#""other""#), ("issuers#2.audiences", r#"["other"]"#)],
        AtOnce,
    ),
    ("authority.token_path", &[("authority.token_path", r#""/other""#)], AtOnce),
    ("authority.token_lifetime", &[("authority.token_lifetime", r#""7s""#)], AtOnce),
    ("authority.signing_algorithm", &[("authority.signing_algorithm", r#""EdDSA""#)], AtOnce),
    ("authority.key_rotation", &[("authority.key_rotation", r#""7d""#)], AtOnce),
    ("authority.tenant_parameter", &[("authority.tenant_parameter", r#""tenant""#)], AtOnce),
    ("authority.failures_per_client", &[("authority.failures_per_client", "7")], AtOnce),
    ("authority.failures_per_address", &[("authority.failures_per_address", "7")], AtOnce),
    ("authority.introspection_clients", &[("authority.introspection_clients", r#"["x"]"#)], AtOnce),
    ("authority.scopes", &[("authority.scopes", r#"["x"]"#)], AtOnce),
    ("authority.path", &[("authority.path", r#""other.db""#)], Refused),
];

const ROOTS: &str = r#""../certs/server.pem""#;
const KEYS: &str = r#""../certs/jwks.json""#;
const REDIS: (&str, &str) = ("state.store", r#""redis""#);
const ADMINS_PAIR: [(&str, &str); 2] = [
    ("server.tls.certificate", r#""../certs/admin.pem""#),
    ("server.tls.private_key", r#""../certs/admin.key""#),
];
const SERVERS_PAIR_BY_NAME: [(&str, &str); 3] = [
    ("server.tls.certificates.names", r#"["localhost"]"#),
    ("server.tls.certificates.certificate", r#""../certs/server.pem""#),
    ("server.tls.certificates.private_key", r#""../certs/server.key""#),
];
const SERVERS_PAIR: [(&str, &str); 2] = [
    ("admin.tls.certificate", r#""../certs/server.pem""#),
    ("admin.tls.private_key", r#""../certs/server.key""#),
];
const SIGNALS_PAIR: [(&str, &str); 2] = [
    ("signals.tls.certificate", r#""../certs/admin.pem""#),
    ("signals.tls.private_key", r#""../certs/admin.key""#),
];
const UPSTREAM_PAIR: [(&str, &str); 2] = [
    ("upstreams.client_certificate", r#""../certs/server.pem""#),
    ("upstreams.client_key", r#""../certs/server.key""#),
];
const OTHER_PATH: [(&str, &str); 2] = [("routes.path", r#""/other""#), ("resources.path", r#""/other""#)];
const OTHER_UPSTREAM: [(&str, &str); 2] = [("upstreams.name", r#""b""#), ("routes.upstream", r#""b""#)];

/// Sets a key in the text to another value; `issuers#2.issuer` is in the second `[[issuers]]`.
fn set(text: &str, key: &str, value: &str) -> String {
    let (table, key) = key.rsplit_once('.').unwrap();
    let (table, place) =
        table.split_once('#').map_or((table, 1), |(table, place)| (table, place.parse().unwrap()));
    let (mut within, mut seen, mut found) = (false, 0, 0);
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            if line.starts_with('[') {
                let name = line.split(']').next().unwrap().trim_start_matches('[');
                seen += usize::from(name == table);
                within = name == table && seen == place;
            }
            let is_it = within && line.split_once(" = ").is_some_and(|(name, _)| name == key);
            found += usize::from(is_it);
            if is_it { format!("{key} = {value}") } else { line.to_owned() }
        })
        .collect();
    assert_eq!(found, 1, "{key} of {table}");
    lines.join("\n")
}

fn with(text: &str, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text.to_owned(), |text, (key, value)| set(&text, key, value))
}

/// Removes a table from the text, including its sub-tables.
fn without(text: &str, table: &str) -> String {
    let mut within = false;
    let keep = |line: &&str| {
        if line.starts_with('[') {
            let name = line.split(']').next().unwrap().trim_start_matches('[');
            within = name == table || name.starts_with(&format!("{table}."));
        }
        !within
    };
    text.lines().filter(keep).collect::<Vec<_>>().join("\n")
}

/// Loads the reference as a gate runs with it, and with a change.
fn before_and_after(folder: &Folder, changes: &[(&str, &str)]) -> (Loaded, Loaded) {
    // What is the same before and after: which store it is that the keys are about.
    let (both, changes) = match changes.split_first() {
        Some((first, rest)) if *first == REDIS && !rest.is_empty() => (&changes[..1], rest),
        _ => (&[][..], changes),
    };
    let reference = with(&shipped("reference.toml"), both);
    (folder.good(&reference), folder.good(&with(&reference, changes)))
}

#[test]
fn every_key_is_classified_and_a_reload_does_as_it_says() {
    let folder = Folder::new();
    let mut keys = BTreeSet::new();
    keys_read(&folder.good(&shipped("reference.toml")).redacted, "", &mut keys);
    let classified: BTreeSet<String> = ROWS.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(classified, keys, "a new key takes effect at once, after a restart, or is refused: decide");
    for (key, changes, effect) in ROWS {
        if *effect == OneValue {
            continue;
        }
        let (running, wanted) = before_and_after(&folder, changes);
        assert!(
            wanted.redacted != running.redacted || wanted.settings != running.settings,
            "{key}: no change"
        );
        match (wanted.clone().in_force_after(&running), effect) {
            (Ok((loaded, waiting)), AtOnce) => {
                assert_eq!(waiting, Vec::<&str>::new(), "{key}");
                assert_eq!(loaded.settings, wanted.settings, "{key}");
                assert_eq!(loaded.redacted, wanted.redacted, "{key}");
            }
            (Ok((loaded, waiting)), AfterRestart) => {
                assert_eq!(waiting.len(), 1, "{key}: {waiting:?}");
                assert!(waiting[0].contains(key) || key.starts_with("state."), "{key}: {waiting:?}");
                assert_eq!(loaded.settings, running.settings, "{key}");
                assert_eq!(loaded.redacted, running.redacted, "{key}: what is shown is what is in force");
            }
            (Err(problems), Refused) => assert!(problems[0].contains("restart"), "{key}: {problems:?}"),
            (outcome, effect) => panic!("{key} is not {effect:?}: {:?}", outcome.map(|(_, waiting)| waiting)),
        }
    }
}

#[test]
fn the_reference_says_which_keys_need_a_restart() {
    let reference = shipped("reference.toml");
    let mut table = String::new();
    let mut said = BTreeSet::new();
    for line in reference.lines() {
        if line.starts_with('[') {
            table = line.split(']').next().unwrap().trim_start_matches('[').to_owned();
        } else if line.contains("restart to change") {
            said.insert(format!("{table}.{}", line.split(" = ").next().unwrap()));
        }
    }
    let needed = ROWS.iter().filter(|(.., effect)| matches!(effect, AfterRestart | Refused));
    assert_eq!(said, needed.map(|(key, ..)| (*key).to_owned()).collect());
}

#[test]
fn what_waits_for_a_restart_leaves_the_other_changes_alone() {
    let folder = Folder::new();
    let waiting: Vec<(&str, &str)> = ROWS
        .iter()
        .filter(|(_, changes, effect)| *effect == AfterRestart && changes[0] != REDIS)
        .flat_map(|(_, changes, _)| changes.iter().copied())
        .collect();
    for (key, changes, _) in ROWS.iter().filter(|(.., effect)| *effect == AtOnce) {
        let reference = shipped("reference.toml");
        let (running, alone) = (folder.good(&reference), folder.good(&with(&reference, changes)));
        let wanted = folder.good(&with(&with(&reference, changes), &waiting));
        let (loaded, names) = wanted.in_force_after(&running).unwrap();
        assert!(names.len() >= 8, "{key}: {names:?}");
        assert_eq!(loaded.settings, alone.settings, "{key}");
        assert_eq!(loaded.redacted, alone.redacted, "{key}");
    }
}

#[test]
fn a_listener_keeps_its_tls_or_its_clear_text_and_the_files_of_it_are_watched() {
    let folder = Folder::new();
    let secure = shipped("reference.toml");
    let plain = without(&without(&without(&secure, "server.tls"), "admin.tls"), "signals.tls")
        .replace("allow_plaintext = false", "allow_plaintext = true");
    let (secure, plain) = (folder.good(&secure), folder.good(&plain));
    for (name, running, wanted) in [("removed", &secure, &plain), ("added", &plain, &secure)] {
        let (loaded, waiting) = wanted.clone().in_force_after(running).unwrap();
        assert_eq!(waiting.len(), 3, "{name}: {waiting:?}");
        assert_eq!(loaded.settings, running.settings, "{name}");
        assert_eq!(loaded.redacted, running.redacted, "{name}");
        for path in running.files.paths().filter(|path| !path.ends_with("jwks.json")) {
            assert!(loaded.files.paths().any(|watched| watched == path), "{name}: {}", path.display());
        }
    }
}

#[test]
fn signals_keep_their_listener_until_a_restart() {
    let folder = Folder::new();
    let own = shipped("reference.toml");
    let at = |listen: &str| set(&without(&own, "signals.tls"), "signals.listen", listen);
    let senders = ["event_transmitters", "logout", "global_token_revocation", "scim"];
    let none = senders.iter().fold(without(&own, "signals"), |text, table| without(&text, table));
    let (own, other, public) = (at(r#""127.0.0.1:9446""#), at(r#""127.0.0.1:9447""#), at(r#""""#));
    let listening =
        |loaded: &Loaded| loaded.settings.signals.as_ref().map(|signals| signals.listen.is_some());
    for (what, running, wanted, waits, in_force) in [
        ("added on the public listener", &none, &public, 0, Some(false)),
        // Not on the public listener meanwhile.
        ("added on one of their own", &none, &own, 1, None),
        ("moved to the public listener", &own, &public, 1, Some(true)),
        ("moved away from it", &public, &own, 1, Some(false)),
        ("moved to another one", &own, &other, 1, Some(true)),
        ("removed", &own, &none, 0, None),
    ] {
        let (running, wanted) = (folder.good(running), folder.good(wanted));
        let (loaded, waiting) = wanted.in_force_after(&running).unwrap();
        assert_eq!(waiting.len(), waits, "{what}: {waiting:?}");
        assert!(waiting.iter().all(|name| name.contains("signals")), "{what}: {waiting:?}");
        assert_eq!(listening(&loaded), in_force, "{what}");
        let shown = loaded.redacted.pointer("/signals/listen").map(|listen| *listen != "");
        assert_eq!(shown, in_force, "{what}: what is shown is what is in force");
    }
}

#[test]
fn an_authority_is_neither_added_nor_removed() {
    let folder = Folder::new();
    let with_it = shipped("reference.toml");
    let issuer =
        "[[issuers]]                              # example: the issuer of this gate's own [authority]";
    let (first, rest) = with_it.split_once(issuer).unwrap();
    let (_, rest) = rest.split_once("[sessions]").unwrap();
    let without_it = without(&format!("{first}[sessions]{rest}"), "authority");
    let (with_it, without_it) = (folder.good(&with_it), folder.good(&without_it));
    for (name, running, wanted) in [("removed", &with_it, &without_it), ("added", &without_it, &with_it)] {
        let problems = wanted.clone().in_force_after(running).map(|(_, waiting)| waiting).unwrap_err();
        assert!(problems[0].contains("[authority]"), "{name}: {problems:?}");
    }
}
