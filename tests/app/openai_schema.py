"""OpenAI's published schema as a judge of our responses (level L3 of the API reference)."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator

from tests.shared_data import shared_path


def check(value: Any, schema: str) -> None:
    """Fail unless `value` is valid against that component of OpenAI's document."""
    validator = Draft202012Validator({"$ref": f"#/components/schemas/{schema}", **_document()})
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]
    assert not errors, errors


@lru_cache
def _document() -> dict[str, Any]:
    raw = json.loads(shared_path("data/openai-openapi/openapi-subset.json").read_text())
    return {"components": {"schemas": _normalised(raw["components"]["schemas"])}}


def _normalised(schema: Any) -> Any:
    """OpenAPI 3.0 idioms, which the document uses although it says 3.1, as JSON Schema."""
    if isinstance(schema, list):
        return [_normalised(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {key: _normalised(value) for key, value in schema.items() if key != "nullable"}
    for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if plain.get(bound) is True:
            plain[bound] = plain.pop(limit)
        elif plain.get(bound) is False:
            del plain[bound]
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain
