"""What the benches written in Python share. `benches/compare` is the one to start with."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Before anything loads OpenSSL, which reads it once; child processes inherit it.
os.environ["OPENSSL_CONF"] = str(ROOT / "benches/lab/openssl.cnf")
