"""Tries a job's judge before the job: whether it agrees with itself, and what moves it that should not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from app.grading.limits import grade_limits
from app.grading.services import grader_services
from app.settings import get_settings
from graders import GraderSpec
from graders.calibration.asking import Bounds
from graders.calibration.cases import cases_of_rows
from graders.calibration.measuring import measure
from graders.calibration.report import Measured
from graders.calibration.verdict import remarks_on_judge
from graders.preflight.trial import COSTLY_ROWS
from graders.spec import judge_of, single_graders
from methods.rows import Row
from workers.jobs.doubts import Doubt
from workers.jobs.grader_validation import CHECK_SECONDS, GRADER

CALLS = 40
"""Most calls of the judge. Two rows with two answers each, each graded three times and once with neutral
words, and ten ways to ask for a score take 26."""


class Tried(NamedTuple):
    """Says what came of trying a judge: doubts, and what the job says of itself beside."""

    doubts: list[Doubt]
    told: list[str]


def try_judge(spec: GraderSpec, project_id: str, rows: Sequence[Row]) -> Tried:
    """Tries the judges of a grader on a few training rows, which nobody has answered; none, where it asks
    none."""
    if all(judge_of(single) is None for single in single_graders(spec)):
        return Tried([], [])
    items, lines = [row.item for row in rows], [row.line for row in rows]
    cases = cases_of_rows(spec, items, lines, COSTLY_ROWS)
    concurrency = grade_limits(spec, get_settings()).concurrency
    bounds = Bounds(CHECK_SECONDS, CALLS, concurrency, repeated=4, padded=4, swapped=4, tricked=1)
    measured = measure(spec, grader_services(project_id, remembers=False), cases, bounds)
    doubts = [
        Doubt(f"judge_{remark.code}", f"{remark.message} {remark.advice}", GRADER)
        for remark in remarks_on_judge(measured)
    ]
    return Tried(doubts, [_cost(measured)])


def _cost(measured: Measured) -> str:
    """Says what trying the judge has cost."""
    spent, prices = measured.spent, get_settings().prices
    tokens = sum(usage.total_tokens for usage in spent.usage.values())
    money = ""
    if spent.usage and not prices.unpriced(spent.usage):
        money = f", {prices.cost(spent.usage, 0.0):.3g} {prices.currency}"
    return (
        f"The grader's judge was tried with {spent.calls} calls ({tokens:,} tokens{money}) on answers to"
        f" {COSTLY_ROWS} rows. `cherry graders check --labels` compares it with people."
    )
