"""The JSON Schemas and sample documents that the specification publishes, read from SCHEMA_DIR."""

import glob
import json
import os

import jsonschema
import pytest

import oci


def folder():
    if not os.path.isdir(oci.SCHEMA_DIR):
        pytest.skip(f"no published schemas at {oci.SCHEMA_DIR} (SCHEMA_DIR)")
    return oci.SCHEMA_DIR


def validator(name):
    top = os.path.abspath(folder())
    with open(f"{top}/{name}-schema.json") as file:
        document = json.load(file)
    kind = jsonschema.validators.validator_for(document)
    store = {}
    for path in glob.glob(f"{top}/*.json"):
        with open(path) as file:
            store[f"file://{path}"] = json.load(file)
    return kind(document, resolver=jsonschema.RefResolver(f"file://{top}/{name}-schema.json", document, store=store))


def check(name, document):
    """Fails with the first thing that the schema does not allow."""
    error = jsonschema.exceptions.best_match(validator(name).iter_errors(document))
    assert error is None, f"{name}: {error.json_path if hasattr(error, 'json_path') else list(error.path)}: {error.message}"


def sample(path):
    with open(f"{folder()}/test/{path}") as file:
        return json.load(file)
