"""Certificate, signing keys, key set, and tokens: good ones by the thousand, and a table of bad ones."""

import base64
import hashlib
import hmac
import json
import pathlib
import secrets
import subprocess
import time

ISSUER, AUDIENCE = "https://idp.example.com/", "https://api.example.com"
PATH = "/deals/7"

# The curve P-256: y² = x³ - 3x + b over the field of P, with the base point G of order N.
P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
# A SubjectPublicKeyInfo of P-256 up to the coordinates of its point.
P256_PUBLIC_KEY = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")

Point = tuple[int, int] | None


def add(a: Point, b: Point) -> Point:
    if a is None or b is None:
        return a or b
    if a[0] == b[0]:
        if (a[1] + b[1]) % P == 0:
            return None
        slope = (3 * a[0] * a[0] - 3) * pow(2 * a[1], -1, P)
    else:
        slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P)
    x = (slope * slope - a[0] - b[0]) % P
    return x, (slope * (a[0] - x) - a[1]) % P


def multiply(factor: int, point: Point) -> Point:
    result = None
    for bit in bin(factor)[2:]:
        result = add(result, result)
        if bit == "1":
            result = add(result, point)
    return result


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args: str, data: bytes | None = None) -> bytes:
    return subprocess.run(["openssl", *args], input=data, check=True, capture_output=True).stdout


class Es256:
    """Signs thousands of tokens a second without a library: each nonce is the one before plus one, which costs a single
    addition of points. Whoever sees two such signatures can compute the key, so it must sign nothing but this."""

    def __init__(self) -> None:
        self.secret, self.nonce = (1 + secrets.randbelow(N // 2) for _ in range(2))
        self.public, self.commitment = multiply(self.secret, G), multiply(self.nonce, G)

    def sign(self, message: bytes) -> bytes:
        self.nonce, self.commitment = self.nonce + 1, add(self.commitment, G)
        digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
        r = self.commitment[0] % N
        s = pow(self.nonce, -1, N) * (digest + r * self.secret) % N
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def coordinates(self) -> tuple[bytes, bytes]:
        return self.public[0].to_bytes(32, "big"), self.public[1].to_bytes(32, "big")

    def pem(self) -> str:
        body = base64.encodebytes(P256_PUBLIC_KEY + b"".join(self.coordinates())).decode()
        return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


class Materials:
    """Everything the proxies and their clients are given, in one folder."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.now = folder, int(time.time())
        self.key, self.cert = folder / "server.key", folder / "server.crt"
        openssl("ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", str(self.key))
        openssl(
            "req", "-x509", "-new", "-key", str(self.key), "-out", str(self.cert), "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        )
        (folder / "server.pem").write_bytes(self.cert.read_bytes() + self.key.read_bytes())
        self.ec, self.other = Es256(), Es256()
        (folder / "ec.pem").write_text(self.ec.pem())
        self.rsa = folder / "rsa.key"
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(self.rsa))
        openssl("pkey", "-in", str(self.rsa), "-pubout", "-out", str(folder / "rsa.pem"))
        modulus = openssl("rsa", "-in", str(self.rsa), "-noout", "-modulus").decode().strip().partition("=")[2]
        x, y = self.ec.coordinates()
        self.jwks = json.dumps({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": b64(x), "y": b64(y)},
            {"kty": "RSA", "kid": "rsa", "alg": "RS256", "n": b64(bytes.fromhex(modulus)), "e": "AQAB"},
        ]})
        (folder / "jwks.json").write_text(self.jwks)
        self.token = self.es256()

    def unsigned(self, alg: str, kid: str, number: int, **other: object) -> str:
        claims = {
            "iss": ISSUER, "aud": AUDIENCE, "sub": f"user-{number}", "client_id": "bench", "scope": "read:deals",
            "roles": ["reader"], "iat": self.now, "exp": self.now + 7200, "jti": f"bench-token-{number}",
        }
        header = {"alg": alg, "typ": "at+jwt", "kid": kid}
        return ".".join(b64(json.dumps(part).encode()) for part in (header, claims | other))

    def es256(self, number: int = 1, signer: Es256 | None = None, **other: object) -> str:
        signed = self.unsigned("ES256", "ec", number, **other)
        return f"{signed}.{b64((signer or self.ec).sign(signed.encode()))}"

    def rs256(self) -> str:
        signed = self.unsigned("RS256", "rsa", 1)
        return f"{signed}.{b64(openssl('dgst', '-sha256', '-sign', str(self.rsa), data=signed.encode()))}"

    def tampered(self, number: int = 1) -> str:
        """A token whose claims are all right and whose signature is not, so that only a verification shows it."""
        signed = self.unsigned("ES256", "ec", number)
        signature = bytearray(self.ec.sign(signed.encode()))
        signature[-1] ^= 1
        return f"{signed}.{b64(bytes(signature))}"

    def bad(self) -> dict[str, str | None]:
        """What a target that checks tokens must reject before its speed means anything."""
        header, claims, signature = self.token.split(".")
        none = self.unsigned("none", "ec", 1)
        symmetric = self.unsigned("HS256", "ec", 1)
        digest = hmac.digest((self.folder / "ec.pem").read_bytes(), symmetric.encode(), hashlib.sha256)
        return {
            "no token": None,
            "a tampered signature": self.tampered(),
            "tampered claims": ".".join((header, self.unsigned("ES256", "ec", 2).split(".")[1], signature)),
            "a signature by another key": self.es256(signer=self.other),
            "a wrong audience": self.es256(aud="https://other.example.com"),
            "a wrong issuer": self.es256(iss="https://other.example.com/"),
            "an expired token": self.es256(iat=self.now - 7200, exp=self.now - 3600),
            "alg none": f"{none}.",
            "alg none with a signature": f"{none}.{signature}",
            "alg HS256 with the public key": f"{symmetric}.{b64(digest)}",
        }
