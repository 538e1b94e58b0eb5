"""Asks a judge several questions of one grade, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from graders.judges.helpers import HELPERS
from graders.services import Judge, Question, Reply
from graders.types import GradeFailed, Usage, add_usages

SIDE_BY_SIDE = 16
"""Calls of one grade under way. Chosen, not measured: most rubrics have fewer criteria, and a judge takes no
more calls at a time than its own `concurrency` says, whoever makes them."""


def ask_all(judge: Judge, questions: Sequence[Question]) -> list[Reply | GradeFailed]:
    """Returns a reply to each question, or why there is none, in their order.

    Raises `GraderInvalid` where the judge could not be asked at all.
    """
    if len(questions) == 1:
        return [_asked(judge, questions[0])]
    return HELPERS.map(partial(_asked, judge), questions, SIDE_BY_SIDE)


def usage_of(model: str, replies: Sequence[Reply | GradeFailed]) -> Usage:
    """Returns the tokens that replies have cost together, also those that were of no use."""
    return add_usages(one.usage if isinstance(one, GradeFailed) else {model: one.usage} for one in replies)


def _asked(judge: Judge, question: Question) -> Reply | GradeFailed:
    try:
        return judge.ask(question)
    except GradeFailed as failed:
        return failed
