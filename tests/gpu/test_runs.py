"""Whole runs on the device made of CPU memory: nothing that CUDA refuses, graphs, and a run that goes on."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from methods.tune_config import TuneConfig
from scripts.gpu.as_if_cuda import as_if_cuda
from scripts.gpu.device import Device
from tests.chat_templates import tokenizer_of
from tests.tiny_model import make_tiny_model
from tests.workers.rows import chat_rows, preference_rows
from tests.workers.training.support import (
    FunctionGrader,
    ListRecorder,
    early_letters,
    make_config,
    make_rows,
)
from workers.training.base.errors import RunCancelled
from workers.training.loop import train

FULL = {"adapter": "full", "learning_rate": 1e-3}
BF16 = {"dtype": "bfloat16"}
SOON = {"lora-bf16": BF16}
"""What the quick tests run; each of the others takes some ten seconds."""
LATER: dict[str, dict[str, Any]] = {
    "lora-fp32": {"dtype": "float32"},
    "full-fp32": {"dtype": "float32", **FULL},
    "full-bf16": {**BF16, **FULL},
    "gradient-checkpointing": {**BF16, "gradient_checkpointing": True},
    "full-and-gradient-checkpointing": {**BF16, **FULL, "gradient_checkpointing": True},
    "ppo": {"algorithm": "ppo", **BF16},
    "gspo": {"algorithm": "gspo"},
    "rloo": {"algorithm": "rloo"},
    "one-step-ahead": {**BF16, "async_steps": 1},
    "stop-strings": {"stop": ("a", "zz")},
    "dynamic-sampling": {"sampling_rounds": 3},
    "json-grammar": {"response_format": {"type": "json_object"}},
    "nf4": {"base_precision": "nf4"},
    "int8": {"base_precision": "int8"},
    "nf4-fp32": {"base_precision": "nf4", "dtype": "float32"},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), hidden=64, scale=0.2)


def trained_in_two(model: Path, out: Path, gpu: Device | None, /, **changes: Any) -> ListRecorder:
    """Trains for a step, stops, and goes on; returns what was told after that."""
    wanted = make_config(model, **{"device": "cuda", "n_epochs": 1, "eval_interval": 5, **changes})
    rows = make_rows("one", "two", "three")

    def run(recorder: ListRecorder, stop: Callable[[], bool] = lambda: False) -> None:
        train(wanted, rows, rows[:1], FunctionGrader(early_letters), recorder, out, stop)

    first, second = ListRecorder(), ListRecorder()
    with pytest.raises(RunCancelled):
        run(first, stop=lambda: any(step == 1 for step, _, _ in first.all("metrics")))
    if gpu is not None:
        gpu.counts.clear()
    run(second)
    assert ("info", "Resumed after step 1.") in second.all("note")
    return second


def is_finite(recorder: ListRecorder) -> bool:
    values = [value for _, _, told in recorder.all("metrics") for value in told.values()]
    return all(math.isfinite(value) for value in values if isinstance(value, float))


def check_run(model: Path, out: Path, **changes: Any) -> None:
    with as_if_cuda() as device:
        told = trained_in_two(model, out, device, **changes)
    assert told.all("checkpoint")
    assert is_finite(told)
    is_half = changes.get("dtype", "bfloat16" if "base_precision" in changes else None) == "bfloat16"
    if not changes.get("async_steps"):  # samples of older weights have a mismatch of their own
        assert max(told.series("sampler/mismatch")) < (0.1 if is_half else 1e-4)
    assert device.counts.captured
    assert device.counts.replays > 0
    assert device.counts.failed_captures == 0


@pytest.mark.parametrize("changes", SOON.values(), ids=SOON)
def test_a_run_goes_on_and_asks_nothing_that_cuda_refuses(changes, folder, tmp_path):
    check_run(folder, tmp_path, max_completion_tokens=10, **changes)


@pytest.mark.long
@pytest.mark.parametrize("changes", LATER.values(), ids=LATER)
def test_a_longer_run_goes_on_and_asks_nothing_that_cuda_refuses(changes, folder, tmp_path):
    if "base_precision" in changes:
        pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install 'cherry-rft[quant]')")
    check_run(folder, tmp_path, max_completion_tokens=24, **changes)


@pytest.mark.long
def test_a_run_with_a_budget_for_thoughts_goes_on(tmp_path):
    tokenizer = tokenizer_of("qwen3_5_think")
    model = make_tiny_model(
        tmp_path / "model", tokenizer=tokenizer, hidden=32, layers=1, scale=0.3, vocabulary=420
    )
    check_run(model, tmp_path / "run", max_completion_tokens=24, max_thinking_tokens=4)


@pytest.mark.long
@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_run_in_fp32_is_the_run_of_a_cpu(adapter, folder, tmp_path):
    changes = {"dtype": "float32", "adapter": adapter, "max_completion_tokens": 24}
    with as_if_cuda() as device:
        there = trained_in_two(folder, tmp_path / "there", device, **changes)
    here = trained_in_two(folder, tmp_path / "here", None, device="cpu", **changes)
    found, expected = there.history(), here.history()
    assert found.keys() == expected.keys()
    for step, values in expected.items():
        for name, value in values.items():
            if isinstance(value, float) and not math.isnan(value):
                assert found[step][name] == pytest.approx(value, rel=1e-3, abs=1e-4), name


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning")  # TRL's and PEFT's, of transformers
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings(
    "ignore:.pin_memory. argument:UserWarning"
)  # torch asks the build, not the device
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_a_tuning_goes_on_and_asks_nothing_that_cuda_refuses(method, dtype, folder, tmp_path, monkeypatch):
    from methods.rows import Row
    from workers.tuning.run import tune

    # TRL compiles its own kernels for a device that calls itself CUDA wherever Triton is installed.
    monkeypatch.setattr("trl.kernels.chunked_logprob._TRITON_AVAILABLE", False)
    monkeypatch.setattr("trl.trainer.utils.is_triton_available", lambda: False)
    wanted = TuneConfig(
        method=method,
        model="tiny",
        model_path=str(folder),
        seed=3,
        n_epochs=1,
        batch_size=2,
        eval_interval=3,
        learning_rate=5e-3,
        warmup_steps=1,
        probe_tokens=4,
        save_state_every=2,
        valid_every=2,
        lora_rank=4,
        device="cuda",
        dtype=dtype,
    )
    made = chat_rows(8) if method == "supervised" else preference_rows(8)
    rows = [Row(i + 1, item) for i, item in enumerate(made)]
    first, second = ListRecorder(), ListRecorder()
    with as_if_cuda():
        with pytest.raises(RunCancelled):
            tune(wanted, rows[:6], rows[6:], first, tmp_path, lambda: len(first.all("metrics")) == 2)
        tune(wanted, rows[:6], rows[6:], second, tmp_path)
    assert [step for step, _, _ in second.all("metrics")][-1] == 3
    assert is_finite(second)
