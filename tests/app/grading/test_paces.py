"""At most so many calls a minute, of all processes together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.grading.limits import grade_limits
from app.grading.paces import JudgePace, Pace
from graders import Sample, parse_grader
from tests.app.grading.judge_servers import GRADER, grader_of, judges_at, scored, settings_with
from tests.app.webhooks.receivers import receiver

MINUTE = 60.0


def test_places_of_one_judge_lie_apart_whoever_takes_them(db: Session) -> None:
    paces = [Pace("judge", 1.0) for _ in range(4)]  # each knows nothing of the others
    with ThreadPoolExecutor(4) as pool:
        waits = sorted(pool.map(lambda pace: pace.wait_seconds(), paces))
    assert waits[0] == 0
    for place, wait in enumerate(waits):
        assert (place - 1) * MINUTE < wait <= place * MINUTE


def test_judges_do_not_wait_for_each_other(db: Session) -> None:
    assert [Pace(name, 1.0).wait_seconds() for name in ("a", "b", "*")] == [0, 0, 0]


def test_a_limited_judge_takes_a_place_for_each_try(db: Session) -> None:
    with receiver(lambda _: scored(1)) as server:
        grade = grader_of(judges_at(server, calls_per_minute=6000)).grade(Sample("hello"), {})
        assert grade.value == 1
        assert grader_of(judges_at(server)).grade(Sample("hello"), {}).value == 1
    assert list(db.scalars(select(JudgePace.name))) == ["judge"]


def test_no_more_gradings_are_under_way_than_a_minute_has_calls() -> None:
    entry = {"base_url": "http://127.0.0.1:1/v1", "calls_per_minute": 10}
    free = grade_limits(
        parse_grader(GRADER), settings_with(judges={"judge": {**entry, "calls_per_minute": None}})
    )
    paced = grade_limits(parse_grader(GRADER), settings_with(judges={"judge": entry}))
    assert (free.concurrency, paced.concurrency) == (32, 10)
    assert paced.seconds > free.seconds
