"""Jobs with a simulated user over the API: what is kept and shown, and what is refused by its name."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest

from app.grading.services import forget_services
from app.settings import get_settings
from tests.app.tools.test_tool_jobs import GRADER, TOOL

SIMULATOR = {"type": "user_simulator", "model": "judge", "instructions": "You want {{item.letter}}."}
AT = "method.reinforcement.environment"
JUDGES = '{"judge": {"base_url": "http://127.0.0.1:9/v1", "reasoning": true}}'


@pytest.fixture(autouse=True)
def _judge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_JUDGES", JUDGES)
    get_settings.cache_clear()
    forget_services()


def body_of(job_body: dict[str, Any], environment: Any = SIMULATOR, **block: Any) -> dict[str, Any]:
    reinforcement = {"grader": GRADER, "environment": environment, **block}
    return {**job_body, "method": {"type": "reinforcement", "reinforcement": reinforcement}}


def test_a_simulated_user_is_kept_and_shown_with_its_defaults(
    client: openai.OpenAI, job_body: dict[str, Any]
) -> None:
    sampling = {"reasoning_effort": "low", "max_completions_tokens": 200}
    asked = {**SIMULATOR, "sampling_params": sampling}
    job = client.fine_tuning.jobs.create(**body_of(job_body, asked, tools=[TOOL]))
    block = job.to_dict()["method"]["reinforcement"]
    assert block["environment"] == {**asked, "stop": "###STOP###"}
    assert block["max_episode_steps"] == 10
    assert block["tools"][0]["name"] == TOOL["name"]
    assert client.fine_tuning.jobs.retrieve(job.id).to_dict() == job.to_dict()


REFUSED = {
    "an unknown type": ({**SIMULATOR, "type": "verifiers"}, "type"),
    "no model": ({"type": "user_simulator", "instructions": "x"}, "model"),
    "an unknown model": ({**SIMULATOR, "model": "nobody"}, "model"),
    "an unknown field": ({**SIMULATOR, "prompt": "x"}, "prompt"),
    "no instructions": ({**SIMULATOR, "instructions": ""}, "instructions"),
    "a template of the answer": (
        {**SIMULATOR, "instructions": "{{sample.output_text}}"},
        "instructions",
    ),
    "no template": ({**SIMULATOR, "instructions": "{{letter}}"}, "instructions"),
    "single braces": ({**SIMULATOR, "instructions": "{item.letter}"}, "instructions"),
    "an empty stop": ({**SIMULATOR, "stop": ""}, "stop"),
    "a parameter the model does not take": (
        {**SIMULATOR, "sampling_params": {"temperature": 1.0}},
        "sampling_params.temperature",
    ),
    "a key without an address": ({**SIMULATOR, "api_key_name": "main"}, "api_key_name"),
    "a private address": ({**SIMULATOR, "base_url": "http://10.0.0.1/v1"}, "base_url"),
}


@pytest.mark.parametrize(("environment", "param"), REFUSED.values(), ids=REFUSED)
def test_bad_simulators_are_refused_by_name(
    http: httpx.Client, job_body: dict[str, Any], environment: Any, param: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, environment))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == f"{AT}.{param}"


def test_no_object_and_a_form_beside_it_are_refused(http: httpx.Client, job_body: dict[str, Any]) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, "user_simulator"))
    assert answer.json()["error"]["param"] == AT
    form = {"type": "json_object"}
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, response_format=form))
    assert answer.json()["error"]["param"] == "method.reinforcement.response_format"


def test_all_that_is_wrong_with_tools_and_user_is_told_at_once(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    body = body_of(job_body, {**SIMULATOR, "model": "nobody"}, tools=[{"name": "a"}])
    error = http.post("/v1/fine_tuning/jobs", json=body).json()["error"]
    assert "tools[0]" in error["message"]
    assert "nobody" in error["message"]
