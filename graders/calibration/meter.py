"""Measures what a judge is asked: how often, how many tries failed, and how long it takes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from typing import Any

from graders.build import build_grader
from graders.services import Judge, Question, Reply, Services, Target
from graders.spec import GraderSpec
from graders.types import GradeFailed, Grader, TokenUsage, Usage


class Meter:
    """Passes questions on to a judge, and counts. It is safe to call from many threads.

    Attributes:
        calls: replies and failures.
        tries: calls of the judge's server, those that failed at first counted.
        failed_tries: those of them that brought no reply.
        usage: tokens by model.
        seconds: of each call, its further tries included.
    """

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._lock = threading.Lock()
        self.calls = 0
        self.tries = 0
        self.failed_tries = 0
        self.usage: dict[str, TokenUsage] = {}
        self.seconds: list[float] = []

    def check(self, target: Target, sampling: Mapping[str, Any], media: frozenset[str]) -> None:
        self._judge.check(target, sampling, media)

    def ask(self, question: Question) -> Reply:
        started = perf_counter()
        try:
            reply = self._judge.ask(question)
        except GradeFailed as failed:
            is_servers = failed.failure.kind.is_servers_fault
            self._note(perf_counter() - started, 1, int(is_servers), failed.usage)
            raise
        usage = {question.target.model: reply.usage}
        self._note(perf_counter() - started, reply.tries, reply.tries - 1, usage)
        return reply

    def _note(self, seconds: float, tries: int, failed: int, usage: Usage) -> None:
        with self._lock:
            self.calls += 1
            self.tries += tries
            self.failed_tries += failed
            self.seconds.append(seconds)
            for model, tokens in usage.items():
                self.usage[model] = self.usage.get(model, TokenUsage()) + tokens


def metered(services: Services) -> tuple[Services, Meter | None]:
    """Returns the same services with their judge behind a meter; None where there is no judge."""
    if services.judge is None:
        return services, None
    meter = Meter(services.judge)
    return replace(services, judge=meter), meter


def build_metered(spec: GraderSpec, services: Services) -> tuple[Grader, Meter | None]:
    """Builds a grader whose judges are behind a meter. Raises `GraderInvalid`."""
    watched, meter = metered(services)
    return build_grader(spec, watched), meter
