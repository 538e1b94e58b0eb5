"""Every weight of a policy on a server that speaks vLLM's routes: what it loads, and who has it when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.table_settings import VllmEntry
from tests.workers.rollouts.vllm_server import FakeVllm, logits_of, running
from tests.workers.training.support import ListRecorder, make_config, make_rows
from workers.rollouts import whole_weights
from workers.rollouts.backend import Limits, VllmRollouts
from workers.rollouts.errors import RolloutsRefused, WeightsNotWritten
from workers.training.base.distributed import ALONE
from workers.training.base.types import Prompt
from workers.training.model.policy import Policy
from workers.training.prompts import make_prompts
from workers.training.sampling.backend import SamplingInterrupted
from workers.training.sampling.rollout import Sampling

SAMPLING = Sampling(2, 4, 0.7, ("train", 1, 1))
RUN, OTHER = "ftjob-1-seed-1", "ftjob-2-seed-1"


@pytest.fixture(scope="module")
def base(tiny: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)


@pytest.fixture
def policy(tiny: Path) -> Policy:
    return Policy.load(make_config(tiny, adapter="full"))


@pytest.fixture
def prompts(policy: Policy) -> list[Prompt]:
    return make_prompts(make_rows("a", "b"), policy.tokenizer, policy.context, "training", policy.vocabulary)


@pytest.fixture
def server(policy: Policy, base: Any) -> Iterator[FakeVllm]:
    with running(FakeVllm(policy.vocabulary, logits_of(base), str(policy.folder))) as server:
        yield server


Opens = Callable[..., VllmRollouts]


@pytest.fixture
def opens(server: FakeVllm, tmp_path: Path) -> Iterator[Opens]:
    """Opens the rollouts of runs, and closes them."""
    opened: list[VllmRollouts] = []

    def rollouts(policy: Policy, run: str = RUN, adapter: str = "full", **entry: Any) -> VllmRollouts:
        chosen = {"url": server.url, "adapters": tmp_path / "memory", "answer_seconds": 5.0, **entry}
        config = make_config(policy.folder, adapter=adapter)
        told = VllmEntry(**{"whole_weights": True, **chosen})
        opened.append(VllmRollouts(told, run, policy, config, ALONE, ListRecorder(), Limits(30.0, 0.01)))
        return opened[-1]

    yield rollouts
    for one in opened:
        one.close()


def move(policy: Policy, size: float = 0.3) -> None:
    torch.manual_seed(1)
    policy.load_trained({name: w + size * torch.randn_like(w) for name, w in policy.trained().items()})


def first_logits(server: FakeVllm, prompts: list[Prompt]) -> Any:
    return pytest.approx(server.logits(list(prompts[0].tokens)), abs=1e-5)


def test_a_step_is_sampled_by_all_of_its_weights_and_the_base_is_put_back(
    server: FakeVllm, opens: Opens, policy: Policy, prompts: list[Prompt], tmp_path: Path
) -> None:
    before = server.logits(list(prompts[0].tokens))
    rollouts = opens(policy)
    names = []
    for step in range(2):
        if step:
            move(policy)
        rollouts.follow(step)
        groups = rollouts.sample(prompts, SAMPLING)
        (name,) = {completion.sampled_by for group in groups for completion in group.completions}
        assert server.version == name
        assert [folder.name for folder in (tmp_path / "memory" / RUN).iterdir()] == [name]
        assert logits_of(policy.model)(list(prompts[0].tokens)) == first_logits(server, prompts)
        names.append(name.split("-after-")[1][:6])
    assert names == ["000000", "000001"]
    assert {body["model"] for body in server.of("/inference/v1/generate")} == {"tiny"}
    rollouts.close()
    assert (server.version, server.is_paused) == ("default", False)
    assert before == first_logits(server, prompts)
    assert not (tmp_path / "memory" / RUN).exists()


@pytest.mark.long
def test_a_server_that_started_anew_is_given_the_weights_again(
    server: FakeVllm, opens: Opens, policy: Policy, prompts: list[Prompt]
) -> None:
    rollouts = opens(policy)
    rollouts.follow(0)
    expected = rollouts.sample(prompts, SAMPLING)
    server.version = "default"
    with pytest.raises(SamplingInterrupted, match="were default where"):
        rollouts.sample(prompts, SAMPLING)
    assert rollouts.recover(lambda: None) == ""
    assert rollouts.sample(prompts, SAMPLING) == expected


def test_weights_that_did_not_arrive_are_found_by_what_they_compute(
    server: FakeVllm, opens: Opens, policy: Policy, prompts: list[Prompt], monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = opens(policy)
    rollouts.follow(0)
    rollouts.sample(prompts, SAMPLING)
    monkeypatch.setattr(server, "load_weights", lambda _: None)
    move(policy)
    rollouts.follow(1)
    with pytest.raises(RolloutsRefused, match="does not compute this policy"):
        rollouts.sample(prompts, SAMPLING)


def test_a_job_has_the_server_to_itself_and_gives_it_back(
    opens: Opens, policy: Policy, prompts: list[Prompt], tiny: Path
) -> None:
    adapted = Policy.load(make_config(tiny))
    first, second = opens(policy), opens(policy, OTHER)
    beside = opens(adapted, "ftjob-3-seed-1", "lora")
    first.follow(0)
    first.sample(prompts, SAMPLING)
    for other in (second, beside):
        other.follow(0)
        with pytest.raises(SamplingInterrupted, match="another job holds its weights"):
            other.sample(prompts, SAMPLING)
    first.close()
    assert len(beside.sample(prompts, SAMPLING)) == 2
    with pytest.raises(SamplingInterrupted, match="another job holds its weights"):
        second.sample(prompts, SAMPLING)
    beside.close()
    assert len(second.sample(prompts, SAMPLING)) == 2


@pytest.mark.long
def test_an_adapters_job_puts_the_base_back_that_a_killed_job_has_left(
    server: FakeVllm, opens: Opens, base: Any, prompts: list[Prompt], tiny: Path
) -> None:
    server.version, server.logits = "ftjob-0-after-000003-00", lambda _: [0.0] * server.vocabulary
    rollouts = opens(Policy.load(make_config(tiny)), adapter="lora")
    rollouts.follow(0)
    assert len(rollouts.sample(prompts, SAMPLING)) == 2
    assert server.version == "default"
    assert logits_of(base)(list(prompts[0].tokens)) == first_logits(server, prompts)


@pytest.mark.long
def test_an_adapter_beside_other_weights_than_the_bases_is_not_believed(
    server: FakeVllm, opens: Opens, prompts: list[Prompt], tiny: Path
) -> None:
    server.version = "by-hand"
    adapted = Policy.load(make_config(tiny))
    rollouts = opens(adapted, adapter="lora", whole_weights=False)
    rollouts.follow(0)
    with pytest.raises(SamplingInterrupted, match="were by-hand where default"):
        rollouts.sample(prompts, SAMPLING)


@pytest.mark.long
def test_weights_without_room_are_refused_with_the_figures(
    opens: Opens, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = whole_weights.shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(whole_weights.shutil, "disk_usage", lambda _: full)
    with pytest.raises(WeightsNotWritten, match=r"GB are needed, and 0\.00 GB are free"):
        opens(policy).follow(0)
