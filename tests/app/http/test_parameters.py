"""Hostile values in every path and query of API and dashboard: no fault of ours, no text read as a number.

A short run; `make fuzz` tries every value in every place.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from typing import NamedTuple

import httpx2 as httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from tests.app.routes import walk
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_dataset,
    make_erasure,
    make_feedback,
    make_file,
    make_job,
    make_rollout,
    make_stored_chat,
    make_stored_response,
    make_upload,
)

NO_NUMBERS = [
    "4294967296",
    "2147483648",
    "-2147483649",
    "9223372036854775808",
    "-9223372036854775809",
    "-1",
    "9" * 40,
    "9" * 4000,
    "1e3",
    "1.5",
    "NaN",
    "0x10",
    "",
    "+",
    "true",
    "null",
    "[]",
    "%e2%80%ae",
    "..%2f..%2fetc",
    "'%3b--",
    "x" * 300,
    "%f0%9f%8d%92" * 100,
]
"""Values as they stand in a URL: numbers beyond the columns of Postgres, and what no column holds."""
UNREADABLE = [
    "%00",
    "a%00b",
    "%1f",
    "%ed%a0%80",
    "%f4%90%80%80",
    "%ff",
    "\ud800".encode("utf-8", "surrogatepass").hex("%"),
]
"""NUL, other control characters, halves of surrogate pairs and what else is no UTF-8."""
HOSTILE = NO_NUMBERS + UNREADABLE
TRIED = int(os.environ.get("CHERRY_HOSTILE_VALUES", "2"))
"""Values for each parameter of the API; the dashboard's always get all."""


class Parameter(NamedTuple):
    """A parameter of an operation that reads."""

    path: str
    name: str
    is_in_path: bool


def parameters(app: FastAPI) -> Iterator[Parameter]:
    for route in walk(app.routes):
        if isinstance(route, APIRoute) and "GET" in route.methods:
            for name in re.findall(r"{(\w+)(?::path)?}", route.path):
                yield Parameter(route.path, name, True)
            for field in route.dependant.query_params:
                yield Parameter(route.path, field.alias, False)


@pytest.fixture
def known_ids(db: Session, tenant: Tenant) -> dict[str, str]:
    """Path variables that lead to something, so that the query is read."""
    job = make_job(db, tenant.project_id, status="succeeded")
    make_rollout(db, job, 1, 0)
    checkpoint = make_checkpoint(db, job, 1, {"model/config.json": b"{}"})
    file, upload = make_file(db, tenant.project_id), make_upload(db, tenant.project_id)
    completion = make_stored_chat(db, tenant.project_id)
    response = make_stored_response(db, tenant.project_id)
    dataset, feedback = make_dataset(db, tenant.project_id), make_feedback(db, completion)
    erasure = make_erasure(db, tenant)
    db.commit()
    return {
        "dataset_id": dataset.id,
        "feedback_id": feedback.id,
        "erasure_id": erasure.id,
        "job_id": job.id,
        "checkpoint_id": checkpoint.id,
        "file_id": file.id,
        "upload_id": upload.id,
        "model": "cherry-nano",
        "completion_id": completion.id,
        "response_id": response.id,
        "project_id": tenant.project_id,
        "fine_tuned_model_checkpoint": checkpoint.model_name,
    }


@pytest.fixture
def visitor(http: httpx.Client, tenant: Tenant) -> httpx.Client:
    """Somebody who has signed in to the dashboard."""
    assert http.post("/dashboard/login", data={"key": tenant.key}).status_code == 303
    return http


def url_of(parameter: Parameter, value: str, known_ids: dict[str, str]) -> str:
    def put(variable: re.Match[str]) -> str:
        is_meant = parameter.is_in_path and variable[1] == parameter.name
        return value if is_meant else known_ids.get(variable[1], "unknown")

    path = re.sub(r"{(\w+)(?::path)?}", put, parameter.path)
    return path if parameter.is_in_path else f"{path}?{parameter.name}={value}"


def test_no_value_of_a_parameter_makes_a_fault(
    service: FastAPI, visitor: httpx.Client, admin: httpx.Client, known_ids: dict[str, str]
) -> None:
    chance = random.Random(0)
    every = list(parameters(service))
    assert {"/dashboard/jobs/{job_id}/rollouts", "/v1/files"} <= {parameter.path for parameter in every}
    for parameter in every:
        is_all = parameter.path.startswith("/dashboard") or len(HOSTILE) <= TRIED
        caller = admin if parameter.path.startswith("/v1/organization") else visitor
        for value in HOSTILE if is_all else chance.sample(HOSTILE, TRIED):
            response = caller.get(url_of(parameter, value, known_ids))
            assert response.status_code < 500, (parameter, value, response.text)
            assert value not in UNREADABLE or response.status_code in (400, 404), (parameter, value)


def test_what_is_no_step_is_refused(
    visitor: httpx.Client, known_ids: dict[str, str], subtests: pytest.Subtests
) -> None:
    path = f"/dashboard/jobs/{known_ids['job_id']}/curves"
    assert visitor.get(f"{path}?since=1").status_code == 200
    for value in HOSTILE:
        with subtests.test(value[:40]):
            response = visitor.get(f"{path}?since={value}")
            assert response.status_code == 400
            assert response.json()["error"]["type"] == "invalid_request_error"


FORMS = [
    ("application/x-www-form-urlencoded", b"key=%00"),
    ("application/x-www-form-urlencoded", b"key=\x00\xff\xed\xa0\x80"),
    ("application/x-www-form-urlencoded", b"key=%ed%a0%80&key=%ff"),
    ("application/x-www-form-urlencoded", b"key=" + b"x" * 5000),
    ("application/x-www-form-urlencoded; charset=utf-7", b"key=a"),
    ("application/x-www-form-urlencoded", b"&" * 5000),
    ("multipart/form-data", b"--x"),
    ("multipart/form-data; boundary=x", b"no part"),
    (
        "multipart/form-data; boundary=x; charset=no-charset",
        b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\na\r\n--x--\r\n',
    ),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="key"; filename="a"\r\n\r\na\r\n--x--\r\n',
    ),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\n\x00\xff\r\n--x--\r\n',
    ),
    ("application/json", b'{"key": "a"}'),
    ("", b"key=a"),
]


def test_no_form_at_the_door_makes_a_fault(http: httpx.Client, subtests: pytest.Subtests) -> None:
    for media_type, body in FORMS:
        with subtests.test(f"{media_type} {body[:40]!r}"):
            response = http.post("/dashboard/login", content=body, headers={"content-type": media_type})
            assert response.status_code in (400, 401)


BODIES = [b"", b"{}", b"[]", b'{"event_type": "none", "name": 1}']


def test_an_object_that_is_not_there_is_not_found_whatever_the_body(
    service: FastAPI, visitor: httpx.Client, admin: httpx.Client, subtests: pytest.Subtests
) -> None:
    paths = [
        route.path for route in walk(service.routes) if "POST" in (route.methods or ()) and "{" in route.path
    ]
    assert "/v1/webhook_endpoints/{webhook_endpoint_id}/test" in paths
    for path in paths:
        caller = admin if path.startswith("/v1/organization") else visitor
        with subtests.test(path):
            for body in BODIES:
                url = re.sub(r"{\w+}", "unknown", path)
                response = caller.post(url, content=body, headers={"content-type": "application/json"})
                refused = (400, 403, 404) if path.startswith("/dashboard") else (404,)  # forms look first
                assert response.status_code in refused, (body, response.text)
