"""`python` graders over the API: run, validated, and refused where no sandbox holds."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx
import openai
import pytest

from app.grading.services import forget_services
from app.sandbox import sandbox_settings
from app.settings import Settings, get_settings
from graders.sandbox import LocalSandbox, SandboxSettings

SOURCE = "def grade(sample, item):\n    return float(sample['output_text'] == item['answer'])\n"
PYTHON = {"type": "python", "name": "same", "source": SOURCE}
RUN = "/v1/fine_tuning/alpha/graders/run"
VALIDATE = "/v1/fine_tuning/alpha/graders/validate"


@pytest.fixture(scope="module")
def in_sandbox() -> None:
    sandbox = LocalSandbox(SandboxSettings())
    reason = sandbox.why_not()
    sandbox.close()
    if reason is not None:
        pytest.skip(f"no sandbox holds here: {reason}")


@pytest.fixture
def switched_off(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHERRY_SANDBOX", "off")
    get_settings.cache_clear()
    forget_services()


@pytest.mark.usefixtures("in_sandbox")
def test_the_official_client_runs_one(client: openai.OpenAI) -> None:
    for answer, reward in (("4", 1.0), ("5", 0.0)):
        result = client.fine_tuning.alpha.graders.run(
            grader=PYTHON,  # type: ignore[arg-type]
            model_sample=answer,
            item={"answer": "4"},
        )
        assert result.reward == reward
        assert not result.metadata.errors.python_grader_runtime_error


@pytest.mark.usefixtures("in_sandbox")
def test_one_that_raises_is_200_with_its_flag_and_the_traceback(http: httpx.Client) -> None:
    body = {"grader": PYTHON, "model_sample": "4", "item": {}}
    result: dict[str, Any] = http.post(RUN, json=body).json()
    errors = result["metadata"]["errors"]
    assert (result["reward"], errors["python_grader_runtime_error"]) == (0.0, True)
    assert errors["python_grader_server_error"] is False
    assert errors["python_grader_runtime_error_details"].endswith("KeyError: 'answer'")


@pytest.mark.usefixtures("in_sandbox")
def test_validate_gives_it_back_with_the_image(http: httpx.Client) -> None:
    answer = http.post(VALIDATE, json={"grader": PYTHON})
    assert answer.json()["grader"] == {**PYTHON, "image_tag": "2025-05-08"}
    wrong = http.post(VALIDATE, json={"grader": {**PYTHON, "source": "return 1\n" + SOURCE}})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "grader.source"


@pytest.mark.usefixtures("switched_off")
@pytest.mark.parametrize(
    ("grader", "param"),
    [
        pytest.param(PYTHON, "grader.type", id="alone"),
        pytest.param(
            {"type": "multi", "name": "m", "graders": {"p": PYTHON}, "calculate_output": "p"},
            "grader.graders.p.type",
            id="in-a-multi",
        ),
    ],
)
def test_without_a_sandbox_it_is_refused_with_the_reason(
    http: httpx.Client, grader: dict[str, Any], param: str
) -> None:
    for path, more in ((VALIDATE, {}), (RUN, {"model_sample": "4", "item": {}})):
        answer = http.post(path, json={"grader": grader, **more})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (
            400,
            "python_grader_unavailable",
            param,
        )
        assert "CHERRY_SANDBOX=off" in error["message"]


@pytest.mark.usefixtures("switched_off")
def test_a_job_with_one_is_refused_when_it_is_created(http: httpx.Client) -> None:
    method = {"type": "reinforcement", "reinforcement": {"grader": PYTHON}}
    body = {"model": "cherry-nano", "training_file": "file-x", "method": method}
    answer = http.post("/v1/fine_tuning/jobs", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "python_grader_unavailable"
    assert answer.json()["error"]["param"] == "method.reinforcement.grader.type"


def test_settings_reach_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (
        ("", "container"),
        ("_SECONDS", "5"),
        ("_MEMORY_BYTES", str(2**28)),
        ("_PARALLEL", "3"),
        ("_READABLE", '["/usr/share/nltk_data"]'),
    ):
        monkeypatch.setenv(f"CHERRY_SANDBOX{name}", value)
    found = sandbox_settings(Settings(DATABASE_URL="postgresql:///", broker_url="memory://"))  # type: ignore[call-arg]
    assert (found.wanted, found.limits.wall_seconds, found.limits.memory_bytes) == ("container", 5.0, 2**28)
    assert (found.slots, found.readable) == (3, ("/usr/share/nltk_data",))


def test_ready_tells_the_level_without_starting_anything(http: httpx.Client) -> None:
    assert http.get("/readyz").json()["sandbox"] in (
        "not used yet",
        "full",
        "container",
        "namespaces",
        "none",
    )
