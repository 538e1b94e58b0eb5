"""An agentic job as Azure publishes them, from the official client to a model, with a tool server beside."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from openai import OpenAI

from tests.app.grading.judge_servers import Answered, answered, asked, said
from tests.app.webhooks.receivers import Received, receiver
from tests.calling_model import LETTERS, make_calling_model, number_of, row_of
from tests.e2e.service import Service, cherry, environment, hyperparameters, running_service, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.long]

LOCAL = {"CHERRY_OUTBOUND_ALLOW": "127.0.0.1", "CHERRY_OUTBOUND_ALLOW_HTTP": "true"}
SECRET = "Bearer s3cr3t-of-the-user"
GRADER = {
    "type": "string_check",
    "name": "same",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.reference_answer}}",
}
COUNT = "def look_up(arguments, state):\n    return str(3 * 'abcdefghij'.index(arguments['key']) % 10)\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0", env=environment(**LOCAL)) as started,
    ):
        model = make_calling_model(Path(folder) / "calling")
        data = ("--data", str(started.folder))
        assert cherry("models", "add", "calling", str(model), *data).returncode == 0
        yield started


def look_up(received: Received) -> Answered:
    """Tells the number of a letter, and 404 of what is no letter."""
    body = asked(received)
    key = json.loads(body["arguments"]).get("key")
    same = {"type": "function_call_output", "call_id": body["call_id"], "id": body["id"]}
    if key not in tuple(LETTERS):
        return answered({"detail": f"no number of {key}"}, 404)
    return answered({**same, "output": number_of(key)})


def write_rows(path: Path) -> Path:
    path.write_text("".join(json.dumps(row_of(letter)) + "\n" for letter in LETTERS))
    return path


def body_of(client: OpenAI, tmp_path: Path, tool: dict[str, Any], **block: Any) -> dict[str, Any]:
    training = client.files.create(file=write_rows(tmp_path / "rows.jsonl"), purpose="fine-tune")
    numbers = hyperparameters(
        n_epochs=3, batch_size=5, group_size=8, eval_interval=3, max_completion_tokens=120, lora_rank=8
    )
    method = {"grader": GRADER, "tools": [tool], "hyperparameters": numbers, **block}
    block = {"type": "reinforcement", "reinforcement": method}
    return {"model": "calling", "training_file": training.id, "method": block}


def trained(service: Service, tmp_path: Path, tool: dict[str, Any], **block: Any) -> Any:
    with service.client() as client:
        job = client.fine_tuning.jobs.create(**body_of(client, tmp_path, tool, **block))
        ended = ("succeeded", "failed")
        wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status in ended, seconds=300)
        return client.fine_tuning.jobs.retrieve(job.id)


def rollouts_of(service: Service, job_id: str) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {service.api_key}"}
    url = f"{service.url}/v1/fine_tuning/jobs/{job_id}/rollouts"
    found: list[dict[str, Any]] = httpx.get(url, params={"limit": 100}, headers=headers).json()["data"]
    return found


def test_a_job_with_a_tool_server_trains(service: Service, tmp_path: Path) -> None:
    with receiver(look_up) as server:
        tool = {"name": "look_up", "server_url": server.url, "headers": {"Authorization": SECRET}}
        job = trained(service, tmp_path, tool, max_episode_steps=3)
        calls = [asked(received) for received in server.received]
        sent = {received.headers["authorization"] for received in server.received}
    assert job.status == "succeeded", job.error
    assert sent == {SECRET}
    assert SECRET not in json.dumps(job.to_dict())
    assert {call["name"] for call in calls} == {"look_up"}
    assert {call["item"]["reference_answer"] for call in calls} <= set(map(number_of, LETTERS))

    rollouts = rollouts_of(service, job.id)
    episodes = [each["episode"] for each in rollouts if each["episode"]]
    assert len(episodes) == len(rollouts) == len({each["trace_id"] for each in episodes})
    right = [each for each in rollouts if each["reward"] == 1]
    assert right
    for each in right:
        *_, tool_message, last = each["episode"]["messages"]
        assert (tool_message["role"], last["role"]) == ("tool", "assistant")
    made = Counter(call["trace_id"] for call in calls)
    for episode in episodes:
        outputs = [m for m in episode["messages"] if m["role"] == "tool"]
        assert made[episode["trace_id"]] == sum("unknown_function" not in m["content"] for m in outputs)
        assert all(m["seconds"] >= 0 for m in outputs)

    with service.client() as client:
        content = client.files.content(job.result_files[0]).text
        (first, *_) = csv.DictReader(io.StringIO(content))
        assert "tools/look_up/valid_calls_mean" in first or "tools/look_up/train_calls_mean" in first
        events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
        told: list[Any] = [event.data for event in events if event.type == "metrics"]
    assert any(0 < each["tools"][0].get("train_calls_mean", 0) < 3 for each in told if "tools" in each)


def test_a_tool_of_python_trains_without_a_server(service: Service, tmp_path: Path) -> None:
    job = trained(service, tmp_path, {"name": "look_up", "python": COUNT}, max_episode_steps=3)
    assert job.status == "succeeded", job.error
    assert any(each["reward"] == 1 for each in rollouts_of(service, job.id))


def plays_user(received: Received) -> Answered:
    """Asks for one number more, then ends the conversation."""
    said_by_user = [m for m in asked(received)["messages"] if m["role"] == "assistant"]
    return said("###STOP###" if len(said_by_user) > 1 else "Number of c?")


def test_a_simulated_user_talks_on_beside_a_tool(service: Service, tmp_path: Path) -> None:
    with receiver(plays_user) as server:
        user = {
            "type": "user_simulator",
            "model": "user-8b",
            "base_url": f"http://127.0.0.1:{server.port}/v1",
            "instructions": "You want the number of {{item.letter}}, then that of c.",
        }
        tool = {"name": "look_up", "python": COUNT}
        job = trained(service, tmp_path, tool, environment=user, max_episode_steps=6)
        sent = [asked(received) for received in server.received]
    assert job.status == "succeeded", job.error
    assert job.to_dict()["method"]["reinforcement"]["environment"] == {**user, "stop": "###STOP###"}
    assert {call["model"] for call in sent} == {"user-8b"}
    told = {call["messages"][0]["content"].partition("\n")[0] for call in sent}
    assert told == {f"You want the number of {letter}, then that of c." for letter in LETTERS}

    rollouts = rollouts_of(service, job.id)
    talks = [[m["role"] for m in each["episode"]["messages"]] for each in rollouts]
    assert ["assistant", "tool", "assistant", "user", "assistant"] in talks
    spoken = [m["content"] for each in rollouts for m in each["episode"]["messages"] if m["role"] == "user"]
    assert set(spoken) == {"Number of c?"}

    with service.client() as client:
        steps = list(csv.DictReader(io.StringIO(client.files.content(job.result_files[0]).text)))
        events = client.fine_tuning.jobs.list_events(job.id, limit=100).data
    assert max(float(step["episode_user_turns_mean"] or 0) for step in steps) > 0
    metrics: list[Any] = [event.data for event in events if event.type == "metrics"]
    assert any("user-8b" in each["model_graders_token_usage"] for each in metrics)
    assert job.to_dict()["usage_metrics"]["grader_tokens"]["user-8b"]["calls"] > 0


def test_a_user_who_is_away_fails_the_job_before_it_trains(service: Service, tmp_path: Path) -> None:
    with receiver(lambda _: answered({}, 401)) as server:
        place = f"http://127.0.0.1:{server.port}/v1"
        user = {"type": "user_simulator", "model": "m", "base_url": place, "instructions": "{{item.letter}}"}
        job = trained(service, tmp_path, {"name": "look_up", "python": COUNT}, environment=user)
        assert (job.status, job.error.code) == ("failed", "grader_error")
        assert job.error.param == "method.reinforcement.environment"
        user["instructions"] = "{{item.letters}}"
        job = trained(service, tmp_path, {"name": "look_up", "python": COUNT}, environment=user)
    assert (job.status, job.error.code) == ("failed", "invalid_training_file")
    assert "'item.letters', which the user simulator reads: lines 1-10" in job.error.message


def test_a_preflight_calls_the_tools_of_the_rows_it_samples(service: Service, tmp_path: Path) -> None:
    with receiver(look_up) as server, service.client() as client:
        tool = {"name": "look_up", "server_url": server.url}
        asked_for = body_of(client, tmp_path, tool) | {"preflight": {"prompts": 4, "samples": 4}}
        headers = {"authorization": f"Bearer {service.api_key}"}
        url = f"{service.url}/v1/fine_tuning/preflights"
        made = httpx.post(
            f"{service.url}/v1/fine_tuning/jobs/preflight", json=asked_for, headers=headers
        ).json()

        def done() -> Any:
            found = httpx.get(f"{url}/{made['id']}", headers=headers).json()
            return found if found["status"] in ("succeeded", "failed") else None

        report = wait_for(done, seconds=200)["report"]
        assert server.received
    assert any("<|im_start|>tool" in each["text"] for each in report["base"]["examples"])


def test_a_server_that_is_away_fails_the_job_and_is_named(service: Service, tmp_path: Path) -> None:
    with receiver(lambda _: answered({}, 500)) as server:
        tool = {"name": "look_up", "server_url": server.url}
        job = trained(service, tmp_path, tool)
    assert job.status == "failed"
    assert "tool_server_error: The tool server of 'look_up' failed. It answered 500" in job.error.message


def test_rows_that_list_other_tools_are_named(service: Service, tmp_path: Path) -> None:
    tool = {"name": "other", "python": "def other(arguments, state):\n    return 1\n"}
    job = trained(service, tmp_path, tool)
    assert (job.status, job.error.code) == ("failed", "invalid_training_file")
    assert "its 'tools' list 'look_up', and the job's tools are 'other'" in job.error.message
