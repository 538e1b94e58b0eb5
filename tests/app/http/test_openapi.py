"""The service's own OpenAPI document."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx2 as httpx

from tests.app.http.judged import Judged, own_document
from tests.app.http.openai_schema import DOCUMENT
from tests.shared_data import shared_path

OPENAIS_BUT_NOT_PUBLISHED = re.compile(
    r"/v1/(webhook_endpoints(/{\w+}(/(rotate_secret|test))?)?|webhook_event_types|organization/(?!erasures|projects/{\w+}/completions_retention).*"
    r"|evals/{eval_id}/runs/{run_id}/cancel)"
)
"""In the official client, but not in the document."""


def operations(judged: Judged) -> list[tuple[str, str, dict[str, Any]]]:
    paths = own_document(judged)["paths"]
    return [
        (m.upper(), path, operation) for path, methods in paths.items() for m, operation in methods.items()
    ]


def test_every_answer_of_every_operation_has_a_type(judged: Judged) -> None:
    for method, path, operation in operations(judged):
        for status, response in operation["responses"].items():
            has_body = status != "204"
            assert bool(response.get("content")) == has_body, f"{method} {path} -> {status}"
            for media, content in response.get("content", {}).items():
                assert content.get("schema"), f"{method} {path} -> {status} {media}"


def test_errors_have_one_form_and_no_operation_speaks_of_422(judged: Judged) -> None:
    for method, path, operation in operations(judged):
        responses = operation["responses"]
        assert {"400", "401", "404", "429", "500", "503"} <= responses.keys(), f"{method} {path}"
        assert "422" not in responses
        for status, response in responses.items():
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorResponse"}, (
                    f"{method} {path} -> {status}"
                )


def test_no_reference_leads_nowhere_and_operations_have_names_of_their_own(judged: Judged) -> None:
    document = own_document(judged)
    schemas = document["components"]["schemas"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= schemas.keys()
    names = [operation["operationId"] for _, _, operation in operations(judged)]
    assert len(set(names)) == len(names)


def test_operations_of_our_own_are_marked_and_no_others(judged: Judged) -> None:
    published = json.loads(shared_path(DOCUMENT).read_text())["paths"]
    known = {
        (method.upper(), re.sub(r"{\w+}", "{}", f"/v1{path}"))
        for path, ms in published.items()
        for method in ms
    }
    for method, path, operation in operations(judged):
        plain = re.sub(r"{\w+(:\w+)?}", "{}", path)
        is_openais = (method, plain) in known or OPENAIS_BUT_NOT_PUBLISHED.fullmatch(path) is not None
        assert bool(operation.get("x-cherry")) != is_openais, f"{method} {path}"


def test_it_is_served_without_a_key(server_url: str, judged: Judged) -> None:
    assert httpx.get(f"{server_url}/openapi.json").json() == own_document(judged)
