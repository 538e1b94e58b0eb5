"""Several processes make the run of one: data parallel, sharded, stopped by one and resumed by the other."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.tiny_model import make_tiny_model
from tests.workers.training import several
from tests.workers.training.support import make_config
from workers.training.base.distributed import ALONE, World, share_out
from workers.training.base.errors import DeviceMissing
from workers.training.state import read_progress

ROOT = Path(__file__).parents[4]
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"adapter": "full", "learning_rate": 1e-3, "micro_batch_tokens": 64},
    "ppo": {"adapter": "full", "learning_rate": 1e-3, "algorithm": "ppo"},
    "rolled back": {"adapter": "full", "learning_rate": 0.01, "guard": "act", "guard_kl": 0.3},
    "schema": {
        "max_completion_tokens": 16,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "letters", "schema": {"type": "array", "items": {"type": "string"}}},
        },
    },
}
TOGETHER = {
    "lora-parallel": ("lora", {}),
    "lora-fsdp": ("lora", {"sharding": "fsdp"}),
    "full-fsdp": ("full", {"sharding": "fsdp"}),
    "ppo-fsdp": ("ppo", {"sharding": "fsdp"}),
    "rolled-back-fsdp": ("rolled back", {"sharding": "fsdp"}),
    "schema-parallel": ("schema", {}),
}
LAST = 4
PATIENCE = 600
"""Seconds that processes get for all their runs, on a machine that has other things to do."""
ONE_IS_SMALL = [10**9, 60]
"""Tokens of a pass that the devices of two processes hold."""
BASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "full": {"adapter": "full", "learning_rate": 1e-3, "micro_batch_tokens": 64},
}
JUDGED: dict[str, Any] = {
    "kl_probe_samples": 8,
    "eval_temperature": 1.0,
    "eval_samples": 2,
    "guard": "act",
    "guard_kl": 0.02,
    "kl_target": 0.1,
    "seed": 3,
}
"""Rolls back, and has early probes. The seed is one with which no draw is so near the border of two tokens
that rounding decides it: adapter `full` has such a draw with seed 1.
"""
TWINS = {"train": ["one", "one", "two", "three", "four"], "valid": ["one", "one", "two"]}
FEW = {"train": ["one"], "valid": ["one"], "canary": ["a single text"]}
MEASURED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "judged": ({**JUDGED, "async_steps": 1}, TWINS),
    "few": ({**JUDGED, "prompts_per_step": 1, "kl_probe_size": 1}, FEW),
    "paused": ({"max_seconds": 1e-3, "on_budget": "pause", "kl_probe_samples": 4}, {}),
}
"""What is measured, and how runs end: fields of the config, and rows. Fewer rows than processes, rows that
are the same in two, clocks that differ.
"""
LONGER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    **MEASURED,
    "in step": (JUDGED, {}),
    "no validation": ({**JUDGED, "kl_probe_size": 1}, {"valid": [], "train": ["one", "two"]}),
    "tokens": ({"max_sampled_tokens": 100, "eval_temperature": 1.0}, {}),
    "seconds": ({"max_seconds": 1e-3}, {}),
    "visits": ({**JUDGED, "skip_flat_prompts": True, "sampling_rounds": 3, "early_stop": True}, {}),
    "tuned": (JUDGED, {}),
}
"""All of them; "tuned" has an origin."""
SHARED_PROMPTS = "tokens/trained_total"
"""Counts a prompt once in each process that has some of its completions."""


def task(folder: Path, name: str, model: Path, steps: int = 100, **changes: Any) -> dict[str, Any]:
    fields = {"prompts_per_step": 3, "group_size": 4, "n_epochs": 2, "save_state_every": 1, **changes}
    config = make_config(model, **fields).model_dump(mode="json")
    return {"name": name, "folder": str(folder), "config": config, "steps": steps}


def torchrun(folder: Path, tasks: Sequence[dict[str, Any]], device: str = "cpu", processes: int = 2) -> None:
    done = started(folder, tasks, device, processes)
    assert done.returncode == 0, done.stderr[:6000]


def started(
    folder: Path, tasks: Sequence[dict[str, Any]], device: str = "cpu", processes: int = 2
) -> subprocess.CompletedProcess[str]:
    (folder / "tasks.json").write_text(json.dumps(tasks))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    several_of = ["-m", "tests.workers.training.several", str(folder), device]
    program = ["--nproc-per-node", str(processes), *several_of]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    command = [*launcher, *program]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same runs made by one process and by two."""
    folder = tmp_path_factory.mktemp("runs")
    model = make_tiny_model(folder / "model", scale=0.3)
    for name, changes in VARIANTS.items():
        several.run(task(folder, name, model, **changes), ALONE)
    half_done = {"lora-to-two": ("lora", "none"), "full-to-two": ("full", "fsdp")}
    for name, (variant, _) in half_done.items():
        several.run(task(folder, name, model, steps=2, **VARIANTS[variant]), ALONE)
    tasks = [
        task(folder, name, model, processes=2, **{**VARIANTS[variant], **changes})
        for name, (variant, changes) in TOGETHER.items()
    ]
    for name, (variant, sharding) in half_done.items():
        tasks.append(task(folder, name, model, processes=2, sharding=sharding, **VARIANTS[variant]))
    tasks.append({**task(folder, "lora-small", model, processes=2), "holds": ONE_IS_SMALL})
    full = VARIANTS["full"]
    tasks.append(task(folder, "full-to-one", model, steps=2, processes=2, sharding="fsdp", **full))
    for name, (changes, rows) in MEASURED.items():
        base = BASES["full" if name == "judged" else "lora"]
        several.run({**task(folder, name, model, **base, **changes), **rows}, ALONE)
        together = task(folder, f"{name}-fsdp", model, processes=2, sharding="fsdp", **base, **changes)
        tasks.append({**together, **rows})
    torchrun(folder, tasks)
    several.run(task(folder, "full-to-one", model, **full), ALONE)
    return folder


def history(runs: Path, name: str) -> dict[str, dict[str, Any]]:
    told: dict[str, dict[str, Any]] = json.loads((runs / f"{name}.json").read_text())
    return told


def tensors(runs: Path, name: str, file: str) -> dict[str, Tensor]:
    return load_file(runs / name / f"state_{LAST:06d}" / file)


def assert_same_end(runs: Path, name: str, alone: str) -> None:
    """The same weights and optimizer state after the last step."""
    for file in ("trained.safetensors", "optimizer.safetensors"):
        mine, wanted = tensors(runs, name, file), tensors(runs, alone, file)
        assert mine.keys() == wanted.keys()
        for key, value in wanted.items():
            # The gradient of some of the head's weights is 0 but for rounding: Adam makes whole steps of it.
            if not key.startswith("value_head."):
                torch.testing.assert_close(mine[key], value, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOGETHER)
def test_two_processes_make_the_run_of_one(runs: Path, name: str) -> None:
    alone, _ = TOGETHER[name]
    told, wanted = history(runs, name), history(runs, alone)
    assert told.keys() == wanted.keys()
    for step, values in wanted.items():
        assert told[step].keys() == values.keys()
        for key in ("reward/mean", "kl/reference", "kl/base", "optim/grad_norm", "optim/loss"):
            if key in values:
                assert told[step][key] == pytest.approx(values[key], rel=1e-3, abs=1e-5), (step, key)
    assert any("optim/grad_norm" in values for values in wanted.values())
    assert ("guard/rollbacks" in wanted["2"]) is (alone == "rolled back")
    if alone == "rolled back":
        assert told["4"]["guard/rollbacks"] == wanted["4"]["guard/rollbacks"] > 0
    assert_same_end(runs, name, alone)


@pytest.mark.slow
def test_two_processes_make_smaller_passes_when_the_memory_of_one_runs_out(runs: Path) -> None:
    assert_same_end(runs, "lora-small", "lora")
    passes = [
        read_progress(runs / name / f"state_{LAST:06d}").passes.tokens for name in ("lora", "lora-small")
    ]
    assert passes[0] == 16_384
    assert passes[1] is not None
    assert passes[1] <= ONE_IS_SMALL[1]


@pytest.mark.long
@pytest.mark.slow
def test_a_sharded_run_that_ran_out_of_memory_ends_as_another_after_an_attempt_in_smaller_passes(
    tmp_path: Path,
) -> None:
    model = make_tiny_model(tmp_path / "model", scale=0.3)
    full = {**VARIANTS["full"], "micro_batch_tokens": "auto"}
    several.run(task(tmp_path, "alone", model, **full), ALONE)
    sharded = task(tmp_path, "fsdp", model, processes=2, sharding="fsdp", **full)
    left = tmp_path / several.TOO_LARGE
    allowed: list[int] = []
    for _ in range(4):
        most = {"most": allowed[-1]} if allowed else {}
        done = started(tmp_path, [{**sharded, "holds": ONE_IS_SMALL, **most}])
        if done.returncode == 0:
            break
        assert "ran out of the device's memory" in done.stderr
        allowed.append(int(left.read_text()))
        left.unlink()
    assert done.returncode == 0
    assert allowed
    assert_same_end(tmp_path, "fsdp", "alone")
    assert read_progress(tmp_path / "fsdp" / f"state_{LAST:06d}").passes.tokens == allowed[-1]


def assert_same_history(runs: Path, name: str, alone: str) -> None:
    """Every metric of every step is the same."""
    told, wanted = history(runs, name), history(runs, alone)
    assert told.keys() == wanted.keys()
    for step, values in wanted.items():
        mine = {key: value for key, value in told[step].items() if key != SHARED_PROMPTS}
        values.pop(SHARED_PROMPTS)
        assert mine == pytest.approx(values, rel=1e-3, abs=1e-5), step


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_two_processes_measure_and_end_as_one(runs: Path, name: str) -> None:
    assert_same_history(runs, f"{name}-fsdp", name)
    told = history(runs, f"{name}-fsdp")
    assert list(told) == {"judged": [*"01234"], "few": [*"012"], "paused": ["0"]}[name]
    if name == "judged":
        assert told["4"]["guard/rollbacks"] > 0
        assert told["0"]["kl/probe_answers"] == 3 * 8


@pytest.mark.long
@pytest.mark.slow
def test_two_processes_measure_and_end_as_one_in_every_mode(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", scale=0.3)
    tuned = {"origin_path": str(make_tiny_model(tmp_path / "origin", scale=0.3, seed=5))}
    tasks, pairs = [], []
    for kind, base in BASES.items():
        for name, (changes, rows) in LONGER.items():
            fields = {**base, **changes, **(tuned if name == "tuned" else {})}
            alone = f"{kind} {name}"
            several.run({**task(tmp_path, alone, model, **fields), **rows}, ALONE)
            for sharding in ("none", "fsdp"):
                pairs.append((f"{alone} {sharding}", alone))
                together = task(tmp_path, pairs[-1][0], model, processes=2, sharding=sharding, **fields)
                tasks.append({**together, **rows})
    torchrun(tmp_path, tasks)
    for name, alone in pairs:
        assert_same_history(tmp_path, name, alone)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "alone"), [("lora-to-two", "lora"), ("full-to-two", "full"), ("full-to-one", "full")]
)
def test_a_state_of_one_process_is_resumed_by_two_and_the_reverse(runs: Path, name: str, alone: str) -> None:
    assert "1" not in history(runs, name)  # steps before the stop were not made again
    assert_same_end(runs, name, alone)


@pytest.mark.slow
def test_a_checkpoint_of_sharded_weights_is_a_whole_model(runs: Path) -> None:
    mine, wanted = (
        load_file(runs / name / f"step_{LAST:06d}" / "model" / "model.safetensors")
        for name in ("full-fsdp", "full")
    )
    assert mine.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(mine[key], value, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_every_process_sees_the_same(runs: Path) -> None:
    first, second = json.loads((runs / "seen.json").read_text())
    assert first == second
    assert first["gathered"] == [0, 10]
    assert first["from_main"] == "main"
    assert first["merged"] == [0, 2, 4, 6, 8]
    assert sorted(first["shares"][0] + first["shares"][1]) == [0, 1, 2, 3]
    assert first["most"] == 5
    assert first["summed"] == [[1.0] * 3, [2.0] * 4]
    assert first["norm"] == pytest.approx(math.sqrt(3 + 16))
    assert first["told"] == "processes_differ"


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_make_the_run_of_one(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", scale=0.3)
    exact: dict[str, Any] = {"device": "cuda", "dtype": "float32"}
    tasks = []
    for name, (variant, changes) in TOGETHER.items():
        several.run(task(tmp_path, variant, model, **VARIANTS[variant], **exact), ALONE)
        tasks.append(task(tmp_path, name, model, processes=2, **VARIANTS[variant], **changes, **exact))
    torchrun(tmp_path, tasks, "cuda")
    for name, (alone, _) in TOGETHER.items():
        for step, values in history(tmp_path, alone).items():
            if "reward/mean" in values:
                assert history(tmp_path, name)[step]["reward/mean"] == pytest.approx(values["reward/mean"])


@pytest.mark.long
def test_one_process_of_torchrun_has_a_group_and_shards_as_several_do(tmp_path: Path) -> None:
    """On a GPU that group is NCCL's: one is enough to find out whether it starts."""
    model = make_tiny_model(tmp_path / "model", scale=0.3)
    full = {**VARIANTS["full"], "n_epochs": 1}
    several.run(task(tmp_path, "alone", model, **full), ALONE)
    torchrun(tmp_path, [task(tmp_path, "fsdp", model, sharding="fsdp", **full)], processes=1)
    seen = json.loads((tmp_path / "seen.json").read_text())
    assert [(one["groups"], one["gathered"]) for one in seen] == [(1, [0])]
    alone, sharded = history(tmp_path, "alone"), history(tmp_path, "fsdp")
    assert alone.keys() == sharded.keys()
    for step, values in alone.items():
        for name in ("reward/mean", "kl/reference", "optim/grad_norm"):
            if name in values:
                assert sharded[step][name] == pytest.approx(values[name], rel=1e-3, abs=1e-5)


def test_alone_every_call_gives_back_what_it_was_given() -> None:
    assert World.from_environment("cpu", {}).size == 1
    assert ALONE.gather("x") == ["x"]
    assert ALONE.broadcast("x") == "x"
    assert ALONE.merge(ALONE.slice([1, 2, 3])) == [1, 2, 3]
    assert ALONE.share([3, 1, 2]) == [0, 1, 2]
    weight = torch.nn.Parameter(torch.ones(2))
    ALONE.sum_gradients([weight])
    assert weight.grad is None


def test_more_processes_than_gpus_are_refused_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for local_rank in range(2):
        with pytest.raises(DeviceMissing, match="needs 2 GPUs on this machine; PyTorch finds 1"):
            World(local_rank, 2, local_rank, 2).device("cuda")
    assert World(0, 1, 0, 1).device("auto") == torch.device("cuda", 0)
    assert World(1, 2, 1, 2).device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_shares_hold_everything_once_and_are_balanced(processes: int) -> None:
    sizes = [7, 1, 30, 4, 4, 9, 12, 2, 2, 5, 1, 16]
    shares = share_out(sizes, range(len(sizes)), {}, processes)
    assert sorted(i for share in shares for i in share) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in share) for share in shares]
    # Graham's bound for the longest processing time first.
    assert max(loads) <= (4 / 3) * max(max(sizes), sum(sizes) / processes)


def test_completions_of_a_prompt_stay_together_unless_it_is_more_than_a_fair_part() -> None:
    owners = ["a"] * 4 + ["b"] * 4
    shares = share_out([10] * 8, owners, {"a": 50, "b": 50}, 2)
    assert sorted(shares) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    alone = share_out([10] * 8, ["a"] * 8, {"a": 50}, 2)
    assert sorted(len(share) for share in alone) == [4, 4]


def test_an_owners_own_work_counts() -> None:
    shares = share_out([10, 10, 10, 10], ["long", "x", "y", "z"], {"long": 20}, 2)
    assert sorted(map(len, shares)) == [1, 3]


@pytest.mark.long
@pytest.mark.slow
def test_seeds_and_a_control_by_two_processes_stopped_and_resumed(tmp_path: Path) -> None:
    model = make_tiny_model(tmp_path / "model", scale=0.3)
    arms = {"n_seeds": 2, "controls": ["random_reward"], "eval_interval": 2}
    several.run(task(tmp_path, "alone", model, **arms), ALONE)
    torchrun(tmp_path, [task(tmp_path, "both", model, steps=5, processes=2, **arms)])
    first = history(tmp_path, "both")
    torchrun(tmp_path, [task(tmp_path, "both", model, processes=2, **arms)])
    alone, both = history(tmp_path, "alone"), {**first, **history(tmp_path, "both")}
    assert list(map(int, alone)) == list(range(11))
    assert sorted(both, key=int) == list(alone)
    assert max(map(int, first)) == 5
    for step, values in alone.items():
        for name in ("arm/seed", "arm/step", "arm/is_control", "reward/mean", "reward/valid_mean"):
            assert both[step].get(name) == pytest.approx(values.get(name), abs=1e-6)
