"""Jobs beside a base in 4 or 8 bits through the front door: trained, killed, served, taken home, refused."""

from __future__ import annotations

import io
import json
import os
import signal
import tarfile
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psutil
import pytest
import torch
from openai import BadRequestError, OpenAI
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tests.e2e.service import (
    GRADER,
    Service,
    environment,
    hyperparameters,
    running_service,
    wait_for,
    write_rows,
)
from tests.workers.rows import chat_rows, preference_rows

pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install 'cherry-rft[quant]')")
pytestmark = [pytest.mark.e2e, pytest.mark.long]

PATIENCE = float(os.environ.get("CHERRY_TEST_PATIENCE", "600"))
"""Seconds that a job may take on a busy machine."""
NANO = Path("workers/models/cherry_nano").resolve()
MOST_ROUNDED = 0.1
"""How far rounding the merged weights to bf16 may move a log-probability. Chosen."""
PROMPT = [{"role": "user", "content": "Say e."}]
NO_LIBRARY = "import sys\nsys.modules['bitsandbytes'] = None\n"
"""A `sitecustomize` of a Python without the package."""


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0") as started,
    ):
        yield started


def make(client: OpenAI, rows: Path, method: Mapping[str, Any], **more: Any) -> str:
    uploaded = client.files.create(file=rows, purpose="fine-tune")
    asked: Any = dict(method)
    return client.fine_tuning.jobs.create(
        model="cherry-nano", training_file=uploaded.id, method=asked, seed=5, **more
    ).id


def reinforcement(precision: str, **changed: Any) -> dict[str, Any]:
    block = {"grader": GRADER, "hyperparameters": hyperparameters(base_precision=precision, **changed)}
    return {"type": "reinforcement", "reinforcement": block}


def finished(client: OpenAI, job_id: str) -> str:
    """Waits for a job to succeed; returns its model."""
    over = ("succeeded", "failed", "cancelled")
    wait_for(
        lambda: client.fine_tuning.jobs.retrieve(job_id).status in over, seconds=PATIENCE, what="the job"
    )
    done = client.fine_tuning.jobs.retrieve(job_id)
    assert done.status == "succeeded", (done.error, messages(client, job_id))
    assert done.fine_tuned_model
    return done.fine_tuned_model


def messages(client: OpenAI, job_id: str) -> list[str]:
    return [event.message for event in client.fine_tuning.jobs.list_events(job_id, limit=100).data]


def download(client: OpenAI, job_id: str, form: str, into: Path) -> Path:
    """Unpacks the newest checkpoint in one of its forms."""
    checkpoint = client.fine_tuning.jobs.checkpoints.list(job_id).data[0]
    path = f"/fine_tuning/jobs/{job_id}/checkpoints/{checkpoint.id}/download?format={form}"

    def sent() -> bytes | None:
        answer = client.get(path, cast_to=httpx.Response)
        return answer.content if answer.status_code == 200 else None

    content: bytes = wait_for(sent, seconds=PATIENCE, what=f"the download as {form}")
    with tarfile.open(fileobj=io.BytesIO(content)) as opened:
        opened.extractall(into, filter="data")
    (config,) = into.rglob("adapter_config.json" if form == "adapter" else "config.json")
    return config.parent


def logprobs(model: Any, ids: Sequence[int], n: int) -> torch.Tensor:
    """Returns those of the last `n` tokens."""
    with torch.no_grad():
        found = torch.log_softmax(model(input_ids=torch.tensor([list(ids)])).logits[0].float(), -1)
    return found[-n - 1 : -1].gather(-1, torch.tensor(list(ids))[-n:, None])[:, 0]


@pytest.mark.parametrize("precision", ["nf4", "int8"])
def test_a_job_is_served_and_taken_home_with_the_same_log_probabilities(
    service: Service, tmp_path: Path, precision: str
) -> None:
    with service.client() as client:
        method = reinforcement(precision, learning_rate_multiplier=3)
        job_id = make(client, write_rows(tmp_path / "train.jsonl"), method)
        finished(client, job_id)
        told: Any = client.fine_tuning.jobs.retrieve(job_id).to_dict()
        asked = told["method"]["reinforcement"]["hyperparameters"]
        assert asked["base_precision"] == precision
        # The newest checkpoint, which is downloaded below: the delivered model may equal the base.
        model = client.fine_tuning.jobs.checkpoints.list(job_id).data[0].fine_tuned_model_checkpoint
        said = client.chat.completions.create(
            model=model,
            messages=PROMPT,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=12,
            logprobs=True,
        )
        adapter = download(client, job_id, "adapter", tmp_path / "adapter")
        merged = download(client, job_id, "merged", tmp_path / "merged")
    assert said.choices[0].logprobs
    content = said.choices[0].logprobs.content or []
    served = torch.tensor([token.logprob for token in content])
    tokenizer = AutoTokenizer.from_pretrained(merged)
    ids = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=False)
    ids += [tokenizer.convert_tokens_to_ids(token.token) for token in content]
    ours = logprobs(AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32), ids, len(served))
    torch.testing.assert_close(served, ours, atol=1e-4, rtol=0)
    how = BitsAndBytesConfig.from_dict(json.loads((adapter / "quantization_config.json").read_text()))
    assert (how.load_in_4bit, how.load_in_8bit) == (precision == "nf4", precision == "int8")
    base = AutoModelForCausalLM.from_pretrained(
        NANO, quantization_config=how, device_map="cpu", dtype=torch.float32
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = PeftModel.from_pretrained(base, adapter).train()  # decision 58: eval rounds more
    found = logprobs(plain, ids, len(served))
    assert 0 < (found - ours).abs().max() < MOST_ROUNDED  # merged weights are rounded to bf16


@pytest.mark.parametrize("precision", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_the_other_methods_train_beside_it_too(
    service: Service, tmp_path: Path, method: str, precision: str
) -> None:
    rows = chat_rows(12) if method == "supervised" else preference_rows(12)
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"n_epochs": 1, "batch_size": 4, "base_precision": precision}
    with service.client() as client:
        job_id = make(client, tmp_path / "train.jsonl", {"type": method, method: {"hyperparameters": asked}})
        model = finished(client, job_id)
        said = client.chat.completions.create(model=model, messages=PROMPT, max_tokens=4)  # type: ignore[arg-type]
        assert said.usage
        assert said.usage.completion_tokens


def trainers(service: Service, job_id: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(service.process.pid).children(recursive=True):
        try:
            if job_id in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def test_a_killed_one_goes_on_and_delivers_the_bits_of_one_that_was_not(
    service: Service, tmp_path: Path
) -> None:
    method = reinforcement("nf4", n_epochs=6, learning_rate_multiplier=3, early_stop=False)
    rows = write_rows(tmp_path / "train.jsonl")
    with service.client() as client:
        killed = make(client, rows, method)
        wait_for(
            lambda: any(said.startswith("Step 5/") for said in messages(client, killed)),
            seconds=PATIENCE,
            what="step 5",
        )
        victims = trainers(service, killed)
        assert victims
        for victim in victims:
            os.kill(victim.pid, signal.SIGKILL)
        whole = make(client, rows, method)
        finished(client, killed)
        finished(client, whole)
        assert [said for said in messages(client, killed) if said.startswith("Resumed after step")]
        assert not [said for said in messages(client, whole) if said.startswith("Resumed")]
        both = [download(client, job_id, "merged", tmp_path / job_id) for job_id in (killed, whole)]
    first, second = ((folder / "model.safetensors").read_bytes() for folder in both)
    assert first == second


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"adapter": "full"}, "is of a frozen base, and adapter 'full' trains every weight"),
        ({"sharding": "fsdp"}, "does not go with sharding 'fsdp'"),
        ({"base_precision": "int4"}, "base_precision"),
        ({"base_precision": 4}, "base_precision"),
    ],
)
def test_what_does_not_go_with_it_is_refused_at_the_request(
    service: Service, tmp_path: Path, changed: dict[str, Any], why: str
) -> None:
    method = reinforcement("nf4")
    method["reinforcement"]["hyperparameters"] |= changed
    with service.client() as client, pytest.raises(BadRequestError, match=why) as refused:
        make(client, write_rows(tmp_path / "train.jsonl"), method)
    assert refused.value.param == "method.reinforcement.hyperparameters.base_precision"


def test_without_the_package_it_is_refused_and_the_message_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LIBRARY)
    env = environment(PYTHONPATH=str(tmp_path))
    message = r"pip install 'cherry-rft\[quant\]'"
    with (
        tempfile.TemporaryDirectory(prefix="cherry-test-") as folder,
        running_service(Path(folder) / "data", "--port", "0", env=env) as started,
        started.client() as client,
        pytest.raises(BadRequestError, match=message) as refused,
    ):
        make(client, write_rows(tmp_path / "train.jsonl"), reinforcement("nf4"))
    assert refused.value.code == "unsupported_parameter"
