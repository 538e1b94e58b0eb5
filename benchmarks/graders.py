"""What grading costs: `python -m benchmarks.graders`. Fails where a bar is missed.

Python graders from a warm pool, one locked process per call, in grades per second of processor time of
everything involved (caller, fork-server, the calls themselves), beside starting one interpreter per call;
then the kinds that are built in, on one core; then rubrics, beside the calls that they make.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import psutil

from benchmarks.rubrics import rubrics
from graders import Sample, build_grader, parse_grader
from graders.sandbox import LocalSandbox, SandboxSettings
from graders.services import Services

ROUNDS = 5
GRADE = """
def grade(sample, item):
    return 1.0 if sample["output_text"].strip() == item["answer"] else 0.0
"""
SOURCES = {
    "standard library": "import json, math, re\n" + GRADE,
    "numpy": "import numpy as np\n" + GRADE,
    "numpy + pandas": "import numpy as np\nimport pandas as pd\n" + GRADE,
}
CALLS = {"standard library": 300, "numpy": 200, "numpy + pandas": 120}
BARS = {"standard library": 250, "numpy + pandas": 90}
"""Grades per CPU-second that the pool must reach."""
BUILT_IN_BAR = 20_000
"""Grades per second and core of every kind that is built in."""

ANSWER = "Paris is the capital of France."
ITEM = {"answer": ANSWER, "reference": {"city": "Paris", "state": "France"}, "city": "Paris"}
TEXT = {"input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
CHECK = {"type": "string_check", "name": "check", "operation": "eq", **TEXT}
KINDS: dict[str, dict[str, Any]] = {
    "string_check": CHECK,
    "string_check of a JSON field": CHECK
    | {"input": "{{sample.output_json.city}}", "reference": "{{item.city}}"},
    "multi of two": {
        "type": "multi",
        "name": "multi",
        "graders": {"a": CHECK, "b": CHECK | {"operation": "ilike"}},
        "calculate_output": "0.5 * a + 0.5 * b",
    },
    "fields": {
        "type": "fields",
        "name": "fields",
        "input": "{{sample.output_json}}",
        "reference": "{{item.reference}}",
    },
}
for metric in ("fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_l"):
    KINDS[metric] = {"type": "text_similarity", "name": metric, "evaluation_metric": metric, **TEXT}


class Speed(NamedTuple):
    """Of one way to grade."""

    per_cpu_second: float
    milliseconds: float


def family_seconds() -> float:
    """Processor time of this process and all below it, those that have ended included."""
    own = psutil.Process()
    spent = own.cpu_times()
    total: float = spent.user + spent.system + spent.children_user + spent.children_system
    for child in own.children(recursive=True):
        times = child.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure(call: Callable[[], object], calls: int, rounds: int = ROUNDS) -> Speed:
    """The median of several rounds: a machine that others use has slow minutes."""
    speeds = []
    for _ in range(rounds):
        started, before = time.perf_counter(), family_seconds()
        for _ in range(calls):
            call()
        spent = family_seconds() - before
        speeds.append(Speed(calls / spent, 1000 * (time.perf_counter() - started) / calls))
    return Speed(*(statistics.median(column) for column in zip(*speeds, strict=True)))


def pooled(sandbox: LocalSandbox, source: str) -> Callable[[], object]:
    grader = build_grader(
        parse_grader({"type": "python", "name": "p", "source": source}), Services(sandbox=sandbox)
    )
    sample = Sample(ANSWER)

    def call() -> None:
        assert grader.grade(sample, ITEM).value == 1.0

    for _ in range(5):
        call()
    return call


def process_per_call(source: str) -> Callable[[], object]:
    program = source + f"\nassert grade({{'output_text': {ANSWER!r}}}, {{'answer': {ANSWER!r}}}) == 1.0\n"

    def call() -> None:
        subprocess.run([sys.executable, "-I", "-c", program], check=True)

    call()
    return call


def sandboxed() -> bool:
    sandbox = LocalSandbox(SandboxSettings())
    if (reason := sandbox.why_not()) is not None:
        print(f"No sandbox holds here: {reason}")
        return False
    print(
        f"Python graders, level {sandbox.assessment().level}: grades per CPU-second (milliseconds a grade)\n"
    )
    print(
        "| imports | warm pool, one locked process per call | one interpreter per call |\n| --- | --- | --- |"
    )
    holds = True
    for name, source in SOURCES.items():
        warm = measure(pooled(sandbox, source), CALLS[name])
        cold = measure(process_per_call(source), 3, rounds=3)
        print(f"| {name} | {warm[0]:.0f} ({warm[1]:.1f} ms) | {cold[0]:.1f} ({cold[1]:.0f} ms) |", flush=True)
        holds &= warm.per_cpu_second >= BARS.get(name, 0)
    for threads in (1, 2, 4):
        print(
            f"\n{threads} callers at once: {at_once(sandbox, threads):.0f} grades a second on the clock",
            end="",
        )
    print()
    sandbox.close()
    return holds


def at_once(sandbox: LocalSandbox, threads: int) -> float:
    call, calls = pooled(sandbox, SOURCES["standard library"]), 300
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        list(pool.map(lambda _: call(), range(calls)))
        return calls / (time.perf_counter() - started)


def built_in() -> bool:
    print("\nKinds that are built in: grades per second on one core\n\n| kind | grades |\n| --- | --- |")
    holds = True
    for name, raw in KINDS.items():
        grader = build_grader(parse_grader(raw))
        is_json = "JSON" in name or name == "fields"
        text = '{"city": "Paris", "state": "Texas"}' if is_json else "The capital of France is Paris."
        speed = measure(partial(grader.grade, Sample(text), ITEM), 10_000)
        print(f"| {name} | {speed.per_cpu_second:,.0f} |", flush=True)
        holds &= speed.per_cpu_second >= BUILT_IN_BAR
    return holds


if __name__ == "__main__":
    bars = [sandboxed(), built_in(), rubrics()]
    print(
        "\n" + ("All bars are met." if all(bars) else f"A bar is missed: {BARS}, built in {BUILT_IN_BAR:,}.")
    )
    sys.exit(0 if all(bars) else 1)
