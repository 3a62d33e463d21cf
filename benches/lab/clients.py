"""The clients: load from wrk and h2load on the other core, single requests to judge by, connections that rest."""

import pathlib
import socket
import ssl
import subprocess
import time

from .materials import PATH
from .processes import Running, anonymous_kib
from .report import requests_of_h2load, requests_of_wrk

CORE = "1"
# Every request is made before the run begins; its turn costs wrk one look into a table.
SCRIPT = """
local requests, at = {}, 0
function init(arguments)
  for token in io.lines(arguments[1]) do
    wrk.headers["Authorization"] = "Bearer " .. token
    requests[#requests + 1] = wrk.format("GET")
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
"""


def url(port: int) -> str:
    return f"https://127.0.0.1:{port}{PATH}"


def client(*command: str, seconds: float) -> str:
    done = subprocess.run(["taskset", "-c", CORE, *command], capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode:
        raise ValueError(f"{command[0]} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def wrk(port: int, seconds: int, script: pathlib.Path, tokens: pathlib.Path, close: bool = False) -> tuple[int, int]:
    """64 connections over HTTP/1.1, each token of a file in turn: requests, and those that were denied. With `close` each
    request has a connection of its own, which resumes the TLS session of the one before if the server allows it."""
    headers = ["-H", "Connection: close"] if close else []
    command = ["wrk", "-t1", "-c64", f"-d{seconds}s", *headers, "-s", str(script), url(port), "--", str(tokens)]
    return requests_of_wrk(client(*command, seconds=seconds))


def h2load(port: int, seconds: int, token: str) -> tuple[int, int]:
    """8 connections of 32 streams each over HTTP/2."""
    command = ["h2load", "-c8", "-m32", "-t1", "-D", str(seconds), "-H", f"authorization: Bearer {token}", url(port)]
    return requests_of_h2load(client(*command, seconds=seconds))


def handshakes(port: int, seconds: int, token: str) -> tuple[int, int]:
    """64 new connections at a time over HTTP/1.1, each with a full handshake and one request: h2load never resumes."""
    command = ["h2load", "--h1", "-c64", "-n64", "-t1", "-H", f"authorization: Bearer {token}", url(port)]
    served = denied = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = requests_of_h2load(client(*command, seconds=seconds))
        served, denied = served + found[0], denied + found[1]
    return served, denied


def status(port: int, token: str | None, http2: bool) -> int:
    command = ["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "--max-time", "10"]
    command += ["--http2" if http2 else "--http1.1", *(["-H", f"Authorization: Bearer {token}"] if token else []), url(port)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.split()
    if len(said) != 2 or (said[1] == "2") != http2:
        raise ValueError(f"no answer over HTTP/{'2' if http2 else '1.1'}: {' '.join(said)}")
    return int(said[0])


def tls(protocol: str = "http/1.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([protocol])
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


def request(token: str) -> bytes:
    return f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def connect(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), session=session)


def answered(port: int, context: ssl.SSLContext, token: str, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """A connection over HTTP/1.1 that has had its answer."""
    connection = connect(port, context, session)
    connection.sendall(request(token))
    head = connection.recv(65536)
    if b" 200 " not in head[:16]:
        raise ValueError(f"an answer was not a 200: {head[:80]!r}")
    while b'"}' not in head and (more := connection.recv(65536)):
        head += more
    return connection


def suite_and_resumption(port: int, token: str) -> tuple[str, bool]:
    """The protocol and cipher suite of a connection, and whether the next one resumes its session."""
    context = tls()
    first = answered(port, context, token)
    suite, session = f"{first.version()} {first.cipher()[0]}", first.session
    first.close()
    second = answered(port, context, token, session)
    resumed = second.session_reused
    second.close()
    return suite, bool(resumed)


def h2_frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def hpack_length(value: int) -> bytes:
    """The length of a string that is not Huffman-coded (RFC 7541 §5.1, prefix of seven bits)."""
    if value < 127:
        return bytes([value])
    out, value = bytearray([127]), value - 127
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def h2_request(token: str) -> bytes:
    """The preface, empty settings, and one request with every field as a literal that is not kept."""
    fields = b"\x82\x87"
    for index, value in ((b"\x04", PATH), (b"\x01", "localhost"), (b"\x0f\x08", f"Bearer {token}")):
        fields += index + hpack_length(len(value)) + value.encode()
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + h2_frame(4, 0, 0) + h2_frame(1, 5, 1, fields)


def answered_h2(port: int, context: ssl.SSLContext, token: str) -> ssl.SSLSocket:
    """A connection over HTTP/2 that has had its answer."""
    connection = connect(port, context)
    connection.sendall(h2_request(token))
    received = b""
    while True:
        if not (more := connection.recv(65536)):
            raise ValueError("the connection was closed before the answer")
        received += more
        while len(received) >= 9 and len(received) >= 9 + int.from_bytes(received[:3], "big"):
            length, kind, flags = int.from_bytes(received[:3], "big"), received[3], received[4]
            stream, received = int.from_bytes(received[5:9], "big"), received[9 + length :]
            if kind in (3, 7):
                raise ValueError("the request was reset")
            if kind == 4 and not flags & 1:
                connection.sendall(h2_frame(4, 1, 0))
            if kind in (0, 1) and stream == 1 and flags & 1:
                return connection


def unfinished_head(port: int, context: ssl.SSLContext, token: str) -> ssl.SSLSocket:
    """A connection on which 60 KB of a request head came, in ten fields, and its end did not."""
    fields = "".join(f"X-Filler-{i}: {'x' * 5900}\r\n" for i in range(10))
    connection = connect(port, context)
    connection.sendall(request(token)[:-2] + fields.encode())
    return connection


def is_waiting(connection: ssl.SSLSocket) -> bool:
    """Whether the other side keeps a connection and sent no (further) answer over HTTP/1.1; HTTP/2 has frames of its own."""
    connection.setblocking(False)
    try:
        for _ in range(100):
            received = connection.recv(65536)
            if not received or received.startswith(b"HTTP/"):
                return False
    except ssl.SSLWantReadError:
        return True
    except OSError:
        pass
    return False


class Memory:
    """What one more connection takes: so many of them are opened while others, which are not counted, stay."""

    FIRST, REST = 200, 1.0

    def __init__(self, connection, count: int, warm=answered, protocol: str = "http/1.1"):
        self.connection, self.count, self.warm, self.protocol = connection, count, warm, protocol

    def each(self, running: Running, token: str) -> float:
        """KiB for each connection to a process."""
        context, held = tls(self.protocol), []
        try:
            held += [self.warm(running.port, context, token) for _ in range(self.FIRST)]
            time.sleep(self.REST)
            before = anonymous_kib(running.pid)
            for _ in range(self.count):
                held.append(self.connection(running.port, context, token))
            time.sleep(self.REST)
            after = anonymous_kib(running.pid)
            gone = sum(not is_waiting(one) for one in held[self.FIRST :])
            if gone:
                raise ValueError(f"{gone} of {self.count} connections were closed, or answered early")
            return (after - before) / self.count
        finally:
            for one in held:
                one.close()
