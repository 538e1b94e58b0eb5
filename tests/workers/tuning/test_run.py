"""Runs of TRL's trainers on the tiny model: they learn, and one that was stopped ends as one that was not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from methods import metrics
from methods.rows import Row
from methods.tune_config import TuneConfig
from tests.workers.rows import chat_rows, preference_rows
from workers.training.base.errors import NonFinite, RunCancelled, RunPaused
from workers.training.base.types import Checkpoint
from workers.training.recorders import Silent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL's and PEFT's, of transformers
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
N = 11


class Told(Silent):
    """Keeps what a run told, as a database would: a step told again replaces itself."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.checkpoints: dict[int, Checkpoint] = {}
        self.snapshots: list[int] = []

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        told = {name: value for name, value in values.items() if not name.startswith("time/")}
        self.steps[step] = {"epoch": epoch, **told}

    def checkpoint(self, saved: Checkpoint) -> None:
        self.checkpoints[saved.step] = saved

    def snapshot(self, saved: Checkpoint) -> None:
        self.snapshots.append(saved.step)

    def dropped(self, step: int) -> None:
        self.checkpoints.pop(step, None)


def rows(method: str, n: int = N) -> list[Row]:
    made = chat_rows(n) if method == "supervised" else preference_rows(n)
    return [Row(i + 1, item) for i, item in enumerate(made)]


def config(method: str, folder: Path, **changes: Any) -> TuneConfig:
    values: dict[str, Any] = {
        "method": method,
        "model": "tiny",
        "model_path": str(folder),
        "seed": 3,
        "n_epochs": 4,
        "batch_size": 4,
        "eval_interval": 3,
        "learning_rate": 5e-3,
        "warmup_steps": 1,
        "probe_tokens": 4,
        "save_state_every": 2,
        "valid_every": 2,
        "lora_rank": 4,
    }
    return TuneConfig(**values | changes)


def run(
    wanted: TuneConfig,
    told: Told,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
    pause: Callable[[], bool] = lambda: False,
) -> Any:
    from workers.tuning.run import tune

    data = (rows(wanted.method), rows(wanted.method, 14)[N:])
    return tune(wanted, *data, told, folder, stop, pause)


@pytest.mark.parametrize("method", ["supervised", pytest.param("dpo", marks=pytest.mark.long)])
def test_a_stopped_run_ends_bit_for_bit_as_one_that_was_not(
    method: str, tiny_folder: Path, tmp_path: Path
) -> None:
    wanted = config(method, tiny_folder)
    whole, parts = Told(), Told()
    usual = tempfile.gettempdir()
    result = run(wanted, whole, tmp_path / "whole")
    with pytest.raises(RunCancelled):  # in the middle of an epoch
        run(wanted, parts, tmp_path / "parts", stop=lambda: max(parts.steps, default=0) == 4)
    with pytest.raises(RunPaused):
        run(wanted, parts, tmp_path / "parts", pause=lambda: max(parts.steps) == 7)
    again = run(wanted, parts, tmp_path / "parts")
    assert parts.steps == whole.steps
    assert parts.snapshots == [7]
    assert (result.steps, result.best.step, again.best.kl) == (12, 12, result.best.kl)
    assert result.trained_tokens == again.trained_tokens
    weights = [
        folder / "step_000012/model/model.safetensors" for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    assert sorted(whole.steps) == list(range(1, 13))
    assert sorted(whole.checkpoints) == [6, 9, 12]  # the last three of four epochs
    first, last = whole.steps[3], whole.steps[12]
    assert last["loss/full_valid"] < first["loss/full_valid"]
    assert last["loss/train"] < whole.steps[1]["loss/train"] - 0.05
    assert "loss/full_valid" not in whole.steps[2]
    assert ("loss/valid" in whole.steps[2], "loss/valid" in whole.steps[1]) == (True, False)
    assert all(whole.steps[step]["kl/probe_mean"] > 0 for step in (3, 6, 9, 12))
    if method == "dpo":
        assert last["dpo/full_valid_reward_accuracy"] == 1.0
        assert last["dpo/full_valid_reward_margin"] > first["dpo/full_valid_reward_margin"] > 0
    told = {name for values in whole.steps.values() for name in values} - {"epoch"}
    assert [name for name in told if metrics.find(name) is None] == []
    pickled = [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert pickled == []
    assert tempfile.gettempdir() == usual


@pytest.mark.long
@pytest.mark.parametrize("precision", ["nf4", "int8"])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_beside_a_quantised_base_too_and_it_learns(
    method: str, precision: str, tiny_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("bitsandbytes", reason="needs bitsandbytes (pip install 'cherry-rft[quant]')")
    wanted = config(method, tiny_folder, base_precision=precision)
    whole, parts = Told(), Told()
    run(wanted, whole, tmp_path / "whole")
    with pytest.raises(RunCancelled):
        run(wanted, parts, tmp_path / "parts", stop=lambda: max(parts.steps, default=0) == 5)
    run(wanted, parts, tmp_path / "parts")
    assert parts.steps == whole.steps
    weights = [
        folder / "step_000012/model/model.safetensors" for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert whole.steps[12]["loss/full_valid"] < whole.steps[3]["loss/full_valid"]
    assert whole.steps[12]["kl/probe_mean"] > 0


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_what_shares_a_pass_changes_no_number(method: str, tiny_folder: Path, tmp_path: Path) -> None:
    together, apart = Told(), Told()
    short = {"n_epochs": 1, "save_state_every": 50}
    run(config(method, tiny_folder, **short), together, tmp_path / "together")
    run(config(method, tiny_folder, micro_batch_tokens=64, **short), apart, tmp_path / "apart")
    for step, values in together.steps.items():
        assert apart.steps[step] == pytest.approx(values, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_our_losses_on_validation_examples_are_those_of_trl_on_training_examples(
    method: str, tiny_folder: Path, tmp_path: Path
) -> None:
    from workers.tuning.run import tune

    one_batch = {"batch_size": N, "eval_interval": 1, "n_epochs": 2, "warmup_steps": 0}
    told = Told()
    tune(config(method, tiny_folder, **one_batch), rows(method), rows(method), told, tmp_path / "run")
    after_first, second = told.steps[1], told.steps[2]
    assert after_first["loss/full_valid"] != pytest.approx(after_first["loss/train"], abs=1e-4)
    assert second["loss/train"] == pytest.approx(after_first["loss/full_valid"], rel=1e-5)
    assert second["accuracy/train"] == pytest.approx(after_first["accuracy/full_valid"], rel=1e-5)
    if method == "dpo":
        margin = after_first["dpo/full_valid_reward_margin"]
        assert second["dpo/reward_margin"] == pytest.approx(margin, rel=1e-3)


def test_every_weight_can_be_trained(tiny_folder: Path, tmp_path: Path) -> None:
    told = Told()
    result = run(config("dpo", tiny_folder, adapter="full", n_epochs=1), told, tmp_path / "run")
    assert not (result.best.folder / "adapter").exists()
    assert told.steps[3]["dpo/full_valid_reward_margin"] > 0


def test_a_gradient_that_is_not_finite_ends_the_run_before_its_weights_are_lost(
    tiny_folder: Path, tmp_path: Path
) -> None:
    from workers.tuning.run import TuneRun

    def never() -> bool:
        return False

    wanted = config("supervised", tiny_folder)
    found = TuneRun(wanted, rows("supervised"), [], Told(), tmp_path / "run", never, never)
    weight = next(iter(found.policy.trained().values()))
    weight.grad = torch.zeros_like(weight)
    found.before_update()
    weight.grad[0, 0] = float("nan")
    with pytest.raises(NonFinite, match=r"step 1\. A lower learning rate may help"):
        found.before_update()
