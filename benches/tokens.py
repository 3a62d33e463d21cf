#!/usr/bin/env python3
"""Tokens per second of the embedded authority, and what issuing them does to the requests it stands beside.

One gate with one worker pinned to core 0 and a SQLite store with --credentials application credentials; the load (wrk)
and the upstream (nginx) share core 1. First token requests for random credentials as fast as they are answered; then
requests of the API at a steady rate, in turns alone, beside 1,000 more of the kind a second, and beside 1,000 token
requests a second. The clients share a core, so what a second load does to the first one's clock is in the middle
figure; what the gate's own histogram of enforcement says is not touched by that.

    cargo build --release && benches/tokens.py [--credentials 100000] [--rounds 5] [--seconds 5] [--algorithm ES256]

Needs nginx, wrk and openssl. Everything listens on loopback, on free ports.
"""

import argparse
import concurrent.futures
import http.client
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import urllib.parse

from lab import ROOT
from lab.materials import Materials
from lab.processes import Processes, cpu_seconds, free_port
from lab.proxies import nginx_upstream

TOKENS = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
wrk.method = "POST"
wrk.headers["content-type"] = "application/x-www-form-urlencoded"
function request() return wrk.format(nil, nil, nil, bodies[math.random(#bodies)]) end
%s
"""
PACED = "function delay() return %d end"


def configuration(folder: pathlib.Path, ports: dict[str, int], algorithm: str) -> str:
    issuer = f"https://127.0.0.1:{ports['gate']}"
    path = folder / "gate.toml"
    path.write_text(f"""
[server]
listen = ["127.0.0.1:{ports['gate']}"]
workers = 1
[server.tls]
certificate = "server.crt"
private_key = "server.key"
[[upstreams]]
name = "api"
url = "http://127.0.0.1:{ports['upstream']}"
[[issuers]]
issuer = "{issuer}"
audiences = ["{issuer}"]
authority = true
[authority]
issuer = "{issuer}"
audience = "{issuer}"
signing_algorithm = "{algorithm}"
scopes = ["read:deals"]
[[routes]]
path = "/deals/{{*rest}}"
upstream = "api"
scopes = ["read:deals"]
[telemetry]
listen = "127.0.0.1:{ports['telemetry']}"
access_log = false
[admin]
listen = "127.0.0.1:{ports['admin']}"
[[admin.tokens]]
name = "bench"
secret = "bench-secret-of-the-admin"
permissions = ["authority"]
""")
    return str(path)


class Admin:
    """One kept connection for each thread."""

    def __init__(self, port: int):
        self.port, self.local = port, threading.local()

    def post(self, path: str, body: dict) -> dict:
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"authorization": "Bearer bench-secret-of-the-admin", "content-type": "application/json"}
        self.local.connection.request("POST", path, json.dumps(body), headers)
        answer = self.local.connection.getresponse()
        document = json.load(answer)
        if answer.status != 201:
            sys.exit(f"{path} answered {answer.status}: {document}")
        return document


def populate(admin: Admin, count: int) -> list[str]:
    users = max(count // 100, 1)

    def user(number: int) -> None:
        admin.post("/v1/users", {"id": f"user-{number}", "name": "", "roles": ["reader"]})

    def credential(number: int) -> str:
        made = admin.post("/v1/credentials", {
            "name": f"application {number}", "owner": f"user-{number % users}", "roles": ["reader"],
            "scopes": ["read:deals"],
        })
        return urllib.parse.urlencode({
            "grant_type": "client_credentials", "client_id": made["client_id"], "client_secret": made["client_secret"],
        })

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(user, range(users)))
        return list(pool.map(credential, range(count)))


def wrk(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(["taskset", "-c", "1", "wrk", *arguments], stdout=subprocess.PIPE, text=True)


def outcome(process: subprocess.Popen) -> tuple[int, float]:
    """How many requests were answered, and the 99th percentile in milliseconds."""
    out = process.communicate()[0]
    if process.returncode or "Non-2xx" in out or "Socket errors" in out:
        sys.exit(f"not every answer was a 200:\n{out}")
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
    factor = {"us": 1e-3, "ms": 1, "s": 1e3}[p99[2]] if p99 else 0
    return int(re.search(r"(\d+) requests in", out)[1]), float(p99[1]) * factor if p99 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--credentials", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--algorithm", default="ES256")
    parser.add_argument("--gate", default=str(ROOT / "target/release/portcullis"))
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as name, Processes(pathlib.Path(name)) as processes:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        Materials(folder)
        ports = {listener: free_port() for listener in ("gate", "admin", "upstream", "telemetry")}
        base = f"https://127.0.0.1:{ports['gate']}"
        processes.start("the upstream", nginx_upstream(folder, ports["upstream"]), 1, ports["upstream"])
        gate = str(pathlib.Path(options.gate).resolve())
        command = [gate, "run", "--config", configuration(folder, ports, options.algorithm)]
        pid = processes.start("the gate", command, 0, ports["gate"]).pid
        bodies = populate(Admin(ports["admin"]), options.credentials)
        (folder / "bodies").write_text("\n".join(bodies))
        as_fast, paced = folder / "fast.lua", folder / "paced.lua"
        as_fast.write_text(TOKENS % (folder / "bodies", ""))
        # 16 connections, each about every 15 ms: close to 1,000 a second.
        paced.write_text(TOKENS % (folder / "bodies", PACED % 15))
        steady = folder / "steady.lua"
        steady.write_text(PACED % 4)

        rates, costs = [], []
        for _ in range(options.rounds):
            before = sum(cpu_seconds(pid))
            load = wrk("-t1", "-c16", f"-d{options.seconds}s", "-s", str(as_fast), f"{base}/oauth/token")
            issued, _ = outcome(load)
            costs.append((sum(cpu_seconds(pid)) - before) / issued * 1e6)
            rates.append(issued / options.seconds)
        rss = re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())
        print(f"{options.credentials:,} credentials, {options.algorithm}, {int(rss[1]) / 1024:.0f} MiB resident")
        print(f"tokens/s on one core: median {statistics.median(rates):,.0f}, "
              f"{statistics.median(costs):.1f} CPU µs each")

        request = urllib.parse.parse_qs(bodies[0])
        busy = folder / "busy.lua"
        busy.write_text(PACED % 15)
        token = fetch(base, folder / "server.crt", {key: values[0] for key, values in request.items()})
        api = ["-H", f"Authorization: Bearer {token}", f"{base}/deals/7"]
        others = {
            "alone": None,
            "beside 1,000 more a second": ["-s", str(busy), *api],
            "beside 1,000 tokens a second": ["-s", str(paced), f"{base}/oauth/token"],
        }
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in others}
        for _ in range(options.rounds):
            for name, more in others.items():
                duration = f"-d{options.seconds}s"
                before = enforcement(ports["telemetry"])
                other = wrk("-t1", "-c16", duration, *more) if more else None
                served, p99 = outcome(wrk("-t1", "-c8", duration, "--latency", "-s", str(steady), *api))
                if other:
                    outcome(other)
                judged = percentile(before, enforcement(ports["telemetry"]))
                found[name].append((p99, judged))
        print(f"99th percentiles of API requests at {served / options.seconds:,.0f}/s, medians of {options.rounds} rounds")
        for name, figures in found.items():
            p99, judged = (statistics.median(values) for values in zip(*figures))
            print(f"  {name:30}{p99:8.3f} ms as the client sees it, {judged:6.2f} µs in enforcement")


def enforcement(port: int) -> list[tuple[float, float]]:
    """The buckets of the time spent deciding on tokens that were seen before."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics")
    page = connection.getresponse().read().decode()
    wanted = r'portcullis_enforce_duration_seconds_bucket{proof="cached",le="([^"]+)"} (\d+)'
    return [(float(bound), float(count)) for bound, count in re.findall(wanted, page)]


def percentile(before: list[tuple[float, float]], after: list[tuple[float, float]]) -> float:
    """The 99th percentile of what came between two readings, in µs, evenly spread within its bucket."""
    counts = [(bound, count - old) for (bound, count), (_, old) in zip(after, before)]
    wanted, low, under = counts[-1][1] * 0.99, 0.0, 0.0
    for bound, count in counts:
        if count >= wanted:
            return (low + (bound - low) * (wanted - under) / max(count - under, 1)) * 1e6
        low, under = bound, count
    return low * 1e6


def fetch(base: str, root: pathlib.Path, fields: dict[str, str]) -> str:
    data = urllib.parse.urlencode(fields)
    command = ["curl", "-sS", "--cacert", str(root), "-d", "@-", f"{base}/oauth/token"]
    out = subprocess.run(command, input=data, check=True, capture_output=True, text=True).stdout
    return json.loads(out)["access_token"]


if __name__ == "__main__":
    main()
