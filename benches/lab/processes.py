"""Child processes pinned to a core: started, waited for, measured, and ended whatever happens."""

import ctypes
import os
import pathlib
import signal
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class TargetFailed(Exception):
    """What a target did that makes its figures worthless."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def family(pid: int) -> list[int]:
    """A process and what it started: nginx serves in a child."""
    found = [pid]
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time of all threads of a process and its children."""
    user = system = 0
    for member in family(pid):
        fields = pathlib.Path(f"/proc/{member}/stat").read_text().rsplit(")", 1)[1].split()
        user, system = user + int(fields[11]), system + int(fields[12])
    return user / TICKS, system / TICKS


def thread_seconds(pid: int) -> tuple[float, float]:
    """Processor time of a gate's worker threads, and of all others."""
    workers = others = 0
    for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
        nanos = int((task / "schedstat").read_text().split()[0])
        if (task / "comm").read_text().startswith("worker-"):
            workers += nanos
        else:
            others += nanos
    return workers / 1e9, others / 1e9


def anonymous_kib(pid: int) -> int:
    """Memory that is no file's, of a process and its children."""
    total = 0
    for member in family(pid):
        lines = pathlib.Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:"))
    return total


def _die_with_parent() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Running:
    """One process that listens, and the file its output goes to."""

    def __init__(self, name: str, command: list[str], core: int, port: int, log: pathlib.Path):
        self.name, self.port, self.log = name, port, log
        with log.open("wb") as output:
            # A group of its own, which can be ended as a whole.
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                cwd=log.parent, start_new_session=True, preexec_fn=_die_with_parent,
            )
        self.pid = self.process.pid

    def wait(self, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise TargetFailed(self.said(f"ended with {self.process.returncode}"))
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise TargetFailed(self.said(f"does not listen on port {self.port}"))

    def said(self, what: str) -> str:
        """What went wrong, with the last lines of the process' log."""
        lines = self.log.read_text(errors="replace").splitlines()[-8:]
        return "\n".join([f"{self.name}: {what}", *(f"    {line}" for line in lines)])

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def end(self, signal_number: int) -> None:
        try:
            os.killpg(self.pid, signal_number)
        except ProcessLookupError:
            pass


class Processes:
    """Everything one run started; leaving the block ends it."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.running, self.count = folder, [], 0

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.end(self.running)

    def start(self, name: str, command: list[str], core: int, port: int) -> Running:
        self.count += 1
        running = Running(name, command, core, port, self.folder / f"{self.count}.log")
        self.running.append(running)
        running.wait()
        return running

    def end(self, which: list[Running]) -> None:
        which = list(which)
        for running in which:
            running.end(signal.SIGTERM)
        deadline = time.monotonic() + 5
        for running in which:
            try:
                running.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            # Also what a process left behind in its group.
            running.end(signal.SIGKILL)
            running.process.wait()
            if running in self.running:
                self.running.remove(running)
