"""Several processes, and several runs of a job, with one server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.table_settings import VllmEntry
from tests.workers.rollouts.together import names_of, opened, together
from tests.workers.rollouts.vllm_server import FakeVllm, logits_of, running
from tests.workers.training.support import FunctionGrader, ListRecorder, early_letters, make_config, make_rows
from workers.jobs.seats import SeedProcess
from workers.training.arms.beside import Seats
from workers.training.loop import train

pytestmark = pytest.mark.long
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none"}
ENVIRONMENT["CHERRY_BROKER_URL"] = "memory://"
TEXTS = ["a", "b", "c", "d"]
SHORT: dict[str, Any] = {"n_epochs": 2, "prompts_per_step": 4, "kl_probe_size": 1, "eval_interval": 100}


@pytest.fixture
def server(tiny: Path) -> Iterator[FakeVllm]:
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    with running(FakeVllm(base.config.vocab_size, logits_of(base), str(tiny))) as server:
        yield server


def entry_of(server: FakeVllm, tmp_path: Path) -> VllmEntry:
    return VllmEntry(url=server.url, adapters=tmp_path / "memory", whole_weights=True)


def graders(_remark: Any) -> Any:
    return FunctionGrader(early_letters), None


def updates(names: list[str]) -> list[str]:
    return [name.split("-after-")[1][:6] for name in names]


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="adapter"),
        pytest.param({"adapter": "full"}, id="full"),
        pytest.param({"adapter": "full", "sharding": "fsdp"}, id="full-fsdp"),
        pytest.param({"adapter": "full", "async_steps": 1}, id="full-ahead"),
    ],
)
def test_two_processes_make_the_run_of_one(
    server: FakeVllm, tiny: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    config, entry, alone = make_config(tiny, **SHORT, **changes), entry_of(server, tmp_path), ListRecorder()
    own = {"sharding": "none"} if "sharding" in changes else {}
    of_run = (config.model_copy(update=own), make_rows(*TEXTS), [], FunctionGrader(early_letters), alone)
    train(*of_run, tmp_path / "alone", rollouts=partial(opened, entry, "run-alone"))
    told = together(tmp_path / "two", entry, config, TEXTS)
    expected = {str(step): updates(names) for step, names in names_of(alone).items()}
    assert {step: updates(names) for step, names in told["names"].items()} == expected
    assert all(len(names) == 1 for names in told["names"].values())
    history = {str(step): values for step, values in alone.history().items()}
    for step in expected:
        assert told["history"][step]["reward/mean"] == history[step]["reward/mean"]
    assert (server.version, server.loaded) == ("default", {})


def test_arms_of_a_job_have_weights_of_their_own_on_one_server(
    server: FakeVllm, tiny: Path, tmp_path: Path
) -> None:
    changes = {"n_seeds": 2, "controls": ("random_reward",), "eval_interval": 2, "processes": 2}
    config = make_config(tiny, **{**SHORT, "n_epochs": 4, **changes})
    rollouts, recorder = partial(opened, entry_of(server, tmp_path), "ftjob-1"), ListRecorder()
    seats = Seats(2, lambda _: SeedProcess(ENVIRONMENT), graders, rollouts=rollouts)
    rows = (make_rows(*TEXTS), make_rows("e", "f"))
    own = {"seats": seats, "rollouts": rollouts}
    train(config, *rows, FunctionGrader(early_letters), recorder, tmp_path / "job", **own)
    steps = names_of(recorder)
    arms = {name.split("-after-")[0] for names in steps.values() for name in names}
    assert arms >= {"ftjob-1-arm_0", "ftjob-1-arm_1"}
    assert all(len(names) == 1 for names in steps.values())
    assert not any("away" in message for _, message in recorder.all("note"))
    assert server.loaded == {}
