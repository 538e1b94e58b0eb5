"""OpenAI's published document as a judge of our responses (level L3 of the API reference)."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator

from methods.messages import CHAT_ROLES
from tests.shared_data import SHARED, shared_path

DOCUMENT = "data/openai-openapi/openapi-subset.json"
STAND_IN = {"type": "string_check", "name": "n", "input": "i", "reference": "r", "operation": "eq"}
PUBLISHED_GRADERS = ("string_check", "text_similarity", "python", "score_model")


class Operation(NamedTuple):
    """One call of the document. `schemas` has the body of each status that it describes."""

    method: str
    path: re.Pattern[str]
    schemas: dict[int, Any]


def check(value: Any, schema: str) -> None:
    """Fail unless `value` is valid against that component of OpenAI's document."""
    errors = _errors(value, {"$ref": f"#/components/schemas/{schema}"})
    assert not errors, errors


def faults_of_response(method: str, path: str, status: int, body: Any) -> list[str]:
    """What OpenAI's document has against a JSON response of ours; nothing for a call that it does not know.

    `path` is below /v1. Errors (4xx, 5xx) have one form, whatever the call.
    """
    if not (SHARED / DOCUMENT).exists():
        return []
    if status >= 400:
        return _errors(body, {"$ref": "#/components/schemas/ErrorResponse"})
    for operation in _operations():
        if operation.method == method and operation.path.fullmatch(path):
            if status not in operation.schemas:
                return [f"status {status} is not among {sorted(operation.schemas)}"]
            schema = operation.schemas[status]
            return [] if schema is None else _errors(_with_stand_ins(body), schema)
    return []


def _errors(value: Any, schema: dict[str, Any]) -> list[str]:
    validator = Draft202012Validator({**schema, **_components()})
    return [f"{error.json_path}: {error.message[:300]}" for error in validator.iter_errors(value)]


def _with_stand_ins(value: Any) -> Any:
    """Where a right answer cannot pass the document (reference, section 2), put what can: graders that
    it does not know or describes wrongly (multi), `paused`, the purpose `evals`, and in stored chats messages
    of anybody but the assistant."""
    if isinstance(value, list):
        return [_with_stand_ins(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: _with_stand_ins(each) for key, each in value.items()}
    if isinstance(criteria := found.get("testing_criteria"), list):
        known = (*PUBLISHED_GRADERS, "label_model")
        found["testing_criteria"] = [one if one.get("type") in known else STAND_IN for one in criteria]
    grader = found.get("grader")
    if isinstance(grader, dict) and grader.get("type") not in PUBLISHED_GRADERS:
        found["grader"] = STAND_IN
    if found.get("object") == "fine_tuning.job" and found.get("status") == "paused":
        found["status"] = "running"
    if "content_parts" in found and found.get("role") in CHAT_ROLES:
        found["role"] = "assistant"
    if found.get("purpose") == "evals":
        found["purpose"] = "user_data"
    return found


@lru_cache
def _document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(shared_path(DOCUMENT).read_text())
    return document


@lru_cache
def _components() -> dict[str, Any]:
    return {"components": {"schemas": _normalised(_document()["components"]["schemas"])}}


@lru_cache
def _operations() -> list[Operation]:
    """Every call, those with fewer variables in their path first."""
    found = []
    for path, calls in _document()["paths"].items():
        for method, call in calls.items():
            if "?" not in path and method in ("get", "post", "delete"):
                pattern = re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path)))
                schemas = {int(status): _json_schema(r) for status, r in call["responses"].items()}
                found.append((path.count("{"), Operation(method.upper(), pattern, schemas)))
    return [operation for _, operation in sorted(found, key=itemgetter(0))]


def _json_schema(response: dict[str, Any]) -> Any:
    content = response.get("content", {}).get("application/json")
    return None if content is None else _normalised(content["schema"])


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
