"""Checkpoint downloads: one tar that tells its sums."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.storage import get_storage
from tests.app.answers import error_of
from tests.damage import flip_last_bit
from tests.factories import Tenant, make_checkpoint, make_job, make_tuned_model

CONTENTS = {
    "adapter/adapter_model.safetensors": b"a" * 3_000_001,
    "model/config.json": b"{}",
    "model/" + "deep/" * 30 + "empty": b"",
}


@pytest.mark.parametrize("stored_manifest", [True, False], ids=["stored-manifest", "manifest-from-the-row"])
def test_a_checkpoint_comes_as_a_whole_tar_with_its_sums(
    http: httpx.Client, db: Session, tenant: Tenant, stored_manifest: bool
) -> None:
    job = make_job(db, tenant.project_id)
    checkpoint = make_checkpoint(db, job, 7, CONTENTS)
    if stored_manifest:
        text = json.dumps(checkpoint.manifest).encode()
        get_storage().put_bytes(f"{checkpoint.storage_key}/manifest.json", text)
    db.commit()
    response = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(response.content)
    assert f"{job.id}-step-7.tar" in response.headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(response.content)) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    assert next(iter(files)) == "manifest.json"
    sums = json.loads(files.pop("manifest.json"))["files"]
    assert files == CONTENTS
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == {
        name: each["sha256"] for name, each in sums.items()
    }


@pytest.mark.parametrize("name", [*list(CONTENTS)[:2], "manifest.json"])
def test_a_checkpoint_with_one_bit_flipped_is_not_sent(
    http: httpx.Client, db: Session, tenant: Tenant, name: str
) -> None:
    job = make_job(db, tenant.project_id)
    checkpoint = make_checkpoint(db, job, 7, CONTENTS)
    text = json.dumps(checkpoint.manifest).encode()
    get_storage().put_bytes(f"{checkpoint.storage_key}/manifest.json", text)
    db.commit()
    path = f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download"
    assert http.get(path).status_code == 200
    flip_last_bit(f"{checkpoint.storage_key}/{name}")
    refused = http.get(path)
    assert (refused.status_code, error_of(refused)["code"]) == (500, "checkpoint_damaged")
    assert name in error_of(refused)["message"]
    assert refused.headers["x-should-retry"] == "false"


def test_a_checkpoint_that_lost_a_file_is_not_sent(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    checkpoint = make_checkpoint(db, job, 7, CONTENTS)
    db.commit()
    get_storage().delete(f"{checkpoint.storage_key}/model/config.json")
    refused = http.get(f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download")
    assert "model/config.json is missing" in error_of(refused)["message"]


def test_what_is_not_kept_cannot_be_downloaded(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id)
    dropped = make_checkpoint(db, job, 1, storage_key=None)
    files_gone = make_checkpoint(db, job, 2)
    db.commit()
    for checkpoint in (dropped, files_gone):
        path = f"/v1/fine_tuning/jobs/{job.id}/checkpoints/{checkpoint.id}/download"
        assert http.get(path).status_code == 404


def test_the_delivered_checkpoint_bears_the_tuned_models_name(
    client: openai.OpenAI, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    for step in (0, 1, 2):
        make_checkpoint(db, job, step)
    model = make_tuned_model(db, job)  # its files are those of step 1
    job.fine_tuned_model = model.name
    db.commit()
    listed = client.fine_tuning.jobs.checkpoints.list(job.id)
    names = {checkpoint.step_number: checkpoint.fine_tuned_model_checkpoint for checkpoint in listed}
    assert names.keys() == {1, 2}, "the untouched base is no checkpoint of the training"
    assert names[1] == model.name
    assert names[2].endswith(":ckpt-step-2")


def test_the_base_is_listed_where_it_is_what_was_delivered(
    client: openai.OpenAI, tenant: Tenant, db: Session
) -> None:
    job = make_job(db, tenant.project_id, status="succeeded")
    base, _ = make_checkpoint(db, job, 0), make_checkpoint(db, job, 1)
    model = make_tuned_model(db, job)
    model.storage_key = base.storage_key
    job.fine_tuned_model = model.name
    db.commit()
    listed = {c.step_number: c for c in client.fine_tuning.jobs.checkpoints.list(job.id)}
    assert listed[0].fine_tuned_model_checkpoint == model.name
