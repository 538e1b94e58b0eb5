"""The judge of all responses, judged."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.testclient import TestClient

from tests.app.http.judged import Judged as JudgedApp
from tests.shared_data import shared_path

FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 3,
    "created_at": 1,
    "filename": "a",
    "purpose": "evals",
    "status": "processed",
}
ERROR = {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}}


@pytest.mark.parametrize(
    ("status", "body", "n_faults"),
    [
        pytest.param(200, FILE, 0, id="right"),
        pytest.param(200, {**FILE, "expires_at": None}, 1, id="null-for-left-out"),
        pytest.param(200, {**FILE, "object": "files"}, 1, id="wrong-literal"),
        pytest.param(201, FILE, 2, id="status-in-neither-document"),
        pytest.param(404, ERROR, 0, id="error"),
        pytest.param(404, {"detail": "Not Found"}, 1, id="the-frameworks-own-error"),
    ],
)
def test_a_response_that_does_not_fit_is_a_fault(status: int, body: dict[str, Any], n_faults: int) -> None:
    shared_path("data/openai-openapi/openapi-subset.json")

    service = FastAPI()
    documented = {200: {}, 404: {}}

    @service.get("/v1/files/{file_id}", responses=documented)
    async def answer(file_id: str) -> JSONResponse:
        return JSONResponse(body, status_code=status)

    judge = JudgedApp(service)
    assert TestClient(judge).get("/v1/files/file-1").json() == body
    assert judge.count == 1
    assert len(judge.faults) == n_faults, judge.faults
