"""Says how many gradings a training has under way, and how long one may take. Both follow the grader."""

from __future__ import annotations

import math
from typing import NamedTuple

from app.grading import endpoints
from app.grading.openai_calls import LONGER_THAN_ONE, PACED_SECONDS
from app.grading.paces import SECONDS_PER_MINUTE
from app.settings import Settings
from app.table_settings import Connection, JudgeEntry, entry_for
from graders import GraderSpec
from graders.code.tests_spec import CodeTestsSpec
from graders.judges.asking import SIDE_BY_SIDE
from graders.judges.rank_spec import RankSpec
from graders.judges.spec import AskingSpec, EndpointSpec, JudgeSpec
from graders.spec import TextSimilaritySpec, judge_of, single_graders

AT_HOME = 8
"""Gradings under way where nobody is asked: they take CPU, not time."""
AT_HOME_SECONDS = 150.0
"""Seconds beyond what the sandbox gives one program."""
MARGIN_SECONDS = 60.0
"""Seconds of waiting until a server's other calls are through."""
LONGEST_ROW = 60.0
"""Seconds that a call may wait for its turn under a rate limit."""
CALLS_WAITING = 2
"""Gradings for each call that a server takes at the same time, so that it never waits for us."""


class GradeLimits(NamedTuple):
    concurrency: int
    seconds: float


def grade_limits(spec: GraderSpec, settings: Settings) -> GradeLimits:
    """Of one training, in each of its processes. The graders of a `multi` work one after another."""
    singles = single_graders(spec)
    places = [_concurrency(single, settings) for single in singles]
    asked = [place for place in places if place is not None]
    concurrency = min([settings.asking_concurrency, *asked]) if asked else AT_HOME
    waiting = settings.judge_down_limit.total_seconds() if asked else 0.0
    seconds = sum(_seconds(single, settings) for single in singles)
    return GradeLimits(concurrency, MARGIN_SECONDS + waiting + seconds)


def asked_models(spec: GraderSpec, settings: Settings) -> list[str]:
    """Returns the models whose tokens a grader spends, by the names under which they are counted."""
    found = set()
    for single in single_graders(spec):
        if judge := judge_of(single):
            found.add(judge.model)
        is_cosine = isinstance(single, TextSimilaritySpec) and single.evaluation_metric == "cosine"
        if is_cosine and settings.embeddings is not None:
            found.add(settings.embeddings.model)
    return sorted(found)


def calls_of(spec: GraderSpec, settings: Settings, answers: int, *, base: int = 0) -> dict[str, float]:
    """Returns how often each model is asked, as a rule, for the grades of so many answers to one prompt.

    A grader of groups looks at the `base` answers of the base model too, where it compares with those.
    """
    calls: dict[str, float] = {}
    for single in single_graders(spec):
        for model in asked_models(single, settings):
            calls[model] = calls.get(model, 0.0) + _calls(single, answers, base)
    return calls


def _calls(spec: GraderSpec, answers: int, base: int) -> int:
    if isinstance(spec, RankSpec):
        return spec.calls_of(answers + base)
    return answers * (spec.usual_calls if isinstance(spec, AskingSpec) else 1)


def calls_per_minute_of(model: str, settings: Settings) -> float | None:
    """Returns the operator's limit for a judge of that name; None without one."""
    entry = entry_for(settings.judges, model)
    return None if entry is None else entry.calls_per_minute


def _concurrency(spec: GraderSpec, settings: Settings) -> int | None:
    """What the server of a grader can make use of; None if it asks nobody."""
    if judge := judge_of(spec):
        side_by_side = min(SIDE_BY_SIDE, spec.usual_calls) if isinstance(spec, AskingSpec) else 1
        return max(1, _calls_in_line(_judge(judge, settings)) // side_by_side)
    match spec:
        case EndpointSpec(rate_limit=None):
            return settings.endpoint_concurrency * CALLS_WAITING
        case EndpointSpec(rate_limit=float() as rate):
            return max(1, min(settings.endpoint_concurrency * CALLS_WAITING, int(rate * LONGEST_ROW)))
        case _:
            return None


def _calls_in_line(judge: Connection) -> int:
    """Returns how many gradings a judge is given at a time, so that none waits longer than `LONGEST_ROW`."""
    most = judge.concurrency * CALLS_WAITING
    if judge.calls_per_minute is None:
        return most
    return max(1, min(most, int(judge.calls_per_minute * LONGEST_ROW / SECONDS_PER_MINUTE)))


def _seconds(spec: GraderSpec, settings: Settings) -> float:
    if judge := judge_of(spec):
        entry = _judge(judge, settings)
        calls = spec.calls_per_grade if isinstance(spec, AskingSpec) else 1
        rounds = math.ceil(calls / min(SIDE_BY_SIDE, entry.concurrency))
        at_home = 0.0 if isinstance(spec, AskingSpec) else AT_HOME_SECONDS
        in_line = PACED_SECONDS if entry.calls_per_minute else 0.0
        return at_home + (entry.timeout * LONGER_THAN_ONE + in_line) * rounds
    match spec:
        case EndpointSpec():
            return endpoints.SECONDS
        case CodeTestsSpec():
            return max(AT_HOME_SECONDS, LONGER_THAN_ONE * spec.total_time_limit)
        case _:
            return AT_HOME_SECONDS


def _judge(spec: JudgeSpec, settings: Settings) -> Connection:
    entry = entry_for(settings.judges, spec.model) if spec.base_url is None else None
    return entry or JudgeEntry(base_url=spec.base_url or "none")
