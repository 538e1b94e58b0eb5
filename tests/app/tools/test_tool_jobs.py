"""Jobs with tools over the API: Azure's published shape, what is refused of it, and secrets that stay."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.jobs.models import Job
from app.models.models import Model
from app.settings import Settings, get_settings
from app.tools.service import opened
from tests.app.answers import error_of
from tests.factories import Tenant

GRADER = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
}
SECRET = "Bearer s3cr3t"
TOOL = {
    "name": "search_catalog",
    "server_url": "https://tools.example.com/search",
    "headers": {"Authorization": SECRET, "X-Source": "rft"},
}
AT = "method.reinforcement.tools"


def body_of(job_body: dict[str, Any], **block: Any) -> dict[str, Any]:
    reinforcement = {"grader": GRADER, "tools": [TOOL], "max_episode_steps": 10, **block}
    return {**job_body, "method": {"type": "reinforcement", "reinforcement": reinforcement}}


def test_azures_shape_is_taken_by_the_official_client_and_no_secret_is_shown(
    client: openai.OpenAI, db: Session, job_body: dict[str, Any], tenant: Tenant, settings: Settings
) -> None:
    job = client.fine_tuning.jobs.create(**body_of(job_body))
    block = job.to_dict()["method"]["reinforcement"]
    hidden = {"Authorization": "********", "X-Source": "********"}
    assert block["tools"] == [{**TOOL, "headers": hidden}]
    assert block["max_episode_steps"] == 10
    assert client.fine_tuning.jobs.retrieve(job.id).to_dict() == job.to_dict()
    kept = db.get_one(Job, job.id).method["reinforcement"]["tools"]
    assert SECRET not in str(kept)
    assert opened(kept, tenant.project_id, settings) == [TOOL]


def test_steps_are_ten_where_a_job_does_not_say(http: httpx.Client, job_body: dict[str, Any]) -> None:
    found = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, max_episode_steps=None)).json()
    assert found["method"]["reinforcement"]["max_episode_steps"] == 10


@pytest.mark.parametrize("gap", ["tool_calls", "tool_results"])
def test_a_base_that_is_known_not_to_call_is_refused_at_once(
    http: httpx.Client, db: Session, job_body: dict[str, Any], gap: str
) -> None:
    base = db.scalars(select(Model).where(Model.name == job_body["model"])).one()
    base.cannot_show = ["thoughts", gap]
    db.commit()
    refused = http.post("/v1/fine_tuning/jobs", json=body_of(job_body))
    told = error_of(refused)
    assert (refused.status_code, told["param"], told["code"]) == (400, AT, "invalid_value")
    without = body_of(job_body, tools=None, max_episode_steps=None)
    assert http.post("/v1/fine_tuning/jobs", json=without).status_code == 200


REFUSED = {
    "no place": ([{"name": "a"}], f"{AT}[0]"),
    "two places": ([{**TOOL, "python": "def search_catalog(arguments, state): pass"}], f"{AT}[0]"),
    "a name twice": ([TOOL, TOOL], f"{AT}[1].name"),
    "a name with spaces": ([{**TOOL, "name": "a b"}], f"{AT}[0].name"),
    "plain http": ([{**TOOL, "server_url": "http://tools.example.com"}], f"{AT}[0].server_url"),
    "an address that is not public": (
        [{**TOOL, "server_url": "https://169.254.169.254/x"}],
        f"{AT}[0].server_url",
    ),
    "a name and password": ([{**TOOL, "server_url": "https://a:b@example.com"}], f"{AT}[0].server_url"),
    "a header of ours": ([{**TOOL, "headers": {"Host": "x"}}], f"{AT}[0].headers"),
    "an unknown key": ([{**TOOL, "url": "x"}], f"{AT}[0].url"),
    "no list": ("search", AT),
    "no function": ([{"name": "a", "python": "def b(arguments, state): pass"}], f"{AT}[0].python"),
    "one argument": ([{"name": "a", "python": "def a(arguments): pass"}], f"{AT}[0].python"),
    "no identifier": ([{"name": "a-b", "python": "x = 1"}], f"{AT}[0].name"),
    "headers for code": (
        [{"name": "a", "python": "def a(arguments, state): pass", "headers": {"X": "y"}}],
        f"{AT}[0].headers",
    ),
}


@pytest.mark.parametrize(("tools", "param"), REFUSED.values(), ids=REFUSED)
def test_bad_tools_are_refused_by_name(
    http: httpx.Client, job_body: dict[str, Any], tools: Any, param: str
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, tools=tools))
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert SECRET not in answer.text


@pytest.mark.parametrize("steps", [0, 201, "ten"])
def test_bad_steps_are_refused(http: httpx.Client, job_body: dict[str, Any], steps: Any) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, max_episode_steps=steps))
    assert answer.json()["error"]["param"] == "method.reinforcement.max_episode_steps"


def test_steps_without_tools_and_a_form_beside_tools_are_refused(
    http: httpx.Client, job_body: dict[str, Any]
) -> None:
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, tools=[]))
    assert answer.json()["error"]["param"] == "method.reinforcement.max_episode_steps"
    json_object = {"type": "json_object"}
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body, response_format=json_object))
    assert answer.json()["error"]["param"] == "method.reinforcement.response_format"


def test_headers_are_refused_where_nothing_can_be_sealed(
    http: httpx.Client, job_body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHERRY_SECRET_KEY", "")
    get_settings.cache_clear()
    answer = http.post("/v1/fine_tuning/jobs", json=body_of(job_body))
    assert answer.json()["error"]["param"] == f"{AT}[0].headers"
