"""Runs a program as a systemd unit would let it: filtered.py UNIT PROGRAM [ARGUMENTS].

systemd is not the first process where tests run, so this reads the unit and sets what needs no systemd: the system calls of
SystemCallFilter, MemoryDenyWriteExecute, RestrictAddressFamilies, LimitNOFILE, NoNewPrivileges, no capabilities, and a user
without rights when it is root itself. What the filter leaves out ends the process, where the unit says EPERM: a call that a
program can do without is found as well.
"""

import ctypes
import errno
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
EQUAL, MASKED_EQUAL = 4, 7
NO_NEW_PRIVILEGES, DROP_FROM_BOUNDING_SET, LAST_CAPABILITY = 38, 24, 63
USER = 65532


class Comparison(ctypes.Structure):
    _fields_ = [("argument", ctypes.c_uint), ("operator", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def settings(unit):
    lines = [line for line in Path(unit).read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [tuple(line.split("=", 1)) for line in lines]


def calls_of(name):
    """The system calls of a set such as @file-system, with those of the sets that it includes."""
    if not name.startswith("@"):
        return {name}
    printed = subprocess.run(["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True).stdout
    members = [line.strip() for line in printed.splitlines()[1:] if line.strip() and not line.strip().startswith("#")]
    return set().union(*(calls_of(member) for member in members))


def allowed(unit):
    calls = calls_of("@default")
    for value in (value for key, value in settings(unit) if key == "SystemCallFilter"):
        named = set().union(*(calls_of(name) for name in value.lstrip("~").split()))
        calls = calls - named if value.startswith("~") else calls | named
    return calls | calls_of("@default")


def filter_for(unit, library):
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(KILL)))

    def rule(action, call, *comparisons):
        number = library.seccomp_syscall_resolve_name(call.encode())
        array = (Comparison * len(comparisons))(*comparisons)
        # A call of another architecture has a negative number here.
        failed = number >= 0 and library.seccomp_rule_add_array(context, ctypes.c_uint32(action), number, len(comparisons), array)
        if failed:
            sys.exit(f"{call}: {os.strerror(-failed)}")

    families = dict(settings(unit))["RestrictAddressFamilies"].split()
    for call in sorted(allowed(unit) - {"mmap", "mprotect", "socket"}):
        rule(ALLOW, call)
    for protection in (0x0, 0x1, 0x2, 0x3, 0x4, 0x5):  # every one but write with execute
        rule(ALLOW, "mmap", Comparison(2, MASKED_EQUAL, 0x7, protection))
    for protection in (0x0, 0x1, 0x2, 0x3):  # every one without execute
        rule(ALLOW, "mprotect", Comparison(2, MASKED_EQUAL, 0x7, protection))
    for family in families:
        rule(ALLOW, "socket", Comparison(0, EQUAL, getattr(socket, family), 0))
    # The C library asks for it when it looks up names, and does without.
    rule(ERRNO | errno.EAFNOSUPPORT, "socket", Comparison(0, EQUAL, socket.AF_NETLINK, 0))
    return context


def main():
    unit, *program = sys.argv[1:]
    assert dict(settings(unit))["MemoryDenyWriteExecute"] == "yes" and dict(settings(unit))["NoNewPrivileges"] == "yes"
    files = int(dict(settings(unit))["LimitNOFILE"])
    library, system = ctypes.CDLL("libseccomp.so.2"), ctypes.CDLL(None)
    context = filter_for(unit, library)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, files if hard == resource.RLIM_INFINITY else min(files, hard)))
    for capability in range(LAST_CAPABILITY + 1):
        system.prctl(DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)
    # Opened before, because its folder may be root's.
    executable = os.open(program[0], os.O_PATH)
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    system.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if library.seccomp_load(context):
        sys.exit("the filter cannot be loaded")
    os.execve(executable, program, os.environ)


main()
