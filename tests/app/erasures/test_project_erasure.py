"""Erasing a project: nothing of it is found afterwards in any table or folder, and nothing of others goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cards import service as cards
from app.chat import service as chat
from app.cli.main import cli
from app.cli.output import CliError
from app.erasures import project as erasure
from app.errors import BadRequest
from app.events import service as events
from app.exports.service import prefix_of
from app.files.models import LooseBytes
from app.jobs.models import Job
from app.regrades.models import RegradeResult
from app.responses import service as responses
from app.settings import Settings
from app.storage import get_storage
from app.tenants import service as tenants
from app.tenants.models import Project
from tests.factories import (
    Tenant,
    make_checkpoint,
    make_dataset,
    make_erasure,
    make_eval,
    make_eval_run,
    make_export,
    make_feedback,
    make_file,
    make_job,
    make_metrics,
    make_output_item,
    make_permission,
    make_preflight,
    make_regrade,
    make_rollout,
    make_source,
    make_stored_chat,
    make_tenant,
    make_tuned_model,
)
from workers.jobs.sweep import sweep

CANARY = "canary-7f3a9c"


def places_of_the_canary(db: Session, folder: Path) -> Iterator[str]:
    """Every column of every table, and every file, that holds the canary."""
    columns = db.execute(
        text(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = current_schema()"
        )
    ).all()
    assert len(columns) > 100
    hexed = CANARY.encode().hex()
    for table, column, kind in columns:
        sought = hexed if kind == "bytea" else CANARY
        found = text(f'SELECT count(*) FROM "{table}" WHERE position(:sought IN "{column}"::text) > 0')
        if db.scalars(found, {"sought": sought}).one():
            yield f"{table}.{column}"
    for path in folder.rglob("*"):
        if CANARY in path.name or (path.is_file() and CANARY.encode() in path.read_bytes()):
            yield str(path)


@pytest.fixture
def doomed(server_url: str, db: Session, tenant: Tenant, admin: httpx.Client, settings: Settings) -> Tenant:
    """A project of the tenant's organisation with the canary in every table and folder."""
    made = admin.post(
        "/v1/organization/projects", json={"name": f"{CANARY} project"}, headers={"idempotency-key": CANARY}
    ).json()
    accounts = f"/v1/organization/projects/{made['id']}/service_accounts"
    account = admin.post(accounts, json={"name": CANARY}).json()
    doomed = Tenant(tenant.organization_id, made["id"], account["api_key"]["value"], account["api_key"]["id"])
    headers = {"authorization": f"Bearer {doomed.key}"}
    with httpx.Client(base_url=server_url, headers=headers) as client:
        fill_over_http(client)
    fill_with_a_run(db, doomed, settings)
    tenants.create_key(db, doomed.project_id, CANARY)
    db.commit()
    return doomed


def fill_over_http(client: httpx.Client) -> None:
    row = json.dumps({"messages": [{"role": "user", "content": CANARY}], "answer": "a"})
    file = client.post(
        "/v1/files",
        data={"purpose": "fine-tune"},
        files={"file": (f"{CANARY}.jsonl", row.encode())},
        headers={"idempotency-key": "file"},
    ).json()
    upload = client.post(
        "/v1/uploads",
        json={"filename": CANARY, "purpose": "user_data", "bytes": len(CANARY), "mime_type": "text/plain"},
    ).json()
    client.post(
        f"/v1/uploads/{upload['id']}/parts", files={"data": ("x", CANARY.encode())}
    ).raise_for_status()
    hook = {"name": CANARY, "url": f"https://1.1.1.1/{CANARY}", "event_types": ["fine_tuning.job.cancelled"]}
    client.post("/v1/webhook_endpoints", json=hook).raise_for_status()
    method = {
        "type": "reinforcement",
        "reinforcement": {
            "grader": {
                "type": "string_check",
                "name": CANARY,
                "operation": "eq",
                "input": "{{sample.output_text}}",
                "reference": CANARY,
            }
        },
    }
    body = {
        "model": "cherry-nano",
        "training_file": file["id"],
        "suffix": CANARY,
        "metadata": {CANARY: CANARY},
    }
    for _ in range(2):
        job = client.post("/v1/fine_tuning/jobs", json={**body, "method": method}).raise_for_status().json()
    client.post(f"/v1/fine_tuning/jobs/{job['id']}/cancel").raise_for_status()  # with a webhook
    client.post("/dashboard/login", data={"key": client.headers["authorization"].split()[1]})


def fill_with_a_run(db: Session, doomed: Tenant, settings: Settings) -> None:
    """What a training leaves, in rows, in storage and on this machine."""
    error = {"code": "x", "message": CANARY, "param": None}
    job = make_job(db, doomed.project_id, status="failed", suffix=CANARY, error=error)
    make_metrics(db, job, 1, {CANARY: 1.0})
    cards.note_facts(db, job.id, {"attempt": 1, "device": CANARY}, {})
    make_rollout(db, job, 1, 0, text=CANARY, reason=CANARY, parts={CANARY: 0.5})
    events.append(db, job.id, CANARY, CANARY)
    make_preflight(db, doomed.project_id, report={CANARY: CANARY}, progress={"phase": CANARY})
    regrade = make_regrade(db, job, meta={CANARY: CANARY})
    told = {"ref": CANARY, "data_row": CANARY, "text": CANARY, "parts": {}, "reason": CANARY}
    db.add(RegradeResult(regrade_id=regrade.id, seq=1, **told))
    run = make_eval_run(db, make_eval(db, doomed.project_id, name=CANARY), status="in_progress", name=CANARY)
    make_output_item(db, run, datasource_item={CANARY: CANARY})
    checkpoint = make_checkpoint(
        db, job, 1, {"model/x": CANARY.encode()}, model_name=f"ft:{CANARY}:ckpt-step-1"
    )
    export = make_export(db, job, checkpoint, status="failed", error={"code": "x", "message": CANARY})
    get_storage().put_bytes(f"{prefix_of(job.id, export.id)}/1/x", CANARY.encode())
    make_tuned_model(db, job, name=f"ft:cherry-nano:acme:{CANARY}:AbCd1234")
    make_permission(db, checkpoint, make_tenant(db, "friend").project_id)
    stored = make_stored_chat(db, doomed.project_id, asked=CANARY, answers=(CANARY,))
    make_feedback(db, stored, correction=CANARY, reference={CANARY: CANARY}, comment=CANARY)
    dataset = make_dataset(db, doomed.project_id, {"metadata": {CANARY: CANARY}}, report={CANARY: CANARY})
    make_source(db, dataset, CANARY)
    make_erasure(db, doomed).filter = {"metadata": [CANARY]}
    completion = {"id": "chatcmpl-doomed", "model": "cherry-nano", "choices": [CANARY]}
    messages = [{"role": "user", "content": CANARY}]
    chat.store(db, doomed.project_id, completion, messages, metadata={CANARY: CANARY}, keep=timedelta(days=1))
    ended = {"status": "completed", "previous_response_id": None}
    response = {"id": "resp_doomed", **ended, "output": [CANARY]}
    responses.store(db, doomed.project_id, response, messages, keep=timedelta(days=1))
    get_storage().put_bytes(f"jobs/{job.id}/state/1/x", CANARY.encode())
    for folder in (f"runs/{job.id}/1", f"wandb/wandb/offline-run-20261129_1-{job.id}"):
        (settings.data_dir / folder).mkdir(parents=True)
        (settings.data_dir / folder / "x").write_text(CANARY)


def erase(*arguments: str, answer: str = "") -> Any:
    return CliRunner().invoke(cli, ["projects", "erase", *arguments], input=answer)


def test_nothing_of_it_is_found_anywhere(
    db: Session, tenant: Tenant, doomed: Tenant, settings: Settings, tmp_path: Path
) -> None:
    before = set(places_of_the_canary(db, tmp_path))
    tables = {place.split(".")[0] for place in before}
    assert tables >= {"api_keys", "checkpoints", "files", "idempotency_keys", "job_events", "job_metrics"}
    assert tables >= {"jobs", "models", "projects", "rollouts", "service_accounts", "uploads"}
    owned = {table.name for table, _ in erasure.owned_rows("")}
    assert erasure.holdings(db, doomed.project_id).rows.keys() == owned, "make one of each in `doomed`"
    assert sum(place.startswith(str(tmp_path)) for place in before) >= 6
    kept = make_file(db, tenant.project_id)
    db.commit()
    done = erase(doomed.project_id, "--yes", "--data", str(settings.data_dir))
    assert (done.exit_code, done.output) == (0, f"Erased {doomed.project_id}.\n"), done.exception
    db.expire_all()
    assert list(places_of_the_canary(db, tmp_path)) == []
    assert db.get(Project, tenant.project_id) is not None
    assert get_storage().exists(kept.storage_key)
    assert db.scalars(select(LooseBytes)).all() == []


def test_it_asks_first_and_takes_no_for_an_answer(db: Session, doomed: Tenant, settings: Settings) -> None:
    done = erase(doomed.project_id, "--data", str(settings.data_dir), answer="n\n")
    assert done.exit_code == 1
    assert f"Project {doomed.project_id} ({CANARY} project) has: " in done.output
    assert ", jobs 3" in done.output
    db.expire_all()
    assert db.get_one(Project, doomed.project_id).archived_at is None
    assert len(db.scalars(select(Job).where(Job.status == "validating_files")).all()) == 1
    done = erase("proj_none", "--yes", "--data", str(settings.data_dir))
    assert isinstance(done.exception, CliError)
    assert "there is no project proj_none" in str(done.exception)


def test_a_training_is_told_to_stop_and_nothing_goes_before_it_has(
    db: Session, doomed: Tenant, settings: Settings, tmp_path: Path
) -> None:
    held = datetime.now(UTC) + timedelta(minutes=5)
    job = make_job(db, doomed.project_id, status="running", lease_owner="w", lease_expires_at=held, attempt=1)
    db.commit()
    done = erase(doomed.project_id, "--yes", "--wait", "0", "--data", str(settings.data_dir))
    assert isinstance(done.exception, CliError)
    assert f"nothing was erased yet: {job.id} still runs and was told to stop" in str(done.exception)
    db.expire_all()
    assert db.get_one(Job, job.id).cancel_requested_at is not None
    assert db.get_one(Project, doomed.project_id).archived_at is not None
    with pytest.raises(BadRequest, match=f"is still at work: {job.id}"):
        erasure.erase(db, doomed.project_id)
    db.rollback()
    job.lease_expires_at = datetime.now(UTC) - timedelta(seconds=1)  # its worker is lost
    db.commit()
    assert erase(doomed.project_id, "--yes", "--data", str(settings.data_dir)).exit_code == 0
    assert list(places_of_the_canary(db, tmp_path)) == []


def test_who_is_killed_after_the_rows_leaves_the_bytes_to_the_sweep(
    db: Session, doomed: Tenant, settings: Settings, tmp_path: Path
) -> None:
    erasure.close(db, doomed.project_id)
    erasure.erase(db, doomed.project_id)
    db.commit()
    left = list(places_of_the_canary(db, tmp_path))
    assert left
    assert all(place.startswith(str(tmp_path)) for place in left)
    for folder in settings.data_dir.glob("runs/*"):
        os.utime(folder, (0, 0))
        os.utime(folder / "1", (0, 0))
    sweep(Event())
    assert [place for place in places_of_the_canary(db, tmp_path) if "/wandb/" not in place] == []
