#!/usr/bin/env python3
"""CPU time per request of the gate against HAProxy, interleaved in one run.

Every proxy runs with one worker pinned to core 0; the load (wrk) and the upstream (nginx) share core 1. All of them
terminate TLS 1.3 with the same P-256 certificate and keep connections alive; every request carries the same ES256
token. The figure is utime + stime of the proxy process over the requests it served, which is steadier than requests
per second on a machine whose clock drifts. Read the ratios of one run, never figures of two.

    cargo build --release && benches/peers.py [--rounds 7] [--seconds 3] [--h2 | --idle N] [--gate PATH ...]

With --idle N the figure is the memory that a connection at rest takes: N clients connect over TLS, send one request each
and keep the connection.

With --events N no peer is measured but the gate against itself: with and without N role changes a second posted to its
admin listener, and with idle clocks and the durable store off. Then the figure is the time of the worker threads, and
that of the other threads, which take the events in, stands beside it.

Needs haproxy, nginx, wrk (h2load for --h2) and openssl. Everything listens on loopback, on free ports.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import http.client

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
ADMIN_SECRET = "PORTCULLIS_BENCH_ADMIN_SECRET"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args: str, data: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *args], input=data, check=True, capture_output=True).stdout


def der_to_raw(signature: bytes) -> bytes:
    """An ECDSA signature from openssl's DER to the fixed-length form of RFC 7518 §3.4."""
    body, parts, at = signature, [], 2
    for _ in range(2):
        length = body[at + 1]
        parts.append(body[at + 2 : at + 2 + length].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + length
    return b"".join(parts)


class Materials:
    """Certificate, signing key, JWKS and one token."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.key, self.cert = folder / "server.key", folder / "server.crt"
        openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(self.key))
        openssl(
            "req", "-x509", "-new", "-key", str(self.key), "-out", str(self.cert), "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        )
        (folder / "server.pem").write_bytes(self.cert.read_bytes() + self.key.read_bytes())
        signing, public = folder / "signing.pem", folder / "public.pem"
        openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(signing))
        openssl("ec", "-in", str(signing), "-pubout", "-out", str(public))
        point = openssl("ec", "-in", str(signing), "-pubout", "-outform", "DER")[-64:]
        jwk = {"kty": "EC", "crv": "P-256", "kid": "k1", "x": b64(point[:32]), "y": b64(point[32:])}
        (folder / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
        now = int(time.time())
        header = {"alg": "ES256", "typ": "at+jwt", "kid": "k1"}
        claims = {
            "iss": "https://idp.example.com/", "aud": "https://api.example.com", "sub": "user-1", "client_id": "bench",
            "scope": "read:deals", "roles": ["reader"], "iat": now, "exp": now + 7200, "jti": "bench-token-1",
        }
        signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
        signature = openssl("dgst", "-sha256", "-sign", str(signing), data=signed.encode())
        self.token = f"{signed}.{b64(der_to_raw(signature))}"


def nginx_upstream(folder: pathlib.Path, port: int) -> list[str]:
    config = folder / "nginx.conf"
    body = json.dumps({"deals": "x" * 183})
    config.write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_body_temp_path {folder};
  proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port} backlog=1024;
    location / {{ default_type application/json; return 200 '{body}'; }} }} }}
""")
    return ["nginx", "-c", str(config), "-p", str(folder)]


def haproxy(folder: pathlib.Path, name: str, port: int, upstream: int, check: bool) -> list[str]:
    rules = f"""
  http-request set-var(txn.bearer) http_auth_bearer
  http-request set-var(txn.alg) var(txn.bearer),jwt_header_query('$.alg')
  http-request deny deny_status 401 unless {{ var(txn.alg) -m str ES256 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str https://idp.example.com/ }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str https://api.example.com }}
  http-request set-var(txn.exp) var(txn.bearer),jwt_payload_query('$.exp','int')
  http-request set-var(txn.now) date()
  http-request deny deny_status 401 if {{ var(txn.exp),sub(txn.now) -m int lt 0 }}
  http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify(txn.alg,"{folder}/public.pem") 1 }}
""" if check else ""
    config = folder / f"{name}.cfg"
    config.write_text(f"""
global
  nbthread 1
  maxconn 4096
  ssl-default-bind-options ssl-min-ver TLSv1.2
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend public
  bind 127.0.0.1:{port} ssl crt {folder}/server.pem alpn h2,http/1.1
{rules}
  default_backend api
backend api
  http-reuse always
  server s1 127.0.0.1:{upstream}
""")
    return ["haproxy", "-f", str(config), "-db"]


def gate(
    binary: pathlib.Path, folder: pathlib.Path, name: str, port: int, upstream: int, extra: str, admin: int = 0
) -> list[str]:
    state = "" if "[state]" in extra else f'[state]\npath = "{name}.db"\non_empty = "trust"'
    config = folder / f"{name}.toml"
    config.write_text(f"""
[server]
listen = ["127.0.0.1:{port}"]
workers = 1
[server.tls]
certificate = "server.crt"
private_key = "server.key"
[[upstreams]]
name = "api"
url = "http://127.0.0.1:{upstream}"
[[issuers]]
issuer = "https://idp.example.com/"
audiences = ["https://api.example.com"]
algorithms = ["ES256"]
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
    return [str(binary), "run", "--config", str(config)]


def cpu_seconds(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def thread_seconds(pid: int) -> tuple[float, float]:
    """Processor time of the worker threads, and of all others."""
    workers = others = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        nanos = int((task / "schedstat").read_text().split()[0])
        if (task / "comm").read_text().startswith("worker-"):
            workers += nanos
        else:
            others += nanos
    return workers / 1e9, others / 1e9


class Events(threading.Thread):
    """Posts role changes of ever new subjects, in batches of ten, so many a second."""

    BATCH = 10

    def __init__(self, port: int, rate: int, start: int):
        super().__init__()
        self.port, self.rate, self.sent, self.start_at, self.stopping = port, rate, 0, start, threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"authorization": f"Bearer {os.environ[ADMIN_SECRET]}", "content-type": "application/json"}
        began = time.monotonic()
        while not self.stopping.wait(max(0.0, began + self.sent / self.rate - time.monotonic())):
            events = [
                {"type": "role-changed", "issuer": "https://idp.example.com/", "subject": f"other-{self.start_at + self.sent + i}"}
                for i in range(self.BATCH)
            ]
            connection.request("POST", "/v1/events", json.dumps(events), headers)
            answer = connection.getresponse()
            if answer.status != 202:
                print(f"an event was answered with {answer.status}: {answer.read()!r}", file=sys.stderr)
                return
            answer.read()
            self.sent += self.BATCH
        connection.close()


OFF = '[state]\nstore = "memory"\non_empty = "trust"\n[sessions]\nidle_timeout = "0s"'


def against_itself(options, binary: str, folder: pathlib.Path, upstream: int, materials: Materials, start) -> None:
    """The gate with and without events, and with idle clocks and the durable store off; interleaved."""
    gates = {}
    for label, extra in (("on", ""), ("off", OFF)):
        port, admin = free_port(), free_port()
        command = gate(pathlib.Path(binary), folder, label, port, upstream, extra, admin)
        gates[label] = (start(command, 0, port).pid, port, admin)
    modes = {"off": ("off", 0), "on": ("on", 0), f"on, {options.events} events/s": ("on", options.events)}
    figures: dict[str, list[tuple[float, float, float]]] = {label: [] for label in modes}
    for _, port, _ in gates.values():
        load(port, 1, materials.token, options.h2)
    posted = 0
    for _ in range(options.rounds):
        for label, (name, rate) in modes.items():
            pid, port, admin = gates[name]
            events = Events(admin, rate, posted) if rate else None
            if events:
                events.start()
            workers, others = thread_seconds(pid)
            began = time.monotonic()
            served = load(port, options.seconds, materials.token, options.h2)
            workers, others = (after - before for after, before in zip(thread_seconds(pid), (workers, others)))
            took = time.monotonic() - began
            if events:
                events.stopping.set()
                events.join()
                posted += events.sent
            sent = events.sent / took if events else 0
            figures[label].append((workers / served * 1e6, others / took * 1e3, sent))
    print(f"CPU µs of the worker per request over {options.rounds} rounds of {options.seconds} s")
    print(f"{'':24}{'median':>8}{'best':>8}{'/ off':>8}{'/ on':>8}   other threads, ms/s   events/s")
    median = {label: statistics.median(worker for worker, _, _ in rows) for label, rows in figures.items()}
    for label, rows in figures.items():
        # Within a round first: the machine's clock drifts from one to the next.
        off, on = (
            statistics.median(row[0] / peer[0] for row, peer in zip(rows, figures[to])) for to in ("off", "on")
        )
        others, sent = (statistics.median(row[i] for row in rows) for i in (1, 2))
        best = min(worker for worker, _, _ in rows)
        print(f"{label:24}{median[label]:8.1f}{best:8.1f}{off:8.3f}{on:8.3f}{others:22.1f}{sent:11.0f}")


def wait_for(port: int, process: subprocess.Popen) -> None:
    for _ in range(200):
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"{process.args[0]} does not listen on {port}")


def load(port: int, seconds: int, token: str, h2: bool) -> int:
    url = f"https://127.0.0.1:{port}/deals/7"
    if h2:
        command = ["h2load", "-c4", "-m16", "-t1", "-D", str(seconds), "-H", f"authorization: Bearer {token}", url]
    else:
        command = ["wrk", "-t1", "-c64", f"-d{seconds}s", "-H", f"Authorization: Bearer {token}", url]
    out = subprocess.run(["taskset", "-c", "1", *command], check=True, capture_output=True, text=True).stdout
    if h2:
        found = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", out)
        if not found or any(int(found[i]) for i in (2, 3, 4)):
            sys.exit(f"not every answer was a 200:\n{out}")
        return int(found[1])
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"not every answer was a 200:\n{out}")
    return int(re.search(r"(\d+) requests in", out)[1])


def at_rest(pid: int, port: int, count: int, token: str) -> float:
    """KiB of anonymous memory for each of so many connections that have had their answer."""

    def anonymous() -> int:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))

    tls = ssl.create_default_context()
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    request = f"GET /deals/7 HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()

    def client() -> ssl.SSLSocket:
        connection = tls.wrap_socket(socket.create_connection(("127.0.0.1", port)))
        connection.sendall(request)
        if b" 200 " not in connection.recv(65536)[:16]:
            sys.exit("an answer was not a 200")
        return connection

    for one in [client() for _ in range(200)]:
        one.close()
    time.sleep(1)
    before = anonymous()
    clients = [client() for _ in range(count)]
    # Until allocators have given back what they keep for a while.
    time.sleep(12)
    figure = (anonymous() - before) / count
    for one in clients:
        one.close()
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--h2", action="store_true", help="HTTP/2 with h2load instead of HTTP/1.1 with wrk")
    parser.add_argument("--gate", action="append", default=[], metavar="[LABEL=]BINARY", help="a gate to measure; may repeat")
    parser.add_argument("--config", action="append", default=[], metavar="LABEL=TOML", help="more configuration for a gate")
    parser.add_argument("--events", type=int, metavar="N", help="the gate against itself, with N events a second")
    parser.add_argument("--idle", type=int, metavar="N", help="the memory of N connections at rest")
    options = parser.parse_args()
    os.environ[ADMIN_SECRET] = "a-secret-of-the-bench-that-is-long-enough"
    peers = [] if options.events else ["haproxy"]
    for tool in (*peers, "nginx", "openssl", "taskset", "h2load" if options.h2 else "wrk"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is not installed")
    gates = dict((g.split("=", 1) if "=" in g else ("portcullis", g)) for g in options.gate) or {
        "portcullis": str(ROOT / "target/release/portcullis")
    }
    extra = dict(c.split("=", 1) for c in options.config)

    processes: list[subprocess.Popen] = []
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        materials = Materials(folder)
        upstream = free_port()
        try:
            def start(command: list[str], core: int, port: int) -> subprocess.Popen:
                process = subprocess.Popen(
                    ["taskset", "-c", str(core), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                processes.append(process)
                wait_for(port, process)
                return process

            start(nginx_upstream(folder, upstream), 1, upstream)
            if options.events:
                os.sched_setaffinity(0, {1})
                return against_itself(options, next(iter(gates.values())), folder, upstream, materials, start)
            proxies: dict[str, tuple[int, int]] = {}
            for label, check in (("haproxy + JWT", True), ("haproxy, TLS only", False)):
                port = free_port()
                proxies[label] = (start(haproxy(folder, f"h{port}", port, upstream, check), 0, port).pid, port)
            for label, binary in gates.items():
                port = free_port()
                command = gate(pathlib.Path(binary), folder, label, port, upstream, extra.get(label, ""))
                proxies[label] = (start(command, 0, port).pid, port)

            if options.idle:
                for label, (pid, port) in proxies.items():
                    print(f"{label:24}{at_rest(pid, port, options.idle, materials.token):8.1f} KiB each")
                return
            figures: dict[str, list[float]] = {label: [] for label in proxies}
            rates: dict[str, list[float]] = {label: [] for label in proxies}
            for label, (_, port) in proxies.items():
                load(port, 1, materials.token, options.h2)
            for _ in range(options.rounds):
                for label, (pid, port) in proxies.items():
                    before = cpu_seconds(pid)
                    served = load(port, options.seconds, materials.token, options.h2)
                    figures[label].append((cpu_seconds(pid) - before) / served * 1e6)
                    rates[label].append(served / options.seconds)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()

    median = {label: statistics.median(values) for label, values in figures.items()}
    print(f"CPU µs per request over {options.rounds} rounds of {options.seconds} s, {'HTTP/2' if options.h2 else 'HTTP/1.1'}")
    print(f"{'':24}{'median':>8}{'best':>8}{'req/s':>10}{'/ JWT':>8}{'/ TLS':>8}")
    for label, values in figures.items():
        ratios = (median[label] / median[peer] for peer in ("haproxy + JWT", "haproxy, TLS only"))
        print(
            f"{label:24}{median[label]:8.1f}{min(values):8.1f}{statistics.median(rates[label]):10.0f}"
            + "".join(f"{ratio:8.2f}" for ratio in ratios)
        )


if __name__ == "__main__":
    main()
