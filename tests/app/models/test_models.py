"""/v1/models, and which of them a job may start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.models import service as models
from tests.app.answers import error_of
from tests.app.http import openai_schema
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_job,
    make_model,
    make_tenant,
    make_tuned_model,
)
from tests.model_folders import write


def test_a_tuned_model_and_a_kept_checkpoint_can_be_tuned_on(
    client: openai.OpenAI, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    source = make_job(db, tenant.project_id, status="succeeded")
    model, kept = make_tuned_model(db, source), make_checkpoint(db, source, 4)
    db.commit()
    for name in (model.name, kept.model_name):
        job = client.fine_tuning.jobs.create(**job_body | {"model": name})
        assert job.model == name


def test_checkpoints_that_are_dropped_or_anothers_cannot_be_tuned_on(
    http: httpx.Client, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    other = make_job(db, make_tenant(db, "other").project_id, status="succeeded")
    mine = make_job(db, tenant.project_id, status="succeeded")
    names = [make_checkpoint(db, other, 4).model_name]
    names.append(make_checkpoint(db, mine, 4, storage_key=None).model_name)
    db.commit()
    for name in names:
        error = error_of(http.post("/v1/fine_tuning/jobs", json=job_body | {"model": name}))
        assert (error["param"], error["code"]) == ("model", "model_not_available")
        assert http.get(f"/v1/models/{name}").status_code == 404


def test_a_checkpoint_is_a_model_that_no_list_shows_and_nobody_deletes(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    kept = make_checkpoint(db, make_job(db, tenant.project_id, status="succeeded"), 4)
    db.commit()
    assert client.models.retrieve(kept.model_name).owned_by == tenant.organization_id
    assert kept.model_name not in [model.id for model in client.models.list()]
    with pytest.raises(openai.PermissionDeniedError, match="stays with its job"):
        client.models.delete(kept.model_name)


def test_an_alias_stands_for_its_base_model(
    client: openai.OpenAI, db: Session, tenant: Tenant, job_body: dict[str, Any]
) -> None:
    models.add_alias(db, "o4-mini-2025-04-16", "cherry-nano")
    db.commit()
    job = client.fine_tuning.jobs.create(**job_body | {"model": "o4-mini-2025-04-16"})
    assert job.model == "cherry-nano"
    assert client.models.retrieve("o4-mini-2025-04-16").id == "cherry-nano"
    with pytest.raises(openai.PermissionDeniedError, match="alias"):
        client.models.delete("o4-mini-2025-04-16")


def test_a_model_says_what_its_template_cannot_show(
    client: openai.OpenAI, http: httpx.Client, db: Session, tmp_path: Path
) -> None:
    models.add_base_model(db, "tried", write(tmp_path / "a", {}), ["thoughts", "tools"])
    models.add_base_model(db, "untried", write(tmp_path / "b", {}))
    db.commit()
    assert http.get("/v1/models/tried").json()["cannot_show"] == ["thoughts", "tools"]
    assert http.get("/v1/models/untried").json()["cannot_show"] is None
    openai_schema.check(http.get("/v1/models/tried").json(), "Model")


def test_models_are_base_models_and_the_projects_own(
    client: openai.OpenAI, http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    other = make_tenant(db, "other")
    mine = make_tuned_model(db, make_job(db, tenant.project_id, status="succeeded"))
    theirs = make_job(db, other.project_id, status="succeeded")
    make_tuned_model(db, theirs, name="ft:cherry-nano:other::12345678")
    make_model(db, "second")
    db.commit()
    listed = [(model.id, model.owned_by) for model in client.models.list()]
    assert listed == [
        ("cherry-nano", "system"),
        ("second", "system"),
        (mine.name, tenant.organization_id),
    ]
    openai_schema.check(http.get(f"/v1/models/{mine.name}").json(), "Model")
    assert client.models.retrieve(mine.name).id == mine.name
    assert client.models.delete(mine.name).deleted
    with pytest.raises(openai.NotFoundError) as missing:
        client.models.retrieve(mine.name)
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("cherry-nano")
