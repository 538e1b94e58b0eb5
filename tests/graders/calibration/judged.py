"""Answers of known worth, and a judge of known behaviour to measure on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.grading.judges import Judges, TenantJudge
from graders import GraderSpec, parse_grader
from graders.calibration.asking import Bounds
from graders.calibration.cases import Case, with_wrong_ones_marked
from graders.calibration.measuring import measure
from graders.calibration.report import Measured
from graders.services import Services
from tests.app.grading.judge_servers import settings_with
from tests.judging import running_judge
from tests.judging.behaviours import Behaviour

WORDS = ("dog", "play", "tree", "sun")
WORTH = f"words:{','.join(WORDS)}"
SCORE: dict[str, Any] = {
    "type": "score_model",
    "name": "quality",
    "model": "judge",
    "input": [{"role": "user", "content": "How many of the words are there? Answer: {{sample.output_text}}"}],
}
LABEL: dict[str, Any] = {
    **SCORE,
    "type": "label_model",
    "labels": ["good", "bad"],
    "passing_labels": ["good"],
}
RUBRIC: dict[str, Any] = {
    "type": "rubric",
    "name": "words",
    "criteria": [{"criterion": f'The word "{word}" is there.', "points": 1} for word in WORDS],
}
RANK: dict[str, Any] = {"type": "rank", "name": "best"}
BOUNDS = Bounds(repeated=8, padded=8, swapped=8, tricked=2)


def labelled(rounds: int = 4) -> list[Case]:
    """Five answers a row, worth nothing to all, which people have scored from 1 to 5."""
    found = []
    for number in range(rounds):
        row = {"messages": [{"role": "user", "content": f"Write story {number} with a dog that plays."}]}
        for n in range(len(WORDS) + 1):
            answer = " ".join(["A", *WORDS[:n], "story", str(number)])
            found.append(Case(len(found) + 1, row, answer, label=float(n + 1)))
    return with_wrong_ones_marked(found)


@contextmanager
def running_services(**options: Any) -> Iterator[Services]:
    """What asks a judge, which is tried once and asked anew each time; its model is its behaviour."""
    with running_judge(worth=WORTH, **options) as judge:
        entry = {"base_url": judge.base_url, "retries": 0}
        judges = Judges(settings_with(judges={"*": entry}))
        yield Services(judge=TenantJudge(judges, "proj_a", remembers=False))


def measured(services: Services, behaviour: Behaviour, raw: Any = SCORE, bounds: Bounds = BOUNDS) -> Measured:
    """What is found of a judge of that behaviour."""
    spec: GraderSpec = parse_grader({**raw, "model": behaviour})
    return measure(spec, services, labelled(), bounds)
