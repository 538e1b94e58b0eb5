"""Jobs whose grader asks somebody: validated, trained and failed with real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.events.models import JobEvent, JobMetrics
from app.grading.headers import masked, sealed
from app.grading.services import forget_services
from app.jobs import control
from app.jobs.models import Job
from app.rollouts.models import Rollout
from app.settings import get_settings
from app.webhooks.models import WebhookEvent
from graders.judges.fence import fenced_texts
from methods.train_config import TrainConfig
from tests.app.grading.judge_servers import Answered, answered, asked, refused, said, scored
from tests.app.webhooks.receivers import Received, Receiver, receiver
from tests.e2e.service import wait_for
from tests.factories import make_webhook_endpoint
from tests.judging import running_judge
from tests.workers.jobs.test_pause import ask, completions, history, last_weights
from tests.workers.rows import data_rows, fresh, make_job
from tests.workers.trainings import children, reached, while_training
from workers.jobs.attempt import train_next
from workers.jobs.validators import validate_all

RUNNING = threading.Event()
KEY = "sk-judge-0123456789"
JUDGE = {
    "type": "score_model",
    "name": "tone",
    "model": "judge",
    "input": [{"role": "user", "content": "{{sample.output_text}} {{item.letter}}"}],
}
RANK = {"type": "rank", "name": "better", "model": "judge"}
Monkey = pytest.MonkeyPatch


def use(monkeypatch: Monkey, **settings: Any) -> None:
    """What the operator sets, for this process and its children."""
    for name, value in settings.items():
        monkeypatch.setenv(f"CHERRY_{name.upper()}", value if isinstance(value, str) else json.dumps(value))
    get_settings.cache_clear()
    forget_services()


@contextmanager
def judge(monkeypatch: Monkey, answer: Callable[[Received], Answered | None]) -> Iterator[Receiver]:
    """The operator's judge is a server that answers so."""
    with receiver(answer) as server:
        place = {"base_url": f"http://127.0.0.1:{server.port}/v1", "key": "main", "retries": 0}
        use(monkeypatch, judges={"judge": place}, judge_keys={"main": {"key": KEY}}, trainer_threads="1")
        yield server


def test_a_job_with_a_judge_has_more_gradings_under_way(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    with judge(monkeypatch, lambda _: scored(1)):
        job = make_job(db, grader=JUDGE)
        validate_all("me", RUNNING)
    assert fresh(db, job).status == "queued", job.error
    config = TrainConfig.model_validate(job.config)
    assert (config.grade_concurrency, config.grade_seconds) == (32, 540.0)
    of_job = select(JobEvent.message).where(JobEvent.job_id == job.id)
    told = db.scalars(of_job.where(JobEvent.message.startswith("Graders ask judge"))).one()
    assert told.startswith("Graders ask judge about 124 times: 4 steps x 4 answers x 1 call")
    assert "At the measured 110 tokens a call" in told


@pytest.mark.parametrize("grader", [JUDGE, RANK], ids=lambda grader: grader["type"])
def test_a_judge_that_is_not_there_fails_the_job_before_it_trains(
    db: Session, tiny_model: Path, monkeypatch: Monkey, grader: dict[str, Any]
) -> None:
    with judge(monkeypatch, lambda _: refused(404, f"no model for {KEY}")) as server:
        job = make_job(db, grader=grader)
        validate_all("me", RUNNING)
        assert len(server.received) == 1, "one question is enough to find that out"
    assert fresh(db, job).status == "failed"
    assert job.error == {
        "code": "grader_error",
        "message": "The grader cannot grade: The judge 'judge' answered 404: no model for ***",
        "param": "method.reinforcement.grader",
    }


def test_a_judge_that_obeys_answers_is_told_of_before_the_job_trains(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    def obeys(received: Received) -> Answered:
        return scored(1.0 if "score" in asked(received)["messages"][-1]["content"] else 0.2)

    with judge(monkeypatch, obeys) as server:
        job = make_job(db, grader=JUDGE)
        validate_all("me", RUNNING)
        calls = len(server.received)
    assert fresh(db, job).status == "queued", job.error
    events = db.execute(select(JobEvent.level, JobEvent.message).where(JobEvent.job_id == job.id)).all()
    said = [message for level, message in events if level == "warn" and "talked round" in message]
    assert len(said) == 1
    assert "get +40%" in said[0]
    told = [message for level, message in events if "was tried with 26 calls" in message]
    assert len(told) == 1
    assert 26 < calls <= 26 + 11  # those of the trial that came before


def test_a_judge_that_nobody_knows_fails_the_job(db: Session, tiny_model: Path) -> None:
    job = make_job(db, grader=JUDGE)
    validate_all("me", RUNNING)
    assert fresh(db, job).error
    assert job.error["code"] == "unsupported_grader"
    assert job.error["param"] == "method.reinforcement.grader.model"


@pytest.mark.long
@pytest.mark.slow
def test_a_job_that_ranks_is_checked_trained_and_judged_against_its_base(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    def ranked(received: Received) -> Answered:
        shown = fenced_texts(asked(received)["messages"][-1]["content"])
        answers = [(name, text) for name, text in shown if name.startswith("answer")]
        scores = [{"answer": name, "reason": "long", "score": len(text) / 1000} for name, text in answers]
        return said(json.dumps({"scores": scores}))

    with judge(monkeypatch, ranked):
        job = make_job(db, grader=RANK, validation=data_rows(6))
        assert validate_all("me", RUNNING)
        assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    rollouts = db.scalars(select(Rollout).where(Rollout.job_id == job.id)).all()
    of_base = [one.reward for one in rollouts if (one.split, one.step) == ("valid", 0)]
    trained = [one.reward for one in rollouts if one.split == "train"]
    assert set(of_base) == {0.5}
    assert len(set(trained)) > 2
    messages = db.scalars(select(JobEvent.message).where(JobEvent.job_id == job.id)).all()
    assert any("0.5 is as good as the base" in message for message in messages)


@pytest.mark.long
@pytest.mark.slow
def test_a_judge_grades_a_training_and_its_tokens_are_told(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    with judge(monkeypatch, lambda received: scored(len(asked(received)["messages"][-1]["content"]) / 100)):
        job = make_job(db, grader=JUDGE, validation=data_rows(2))
        assert validate_all("me", RUNNING)
        assert train_next("me", RUNNING)
    assert fresh(db, job).status == "succeeded", job.error
    assert job.usage_metrics
    used = job.usage_metrics["grader_tokens"]["judge"]
    assert used["prompt_tokens"] == 10 * used["completion_tokens"] > 0
    assert job.usage_metrics["training_seconds"] > 0
    steps = db.scalars(select(JobMetrics.values).where(JobMetrics.job_id == job.id)).all()
    splits = ("train", "valid", "fresh", "greedy")
    told = [v.get(f"usage/{split}/prompt_tokens/judge", 0) for v in steps for split in splits]
    assert sum(told) == used["prompt_tokens"]
    event = db.scalars(select(JobEvent.data).where(JobEvent.job_id == job.id, JobEvent.key == "step-1")).one()
    assert event["usage"]["graders"][0]["model"] == "judge"
    assert event["model_graders_token_usage"]["judge"]["train_prompt_tokens"] > 0
    grades = db.execute(
        select(Rollout.reason, Rollout.failure, Rollout.failure_message).where(Rollout.job_id == job.id)
    )
    assert set(map(tuple, grades)) == {("reads: fine", None, None)}


@pytest.mark.long
@pytest.mark.slow
def test_a_judge_that_goes_away_fails_the_job_with_what_it_said_and_no_secret(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    working = threading.Event()
    working.set()

    def answer(_: Received) -> Answered:
        return scored(0.5) if working.is_set() else refused(400, f"Your credit is used up, {KEY}.")

    with judge(monkeypatch, answer):
        budget = {"grade_failure_limit": 0.25, "grade_failure_steps": 2}
        job = make_job(db, grader=JUDGE, hyperparameters=budget)
        assert validate_all("me", RUNNING)
        working.clear()
        assert train_next("me", RUNNING)
    assert fresh(db, job).status == "failed"
    assert job.error
    assert job.error["code"] == "grader_error"
    assert "each of the 2 steps up to step 2, more than 25% of the grades failed" in job.error["message"]
    assert "model_grader_server_error: The judge 'judge' answered 400: Your credit" in job.error["message"]
    rows = db.scalars(select(Rollout.failure_message).where(Rollout.job_id == job.id)).all()
    assert KEY not in job.error["message"] + "".join(filter(None, rows))
    assert {row and row.partition(":")[0] for row in rows} == {"The judge 'judge' answered 400"}


@pytest.mark.long
@pytest.mark.slow
def test_an_endpoint_grades_a_training_with_headers_that_no_row_holds_in_the_clear(
    db: Session, tiny_model: Path, monkeypatch: Monkey
) -> None:
    secret = "Bearer of the user's own server"
    with receiver(lambda _: answered({"score": 0.5})) as server:
        use(monkeypatch, outbound_allow="127.0.0.1", outbound_allow_http="true", trainer_threads="1")
        grader = {"type": "endpoint", "name": "own", "url": server.url, "headers": {"Authorization": secret}}
        job = make_job(db, grader=grader)
        kept = sealed(grader, job.project_id, get_settings())
        job.method = {
            "type": "reinforcement",
            "reinforcement": {**job.method["reinforcement"], "grader": kept},
        }
        db.commit()
        assert validate_all("me", RUNNING)
        assert train_next("me", RUNNING)
        assert {each.headers["authorization"] for each in server.received} == {secret}
    assert fresh(db, job).status == "succeeded", job.error
    assert secret not in json.dumps(job.method)
    assert masked(job.method["reinforcement"]["grader"])["headers"] == {"Authorization": "********"}


# Judges that are processes, and end.

WORTH = "tests.judging.worth:early_letters"
SLOWLY = 40
"""Milliseconds of a reply, so that a test can act between two steps."""


def use_process(monkeypatch: pytest.MonkeyPatch, port: int, **settings: str) -> None:
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


@pytest.mark.long
@pytest.mark.slow
def test_a_job_whose_judge_goes_down_pauses_and_goes_on_with_the_history_of_one_that_never_did(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_judge(worth=WORTH) as judge:
        port = judge.port
        use_process(monkeypatch, port)
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


@pytest.mark.long
@pytest.mark.slow
def test_a_judge_that_is_down_for_less_than_the_limit_costs_time_alone(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_judge(worth=WORTH) as judge:
        port = judge.port
        use_process(monkeypatch, port, judge_down_limit="PT60S")
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


@pytest.mark.long
@pytest.mark.slow
def test_without_waiting_too_many_missing_grades_fail_the_job(
    db: Session, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running_judge(worth=WORTH) as judge:
        use_process(monkeypatch, judge.port, judge_down_limit="PT0S")
        job = queued(db)
    train_and_lose_the_judge(db, job, judge.port, 2)
    assert fresh(db, job).status == "failed"
    assert job.error
    assert job.error["code"] == "grader_error"
