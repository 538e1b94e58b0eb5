"""Every hostile program is contained, and every harmless one works, wherever a service runs."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import pytest

from tests.graders.sandbox.attack_run import wrong
from tests.graders.sandbox.attacks import BENIGN, HOSTILE
from tests.graders.sandbox.surroundings import can_imitate

REPOSITORY = Path(__file__).resolve().parents[3]
LEVELS = {"user": "full", "container": "container", "container-user": "container"}
"""The level that has to be found in each of the surroundings."""
CASES = [*HOSTILE, *BENIGN]


def run(*command):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd="/",
        env=environment,
        timeout=550,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@lru_cache
def attacked(name):
    if reason := can_imitate(name):
        pytest.skip(reason)
    return run("tests.graders.sandbox.surroundings", name, "tests.graders.sandbox.attack_run", "auto")


@lru_cache
def unprotected():
    return run("tests.graders.sandbox.attack_run", "CONTROL")


def test_there_are_as_many_attacks_as_are_promised():
    assert len({case.name for case in CASES}) == len(CASES)
    assert len(HOSTILE) >= 86
    assert len(BENIGN) >= 14


@pytest.mark.parametrize("surroundings", LEVELS)
def test_the_strongest_level_is_found_and_why_it_is_not_higher(surroundings):
    found = attacked(surroundings)
    if surroundings == "user" and found["level"] == "container":
        pytest.skip(f"no namespaces for ordinary users here: {found['why']}")
    assert found["level"] == LEVELS[surroundings]
    assert list(found["why"]) == (["full"] if found["level"] == "container" else [])


@pytest.mark.parametrize("surroundings", LEVELS)
def test_what_the_attacks_went_for_is_as_it_was(surroundings):
    assert attacked(surroundings)["damage"] == []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("surroundings", LEVELS)
def test_each_program_ends_as_it_must(surroundings, case):
    assert wrong(case, attacked(surroundings)["results"][case.name]) == ""


def test_without_the_sandbox_the_same_attacks_succeed():
    control = unprotected()
    assert len(control["through"]) >= 19, control
