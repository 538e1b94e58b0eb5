"""Reads the labels of RLVR rows and the answers that are held against them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graders.grading import Score
from graders.types import FailureKind, GradeFailed, Grader, Sample


def graded(grader: Grader, sample: Sample, item: Mapping[str, Any]) -> Score:
    """Returns what a grader gives. Raises `GradeFailed` where that is no value."""
    grade = grader.grade(sample, item)
    if grade.value is None:
        assert grade.failure is not None
        raise GradeFailed(grade.failure.kind, grade.failure.message, usage=grade.usage)
    return Score(grade.value, grade.parts, grade.reason, grade.usage)


def without_answer_tags(text: str) -> str:
    """Returns a text without the tags that may stand around an answer."""
    return text.replace("<|assistant|>", "").replace("<answer>", "").replace("</answer>", "").strip()


def tagged(text: str, tag: str) -> str | None:
    """Returns what stands between the last opening tag and the closing one after it; None without either.

    Tags may be in capitals in text that is ASCII; in other text a change of case could move the places.
    """
    lower = text.lower() if text.isascii() else text
    start = lower.rfind(f"<{tag}>")
    end = lower.find(f"</{tag}>", start)
    return text[start + len(tag) + 2 : end] if 0 <= start < end else None


def text_of_label(label: Any) -> str:
    """Returns a label as text. Raises `GradeFailed` for one that is neither text nor a number."""
    if isinstance(label, bool) or not isinstance(label, str | int | float) or not str(label).strip():
        raise unusable("is neither text nor a number")
    return str(label)


def unusable(why: str) -> GradeFailed:
    """Returns the failure for a label that cannot be read. `why` goes on "The row's ground_truth ..."."""
    return GradeFailed(FailureKind.INVALID_VARIABLE, f"The row's ground_truth {why}.")
