"""Tells a job's owner what is to be known of its judges, once: what their servers were not asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from graders.services import Judge, Question, Reply, Services, Target


class RemarkedJudge:
    """Passes on questions to a judge, and the remarks on its replies to `tell`, each of a model once."""

    def __init__(self, judge: Judge, tell: Callable[[str], None]) -> None:
        self._judge = judge
        self._tell = tell
        self._told: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        self._judge.check(target, sampling, media)

    def ask(self, question: Question) -> Reply:
        reply = self._judge.ask(question)
        if reply.remark and self._is_new((question.target.model, reply.remark)):
            self._tell(f"Of the judge '{question.target.model}': {reply.remark}.")
        return reply

    def _is_new(self, remark: tuple[str, str]) -> bool:
        with self._lock:
            is_new = remark not in self._told
            self._told.add(remark)
        return is_new


def with_remarks(services: Services, tell: Callable[[str], None]) -> Services:
    """Returns the services with a judge whose remarks are told; graders may ask it from many threads."""
    if services.judge is None:
        return services
    return replace(services, judge=RemarkedJudge(services.judge, tell))
