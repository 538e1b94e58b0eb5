"""Exports from the request to the download: how workers make them, lose them, and what is handed out."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.exports import forms, runs, service
from app.exports.archive import Archive
from app.exports.forms import ExportRefused
from app.exports.models import Export
from app.exports.runs import Claim, LeaseLost
from app.exports.schemas import ExportOut
from app.jobs.models import Job
from app.storage import get_storage
from tests.factories import make_checkpoint, make_job, make_model, make_tenant
from tests.workers.jobs.test_validators import use
from workers.exports import make
from workers.exports.attempt import Exports
from workers.jobs.sweep import sweep
from workers.jobs.validators import validate_all

LEASE = timedelta(seconds=30)
FILES = {"model/config.json": b"{}", "model/model.safetensors": b"m" * 100}
NANO = Path(__file__).parents[3] / "workers" / "models" / "cherry_nano"


@pytest.fixture
def kept(db: Session) -> tuple[Job, Checkpoint]:
    """A checkpoint of a job that is over."""
    tenant = make_tenant(db)
    make_model(db, folder=NANO)
    job = make_job(db, tenant.project_id, status="succeeded")
    checkpoint = make_checkpoint(db, job, 3, FILES)
    db.commit()
    return job, checkpoint


def asked(kept: tuple[Job, Checkpoint]) -> Archive | ExportOut:
    """What whoever asks for the GGUF gets."""
    with unit_of_work() as db:
        job, checkpoint = db.get_one(Job, kept[0].id), db.get_one(Checkpoint, kept[1].id)
        found = service.made_or_asked(db, job, checkpoint, "gguf", {})
    return found if isinstance(found, ExportOut) else forms.archive(found, "gguf", get_storage())


def claimed(lease: timedelta = LEASE) -> Claim:
    with unit_of_work() as db:
        claim = runs.claim_next(db, "me", lease)
    assert claim is not None
    return claim


def writing(text: bytes) -> make.Write:
    """A writer of a form, in the place of the one that needs llama.cpp."""

    def write(_wanted: make.Wanted, _scratch: Path, out: Path, tell: make.Tell) -> None:
        tell("weights", 0.5)
        (out / "model-f32.gguf").write_bytes(text)
        (out / "Modelfile").write_bytes(b"FROM ./model-f32.gguf")

    return write


def member(archive: Any, name: str) -> bytes:
    found = next(each for each in archive.members if each.name == name)
    return b"".join(found.open(0))


def test_it_is_asked_for_made_and_handed_out(kept: tuple[Job, Checkpoint]) -> None:
    first = asked(kept)
    assert isinstance(first, ExportOut)
    assert (first.format, first.status, first.progress) == ("gguf", "queued", None)
    claim = claimed()
    with unit_of_work() as db:
        runs.held(db, claim, progress={"phase": "weights", "share": 0.5})
    under_way = asked(kept)
    assert isinstance(under_way, ExportOut)
    assert (under_way.status, under_way.progress) == ("running", {"phase": "weights", "share": 0.5})
    make.make(claim, writing(b"made"))
    archive = asked(kept)
    assert member(archive, "model-f32.gguf") == b"made"
    assert "llama-server -m FOLDER/model-f32.gguf --jinja" in member(archive, "README.md").decode()
    assert isinstance(archive, Archive)
    assert len(archive.digest()) == 32


def test_a_worker_without_llama_cpp_refuses_and_says_what_to_install(kept: tuple[Job, Checkpoint]) -> None:
    asked(kept)
    assert validate_all("me", threading.Event(), Exports()) == 1
    for _ in range(2):
        with pytest.raises(ExportRefused, match="install"):
            asked(kept)
    with unit_of_work() as db:
        db.execute(update(Export).values(finished_at=func.now() - service.FAILURE_STANDS))
    again = asked(kept)
    assert isinstance(again, ExportOut)
    assert again.status == "queued"


def test_an_export_has_a_limit_of_its_own(
    kept: tuple[Job, Checkpoint], db: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked(kept)
    use(monkeypatch, export_limit="PT1S", validation_limit="PT1H")
    db.execute(text("LOCK TABLE checkpoints IN ACCESS EXCLUSIVE MODE"))  # the child waits for it
    later = threading.Timer(3, db.rollback)  # what the stopped child still holds goes with the lock
    later.start()
    assert validate_all("me", threading.Event(), Exports()) == 1
    later.join()
    with pytest.raises(service.ExportFailed, match=r"longer than 0:00:01 and was stopped"):
        asked(kept)


def test_what_a_killed_worker_has_left_is_never_sent_and_is_made_anew(kept: tuple[Job, Checkpoint]) -> None:
    asked(kept)
    killed = claimed(timedelta(0))
    prefix = service.prefix_of(kept[0].id, killed.export_id)
    get_storage().put_bytes(f"{prefix}/1/model-f32.gguf", b"half")
    assert isinstance(asked(kept), ExportOut)
    second = claimed()
    assert second.attempt == 2
    make.make(second, writing(b"whole"))
    assert member(asked(kept), "model-f32.gguf") == b"whole"
    assert get_storage().list_keys(f"{prefix}/1") == []


def test_a_worker_that_lost_its_export_leaves_the_others_files(kept: tuple[Job, Checkpoint]) -> None:
    asked(kept)
    slow = claimed(timedelta(0))
    quick = claimed()
    make.make(quick, writing(b"of the second"))
    with pytest.raises(LeaseLost):
        make.make(slow, writing(b"of the first"))
    assert member(asked(kept), "model-f32.gguf") == b"of the second"


def test_an_export_of_a_checkpoint_that_is_dropped_meanwhile_comes_to_nothing(
    kept: tuple[Job, Checkpoint],
) -> None:
    asked(kept)
    claim = claimed()

    def dropping(*given: Any) -> None:
        writing(b"made")(*given)
        with unit_of_work() as db:
            db.get_one(Checkpoint, kept[1].id).storage_key = None

    with pytest.raises(LeaseLost):
        make.make(claim, dropping)
    assert get_storage().list_keys(f"jobs/{kept[0].id}/exports") == []


@pytest.mark.parametrize("why", ["dropped", "unasked"])
def test_what_nobody_can_have_or_wants_is_removed(kept: tuple[Job, Checkpoint], why: str) -> None:
    asked(kept)
    make.make(claimed(), writing(b"made"))
    sweep(threading.Event())
    assert isinstance(asked(kept), Archive)
    with unit_of_work() as db:
        if why == "dropped":
            db.get_one(Checkpoint, kept[1].id).storage_key = None
        else:
            db.execute(update(Export).values(asked_at=func.now() - service.UNASKED))
    sweep(threading.Event())
    with unit_of_work() as db:
        assert db.scalars(select(Export)).all() == []
    assert get_storage().list_keys(f"jobs/{kept[0].id}/exports") == []


def test_a_checkpoint_that_is_damaged_is_no_export(kept: tuple[Job, Checkpoint]) -> None:
    asked(kept)

    def reading(wanted: make.Wanted, scratch: Path, _out: Path, _tell: make.Tell) -> None:
        make._local(wanted.checkpoint, scratch / "checkpoint")

    get_storage().put_bytes(f"{kept[1].storage_key}/model/config.json", b"[]")
    make.make(claimed(), reading)
    with pytest.raises(service.ExportFailed, match=r"model/config.json has changed"):
        asked(kept)
