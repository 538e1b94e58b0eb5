"""What a model takes, by hand; docs/models.md holds the estimate to measured peaks."""

from __future__ import annotations

from typing import Any

import pytest

from methods.memory import Run, by_use, bytes_beside, of_training, run_of
from methods.model_files.precision import BasePrecision
from methods.sizes.activations import TABLE
from methods.sizes.model_size import ModelSize
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig

SIZE = ModelSize(
    parameters=1000,
    matrices=800,
    adapted=60,
    layers=2,
    hidden=10,
    intermediate=20,
    cached=40,
    vocabulary=50,
    context=128,
    stored_bytes=2,
)
RUN = Run("lora", 4, "cpu", 4, groups=2, samples=3, prompt_tokens=10, answer_tokens=5, pass_tokens=10_000)


def uses(size: ModelSize = SIZE, **changed: Any) -> dict[str, int]:
    return {use.what: use.bytes for use in of_training(size, RUN._replace(**changed)).uses}


def test_an_adapter_takes_the_base_a_copy_of_what_it_adapts_and_four_times_itself() -> None:
    assert of_training(SIZE, RUN).certain == 1000 * 4 + 800 * 4 + 4 * 60 * 4 * 4
    assert of_training(SIZE, RUN._replace(device="cuda", number_bytes=2)).certain == 1000 * 2 + 800 * 2 + 3840


@pytest.mark.parametrize(("precision", "packed"), [("int8", 800), ("nf4", 412)])
def test_a_quantised_base_is_held_once_and_the_rest_of_it_as_numbers(
    precision: BasePrecision, packed: int
) -> None:
    one_matrix = 10 * 20
    found = of_training(SIZE, RUN._replace(precision=precision)).certain
    assert found == packed + (1000 - 800 + one_matrix) * 4 + 3840 + 960
    shown, of_sampler = by_use(SIZE, "cuda"), 16 * 60 * 4
    assert shown[f"dpo lora {precision}"].certain - of_sampler < shown["dpo lora"].certain


def test_arithmetic_beside_a_quantised_base_has_16_bits_on_a_gpu_whatever_is_stored() -> None:
    stored = SIZE._replace(stored_bytes=4)
    assert [bytes_beside("nf4", "auto", stored, device) for device in ("cpu", "cuda")] == [4, 2]  # type: ignore[arg-type]
    assert [bytes_beside("auto", "auto", stored, device) for device in ("cpu", "cuda")] == [4, 4]  # type: ignore[arg-type]
    assert bytes_beside("bf16", "auto", stored, "cpu") == 2
    assert bytes_beside("int8", "float32", stored, "cuda") == 4


@pytest.mark.parametrize(
    ("changed", "is_wide"),
    [
        ({}, False),
        ({"precision": "bf16"}, False),
        ({"precision": "nf4"}, False),
        ({"precision": "int8"}, False),
        ({"precision": "nf4", "number_bytes": 4}, False),
        ({"is_sharded": True, "processes": 2}, True),
        ({"is_sharded": True, "processes": 2, "adapter": "full"}, False),
    ],
)
def test_an_adapter_computes_in_fp32_beside_a_sharded_base_in_16_bits(
    changed: dict[str, Any], is_wide: bool
) -> None:
    run = RUN._replace(device="cuda", number_bytes=2)._replace(**changed)
    assert run.kind.has_wide_branch is is_wide
    assert run.kind in TABLE


@pytest.mark.parametrize(
    ("changed", "copies"), [({}, 1), ({"has_copy": True}, 2), ({"device": "cuda", "number_bytes": 2}, 1)]
)
def test_all_weights_take_16_bytes_each_a_reference_and_perhaps_a_copy(
    changed: dict[str, Any], copies: int
) -> None:
    assert of_training(SIZE, RUN._replace(adapter="full", **changed)).certain == 16_000 + copies * 4000


def test_processes_on_a_machine_share_it_and_those_on_gpus_do_not() -> None:
    once = of_training(SIZE, RUN)
    assert of_training(SIZE, RUN._replace(processes=3)).total == 3 * once.total
    on_gpu = RUN._replace(device="cuda", processes=2)
    assert of_training(SIZE, on_gpu) == of_training(SIZE, on_gpu._replace(processes=1))
    sharded = of_training(SIZE, on_gpu._replace(is_sharded=True))
    assert sharded.certain == 1000 * 4 // 2 + 1000 * 4 + 3840


def test_what_a_step_takes_follows_from_its_tokens() -> None:
    assert uses()["keys and values"] == 2 * (2 * 10 + 3 * 5) * 40 * 4
    assert uses(samples=1)["keys and values"] == 2 * (10 + 5) * 40 * 4
    small, large = (uses(answer_tokens=tokens)["activations of a pass"] for tokens in (5, 10))
    assert large > small
    assert uses(pass_tokens=20)["activations of a pass"] < small
    assert uses(recomputes=True)["activations of a pass"] < small


def test_runs_of_all_methods_have_their_numbers() -> None:
    shared: dict[str, Any] = {
        "model": "m",
        "model_path": "m",
        "seed": 1,
        "n_epochs": 1,
        "learning_rate": 1e-4,
        "eval_interval": 1,
        "lora_rank": 4,
    }
    train = TrainConfig(
        **shared, prompts_per_step=2, group_size=3, max_completion_tokens=5, guard="act", async_steps=1
    )
    run = run_of(train, SIZE, 10, "cpu")
    assert run == RUN._replace(pass_tokens=16_384, has_copy=True, keeps_good=True)
    pairs = run_of(TuneConfig(**shared, method="dpo", batch_size=2, probe_tokens=1), SIZE, 15, "cuda")
    assert (pairs.samples, pairs.prompt_tokens, pairs.answer_tokens, pairs.number_bytes) == (2, 15, 0, 2)


HOWS = ("lora", "lora int8", "lora nf4", "full")


def test_each_use_of_a_model_is_told() -> None:
    found = by_use(SIZE, "cpu")
    assert set(found) == {
        *(f"{method} {how}" for method in ("reinforcement", "supervised", "dpo") for how in HOWS),
        "serving",
    }
    assert all(need.total >= need.certain > 0 for need in found.values())
