"""A job that starts from a model of a remote store: what is fetched, and that nothing of it stays."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.ids import random_id
from app.jobs import runs
from app.jobs.models import Job
from app.jobs.status import Claim
from app.models.models import Model
from app.settings import get_settings
from app.storage import get_storage
from app.tenants import service as tenants
from tests.factories import store_model
from tests.workers.rows import make_job
from workers.base_models import local_folder
from workers.jobs.job_data import JobInvalid
from workers.jobs.validation import check

KEY = "jobs/ftjob-1/checkpoints/1-1"


@pytest.fixture
def tuned(db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Model:
    """A tuned model in an object store, and a folder of our own for temporary files."""
    monkeypatch.setenv("CHERRY_STORAGE_URL", "memory:///")
    get_settings.cache_clear()
    get_storage.cache_clear()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    store_model(tiny_model, KEY)
    project = tenants.ensure_default_tenant(db)
    columns = {"name": "ft:tiny:cherry::1", "base": "tiny", "storage_key": KEY, "folder": None}
    model = Model(id=random_id("model_"), project_id=project.id, **columns)
    db.add(model)
    db.commit()
    return model


def claimed(job: Job) -> Claim:
    """The job as the child that checks it has it; the store is in this process's memory."""
    with unit_of_work() as db:
        claim = runs.claim_for_validation(db, "me", get_settings().lease)
    assert claim
    assert claim.job_id == job.id
    return claim


def test_validation_copies_no_weights_and_leaves_nothing(db: Session, tuned: Model, tmp_path: Path) -> None:
    job = make_job(db, model=tuned.name)
    assert check(claimed(job)).n_rows == 4
    assert list(tmp_path.rglob("*.json")) == []
    copy = local_folder(tuned, tmp_path / "copy", weights=False)
    assert (copy / "config.json").is_file()
    assert not (copy / "model.safetensors").exists()


def test_a_training_has_a_whole_copy_in_a_place_of_its_own(
    tuned: Model, tiny_model: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run" / "base"
    assert local_folder(tuned, copy) == copy
    names = sorted(path.name for path in tiny_model.iterdir())
    assert sorted(path.name for path in copy.iterdir()) == names
    assert all((copy / name).read_bytes() == (tiny_model / name).read_bytes() for name in names)


def test_a_model_that_is_gone_from_the_store_fails_the_job_by_name(db: Session, tuned: Model) -> None:
    job = make_job(db, model=tuned.name)
    get_storage().delete_prefix(KEY)
    with pytest.raises(JobInvalid) as raised:
        check(claimed(job))
    assert (raised.value.code, raised.value.param) == ("model_error", "model")
