"""Requests made up from the service's own document: no fault of ours, no answer that it does not describe.

A short run; `make fuzz` makes many more requests for each operation.
"""

from __future__ import annotations

import os
from typing import Any
from zlib import crc32

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case, checks
from sqlalchemy.orm import Session

from app.main import create_app
from app.settings import Settings
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_eval,
    make_eval_run,
    make_file,
    make_job,
    make_output_item,
    make_stored_chat,
    make_stored_response,
    make_upload,
)

EXAMPLES = int(os.environ.get("CHERRY_FUZZ_EXAMPLES", "4"))
CHECKS = (
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
)

app = create_app(
    Settings(DATABASE_URL="postgresql://nobody@nowhere/nothing", broker_url="filesystem://nowhere")
)
schema = schemathesis.openapi.from_dict(app.openapi())


@pytest.fixture
def known_ids(db: Session, tenant: Tenant) -> dict[str, str]:
    """Path variables that lead to something, so that requests come further than "no such object"."""
    job = make_job(db, tenant.project_id, status="succeeded")
    checkpoint = make_checkpoint(db, job, 1, {"model/config.json": b"{}"})
    file, upload = make_file(db, tenant.project_id), make_upload(db, tenant.project_id)
    completion = make_stored_chat(db, tenant.project_id)
    response = make_stored_response(db, tenant.project_id)
    run = make_eval_run(db, make_eval(db, tenant.project_id))
    item = make_output_item(db, run)
    db.commit()
    return {
        "eval_id": run.eval_id,
        "run_id": run.id,
        "output_item_id": item.id,
        "job_id": job.id,
        "checkpoint_id": checkpoint.id,
        "file_id": file.id,
        "upload_id": upload.id,
        "model": "cherry-nano",
        "completion_id": completion.id,
        "response_id": response.id,
    }


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES < 50,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_made_up_requests_are_answered_as_documented(
    case: Case, server_url: str, tenant: Tenant, known_ids: dict[str, str]
) -> None:
    if crc32(repr(case.query).encode()) % 4:  # mostly the real object
        case.path_parameters = {**case.path_parameters, **_known(case, known_ids)}
    headers = {"authorization": f"Bearer {tenant.key}"}
    response = case.call(base_url=server_url, headers=headers, timeout=30)
    case.validate_response(response, checks=CHECKS)


def _known(case: Case, known_ids: dict[str, str]) -> dict[str, Any]:
    return {name: known_ids[name] for name in case.path_parameters if name in known_ids}
