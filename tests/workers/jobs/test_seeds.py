"""Jobs with several seeds, controls and a gold grader, through real trainings."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.events.models import JobEvent, JobMetrics
from app.jobs.methods import Reinforcement
from app.jobs.models import Job
from app.jobs.schemas import JobOut
from app.rollouts.models import Rollout
from app.settings import get_settings
from methods.halving import arm_seeds
from tests.e2e.service import wait_for
from tests.workers.rows import GRADER, data_rows, fresh, make_job
from tests.workers.trainings import reached, training_pid, while_training
from workers.jobs.attempt import train_next
from workers.jobs.validators import validate_all

RUNNING = threading.Event()
MANY = {"n_epochs": 4, "eval_interval": 2, "n_seeds": 3, "controls": ["random_reward"], "eval_samples": 2}
STEPS = 3 * 2 + 2 * 2 + 4 + 4
GOLD = {**GRADER, "name": "gold", "operation": "like"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, settings: object) -> None:
    monkeypatch.setenv("CHERRY_TRAINER_THREADS", "1")
    get_settings.cache_clear()


def make_gold_job(db: Session, gold: dict[str, Any] = GOLD, **hyperparameters: Any) -> Job:
    job = make_job(db, validation=data_rows(6), hyperparameters={**MANY, **hyperparameters})
    block = {**job.method["reinforcement"], "gold_grader": gold}
    job.method = {"type": "reinforcement", "reinforcement": block}
    db.commit()
    return job


def queued(db: Session, resources: dict[str, int] | None = None) -> Job:
    job = make_gold_job(db)
    job.resources = resources
    db.commit()
    assert validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
    return job


def history(db: Session, job: Job, *left_out: str) -> dict[int, dict[str, Any]]:
    """What the job measured, without times and names that begin with one of `left_out`."""
    db.rollback()
    rows = db.scalars(select(JobMetrics).where(JobMetrics.job_id == job.id))
    return {
        row.step: {
            name: value
            for name, value in row.values.items()
            if not name.startswith(("time/", *left_out)) and "seconds" not in name
        }
        for row in rows
    }


def test_a_gold_grader_is_checked_like_the_grader_and_named_in_its_faults(
    db: Session, tiny_model: Path
) -> None:
    job = make_gold_job(db, {**GOLD, "reference": "{{item.nowhere}}"})
    validate_all("me", RUNNING)
    assert fresh(db, job).status == "failed"
    assert job.error
    assert "does not fit the gold grader" in job.error["message"]
    assert "item.nowhere" in job.error["message"]


def test_headers_of_a_gold_grader_are_masked_where_a_job_is_shown(db: Session) -> None:
    secret = {"type": "endpoint", "name": "own", "url": "http://h/", "headers": {"Authorization": "s3cret"}}
    shown = JobOut.of(make_gold_job(db, secret), "org", paused_as="paused")
    gold = shown.method["reinforcement"]["gold_grader"]
    assert gold["headers"] == {"Authorization": "********"}
    assert Reinforcement(grader=GRADER, gold_grader=gold).gold_grader == gold


@pytest.mark.long
@pytest.mark.slow
def test_a_job_with_seeds_and_a_control_killed_in_a_rung_ends_as_one_that_was_not(
    db: Session, tiny_model: Path
) -> None:
    whole, killed = queued(db), queued(db)
    assert train_next("me", RUNNING)
    killed_id = killed.id

    def kill() -> None:
        wait_for(lambda: reached(killed_id, 8), what="the second rung")
        pid = training_pid()
        assert pid
        os.kill(pid, signal.SIGKILL)

    with while_training(kill):
        train_next("me", RUNNING)
    assert fresh(db, killed).status == "queued"
    assert killed.state_step is not None
    assert train_next("me", RUNNING)
    for job in (whole, killed):
        assert fresh(db, job).status == "succeeded", job.error
        assert job.total_steps == job.last_step == STEPS
    assert history(db, killed) == history(db, whole)
    assert sorted(history(db, whole)) == list(range(STEPS + 1))
    assert killed.verdict == whole.verdict
    verdict = whole.verdict
    assert verdict is not None
    assert sorted(arm["seed"] for arm in verdict["arms"]) == sorted(arm_seeds(7, 3))
    assert [arm["ended"] for arm in verdict["arms"]].count("halved") == 2
    (control,) = verdict["controls"]
    assert (control["kind"], control["steps"], control["ended"]) == ("random_reward", 4, "finished")
    assert verdict["gold"]["base"] is not None
    check_what_is_kept(db, whole)


def check_what_is_kept(db: Session, job: Job) -> None:
    with unit_of_work() as other:
        rows = other.scalars(select(Checkpoint).where(Checkpoint.job_id == job.id)).all()
        kept = {row.step for row in rows if row.storage_key}
        assert max(row.step for row in rows) <= 14, "a control leaves none"
        assert {(row.trust or {}).get("arm_seed") for row in rows if row.step} <= set(arm_seeds(7, 3))
        assert all("gold_reward" in (row.trust or {}) for row in rows)
        told = list(other.scalars(select(JobEvent.message).where(JobEvent.job_id == job.id)))
    assert {0, (job.verdict or {})["step"]} <= kept
    assert any("Halving 1 of 2: Seeds" in message for message in told)
    assert any("3 seeds took 14 steps" in message for message in told)


def seed_processes() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if is_of_a_seed(child)]


def is_of_a_seed(child: psutil.Process) -> bool:
    try:
        return "workers.jobs.seats" in child.cmdline()
    except psutil.Error:  # it has just ended
        return False


@pytest.fixture
def two_devices(monkeypatch: pytest.MonkeyPatch, quick: None) -> dict[str, int]:
    monkeypatch.setenv("CHERRY_MAX_PROCESSES", "2")
    get_settings.cache_clear()
    return {"processes": 2}


@pytest.mark.long
@pytest.mark.slow
def test_seeds_side_by_side_of_which_one_is_killed_are_the_job_that_they_are_in_turn(
    db: Session, tiny_model: Path, two_devices: dict[str, int]
) -> None:
    turns, beside = queued(db), queued(db, two_devices)
    assert train_next("me", RUNNING)
    beside_id = beside.id

    def kill() -> None:
        wait_for(lambda: reached(beside_id, 6), what="the second rung", seconds=300)
        _, last = wait_for(lambda: found if len(found := seed_processes()) == 2 else [], what="two seeds")
        last.kill()

    with while_training(kill):
        train_next("me", RUNNING)
    assert fresh(db, beside).status == "queued"
    assert seed_processes() == []
    assert train_next("me", RUNNING)
    for job in (turns, beside):
        assert fresh(db, job).status == "succeeded", job.error
        assert job.total_steps == job.last_step == STEPS
    counted = ("tokens/trained_total", "usage/total")
    assert history(db, beside, *counted) == history(db, turns, *counted)
    assert beside.verdict == turns.verdict
    assert beside.trained_tokens == turns.trained_tokens
    check_what_is_kept(db, beside)
    with unit_of_work() as other:
        told = [
            list(other.scalars(select(JobEvent.message).where(JobEvent.job_id == job.id)))
            for job in (turns, beside)
        ]
        kept = [{tuple(row) for row in other.execute(kept_rollouts(job))} for job in (turns, beside)]
    assert kept[0] == kept[1] != set()
    assert once(told[0]) == once(told[1])
    assert any("2 seeds train side by side" in message for message in told[1])
    (crash,) = [message for message in told[1] if "ended early" in message]
    assert re.search(r"Seed \d+: its process was ended by signal 9", crash)


def once(told: list[str]) -> Counter[str]:
    """What is told of each step once, and each rung at least once, without names that are drawn by lot."""
    steps = [message for message in told if message.startswith(("Step ", "Checkpoint created"))]
    rungs = {message for message in told if message.startswith("Halving ")}
    return Counter(re.sub(r"ft:\S+:ckpt", "", message) for message in [*steps, *rungs])


def kept_rollouts(job: Job) -> Select[Any]:
    own: tuple[Any, ...] = (
        Rollout.split,
        Rollout.step,
        Rollout.row,
        Rollout.sample,
        Rollout.text,
        Rollout.reward,
    )
    return select(*own).where(Rollout.job_id == job.id)


@pytest.mark.long
@pytest.mark.slow
def test_a_cancel_ends_all_seeds_side_by_side(
    db: Session, tiny_model: Path, two_devices: dict[str, int]
) -> None:
    job = queued(db, two_devices)
    job_id = job.id

    def cancel() -> None:
        wait_for(lambda: reached(job_id, 1), what="the first step", seconds=300)
        with unit_of_work() as other:
            other.get_one(Job, job_id).cancel_requested_at = func.now()

    with while_training(cancel):
        train_next("me", RUNNING)
    assert fresh(db, job).status == "cancelled"
    assert seed_processes() == []
