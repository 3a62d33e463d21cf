"""Judges documents by a JSON Schema: the first line of input is the schema, each further line is a document, and each line of
output is `valid` or where the first mistake is."""

import json
import sys

import jsonschema
import jsonschema_rs

schema = json.loads(sys.stdin.readline())
# The schema itself is one of the draft that it names, by the reference implementation.
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema_rs.Draft202012Validator(schema)
for line in sys.stdin:
    error = next(validator.iter_errors(json.loads(line)), None)
    place = error and "/".join(map(str, error.instance_path))
    print(json.dumps(f"/{place}: {error.message}") if error else "valid", flush=True)
