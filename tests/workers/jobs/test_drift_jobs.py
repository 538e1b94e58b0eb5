"""A job's own texts for the canary, and the first base of a model that was tuned twice."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.cards.contents import contents
from app.checkpoints.models import Checkpoint
from app.jobs import capacity, runs
from app.models import service as models
from app.models.models import Model
from app.settings import get_settings
from app.storage import get_storage
from tests.tiny_model import make_tiny_model
from tests.workers.rows import fresh, make_file, make_job
from workers.jobs import run
from workers.jobs.faults import Exit
from workers.jobs.validators import validate_all
from workers.training.folders import publish

SPREAD = {"n_epochs": 1, "group_size": 16, "max_completion_tokens": 16}
"""Some answers have the letter that is asked for, and some not."""
TALK = [{"role": "user", "content": "Good morning."}, {"role": "assistant", "content": "Good morning!"}]


def test_each_fault_of_a_canary_file_is_told_with_its_line(db: Session, tiny_model: Path) -> None:
    texts = [{"text": "One."}, {"text": " "}, {"messages": TALK}, {"text": 4}, {"words": ""}, ["One."]]
    canary = make_file(db, texts, "canary.jsonl")
    job = make_job(db, canary_file=canary.id)
    validate_all("me", threading.Event())
    error = fresh(db, job).error
    assert error
    assert (job.status, error["code"], error["param"]) == ("failed", "invalid_canary_file", "canary_file")
    assert error["message"].splitlines()[1:] == [
        "line 2: 'text' is empty",
        "line 4: 'text' must be text, not a number",
        "line 5: 'text' is missing; a row of a canary file has a 'text', or 'messages'",
        "line 6: a row is a JSON object, not a list",
    ]


def test_a_canary_file_has_at_most_256_rows(db: Session, tiny_model: Path) -> None:
    canary = make_file(db, [{"text": f"Text {i}."} for i in range(257)], "canary.jsonl")
    job = make_job(db, canary_file=canary.id)
    validate_all("me", threading.Event())
    error = fresh(db, job).error
    assert error
    assert "line 257: more than 256 rows" in error["message"]


@pytest.fixture
def tuned_twice(db: Session, tiny_model: Path, tmp_path: Path) -> Model:
    """The tiny model's grandchild; its weights are others."""
    publish(tmp_path / "checkpoint", lambda folder: _write(folder), {})
    get_storage().publish_folder(tmp_path / "checkpoint", "jobs/ftjob-a/checkpoints/1-1")
    key = "jobs/ftjob-a/checkpoints/1-1"
    db.add(Model(id="model_a", name="tuned", base="tiny", storage_key=key))
    db.add(Model(id="model_b", name="tuned again", base="tuned", storage_key=key))
    db.commit()
    return db.get_one(Model, "model_b")


def _write(folder: Path) -> None:
    make_tiny_model(folder / "model", seed=1, scale=0.2)


def test_the_origin_of_a_model_is_its_first_base(db: Session, tuned_twice: Model) -> None:
    project = make_job(db).project_id
    origin = models.origin(db, project, tuned_twice)
    assert origin is not None
    assert origin.name == "tiny"
    assert models.origin(db, project, origin) is None
    db.delete(db.get_one(Model, "model_a"))
    db.flush()
    assert models.origin(db, project, tuned_twice) is None


def test_checkpoints_tell_what_was_forgotten_and_the_way_from_the_first_base(
    db: Session, tuned_twice: Model
) -> None:
    canary = make_file(db, [{"text": "The ferry left at seven."}, {"messages": TALK}], "canary.jsonl")
    job = make_job(db, model=tuned_twice.name, canary_file=canary.id, hyperparameters=SPREAD)
    assert validate_all("me", threading.Event())
    assert fresh(db, job).status == "queued", job.error
    claim = runs.claim_for_training(db, "me", timedelta(seconds=30), capacity.of_this_machine(get_settings()))
    db.commit()
    assert claim
    assert run._run(claim, lambda: False, "cpu") is Exit.OUTCOME_WRITTEN  # type: ignore[arg-type]
    assert fresh(db, job).status == "succeeded", job.error
    found = db.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step)).all()
    start, tuned = found[0], found[-1]
    assert (start.kl, start.trust["kl_per_answer"], start.trust["canary_over_base"]) == (0, 0, 0)
    assert start.trust["kl_to_origin"] > 0.01
    assert tuned.trust["kl_per_answer"] > tuned.kl > 0
    assert tuned.trust["canary"] - start.trust["canary"] == pytest.approx(tuned.trust["canary_over_base"])
    assert tuned.trust["canary_over_base"] != 0
    delivered = next(one for one in found if "served_difference" in one.trust)
    assert delivered.trust["served_difference"] <= delivered.trust["served_tolerance"]
    card = contents(db, fresh(db, job), {})
    assert card["delivered"]["step"] == delivered.step
    assert card["delivered"]["served"]["largest_difference"] == delivered.trust["served_difference"]
    assert card["delivered"]["loaded"]["kl"] == delivered.trust["load_kl"] < 1e-6, "it is stored in fp32"
