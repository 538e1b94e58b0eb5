"""Jobs that name an environment of the operator's: what is kept, and what is refused by its name."""

from __future__ import annotations

import json
from typing import Any

import httpx2 as httpx
import pytest

from app.settings import get_settings
from tests.app.tools.test_tool_jobs import TOOL

AT = "method.reinforcement.environment"
NAMED = {"type": "named", "name": "guess"}
ENTRIES = {
    "guess": {
        "load": "guess:Guess",
        "description": "Wants a number.",
        "args": {"limit": 3, "secret": "s3cr3t"},
        "job_args": ["limit"],
    },
    "other": {"verifiers": "wordle", "projects": ["proj_of_somebody"]},
}
GRADER = {"type": "environment", "name": "reward"}


@pytest.fixture(autouse=True)
def _environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_ENVIRONMENTS", json.dumps(ENTRIES))
    get_settings.cache_clear()


def body_of(job_body: dict[str, Any], environment: Any = NAMED, **block: Any) -> dict[str, Any]:
    reinforcement = {"grader": GRADER, "environment": environment, **block}
    return {**job_body, "method": {"type": "reinforcement", "reinforcement": reinforcement}}


def test_a_named_environment_is_kept_with_the_arguments_of_the_job(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    asked = {**NAMED, "args": {"limit": 5}}
    job = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, asked)).json()
    block = job["method"]["reinforcement"]
    assert block["environment"] == asked
    assert (block["max_episode_steps"], block["grader"]["type"]) == (10, "environment")
    assert "s3cr3t" not in json.dumps(job)


REFUSED = {
    "an unknown name": ({**NAMED, "name": "chess"}, f"{AT}.name", "environment_not_found", "guess"),
    "another project's": ({**NAMED, "name": "other"}, f"{AT}.name", "environment_not_found", "guess"),
    "an argument of the operator's": (
        {**NAMED, "args": {"secret": "x"}},
        f"{AT}.args.secret",
        "unknown_parameter",
        "limit",
    ),
    "long arguments": ({**NAMED, "args": {"limit": "x" * 20_000}}, f"{AT}.args", "invalid_value", "16384"),
    "code": ({**NAMED, "python": "x"}, f"{AT}.python", "unknown_parameter", "python"),
    "no name": ({"type": "named"}, f"{AT}.name", "missing_required_parameter", "name"),
    "an unknown kind": ({**NAMED, "type": "verifiers"}, f"{AT}.type", "invalid_value", "'named'"),
    "no kind": ({"name": "guess"}, f"{AT}.type", "missing_required_parameter", "type"),
}


@pytest.mark.parametrize(("environment", "param", "code", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_is_refused_by_name(
    http: httpx.Client, job_body: dict[str, Any], environment: Any, param: str, code: str, told: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, environment))
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert told in error["message"]


def test_tools_beside_it_and_its_grader_without_it_are_refused(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    error = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, tools=[TOOL])).json()["error"]
    assert (error["param"], error["code"]) == ("method.reinforcement.tools", "unsupported_parameter")
    combined = {"type": "multi", "graders": {"own": GRADER}, "calculate_output": "2 * own"}
    for grader in (GRADER, combined):
        error = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, None, grader=grader)).json()["error"]
        assert (error["param"], error["code"]) == ("method.reinforcement.grader", "invalid_value")


def test_those_of_the_project_are_listed_without_what_the_operator_gives_them(http: httpx.Client) -> None:
    listed = http.get("/v1/fine_tuning/environments").json()
    shown = {
        "object": "fine_tuning.environment",
        "id": "guess",
        "description": "Wants a number.",
        "job_args": ["limit"],
    }
    assert listed["data"] == [shown]


def test_without_any_the_message_says_who_installs_them(
    http: httpx.Client, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_ENVIRONMENTS", "")
    get_settings.cache_clear()
    error = http.post("/v1/fine_tuning/jobs", json=body_of(job_body)).json()["error"]
    assert (error["param"], error["code"]) == (f"{AT}.name", "environment_not_found")
    assert "CHERRY_ENVIRONMENTS" in error["message"]
