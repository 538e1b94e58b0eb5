"""What is remarked of a judge reaches the job's owner, each remark once."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.events.models import JobEvent
from app.jobs import runs
from app.storage import get_storage
from graders.services import NO_SERVICES, Question, Reply, Services, Target
from tests.workers.jobs.test_db_recorder import CONFIG, HERE, LEASE
from tests.workers.rows import make_job
from workers.jobs.db_recorder import DatabaseRecorder
from workers.jobs.judge_remarks import with_remarks


class Deaf:
    """A judge whose server takes less than it is asked for."""

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None: ...

    def ask(self, question: Question) -> Reply:
        return Reply("{}", remark="" if question.target.model == "able" else "its server is deaf")


def ask(services: Services, model: str) -> None:
    assert services.judge is not None
    services.judge.ask(Question(Target(model), (), "x", {}))


def test_each_remark_of_a_model_is_told_once() -> None:
    told: list[str] = []
    services = with_remarks(Services(judge=Deaf()), told.append)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda model: ask(services, model), ["a", "able", "b", "a", "a", "b"]))
    assert sorted(told) == ["Of the judge 'a': its server is deaf.", "Of the judge 'b': its server is deaf."]


def test_without_a_judge_nothing_is_told() -> None:
    assert with_remarks(NO_SERVICES, print) is NO_SERVICES


def test_a_remark_becomes_a_warning_event_with_the_next_rollouts(db: Session) -> None:
    make_job(db, status="queued", total_steps=4, config=CONFIG.model_dump(mode="json"))
    db.commit()
    with unit_of_work() as work:
        claim = runs.claim_for_training(work, "worker", LEASE, HERE)
    assert claim is not None
    recorder = DatabaseRecorder(claim, get_storage())
    recorder.remark("Of the judge 'a': its server is deaf.")
    assert not list(db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")))
    recorder.rollouts("train", 1, 1, [])
    db.expire_all()
    said = list(db.scalars(select(JobEvent.message).where(JobEvent.level == "warn")))
    assert said == ["Of the judge 'a': its server is deaf."]
