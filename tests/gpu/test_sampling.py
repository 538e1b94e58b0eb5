"""Sampling on a device made of CPU memory: what it asks of a GPU, and that it samples what a CPU does."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from methods.sizes.sampler import Needs
from scripts.gpu.as_if_cuda import GIB, as_if_cuda
from scripts.gpu.device import Device
from tests.tiny_model import make_tiny_model
from tests.workers.training.support import make_config
from workers.training.base.device_memory import free_bytes
from workers.training.base.types import Group, Prompt
from workers.training.model.policy import Policy
from workers.training.sampling import decoders
from workers.training.sampling.graphed.gpu_decoder import GpuDecoder
from workers.training.sampling.graphed.kept import Kept, release
from workers.training.sampling.graphed.shapes import budget_of
from workers.training.sampling.rollout import Sampling, sample_groups

SAMPLING = Sampling(samples=4, max_tokens=16, temperature=1.0, key=("train", 1, 5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("sharp"), scale=0.3)


@pytest.fixture
def device() -> Iterator[Device]:
    with as_if_cuda() as found:
        yield found


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    generator = torch.Generator().manual_seed(3)
    return [
        Prompt(row, {}, tuple(torch.randint(0, 256, (n,), generator=generator).tolist()))
        for row, n in enumerate((3, 20, 17))
    ]


def load(folder: Path, **changes: Any) -> Policy:
    """One token in thirteen ends a completion."""
    policy = Policy.load(make_config(folder, **{"device": "cuda", "dtype": "float32"} | changes))
    policy.end_ids = tuple(range(0, 256, 13))
    return policy


def tokens(groups: list[Group]) -> list[list[tuple[int, ...]]]:
    return [[c.tokens for c in group.completions] for group in groups]


def steps(groups: list[Group]) -> int:
    return max(len(c.tokens) for group in groups for c in group.completions)


def test_graphs_are_kept_and_a_token_costs_one_wait(
    folder: Path, device: Device, prompts: list[Prompt]
) -> None:
    expected = tokens(sample_groups(load(folder, device="cpu"), prompts, SAMPLING))
    policy = load(folder)
    assert tokens(sample_groups(policy, prompts, SAMPLING)) == expected
    captured = len(device.counts.captured)
    assert 0 < captured <= 6
    for key in ("again", "once more"):
        device.counts.clear()
        groups = sample_groups(policy, prompts, dataclasses.replace(SAMPLING, key=("train", 2, key)))
        assert not device.counts.captured
        assert not device.counts.failed_captures
        # two replays a step, model and draw; the last may be superfluous
        assert device.counts.replays <= 2 * steps(groups)
        waits = sum(n for (kind, _), n in device.counts.waits.items() if kind == "synchronize an event")
        assert waits <= steps(groups) + 1
        in_prefill = sum(device.counts.waits.values()) - waits
        assert in_prefill <= 2


@pytest.mark.long
def test_a_step_launches_nothing_but_its_graphs(folder: Path, device: Device, prompts: list[Prompt]) -> None:
    policy = load(folder)
    policy.end_ids = (10**6,)
    kernels = []
    for most in (14, 14, 6):
        device.counts.clear()
        sample_groups(policy, prompts, dataclasses.replace(SAMPLING, max_tokens=most))
        kernels.append(device.counts.kernels.total())
    assert kernels[1] == kernels[2] < kernels[0]


@pytest.mark.long
def test_evaluations_share_the_graphs_and_greedy_ones_add_their_draws(
    folder: Path, device: Device, prompts: list[Prompt]
) -> None:
    policy = load(folder)
    sample_groups(policy, prompts, SAMPLING)
    device.counts.clear()
    changes: dict[str, Any] = {"samples": 1, "max_tokens": 7, "key": ("valid", 1)}
    sample_groups(policy, prompts, dataclasses.replace(SAMPLING, **changes))
    assert not device.counts.captured
    sample_groups(policy, prompts, dataclasses.replace(SAMPLING, temperature=0.0, **changes))
    assert all("linear" not in kernels for kernels in device.counts.captured)


@pytest.mark.long
def test_stop_strings_and_grammars_wait_once_a_token_too(
    folder: Path, device: Device, prompts: list[Prompt]
) -> None:
    policy = load(folder, response_format={"type": "json_object"})
    for changes in ({"stop": ("a", "}")}, {"grammar": policy.grammar, "max_tokens": 8}):
        asked = dataclasses.replace(SAMPLING, **changes)
        expected = sample_groups(policy, prompts, asked, make_decoder=decoders.by_modules)
        device.counts.clear()
        found = sample_groups(policy, prompts, asked)
        assert tokens(found) == tokens(expected)
        waits = [n for (kind, _), n in device.counts.waits.items() if kind == "synchronize an event"]
        assert sum(waits) <= steps(found) + 1


def test_weights_that_have_moved_are_captured_anew(
    folder: Path, device: Device, prompts: list[Prompt]
) -> None:
    policy = load(folder)
    before = tokens(sample_groups(policy, prompts, SAMPLING))
    with torch.no_grad():
        for weight in policy.rollout_model.parameters():
            weight.data = weight.data * 1.5
    device.counts.clear()
    found = tokens(sample_groups(policy, prompts, SAMPLING))
    expected = tokens(sample_groups(policy, prompts, SAMPLING, make_decoder=decoders.by_modules))
    assert found == expected != before
    assert device.counts.captured


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_graphs_follow_an_adapter(folder: Path, device: Device, prompts: list[Prompt], dtype: str) -> None:
    policy = load(folder, adapter="lora", dtype=dtype)
    before = tokens(sample_groups(policy, prompts, SAMPLING))
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        with torch.no_grad():
            for weight in policy.trained().values():
                weight += (0.05 * torch.randn(weight.shape, generator=generator)).to(weight.device)
        policy.sync_rollout()
        device.counts.clear()
        found = tokens(sample_groups(policy, prompts, SAMPLING))
        captured = len(device.counts.captured)
        release(policy.rollout_model)
        assert found == tokens(sample_groups(policy, prompts, SAMPLING)) != before
    assert dtype == "bfloat16" or captured == 0


@pytest.mark.long
def test_a_step_that_cannot_be_captured_is_run_kernel_by_kernel(
    folder: Path,
    device: Device,
    prompts: list[Prompt],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = load(folder)
    expected = tokens(sample_groups(policy, prompts, SAMPLING))
    release(policy.rollout_model)
    decode = GpuDecoder.decode

    def look(decoder: GpuDecoder, cache: Any, step: Any) -> torch.Tensor:
        logits = decode(decoder, cache, step)
        assert bool(logits.isfinite().all())
        return logits

    with monkeypatch.context() as patched:
        patched.setattr(GpuDecoder, "decode", look)
        device.counts.clear()
        assert tokens(sample_groups(policy, prompts, SAMPLING)) == expected
    assert device.counts.failed_captures == 1
    assert [record.message for record in caplog.records].count("decode_not_captured") == 1
    release(policy.rollout_model)
    assert tokens(sample_groups(policy, prompts, SAMPLING)) == expected


@pytest.mark.long
def test_what_is_kept_is_given_back(folder: Path, device: Device, prompts: list[Prompt]) -> None:
    policy = load(folder)
    sample_groups(policy, prompts, SAMPLING)
    held = torch.cuda.memory_allocated()
    assert release(policy.rollout_model)
    assert not release(policy.rollout_model)
    assert torch.cuda.memory_allocated() < held - 4 * 8 * 16 * 128


def test_rows_are_as_many_as_find_memory(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    needs = Needs(rows=512, groups=64, samples=8, prompt_columns=64, columns=1024)
    slots = []
    with as_if_cuda(total=2 * GIB) as device:
        model = load(folder).rollout_model
        for free in (2 * GIB, GIB, 100 << 20):
            device.memory.others = device.memory.total - free
            slots.append(Kept().take(model, needs, decoders.step_function).shape.slots)
            # What PyTorch holds of a sampler that is gone is free too.
            assert budget_of(model.device) == pytest.approx((free_bytes(model.device) or 0) / 4, rel=0.1)
        kept = Kept()
        assert kept.budget_of(model) == budget_of(model.device)
        device.memory.others = device.memory.total - (10 << 20)
        assert kept.take(model, needs, decoders.step_function).shape.slots < slots[-1]
    assert slots[0] == slots[1] == needs.rows > slots[2] >= 8
    assert "sampling_rows_halved" in [record.message for record in caplog.records]


def test_needs_of_several_calls_are_the_largest_of_each() -> None:
    training, evaluation = Needs(64, 16, 8, 300, 512), Needs(200, 200, 1, 400, 256)
    assert training.and_those(evaluation) == (200, 200, 8, 400, 512)
