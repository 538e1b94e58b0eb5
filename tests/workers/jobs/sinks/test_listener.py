"""A sink that hangs, dies or floods never holds up a run, and its process ends with the run."""

from __future__ import annotations

import sys

import pytest

from workers.jobs.sinks.base import ShownRun
from workers.jobs.sinks.listener import MOST_WAITING, SinkListener

RUN = ShownRun("ftjob-1", "cherry-nano", {}, {}, "/nowhere")
GOOD = """
import json, sys
sys.stdin.readline()
for line in sys.stdin:
    print(json.dumps({"done": json.loads(line)["step"]}), flush=True)
"""
HANGS = 'import time; print(\'{"failing": "OSError: it is away"}\', flush=True); time.sleep(1000)'
DIES = "raise SystemExit(3)"
REFUSES = 'print(\'{"refused": "its package is not installed."}\')'


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


def listen(program: str, told: list[tuple[str, str]]) -> SinkListener:
    def warn(fault: str, message: str) -> None:
        told.append((fault, message))

    return SinkListener("Elsewhere", [sys.executable, "-I", "-c", program], RUN, warn, failing_seconds=0.5)


def test_all_steps_arrive_before_the_end_and_nothing_is_said(told: list[tuple[str, str]]) -> None:
    listener = listen(GOOD, told)
    for step in range(2000):
        listener.metrics(step, 1, {"reward/mean": 0.5})
    listener.finish()
    assert told == []


@pytest.mark.parametrize("program", [HANGS, DIES], ids=["hangs", "dies"])
def test_a_run_tells_more_than_can_wait_and_goes_on(told: list[tuple[str, str]], program: str) -> None:
    listener = listen(program, told)
    steps = MOST_WAITING + 2000
    for step in range(steps):
        listener.metrics(step, 1, {"reward/mean": 0.5, "padding": "x" * 200})
    listener.finish()
    assert told[-1] == ("incomplete", f"Of {steps} steps of this attempt {steps} are missing at Elsewhere.")
    assert [fault for fault, _ in told[:-1]] == (["failing"] if program == HANGS else [])


def test_the_process_is_gone_after_the_end(told: list[tuple[str, str]]) -> None:
    listener = listen(REFUSES, told)
    listener.metrics(1, 1, {"reward/mean": 0.5})
    listener.finish()
    assert told == [("unavailable", "The job is not shown at Elsewhere: its package is not installed.")]
    assert listener._process.returncode is not None
    assert not any(thread.is_alive() for thread in listener._threads)
