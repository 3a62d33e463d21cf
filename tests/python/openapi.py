"""Judges the gate's OpenAPI document, then calls the gate by it with schemathesis: with good and bad input, a bounded number of times
in an order that is the same in every run. ADMIN and ADMIN_TOKEN say where the gate is and what opens it. schemathesis loads this
file as well, for the media type that it does not know."""

import os
import subprocess
import sys

import requests
import schemathesis
from openapi_spec_validator import OpenAPIV31SpecValidator

# Good input may still name what does not exist, so not all of it is accepted.
UNFIT = "positive_data_acceptance"


@schemathesis.serializer("application/secevent+jwt")
def security_event_token(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


def main():
    token = f"Bearer {os.environ['ADMIN_TOKEN']}"
    url = f"{os.environ['ADMIN']}/openapi.json"
    document = requests.get(url, headers={"Authorization": token}, timeout=60).json()
    OpenAPIV31SpecValidator(document).validate()
    folder, file = os.path.split(os.path.abspath(__file__))
    command = [
        os.path.join(os.path.dirname(sys.executable), "schemathesis"),
        "run",
        url,
        f"--header=Authorization: {token}",
        "--checks=all",
        f"--exclude-checks={UNFIT}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=5",
        "--generation-deterministic",
        "--continue-on-failure",
        "--suppress-health-check=all",
        "--request-timeout=120",
        "--no-color",
        "--warnings=off",
    ]
    hooks = {"PYTHONPATH": folder, "SCHEMATHESIS_HOOKS": os.path.splitext(file)[0]}
    return subprocess.run(command, env={**os.environ, **hooks}).returncode


if __name__ == "__main__":
    sys.exit(main())
