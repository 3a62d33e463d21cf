#!/usr/bin/env python3
"""What a shared store costs: three gates on one Redis against three gates with a store of their own.

    cargo build --release && benches/fleet.py [--events 1000] [--tokens 500000] [--seconds 20] [--rounds 3] [--gate PATH]

1. event to refusal: from sending an event to one gate until all three refuse the token, over keep-alive connections
2. live tokens: every token is used over and over on one of the gates; Redis' commands, CPU and memory, and the CPU time
   (utime + stime) of the gates per request, embedded and redis in turns, because a machine's clock drifts
3. a gate at rest: what its mere presence costs
4. the latency of requests while Redis hangs

Needs redis-server, nginx, wrk. Everything listens on loopback, on free ports.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
SECRET = "0123456789abcdef0123456789abcdef"
ADMIN = "admin-secret-of-the-bench-0123456789"
GATES = 3


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def b64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


HEADER = b64(b'{"alg":"HS256","typ":"at+jwt"}')


def token(jti: str, now: int) -> str:
    claims = {"iss": "https://idp.example.com/", "aud": "https://api.example.com", "sub": f"user-{jti}",
              "client_id": "bench", "iat": now, "exp": now + 7200, "jti": jti}
    signed = HEADER + b"." + b64(json.dumps(claims, separators=(",", ":")).encode())
    return (signed + b"." + b64(hmac.digest(SECRET.encode(), signed, hashlib.sha256))).decode()


def cpu(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def wait_for_port(port: int) -> None:
    for _ in range(1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing listens on {port}")


class Redis:
    def __init__(self, folder: pathlib.Path):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "yes", "--appendfsync",
             "everysec", "--dir", str(folder)], stdout=subprocess.DEVNULL)
        wait_for_port(self.port)

    def info(self) -> dict[str, str]:
        return dict(line.split(":", 1) for line in self.ask("INFO", "all").splitlines() if ":" in line)

    def ask(self, *words: str) -> str:
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def calls(self) -> dict[str, int]:
        found = re.findall(r"cmdstat_([^:]+):calls=(\d+)", self.ask("INFO", "commandstats"))
        return {name: int(count) for name, count in found}


class Gate:
    def __init__(self, binary: str, folder: pathlib.Path, upstream: int, state: str):
        folder.mkdir()
        self.public, self.admin, telemetry = free_port(), free_port(), free_port()
        config = folder / "gate.toml"
        config.write_text(f"""
[server]
listen = ["127.0.0.1:{self.public}"]
allow_plaintext = true
workers = 1
[[upstreams]]
name = "api"
url = "http://127.0.0.1:{upstream}"
[[issuers]]
issuer = "https://idp.example.com/"
audiences = ["https://api.example.com"]
algorithms = ["HS256"]
secret = "{SECRET}"
[[routes]]
path = "/{{*rest}}"
upstream = "api"
[telemetry]
listen = "127.0.0.1:{telemetry}"
access_log = false
[state]
on_empty = "trust"
{state}
[admin]
listen = "127.0.0.1:{self.admin}"
[[admin.tokens]]
name = "ops"
secret = "{ADMIN}"
permissions = ["events", "sessions", "authority", "config"]
""")
        log = open(folder / "log", "w")
        self.process = subprocess.Popen([binary, "run", "--config", str(config)], stdout=log, stderr=log)
        for port in (self.public, telemetry, self.admin):
            wait_for_port(port)
        self.telemetry = telemetry
        while self.get(telemetry, "/ready")[0] != 200:
            time.sleep(0.01)

    @staticmethod
    def get(port: int, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def metric(self, name: str) -> float:
        page = self.get(self.telemetry, "/metrics")[1]
        return sum(float(line.split()[-1]) for line in page.splitlines() if line.startswith(name))

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Talk:
    """A connection that asks one thing again and again, as raw bytes."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> int:
        self.socket.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self.socket.recv(65536)
        head, body = answer.split(b"\r\n\r\n", 1)
        length = re.search(rb"content-length: (\d+)", head.lower())
        while length and len(body) < int(length[1]):
            body += self.socket.recv(65536)
        return int(head[9:12])


def events(gates: list[Gate], count: int) -> None:
    now = int(time.time())
    talks = [Talk(gate.public) for gate in gates]
    admins = [Talk(gate.admin) for gate in gates]
    took, acknowledged = [], []
    for i in range(count):
        jti = f"event-{i}"
        request = f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token(jti, now)}\r\n\r\n".encode()
        assert all(talk.ask(request) == 200 for talk in talks)
        body = json.dumps({"type": "token-revoked", "jti": jti})
        post = (f"POST /v1/events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode()
        began = time.perf_counter()
        assert admins[i % GATES].ask(post) == 202
        acknowledged.append(time.perf_counter() - began)
        for talk in talks:
            while talk.ask(request) != 401:
                pass
        took.append(time.perf_counter() - began)
    for name, times in (("acknowledged", acknowledged), ("refused by all three", took)):
        at = statistics.quantiles([t * 1000 for t in times], n=1000)
        print(f"event {name}: median {at[499]:.2f} ms, p99 {at[989]:.2f} ms, worst {max(times) * 1000:.2f} ms ({count} events)")


WRK = """
local requests, at = {}, 0
function init(args)
  for line in io.lines(args[1]) do
    requests[#requests + 1] = wrk.format("GET", "/", { ["Authorization"] = "Bearer " .. line })
  end
end
function request() at = at % #requests + 1 return requests[at] end
"""


def load(gates: list[Gate], folder: pathlib.Path, seconds: int) -> int:
    running = [subprocess.Popen(
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(folder / "tokens.lua"), f"http://127.0.0.1:{gate.public}/",
         "--", str(folder / f"tokens-{index}")], stdout=subprocess.PIPE, text=True) for index, gate in enumerate(gates)]
    total = 0
    for wrk in running:
        out = wrk.communicate()[0]
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        assert not bad, out
        total += int(re.search(r"(\d+) requests in", out)[1])
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gate", default=str(ROOT / "target/release/portcullis"))
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=500_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="portcullis-fleet-") as name:
        folder, started = pathlib.Path(name), []
        try:
            measure(args, folder, started)
        finally:
            for process in started:
                process.kill()
                process.wait()


def measure(args: argparse.Namespace, folder: pathlib.Path, started: list[subprocess.Popen]) -> None:
    upstream = free_port()
    (folder / "nginx.conf").write_text(f"""
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{upstream}; location / {{ return 200 'ok'; }} }} }}
""")
    started.append(subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]))
    wait_for_port(upstream)
    redis = Redis(folder)
    started.append(redis.process)
    kinds = {"redis": f'store = "redis"\nurl = "redis://127.0.0.1:{redis.port}"', "embedded": 'path = "state.db"'}
    fleets = {kind: [Gate(args.gate, folder / f"{kind}-{i}", upstream, state) for i in range(GATES)]
              for kind, state in kinds.items()}
    gates = fleets["redis"]
    started.extend(gate.process for fleet in fleets.values() for gate in fleet)

    before, began = redis.calls(), time.time()
    spent = cpu(redis.process.pid)
    time.sleep(10)
    each = {name: (count - before.get(name, 0)) / (time.time() - began) / GATES for name, count in redis.calls().items()}
    print("a gate at rest, Redis commands per second: "
          + ", ".join(f"{name} {rate:.2f}" for name, rate in sorted(each.items()) if rate > 0.05)
          + f"; {(cpu(redis.process.pid) - spent) / (time.time() - began) / GATES * 1e6:.0f} µs of its CPU per second")
    print(f"connections per gate: {int(redis.info()['connected_clients']) // GATES}")

    if args.events:
        events(gates, args.events)
        stream = int(redis.ask("MEMORY", "USAGE", "portcullis:{portcullis.log}:events", "SAMPLES", "0"))
        print(f"bytes per event in Redis: {stream / args.events:.0f}")

    now = int(time.time())
    files = [open(folder / f"tokens-{i}", "w") for i in range(GATES)]
    for i in range(args.tokens):
        files[i % GATES].write(token(f"t{i}", now) + "\n")
    for file in files:
        file.close()
    (folder / "tokens.lua").write_text(WRK)
    memory, keys = int(redis.info()["used_memory"]), int(redis.ask("DBSIZE").split()[-1])
    per_request = {kind: [] for kind in fleets}
    for round in range(args.rounds + 1):
        for kind, fleet in fleets.items():
            calls, spent = redis.calls(), cpu(redis.process.pid)
            saved = sum(gate.metric("portcullis_state_saved_total") for gate in fleet)
            used, began = sum(cpu(gate.process.pid) for gate in fleet), time.time()
            # The first round proves every signature and fills every table.
            requests = load(fleet, folder, args.seconds * (2 if round == 0 else 1))
            took = time.time() - began
            used = sum(cpu(gate.process.pid) for gate in fleet) - used
            if round:
                per_request[kind].append(used / requests * 1e6)
            line = f"round {round} {kind}: {requests / took:.0f} requests/s, {used / requests * 1e6:.2f} µs CPU per request"
            if kind == "redis":
                total = {n: (c - calls.get(n, 0)) / took for n, c in redis.calls().items()}
                outer = {n: total.get(n, 0) for n in ("evalsha", "xread", "role")}
                wrote = sum(gate.metric("portcullis_state_saved_total") for gate in fleet) - saved
                line += (f"; Redis {sum(outer.values()):.0f} commands/s ({', '.join(f'{n} {c:.0f}' for n, c in outer.items())})"
                         f", {wrote / took:.0f} last uses/s, {(cpu(redis.process.pid) - spent) / took * 100:.1f} % of a core, "
                         f"{(cpu(redis.process.pid) - spent) / max(wrote, 1) * 1e6:.2f} µs each")
            print(line, flush=True)
    time.sleep(3)
    sessions = int(redis.ask("DBSIZE").split()[-1]) - keys
    print(f"sessions in Redis: {sessions}, {(int(redis.info()['used_memory']) - memory) / max(sessions, 1):.0f} bytes each")
    medians = {kind: statistics.median(times) for kind, times in per_request.items() if times}
    if medians:
        ratios = [r / e for r, e in zip(per_request["redis"], per_request["embedded"])]
        print(f"CPU per request: redis {medians['redis']:.2f} µs, embedded {medians['embedded']:.2f} µs, "
              f"ratio {statistics.median(ratios):.3f} (median of {len(ratios)} rounds)")
    print(f"reads while a request waited: {sum(gate.metric('portcullis_state_reads_total') for gate in gates):.0f}")
    outage(gates[0], folder, redis)


def outage(gate: Gate, folder: pathlib.Path, redis: Redis) -> None:
    """Latency with a healthy server and with one that hangs, in turns; max_staleness is 10 s."""
    def p99() -> float:
        out = subprocess.run(
            ["wrk", "-t1", "-c4", "-d6s", "--latency", "-s", str(folder / "tokens.lua"), f"http://127.0.0.1:{gate.public}/",
             "--", str(folder / "tokens-0")], check=True, capture_output=True, text=True).stdout
        assert "Non-2xx" not in out, out
        at, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", out).groups()
        return float(at) * {"us": 0.001, "ms": 1, "s": 1000}[unit]
    healthy, hanging = [], []
    for _ in range(3):
        healthy.append(p99())
        redis.process.send_signal(signal.SIGSTOP)
        hanging.append(p99())
        redis.process.send_signal(signal.SIGCONT)
        while gate.get(gate.telemetry, "/ready")[0] != 200 or gate.metric("portcullis_state_age_seconds") > 2:
            time.sleep(0.1)
    print(f"p99 of requests: {statistics.median(healthy):.2f} ms, while Redis hangs {statistics.median(hanging):.2f} ms")


if __name__ == "__main__":
    main()
