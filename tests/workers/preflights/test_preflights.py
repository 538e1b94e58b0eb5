"""Preflights in real child processes: what they report, how they end, and whose turn it is."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.ids import random_id
from app.jobs.leases import LeaseLost
from app.preflights import runs, service
from app.preflights.models import Preflight
from methods.train_config import TrainConfig
from tests.e2e.service import wait_for
from tests.factories import make_tenant
from tests.workers.jobs.test_validators import NEVER_ENDS, checking, make_templated, newest
from tests.workers.rows import GRADER, SHORT, data_rows, make_file, make_job
from workers.jobs.validators import Validations, _claim_next, validate_all
from workers.preflights.attempt import FILE_CHECKS, train_or_sample_next

LEASE = timedelta(seconds=30)
NO_SAMPLES = {"prompts": 0}


def make_preflight(
    db: Session,
    training: Any = None,
    validation: Any = None,
    *,
    hyperparameters: dict[str, Any] | None = None,
    limits: dict[str, int] | None = None,
    **values: Any,
) -> Preflight:
    """A committed preflight that waits."""
    file = make_file(db, training if training is not None else data_rows())
    valid = make_file(db, validation, "valid.jsonl") if validation is not None else None
    block = {"grader": dict(GRADER), "hyperparameters": {**SHORT, **(hyperparameters or {})}}
    made = {
        "id": random_id("ftpre-"),
        "project_id": file.project_id,
        "model": "tiny",
        "training_file": file.id,
        "validation_file": valid.id if valid else None,
        "seed": 7,
        "method": {"type": "reinforcement", "reinforcement": block},
        "limits": limits or {},
    }
    preflight = Preflight(**made | values)
    db.add(preflight)
    db.commit()
    return preflight


def row(preflight_id: str) -> Preflight:
    with unit_of_work() as db:
        return db.get_one(Preflight, preflight_id)


def carried_out(preflight: Preflight) -> Preflight:
    assert validate_all("me", threading.Event(), FILE_CHECKS) >= 1
    return row(preflight.id)


@contextmanager
def working(stopping: threading.Event) -> Iterator[threading.Thread]:
    """A worker that validates until nothing is left, or until it is told to stop."""
    worker = threading.Thread(target=validate_all, args=("me", stopping, FILE_CHECKS))
    worker.start()
    try:
        yield worker
    finally:
        stopping.set()
        worker.join()


def found(preflight: Preflight) -> dict[str, dict[str, Any]]:
    assert preflight.report is not None
    return {one["code"]: one for one in preflight.report["findings"]}


def test_a_good_job_is_sampled_and_its_costs_are_told(db: Session, tiny_model: Path) -> None:
    asked = {"max_completion_tokens": 16, "n_epochs": 3}
    training = [*data_rows(8), data_rows(1)[0] | {"letter": "z"}]
    done = carried_out(make_preflight(db, training, hyperparameters=asked, limits={"samples": 4}))
    assert (done.status, done.error, done.progress, done.lease_owner) == ("succeeded", None, None, None)
    report = done.report
    assert report is not None
    base, job, gain = report["base"], report["job"], report["gain"]
    assert (base["prompts"], base["samples"], base["group_size"]) == (9, 4, 2)
    assert base["never"] + base["sometimes"] + base["always"] == 1
    assert 0 < base["mean_reward"] < 1
    assert 0 < base["expected_signal"] < 1
    assert base["tokens"] <= 9 * 4 * 16
    assert [example["line"] for example in base["examples"]] == [1, 2, 3, 4]
    assert job["steps"] == 15
    assert job["seconds_low"] < job["seconds"] < job["seconds_high"]
    assert (gain["basis"], gain["rows"]) == ("training", 9)
    assert found(done)["conflicting_references"]["lines"] == [1, 9]
    assert found(done)["exact_duplicates"]["lines"] == [9]
    assert report["files"]["conflicting_rows"] == 2
    assert report["grader"]["trials"]
    assert report["verdict"].startswith("This job can run and has something to learn from: ")


def test_every_fault_is_told_and_nothing_is_refused(db: Session, tiny_model: Path) -> None:
    training = [{"messages": "x"}, data_rows(1)[0], {"no": "messages"}]
    lacking = [{**data_rows(3)[2], "letter": "i"}, {"messages": data_rows(4)[3]["messages"]}]
    done = carried_out(make_preflight(db, training, lacking))
    assert (done.status, done.error) == ("succeeded", None)
    faults = found(done)
    assert faults["invalid_training_file"]["lines"] == [1, 3]
    assert faults["invalid_validation_file"]["lines"] == [2]
    assert {one["severity"] for one in faults.values()} == {"error"}
    assert done.report is not None
    assert done.report["verdict"].startswith("This job would fail: 2 faults, the first: The training file ")
    assert "base" not in done.report


def test_leaks_and_a_rate_far_off_are_doubted_without_samples(db: Session, tiny_model: Path) -> None:
    words = "Please write down the letter that comes after the one which stands at the end of this: "
    sentence = "the quick brown fox jumps over one lazy dog while other animals look on from behind a"
    rows = [{**data_rows(2)[1], "messages": [{"role": "user", "content": words + sentence}]}, *data_rows(3)]
    near = {**rows[0], "messages": [{"role": "user", "content": (words + sentence).replace("lazy", "old")}]}
    asked = make_preflight(
        db,
        rows,
        [data_rows(1)[0], near],
        limits=NO_SAMPLES,
        hyperparameters={"learning_rate": 1.0},
        method={
            "type": "reinforcement",
            "reinforcement": {"grader": dict(GRADER), "hyperparameters": {**SHORT, "learning_rate": 1.0}},
        },
    )
    done = carried_out(asked)
    faults = found(done)
    assert faults["validation_in_training"]["lines"] == [1]
    assert faults["near_leak"]["lines"] == [2]
    assert 'times what "auto" takes for this model' in faults["learning_rate_far"]["message"]
    assert done.report is not None
    assert done.report["files"]["exact_leaks"] == done.report["files"]["near_leaks"] == 1
    assert done.report["verdict"].startswith("The files are in order; nothing was sampled from the base.")


def test_a_child_that_is_killed_again_and_again_fails_it_and_a_cancel_ends_another(
    db: Session, tiny_model: Path, tmp_path: Path
) -> None:
    make_templated(db, tiny_model, tmp_path / "odd", NEVER_ENDS)
    doomed, before = make_preflight(db, model="odd"), checking()

    def is_rendering(attempt: int) -> bool:
        now = row(doomed.id)
        return now.attempt == attempt and (now.progress or {}).get("phase") == "rendering"

    with working(threading.Event()) as worker:
        for attempt in (1, 2, 3):
            wait_for(partial(is_rendering, attempt), what=f"attempt {attempt}")
            os.kill(newest(checking()), signal.SIGKILL)  # which is the child
        wait_for(lambda: not worker.is_alive(), what="the end")
    assert row(doomed.id).status == "failed"
    assert row(doomed.id).error == {
        "code": "server_error",
        "message": "The preflight ended early in each of its attempts. Of the last one: it was ended by"
        " SIGKILL, perhaps for lack of memory.",
        "param": None,
    }
    endless = make_preflight(db, model="odd")
    with working(threading.Event()) as worker:
        wait_for(lambda: (row(endless.id).progress or {}).get("phase") == "rendering", what="the rendering")
        with unit_of_work() as owner:
            service.cancel(owner, endless.project_id, endless.id)
        wait_for(lambda: not worker.is_alive(), what="the end")
    assert row(endless.id).status == "cancelled"
    released = make_preflight(db, model="odd")
    with working(threading.Event()):
        wait_for(lambda: (row(released.id).progress or {}).get("phase") == "rendering", what="the rendering")
    assert (row(released.id).status, row(released.id).fruitless_attempts) == ("queued", 0)
    assert len(checking() - before) <= 1, "the fork server alone is left"


@pytest.mark.long
def test_a_worker_that_trains_goes_on_from_what_was_handed_over(db: Session, tiny_model: Path) -> None:
    asked = make_preflight(db, data_rows(8), stage="samples", report={"files": {}, "lengths": LENGTHS})
    with unit_of_work() as other:
        config = sampled_config(tiny_model)
        other.get_one(Preflight, asked.id).config = config
    assert train_or_sample_next("me", threading.Event())
    done = row(asked.id)
    assert (done.status, done.error) == ("succeeded", None)
    assert done.report is not None
    assert done.report["base"]["prompts"] == 8
    assert not train_or_sample_next("me", threading.Event())


LENGTHS = {"context": 256, "prompt_tokens": {"p50": 24, "p95": 24, "max": 24}}


def sampled_config(model: Path) -> dict[str, Any]:
    asked = {"prompts_per_step": 2, "group_size": 2, "max_completion_tokens": 4, "eval_interval": 2}
    config = TrainConfig(
        model="tiny",
        model_path=str(model),
        seed=7,
        n_epochs=1,
        learning_rate=1e-3,
        **asked,  # type: ignore[arg-type]
    )
    return config.model_dump(mode="json")


def claim(db: Session, lease: timedelta = LEASE) -> str | None:
    taken = runs.FILES.claim_next(db, "me", lease)
    db.commit()
    return taken.row_id if taken else None


def test_one_whose_worker_went_silent_is_taken_again_and_the_first_can_write_no_more(db: Session) -> None:
    waiting = make_preflight(db)
    first = runs.FILES.claim_next(db, "lost", timedelta(seconds=-1))
    db.commit()
    assert first is not None
    second = runs.FILES.claim_next(db, "me", LEASE)
    db.commit()
    assert second is not None
    assert (second.row_id, second.attempt) == (waiting.id, 2)
    assert claim(db) is None, "nobody takes what another holds"
    for write in (
        lambda: runs.FILES.renew(db, first, LEASE),
        lambda: runs.FILES.finish_succeeded(db, first, report={}),
        lambda: runs.FILES.release(db, first),
    ):
        with pytest.raises(LeaseLost):
            write()


def test_projects_take_turns_over_preflights_and_jobs(db: Session) -> None:
    """A project with many preflights holds up no other's job, nor the other way round."""
    mine = [make_preflight(db) for _ in range(3)]
    other = make_tenant(db, "other").project_id
    job = make_job(db)
    job.project_id = other
    db.commit()
    kinds = (Validations(), FILE_CHECKS)
    taken = []
    for _ in range(4):
        work = _claim_next(kinds, "me", Counter(), 4)
        assert work is not None
        taken.append(work.project_id)
    assert taken == [mine[0].project_id, other, mine[0].project_id, mine[0].project_id]
    assert _claim_next(kinds, "me", Counter(), 4) is None
