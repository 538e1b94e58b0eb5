"""Jobs whose judge goes down in the middle, as a real process that is ended and started again."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.events.models import JobEvent
from app.grading.services import forget_services
from app.jobs import control
from app.jobs.models import Job
from app.rollouts.models import Rollout
from app.settings import get_settings
from app.webhooks.models import WebhookEvent
from tests.e2e.service import wait_for
from tests.factories import make_webhook_endpoint
from tests.judging import running_judge
from tests.workers.jobs.test_judged_jobs import JUDGE, RUNNING
from tests.workers.jobs.test_pause import ask, completions, history, last_weights
from tests.workers.rows import data_rows, fresh, make_job
from tests.workers.trainings import children, reached, while_training
from workers.jobs.attempt import train_next
from workers.jobs.validators import validate_all

pytestmark = [pytest.mark.long, pytest.mark.slow]

WORTH = "tests.judging.worth:early_letters"
SLOWLY = 40
"""Milliseconds of a reply, so that a test can act between two steps."""


def use(monkeypatch: pytest.MonkeyPatch, port: int, **settings: str) -> None:
    """The operator's judge is at that port; the service waits two seconds for it."""
    entry = {"base_url": f"http://127.0.0.1:{port}/v1", "retries": 0, "cache": False}
    told = {"judges": json.dumps({"judge": entry}), "trainer_threads": "1", "judge_down_limit": "PT2S"}
    for name, value in {**told, **settings}.items():
        monkeypatch.setenv(f"CHERRY_{name.upper()}", value)
    get_settings.cache_clear()
    forget_services()


def queued(db: Session, **hyperparameters: Any) -> Job:
    steps = {"n_epochs": 3, "eval_interval": 6, "group_size": 4, **hyperparameters}
    job = make_job(db, grader=JUDGE, validation=data_rows(2), hyperparameters=steps)
    assert validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
    return job


def train_and_lose_the_judge(db: Session, job: Job, port: int, step: int) -> None:
    """Trains with a judge at that port, which is ended once the job has reached a step."""
    job_id = job.id
    with ExitStack() as judge:
        judge.enter_context(running_judge(worth=WORTH, port=port, delay_ms=SLOWLY))

        def stop() -> None:
            wait_for(lambda: reached(job_id, step), what=f"step {step}")
            judge.close()

        with while_training(stop):
            assert train_next("me", RUNNING)


def different(some: dict[int, dict[str, Any]], others: dict[int, dict[str, Any]]) -> set[tuple[int, str]]:
    """Where two histories differ, as steps and metrics."""
    assert some.keys() == others.keys()
    names = ((step, name) for step in some for name in {**some[step], **others[step]})
    return {(step, name) for step, name in names if some[step].get(name) != others[step].get(name)}


def pauses(db: Session, job: Job) -> list[str]:
    """What the job has said of pausing by itself."""
    db.rollback()
    query = select(JobEvent.message).where(JobEvent.job_id == job.id, JobEvent.key.startswith("pauses-"))
    return list(db.scalars(query.order_by(JobEvent.seq)))


def test_a_job_whose_judge_goes_down_pauses_and_goes_on_with_the_history_of_one_that_never_did(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_judge(worth=WORTH) as judge:
        port = judge.port
        use(monkeypatch, port)
        whole, job = queued(db), queued(db)
        make_webhook_endpoint(db, job.project_id, types=("fine_tuning.job.paused",))
        db.commit()
        assert train_next("me", RUNNING)
        assert fresh(db, whole).status == "succeeded", whole.error
    train_and_lose_the_judge(db, job, port, 2)
    assert fresh(db, job).status == "paused", job.error
    assert job.state_step == job.last_step >= 2, "the state is that before the step under way"
    assert children() == []
    (told,) = pauses(db, job)
    assert "The judge 'judge' has answered nothing for" in told
    assert "could not be reached (ConnectError)" in told or "ReadError" in told
    assert "resume the job" in told
    failed = select(Rollout).where(Rollout.job_id == job.id, Rollout.failure.is_not(None))
    assert db.scalars(failed).all() == []
    assert [event.type for event in db.scalars(select(WebhookEvent))] == ["fine_tuning.job.paused"]

    ask(control.request_resume, job.id)
    with running_judge(worth=WORTH, port=port):
        assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    assert different(history(db, job), history(db, whole)) == set()
    assert completions(db, job) == completions(db, whole)
    assert last_weights(db, job) == last_weights(db, whole)


def test_a_judge_that_is_down_for_less_than_the_limit_costs_time_alone(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_judge(worth=WORTH) as judge:
        port = judge.port
        use(monkeypatch, port, judge_down_limit="PT60S")
        job = queued(db)
    job_id = job.id
    with ExitStack() as first, ExitStack() as second:
        first.enter_context(running_judge(worth=WORTH, port=port, delay_ms=SLOWLY))

        def restart() -> None:
            wait_for(lambda: reached(job_id, 2), what="step 2")
            first.close()
            time.sleep(1)  # long enough for calls to fail
            second.enter_context(running_judge(worth=WORTH, port=port))

        with while_training(restart):
            assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    assert pauses(db, job) == []


def test_without_waiting_too_many_missing_grades_fail_the_job(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_judge(worth=WORTH) as judge:
        use(monkeypatch, judge.port, judge_down_limit="PT0S")
        job = queued(db)
    train_and_lose_the_judge(db, job, judge.port, 2)
    assert fresh(db, job).status == "failed"
    assert job.error
    assert job.error["code"] == "grader_error"
