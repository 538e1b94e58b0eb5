"""`cherry up` as a user meets it: one command, one job, faults, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
from openai import OpenAI

from app import process
from tests.app.webhooks.receivers import receiver
from tests.e2e.service import (
    GRADER,
    Service,
    cherry,
    environment,
    hyperparameters,
    running_service,
    wait_for,
    write_rows,
)
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.e2e

LOCAL_HOOKS = {"CHERRY_OUTBOUND_ALLOW": "127.0.0.1", "CHERRY_OUTBOUND_ALLOW_HTTP": "true"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0", env=environment(**LOCAL_HOOKS)) as started,
    ):
        data = ("--data", str(started.folder))
        model = make_tiny_model(Path(folder) / "tiny")
        assert cherry("models", "add", "tiny", str(model), *data).returncode == 0
        yield started


def is_ready(service: Service) -> bool:
    try:
        with urllib.request.urlopen(f"{service.url}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def checks_of(service: Service, timeout: float) -> tuple[int, dict[str, str]]:
    answer = httpx.get(f"{service.url}/readyz", timeout=timeout)
    return answer.status_code, answer.json()["checks"]


def test_a_job_runs_from_file_to_model(service: Service, tmp_path: Path) -> None:
    data = ("--data", str(service.folder))
    uploaded = cherry("files", "add", str(write_rows(tmp_path / "train.jsonl")), "--json", *data)
    training = json.loads(uploaded.stdout)["id"]
    with service.client() as client, receiver() as hook:
        types: list[Any] = ["fine_tuning.checkpoint.created", "fine_tuning.job.succeeded"]
        endpoint = client.webhooks.create(name="here", url=hook.url, event_types=types)
        method = {"grader": GRADER, "hyperparameters": hyperparameters()}
        job = client.fine_tuning.jobs.create(
            model="tiny",
            training_file=training,
            method={"type": "reinforcement", "reinforcement": method},  # type: ignore[typeddict-item]
        )
        followed = cherry("jobs", "follow", job.id, *data)
        assert followed.returncode == 0, followed.stdout + followed.stderr
        assert "The job has successfully completed" in followed.stdout
        lines = cherry("jobs", "follow", job.id, "--json", *data).stdout.splitlines()
        assert json.loads(lines[-1])["message"] == "The job has successfully completed"
        done = client.fine_tuning.jobs.retrieve(job.id)
        assert done.fine_tuned_model in {known.id for known in client.models.list()}
        assert client.files.content(done.result_files[0]).text.startswith("step,")
        wait_for(lambda: len(hook.received) >= 3, what="the webhooks")
        came = [
            client.webhooks.unwrap(each.body, each.headers, secret=endpoint.signing_secret)
            for each in hook.received
        ]
        assert [event.type for event in came] == [types[0]] * (len(came) - 1) + [types[1]]
        assert came[-1].data.id == job.id  # type: ignore[union-attr]
        client.webhooks.delete(endpoint.id)
    assert json.loads(cherry("jobs", "list", "--json", *data).stdout)[0]["status"] == "succeeded"
    assert done.fine_tuned_model in cherry("models", "list", *data).stdout
    again = cherry("jobs", "cancel", job.id, *data)
    assert again.returncode == 1
    assert "already succeeded" in again.stderr


@pytest.mark.long
def test_a_job_is_reproduced_bit_for_bit_and_its_download_verified(service: Service, tmp_path: Path) -> None:
    data = ("--data", str(service.folder))
    with service.client() as client:
        files = [
            client.files.create(file=write_rows(tmp_path / f"{n}.jsonl", n), purpose="fine-tune").id
            for n in (4, 5)
        ]
        block = {"grader": GRADER, "hyperparameters": hyperparameters(learning_rate_multiplier=2)}
        method: Any = {"type": "reinforcement", "reinforcement": block}
        job = client.fine_tuning.jobs.create(
            model="tiny", training_file=files[0], validation_file=files[1], method=method
        )
        assert cherry("jobs", "follow", job.id, *data).returncode == 0
        again = cherry("jobs", "reproduce", job.id, *data)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "Reproduced bit for bit" in again.stdout
        newest = client.fine_tuning.jobs.list(limit=1).data[0]
        assert newest.metadata == {"reproduces": job.id}
        path = f"/fine_tuning/jobs/{job.id}/checkpoints"
        checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[0]
        tar = client.get(f"{path}/{checkpoint.id}/download", cast_to=httpx.Response)
    (tmp_path / "download.tar").write_bytes(tar.content)
    with tarfile.open(tmp_path / "download.tar") as opened:
        opened.extractall(tmp_path / "download", filter="data")
    (tmp_path / "keys.json").write_text(cherry("cards", "keys", "--json", *data).stdout)
    rotated = json.loads(cherry("cards", "rotate-key", "--json", *data).stdout)
    card, key = str(tmp_path / "download" / "card.json"), str(tmp_path / "keys.json")
    for download in ("download", "download.tar"):
        seen = cherry("cards", "verify", card, str(tmp_path / download), "--key", key)
        assert seen.returncode == 0, seen.stdout + seen.stderr
    other = cherry("cards", "verify", card, str(tmp_path / "download"), "--key", rotated["public_key"])
    assert other.returncode == 1
    assert "NOT VERIFIED: the card was signed with the key" in other.stdout


def test_a_job_is_checked_before_it_is_started(service: Service, tmp_path: Path) -> None:
    data = ("--data", str(service.folder))
    block = {"grader": GRADER, "hyperparameters": hyperparameters()}
    body = {"model": "tiny", "method": {"type": "reinforcement", "reinforcement": block}}
    (tmp_path / "job.json").write_text(json.dumps(body))
    training = str(write_rows(tmp_path / "train.jsonl"))
    checked = cherry("jobs", "check", str(tmp_path / "job.json"), "--training-file", training, *data)
    assert "Expected signal" in checked.stdout, checked.stdout + checked.stderr
    assert "Rows                     4 training, 0 validation" in checked.stdout
    with service.client() as client:
        kept: Any = client.get("/fine_tuning/preflights", cast_to=object)
    done = kept["data"][0]
    assert (done["status"], done["progress"]) == ("succeeded", None)
    assert done["report"]["verdict"] in checked.stdout
    fails = any(finding["severity"] == "error" for finding in done["report"]["findings"])
    assert checked.returncode == int(fails)


def test_a_second_start_in_the_same_folder_is_refused(service: Service) -> None:
    second = cherry("up", "--data", str(service.folder))
    assert second.returncode == 1
    assert f"already runs on {service.folder} at {service.url}" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
    assert is_ready(service)


def test_a_port_that_is_taken_is_named(service: Service, tmp_path: Path) -> None:
    port = service.url.rpartition(":")[2]
    second = cherry("up", "--data", str(tmp_path / "other"), "--port", port)
    assert second.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in second.stderr


def test_keys_are_made_and_revoked(service: Service) -> None:
    data = ("--data", str(service.folder))
    made = json.loads(cherry("keys", "create", "--name", "mine", "--json", *data).stdout)
    with OpenAI(base_url=f"{service.url}/v1", api_key=made["key"], max_retries=0) as client:
        client.models.list()
        assert cherry("keys", "revoke", made["id"], *data).returncode == 0
        with pytest.raises(Exception, match="401"):
            client.models.list()
    listed = json.loads(cherry("keys", "list", "--json", *data).stdout)
    assert [key["revoked_at"] is not None for key in listed] == [False, True]


def test_doctor_finds_a_running_service_well(service: Service) -> None:
    seen = json.loads(cherry("doctor", "--json", "--data", str(service.folder)).stdout)
    found = {check["name"]: check["level"] for check in seen["checks"]}
    assert found["database"] == found["broker"] == found["torch"] == "ok"


def test_a_model_of_this_service_is_the_judge(service: Service) -> None:
    grader: Any = {
        "type": "label_model",
        "name": "judge",
        "model": "cherry-nano",
        "labels": ["right", "wrong"],
        "passing_labels": ["right", "wrong"],
        "input": [{"role": "user", "content": "Is {{sample.output_text}} right?"}],
    }
    with service.client() as client:
        graded = client.fine_tuning.alpha.graders.run(grader=grader, model_sample="4", item={})
    told = graded.to_dict(mode="json", warnings=False)
    assert told["metadata"]["sampled_model_name"] == "cherry-nano"  # type: ignore[index]
    assert told["metadata"]["token_usage"] > 0  # type: ignore[index, operator]
    assert service.state()["processes"]["sampler"]


def test_an_eval_asks_a_model_of_the_service(service: Service) -> None:
    criterion = {**GRADER, "name": "any", "operation": "ilike", "reference": ""}
    rows = [{"item": {"letter": letter}} for letter in "abc"]
    with service.client() as client:
        made = client.evals.create(
            data_source_config={"type": "custom", "item_schema": {}, "include_sample_schema": True},
            testing_criteria=[criterion],  # type: ignore[list-item]
        )
        run = client.evals.runs.create(
            made.id,
            data_source={
                "type": "completions",
                "model": "cherry-nano",
                "source": {"type": "file_content", "content": rows},  # type: ignore[typeddict-item]
                "input_messages": {
                    "type": "template",
                    "template": [{"role": "user", "content": "Say {{item.letter}}"}],
                },
                "sampling_params": {"max_completion_tokens": 8},
            },
        )

        def done() -> bool:
            return client.evals.runs.retrieve(run.id, eval_id=made.id).status == "completed"

        wait_for(done, what="the run")
        run_done = client.evals.runs.retrieve(run.id, eval_id=made.id)
        items = list(client.evals.runs.output_items.list(run.id, eval_id=made.id))
    assert run_done.result_counts.passed == 3
    (usage,) = run_done.per_model_usage
    assert (usage.run_model_name, usage.invocation_count) == ("cherry-nano", 3)
    assert all(item.sample.output[0].content and item.sample.usage.prompt_tokens for item in items)


@pytest.mark.parametrize("name", ["api", "relay", "sampler", "worker-train", "valkey", "postgres"])
def test_a_killed_part_comes_back(service: Service, name: str) -> None:
    old = service.state()["processes"][name]
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: service.state()["processes"][name] != old, seconds=20, what=name)
    wait_for(lambda: is_ready(service), seconds=30, what="the service")


def test_a_broker_that_hangs_holds_nobody_up(service: Service, tmp_path: Path) -> None:
    broker = service.state()["processes"]["valkey"]
    method = {"grader": GRADER, "hyperparameters": hyperparameters()}
    with service.client().with_options(timeout=3, max_retries=0) as client:
        uploaded = client.files.create(file=write_rows(tmp_path / "train.jsonl"), purpose="fine-tune")
        os.kill(broker, signal.SIGSTOP)
        try:
            made = [
                client.fine_tuning.jobs.create(
                    model="tiny",
                    training_file=uploaded.id,
                    method={"type": "reinforcement", "reinforcement": method},  # type: ignore[typeddict-item]
                )
                for _ in range(2)
            ]
            hung = (503, {"database": "ok", "broker": "unreachable", "disk": "ok"})
            wait_for(lambda: checks_of(service, timeout=3) == hung, seconds=5, what="readiness to see it")
            # no message can have reached a worker
            wait_for(lambda: client.fine_tuning.jobs.retrieve(made[0].id).status == "running", what="a start")
        finally:
            os.kill(broker, signal.SIGCONT)
        wait_for(lambda: is_ready(service), seconds=30, what="the service")
        for job in made[::-1]:
            client.fine_tuning.jobs.cancel(job.id)


def test_a_database_that_hangs_is_told_in_time(service: Service) -> None:
    """Nothing of it answers, as if its disk or its machine were gone, while many ask."""
    parts = [service.state()["processes"]["postgres"]]
    parts += process.descendants(parts[0])
    headers = {"authorization": f"Bearer {service.api_key}"}
    paths = ["/v1/models", "/v1/files", "/v1/fine_tuning/jobs/ftjob-none", "/v1/fine_tuning/jobs"] * 12
    with httpx.Client(base_url=service.url, headers=headers, timeout=10) as client:
        assert client.get("/v1/models").status_code == 200  # the key is known, and connections are open
        for part in parts:
            os.kill(part, signal.SIGSTOP)
        try:
            with ThreadPoolExecutor(len(paths)) as askers:
                answers = list(askers.map(client.get, paths))
            assert [answer.status_code for answer in answers] == [503] * len(paths)
            assert {answer.headers["retry-after"] for answer in answers} == {"2"}
            assert checks_of(service, timeout=3) == (
                503,
                {"database": "unreachable", "broker": "ok", "disk": "ok"},
            )
        finally:
            for part in parts:
                os.kill(part, signal.SIGCONT)
        wait_for(lambda: is_ready(service), seconds=30, what="the service")
        assert client.get("/v1/models").status_code == 200


@pytest.mark.long
def test_a_training_survives_the_death_of_its_database(service: Service, tmp_path: Path) -> None:
    with service.client() as client:
        uploaded = client.files.create(file=write_rows(tmp_path / "train.jsonl"), purpose="fine-tune")
        method = {"grader": GRADER, "hyperparameters": hyperparameters(n_epochs=12, early_stop=False)}
        job = client.fine_tuning.jobs.create(
            model="tiny",
            training_file=uploaded.id,
            method={"type": "reinforcement", "reinforcement": method},  # type: ignore[typeddict-item]
        )
        wait_for(lambda: any(e.type == "metrics" for e in client.fine_tuning.jobs.list_events(job.id).data))
        os.kill(service.state()["processes"]["postgres"], signal.SIGKILL)
        wait_for(lambda: is_ready(service), seconds=30, what="the service")
        over = ("succeeded", "failed", "cancelled")
        wait_for(lambda: client.fine_tuning.jobs.retrieve(job.id).status in over, what="the end")
        assert client.fine_tuning.jobs.retrieve(job.id).status == "succeeded"
        told = [event.message for event in client.fine_tuning.jobs.list_events(job.id, limit=100).data]
        assert len([message for message in told if re.match(r"Step \d+/24 ", message)]) == 25


def test_stopping_leaves_no_process_and_a_dead_supervisor_none_either() -> None:
    with tempfile.TemporaryDirectory(prefix="cherry-test-") as folder:
        data = Path(folder) / "data"
        with running_service(data, "--port", "0") as service:
            first_key = service.api_key
            children = psutil.Process(service.process.pid).children(recursive=True)
            assert len(children) > 8
            service.process.kill()
            service.process.wait()
            for child in children:
                assert process.wait_gone(child.pid, 30), child
        with running_service(data, "--port", "0") as service:
            assert service.api_key == first_key
            children = psutil.Process(service.process.pid).children(recursive=True)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(40) == 0
            assert not [child for child in children if process.is_alive(child.pid)]
            assert not (data / "state.json").exists()


def test_a_setting_that_is_wrong_is_one_line() -> None:
    wrong = cherry("up", env=environment(CHERRY_LEASE="soon"))
    assert wrong.returncode == 1
    assert "CHERRY_LEASE" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_database_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    url = f"postgresql://nobody@/none?host={tmp_path}"
    failed: subprocess.CompletedProcess[str] = cherry("keys", "list", env=environment(DATABASE_URL=url))
    assert failed.returncode == 1
    assert "database does not answer" in failed.stderr
    assert "Traceback" not in failed.stderr
