"""Jobs that end, or pause, before their last step: budgets, level evaluations, equal rewards."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.events.models import JobEvent
from app.jobs import control
from app.jobs.models import Job
from app.settings import get_settings
from tests.workers.rows import data_rows, fresh, make_job
from workers.jobs.attempt import train_next
from workers.jobs.grader_validation import prices
from workers.jobs.job_data import JobInvalid
from workers.jobs.validators import validate_all

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("tiny_model")]

RUNNING = threading.Event()
LONG = {"n_epochs": 8, "eval_interval": 5, "skip_flat_prompts": False}


def queued(db: Session, **hyperparameters: Any) -> Job:
    job = make_job(db, validation=data_rows(6), hyperparameters=LONG | hyperparameters)
    assert validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
    return job


def trained(db: Session, job: Job) -> Job:
    assert train_next("me", RUNNING)
    return fresh(db, job)


def messages(db: Session, job: Job, level: str) -> list[str]:
    own = (JobEvent.job_id == job.id, JobEvent.level == level)
    return list(db.scalars(select(JobEvent.message).where(*own).order_by(JobEvent.seq)))


@pytest.mark.long
def test_a_job_pauses_for_its_budget_and_resuming_grants_it_again(db: Session) -> None:
    """Evaluations sample some 6 x 8 x 4 tokens, the four steps some 16 each."""
    job = trained(db, queued(db, n_epochs=2, max_sampled_tokens=100, eval_samples=8, on_budget="pause"))
    assert (job.status, job.state_step) == ("paused", 0)
    assert "The job pauses (on_budget: pause)" in messages(db, job, "warn")[-1]
    with unit_of_work() as other:
        control.request_resume(other, job.id)
    job = trained(db, job)
    assert (job.status, job.last_step, job.total_steps) == ("succeeded", 4, 4)


@pytest.mark.long
def test_a_level_job_ends_early_and_its_progress_is_whole(db: Session) -> None:
    hyper = {"early_stop_evals": 4, "eval_interval": 1, "allow_flat_reward": True, "learning_rate": 1e-9}
    job = queued(db, **hyper)
    planned = job.total_steps
    job = trained(db, job)
    assert job.status == "succeeded", job.error
    assert job.last_step == job.total_steps
    assert (job.last_step or 0) < (planned or 0)
    assert any("early (early_stop)" in message for message in messages(db, job, "info"))


def test_a_job_whose_rewards_are_all_the_same_fails_with_examples(db: Session) -> None:
    grader = {"type": "string_check", "name": "never", "input": "never", "operation": "eq", "reference": "so"}
    job = make_job(db, grader=grader, hyperparameters={"group_size": 64, "batch_size": 4})
    assert validate_all("me", RUNNING)
    job = trained(db, job)
    assert (job.status, job.fine_tuned_model) == ("failed", None)
    assert job.error is not None
    assert job.error["code"] == "flat_reward"
    assert "All were wrong (reward 0)" in job.error["message"]


def test_a_budget_of_money_needs_prices(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(db, hyperparameters={"max_cost": 3.5})
    assert validate_all("me", RUNNING)
    assert fresh(db, job).status == "failed"
    assert job.error is not None
    assert job.error["param"] == "method.reinforcement.hyperparameters.max_cost"
    assert "No price is known" in job.error["message"]
    monkeypatch.setenv("CHERRY_PRICES", '{"currency": "EUR", "device_hour": 36000}')
    get_settings.cache_clear()
    job = trained(db, queued(db, max_cost=0.01))
    assert (job.status, job.last_step, job.total_steps) == ("succeeded", 0, 0)
    assert job.fine_tuned_model
    assert any("max_cost is used up: " in each and " EUR" in each for each in messages(db, job, "warn"))


def test_a_budget_of_money_needs_the_price_of_the_model_that_plays_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHERRY_PRICES", '{"currency": "EUR", "device_hour": 1}')
    get_settings.cache_clear()
    assert prices({"max_cost": 1.0})
    with pytest.raises(JobInvalid, match="the user simulator asks user-8b, whose price is not known"):
        prices({"max_cost": 1.0}, simulator={"model": "user-8b"})
