"""Counts what a run has come to, as the API tells it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from app.evals.models import EvalRun
from graders.types import Usage

COUNTS = {"pass": "passed", "fail": "failed", "error": "errored"}


class Tally:
    """The counts of a run, going on from what its row holds."""

    def __init__(self, run: EvalRun, criteria: Iterable[str]) -> None:
        self._counts = dict(run.result_counts)
        self._usage = {one["model_name"]: dict(one) for one in run.per_model_usage}
        known = {one["testing_criteria"]: dict(one) for one in run.per_testing_criteria_results}
        nothing = {"passed": 0, "failed": 0}
        self._criteria = {name: known.get(name, {"testing_criteria": name, **nothing}) for name in criteria}

    def add(self, status: str, results: Iterable[Mapping[str, Any]], usage: Usage) -> None:
        """Counts one item."""
        self._counts["total"] += 1
        self._counts[COUNTS[status]] += 1
        for result in results:
            if "error" not in result:
                self._criteria[result["name"]]["passed" if result["passed"] else "failed"] += 1
        for model, spent in usage.items():
            counted = self._usage.setdefault(model, _nothing(model))
            counted["invocation_count"] += spent.calls
            counted["prompt_tokens"] += spent.prompt_tokens
            counted["completion_tokens"] += spent.completion_tokens
            counted["total_tokens"] += spent.total_tokens
            counted["cached_tokens"] += spent.cached_tokens

    def columns(self) -> dict[str, Any]:
        """Returns what the run's row keeps."""
        return {
            "result_counts": self._counts,
            "per_model_usage": list(self._usage.values()),
            "per_testing_criteria_results": list(self._criteria.values()),
        }


def _nothing(model: str) -> dict[str, Any]:
    kinds = ("invocation_count", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens")
    return {"model_name": model, **dict.fromkeys(kinds, 0)}
