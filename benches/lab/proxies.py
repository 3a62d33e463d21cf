"""The proxies that are compared: how each is configured to do the same work with one worker."""

import json
import os
import pathlib
import subprocess

from .materials import AUDIENCE, ISSUER, Materials

ADMIN_SECRET = "PORTCULLIS_BENCH_ADMIN_SECRET"
os.environ.setdefault(ADMIN_SECRET, "a-secret-of-the-bench-that-is-long-enough")
# A proxy that runs as root otherwise becomes somebody who may not read the folder.
AS_ROOT = os.geteuid() == 0


def nginx_upstream(folder: pathlib.Path, port: int, binary: str = "nginx") -> list[str]:
    """200 bytes of JSON for every request, whatever it asks for."""
    config = folder / f"nginx-{port}.conf"
    config.write_text(nginx_frame(folder, port, f"""
  server {{ listen 127.0.0.1:{port} backlog=1024;
    location / {{ default_type application/json; return 200 '{json.dumps({"deals": "x" * 183})}'; }} }}"""))
    return [binary, "-c", str(config), "-p", str(folder)]


def nginx_frame(folder: pathlib.Path, port: int, servers: str) -> str:
    return f"""
{"user root;" if AS_ROOT else ""}
daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {folder}/nginx-{port}.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; client_body_temp_path {folder};
  proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
{servers}
}}
"""


def nginx(binary: str, made: Materials, port: int, upstream: int, tickets: bool) -> list[str]:
    config = made.folder / f"nginx-{port}.conf"
    config.write_text(nginx_frame(made.folder, port, f"""
  upstream api {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{ listen 127.0.0.1:{port} ssl http2 backlog=1024;
    http2_max_concurrent_streams 128;
    ssl_certificate {made.cert}; ssl_certificate_key {made.key}; ssl_protocols TLSv1.3;
    ssl_session_tickets {"on" if tickets else "off"}; ssl_session_cache off;
    location / {{ proxy_pass http://api; proxy_http_version 1.1; proxy_set_header Connection ""; }} }}"""))
    return [binary, "-c", str(config), "-p", str(made.folder)]


def haproxy(binary: str, made: Materials, port: int, upstream: int, tickets: bool, check: bool) -> list[str]:
    rules = f"""
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  acl es256 var(txn.alg) -m str ES256
  acl rs256 var(txn.alg) -m str RS256
  http-request deny deny_status 401 unless es256 or rs256
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {ISSUER} }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {AUDIENCE} }}
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 if es256 !{{ var(txn.bearer),jwt_verify(txn.alg,"{made.folder}/ec.pem") 1 }}
  http-request deny deny_status 401 if rs256 !{{ var(txn.bearer),jwt_verify(txn.alg,"{made.folder}/rsa.pem") 1 }}
""" if check else ""
    config = made.folder / f"haproxy-{port}.cfg"
    config.write_text(f"""
global
  nbthread 1
  maxconn 8192
  ssl-default-bind-options ssl-min-ver TLSv1.2{"" if tickets else " no-tls-tickets"}
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
{"" if tickets else "  tune.ssl.cachesize 0"}
defaults
  mode http
  timeout connect 5s
  timeout client 600s
  timeout server 60s
frontend public
  bind 127.0.0.1:{port} ssl crt {made.folder}/server.pem alpn h2,http/1.1
{rules}
  default_backend api
backend api
  http-reuse always
  server s1 127.0.0.1:{upstream}
""")
    return [binary, "-f", str(config), "-db"]


def h2o(binary: str, made: Materials, port: int, upstream: int, tickets: bool) -> list[str]:
    config = made.folder / f"h2o-{port}.conf"
    # Its configuration is YAML, of which JSON is a part.
    config.write_text(json.dumps({
        "num-threads": 1, "max-connections": 8192, "pid-file": f"{made.folder}/h2o-{port}.pid",
        **({"user": "root"} if AS_ROOT else {}),
        "listen": {"host": "127.0.0.1", "port": port, "ssl": {
            "certificate-file": str(made.cert), "key-file": str(made.key), "minimum-version": "TLSv1.2",
            "ocsp-update-interval": 0,
        }},
        "ssl-session-resumption": {"mode": "ticket" if tickets else "off"},
        "http1-request-timeout": 600, "http2-idle-timeout": 600, "proxy.timeout.keepalive": 60_000,
        "hosts": {"default": {"paths": {"/": {"proxy.reverse.url": f"http://127.0.0.1:{upstream}/"}}}},
    }))
    return [binary, "-m", "worker", "-c", str(config)]


def envoy(binary: str, made: Materials, port: int, upstream: int, tickets: bool, check: bool) -> list[str]:
    def typed(name: str, **fields: object) -> dict:
        return {"@type": f"type.googleapis.com/envoy.extensions.{name}", **fields}

    def http_filter(name: str, config: dict) -> dict:
        return {"name": f"envoy.filters.http.{name}", "typed_config": config}

    tls = typed(
        "transport_sockets.tls.v3.DownstreamTlsContext",
        common_tls_context={
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{"certificate_chain": {"filename": str(made.cert)}, "private_key": {"filename": str(made.key)}}],
            "alpn_protocols": ["h2", "http/1.1"],
        },
        disable_stateless_session_resumption=not tickets,
        disable_stateful_session_resumption=not tickets,
    )
    jwt = typed("filters.http.jwt_authn.v3.JwtAuthentication", providers={"idp": {
        "issuer": ISSUER, "audiences": [AUDIENCE], "local_jwks": {"inline_string": made.jwks}, "forward": True,
        # Room for all tokens of the workload that has most.
        "jwt_cache_config": {"jwt_cache_size": 20_000},
    }}, rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "idp"}}])
    filters = [http_filter("jwt_authn", jwt)] if check else []
    filters.append(http_filter("router", typed("filters.http.router.v3.Router")))
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="public",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [
            {"match": {"prefix": "/"}, "route": {"cluster": "api"}}]}]},
        http_filters=filters,
    )
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": upstream}}}
    config = made.folder / f"envoy-{port}.json"
    config.write_text(json.dumps({"static_resources": {
        "listeners": [{"name": "public", "address": address, "filter_chains": [{
            "filters": [{"name": "http", "typed_config": manager}],
            "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
        }]}],
        "clusters": [{"name": "api", "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
            "cluster_name": "api", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}}],
    }}))
    return [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "-l", "warning"]


def gate(
    binary: str, made: Materials, port: int, upstream: int, tickets: bool = True, extra: str = "", admin: int = 0
) -> list[str]:
    """Everything on that a production gate has, except its access log."""
    state = "" if "[state]" in extra else f'[state]\npath = "gate-{port}.db"\non_empty = "trust"'
    config = made.folder / f"gate-{port}.toml"
    config.write_text(f"""
[server]
listen = ["127.0.0.1:{port}"]
workers = 1
[server.tls]
certificate = "server.crt"
private_key = "server.key"
{"" if tickets else "session_tickets = false"}
[server.limits]
idle_connection_timeout = "600s"
header_timeout = "600s"
[[upstreams]]
name = "api"
url = "http://127.0.0.1:{upstream}"
[[issuers]]
issuer = "{ISSUER}"
audiences = ["{AUDIENCE}"]
algorithms = ["ES256", "RS256"]
jwks_file = "jwks.json"
[[routes]]
path = "/deals/{{*rest}}"
upstream = "api"
scopes = ["read:deals"]
{state}
[telemetry]
listen = "127.0.0.1:0"
access_log = false
[admin]
listen = "127.0.0.1:{admin}"
[[admin.tokens]]
name = "bench"
secret = {{ env = "{ADMIN_SECRET}" }}
permissions = ["events"]
{extra}
""")
    return [binary, "run", "--config", str(config)]


def gate_can_stop_tickets(binary: str, made: Materials) -> bool:
    """Whether a gate knows `session_tickets`: older ones refuse the key."""
    command = gate(binary, made, 1, 1, tickets=False)
    done = subprocess.run([binary, "check", *command[2:]], cwd=made.folder, capture_output=True, text=True, timeout=30)
    return "session_tickets" not in done.stdout + done.stderr
