#!/usr/bin/env python3
"""What events cost the requests they arrive beside: the gate against itself, interleaved in one run.

Three states in turn: idle clocks and the durable store off; both on; both on, with N role changes a second (of other
subjects, in batches of ten) posted to the admin listener. The figure is the CPU time of the worker thread for each request;
that of the other threads, which take the events in, stands beside it. One worker on core 0; load and upstream on core 1.

    cargo build --release && benches/during_events.py [--events 1000] [--rounds 9] [--seconds 3] [--h2] [--gate PATH]

Needs nginx, wrk (h2load for --h2) and openssl. Everything listens on loopback, on free ports.
"""

import argparse
import http.client
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

from lab import ROOT, clients, proxies, report, tools
from lab.materials import ISSUER, Materials
from lab.processes import Processes, TargetFailed, free_port, thread_seconds

OFF = '[state]\nstore = "memory"\non_empty = "trust"\n[sessions]\nidle_timeout = "0s"'


class Events(threading.Thread):
    """Posts role changes of ever new subjects, in batches of ten, so many a second."""

    BATCH = 10

    def __init__(self, port: int, rate: int, start: int):
        super().__init__()
        self.port, self.rate, self.sent, self.start_at, self.stopping = port, rate, 0, start, threading.Event()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        headers = {"authorization": f"Bearer {os.environ[proxies.ADMIN_SECRET]}", "content-type": "application/json"}
        began = time.monotonic()
        while not self.stopping.wait(max(0.0, began + self.sent / self.rate - time.monotonic())):
            events = [
                {"type": "role-changed", "issuer": ISSUER, "subject": f"other-{self.start_at + self.sent + i}"}
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


def measure(options: argparse.Namespace, folder: pathlib.Path, processes: Processes) -> dict[str, list[tuple[float, float, float]]]:
    """For each state and round: µs of the worker for each request, ms/s of the other threads, events a second."""
    made, upstream = Materials(folder), free_port()
    processes.start("the upstream", proxies.nginx_upstream(folder, upstream, tools.find("nginx")), 1, upstream)
    script, tokens = folder / "requests.lua", folder / "tokens"
    script.write_text(clients.SCRIPT)
    tokens.write_text(f"{made.token}\n")

    def load(port: int, seconds: int) -> int:
        served, denied = clients.h2load(port, seconds, made.token) if options.h2 else clients.wrk(port, seconds, script, tokens)
        if denied or not served:
            raise ValueError(f"{denied} of {served} requests were denied")
        return served

    gates = {}
    for label, extra in (("on", ""), ("off", OFF)):
        port, admin = free_port(), free_port()
        command = proxies.gate(options.gate, made, port, upstream, extra=extra, admin=admin)
        gates[label] = (processes.start(label, command, 0, port).pid, port, admin)
        load(port, 1)
    os.sched_setaffinity(0, {1})
    states = {"off": ("off", 0), "on": ("on", 0), f"on, {options.events} events/s": ("on", options.events)}
    figures: dict[str, list[tuple[float, float, float]]] = {label: [] for label in states}
    posted = 0
    for _ in range(options.rounds):
        for label, (name, rate) in states.items():
            pid, port, admin = gates[name]
            events = Events(admin, rate, posted)
            if rate:
                events.start()
            try:
                before, began = thread_seconds(pid), time.monotonic()
                served = load(port, options.seconds)
                workers, others = (after - start for after, start in zip(thread_seconds(pid), before))
                took = time.monotonic() - began
            finally:
                events.stopping.set()
                if rate:
                    events.join()
            posted += events.sent
            figures[label].append((workers / served * 1e6, others / took * 1e3, events.sent / took))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1000, metavar="N", help="so many events a second")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--h2", action="store_true", help="HTTP/2 with h2load instead of HTTP/1.1 with wrk")
    parser.add_argument("--gate", default=str(ROOT / "target/release/portcullis"), metavar="BINARY")
    options = parser.parse_args()
    options.gate = str(pathlib.Path(options.gate).resolve())
    try:
        tools.require_load(may_install=False)
        with tempfile.TemporaryDirectory() as name, Processes(pathlib.Path(name)) as processes:
            os.chmod(name, 0o755)
            figures = measure(options, pathlib.Path(name), processes)
    except (RuntimeError, ValueError, TargetFailed) as error:
        sys.exit(str(error))
    workers = {label: [row[0] for row in rows] for label, rows in figures.items()}
    rows = [["CPU µs of the worker for each request", "median (best)", "/ off", "/ on", "other threads, ms/s", "events/s"]]
    for label, found in figures.items():
        others, sent = (statistics.median(row[i] for row in found) for i in (1, 2))
        ratios = [report.factor(report.ratio(workers[label], workers[to])) for to in ("off", "on")]
        rows.append([label, report.cell(workers[label]), *ratios, f"{others:.1f}", f"{sent:.0f}"])
    print(report.as_text(rows))


if __name__ == "__main__":
    main()
