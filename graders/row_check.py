"""Tells whether a grader can read a dataset row, without asking anybody who costs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graders.grading import OfAnswer
from graders.judges.rubric import RubricGrader
from graders.multi import Multi
from graders.rlvr.grader import Rlvr
from graders.types import FailureKind, GradeFailed, Grader


def why_unreadable(grader: Grader, item: Mapping[str, Any]) -> str | None:
    """Returns what of a row the grader cannot read, such as its rubric; None where nothing is known to be
    wrong. That the sandbox is missing is not the row's fault."""
    match grader:
        case OfAnswer():
            return why_unreadable(grader.grader, item)
        case Multi():
            found = (why_unreadable(part, item) for part in grader.graders.values())
            return next((why for why in found if why), None)
        case RubricGrader() | Rlvr():
            try:
                grader.check_row(item)
            except GradeFailed as failed:
                is_rows = failed.failure.kind is not FailureKind.PYTHON_SERVER
                return failed.failure.message if is_rows else None
    return None
