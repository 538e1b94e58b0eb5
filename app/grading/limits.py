"""Says how many gradings a training has under way, and how long one may take. Both follow the grader."""

from __future__ import annotations

from typing import NamedTuple

from app.grading import endpoints
from app.grading.openai_calls import LONGER_THAN_ONE
from app.settings import Settings
from app.table_settings import Connection, JudgeEntry, entry_for
from graders import GraderSpec
from graders.code.tests_spec import CodeTestsSpec
from graders.judges.spec import EndpointSpec, LabelModelSpec, ScoreModelSpec
from graders.spec import TextSimilaritySpec, single_graders

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
    return GradeLimits(concurrency, MARGIN_SECONDS + sum(_seconds(single, settings) for single in singles))


def asked_models(spec: GraderSpec, settings: Settings) -> list[str]:
    """Returns the models whose tokens a grader spends, by the names under which they are counted."""
    found = set()
    for single in single_graders(spec):
        match single:
            case ScoreModelSpec() | LabelModelSpec():
                found.add(single.model)
            case TextSimilaritySpec(evaluation_metric="cosine") if settings.embeddings is not None:
                found.add(settings.embeddings.model)
    return sorted(found)


def _concurrency(spec: GraderSpec, settings: Settings) -> int | None:
    """What the server of a grader can make use of; None if it asks nobody."""
    match spec:
        case ScoreModelSpec() | LabelModelSpec():
            return _judge(spec, settings).concurrency * CALLS_WAITING
        case EndpointSpec(rate_limit=None):
            return settings.endpoint_concurrency * CALLS_WAITING
        case EndpointSpec(rate_limit=float() as rate):
            return max(1, min(settings.endpoint_concurrency * CALLS_WAITING, int(rate * LONGEST_ROW)))
        case _:
            return None


def _seconds(spec: GraderSpec, settings: Settings) -> float:
    match spec:
        case ScoreModelSpec() | LabelModelSpec():
            return _judge(spec, settings).timeout * LONGER_THAN_ONE
        case EndpointSpec():
            return endpoints.SECONDS
        case CodeTestsSpec():
            return max(AT_HOME_SECONDS, LONGER_THAN_ONE * spec.total_time_limit)
        case _:
            return AT_HOME_SECONDS


def _judge(spec: ScoreModelSpec | LabelModelSpec, settings: Settings) -> Connection:
    entry = entry_for(settings.judges, spec.model) if spec.base_url is None else None
    return entry or JudgeEntry(base_url=spec.base_url or "none")
