"""Checkpoints: complete model folders, and which of them to keep; trust/selection.py chooses among those."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from methods.forgetting import most_forgotten
from methods.model_files.precision import LIBRARY, QUANTISED
from methods.run_config import RunConfig
from methods.train_config import TrainConfig
from workers.training.base.types import Checkpoint, ScoredText
from workers.training.evaluate import ROWS_FOR_AN_ERROR, Estimate
from workers.training.folders import publish
from workers.training.model.policy import Policy
from workers.training.sampling.scored_texts import write_scored
from workers.training.trust.selection import Judged


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Returns where the checkpoint of a step lies."""
    return run_dir / f"step_{step:06d}"


def save_checkpoint(policy: Policy, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint.folder` atomically: `model/`, `adapter/` for LoRA, logprobs.json, manifest.json."""

    def write(folder: Path) -> None:
        policy.save_model(folder / "model")
        policy.save_adapter(folder / "adapter")
        write_scored(folder, checkpoint.scored)

    facts = {key: value for key, value in asdict(checkpoint).items() if key not in ("folder", "scored")}
    publish(checkpoint.folder, write, {**facts, "versions": versions()})


def make_checkpoint(
    folder: Path,
    step: int,
    epoch: int,
    kl: Estimate,
    reward: Estimate | None,
    judged: Judged | None = None,
    scored: tuple[ScoredText, ...] = (),
) -> Checkpoint:
    """Puts a checkpoint's numbers together.

    `reward` is that of the validation rows, None without any; `judged` its comparison with the base, so far;
    `scored` the texts that its folder keeps.
    """
    is_sure = judged is not None and judged.n >= ROWS_FOR_AN_ERROR
    return Checkpoint(
        step=step,
        epoch=epoch,
        folder=folder,
        kl=kl.mean,
        kl_stderr=kl.stderr,
        valid_reward=reward.mean if reward else None,
        valid_reward_stderr=reward.stderr if reward else None,
        advantage_over_base=judged.mean if judged else None,
        advantage_stderr=judged.stderr if judged and is_sure else None,
        scored=scored,
    )


def deliverable(checkpoints: Sequence[Checkpoint], config: RunConfig) -> dict[int, Checkpoint]:
    """Returns the checkpoints that may be delivered, by step: where the guard acts, none that forgot.

    That is one whose loss on the canary may be above the base's by more than `guard_canary`: the upper bound
    counts, since other text than the canary's 48 may have suffered more. The base may always.
    """
    most = config.guard_canary if isinstance(config, TrainConfig) and config.guard == "act" else math.inf
    return {one.step: one for one in checkpoints if one.step == 0 or most_forgotten(one.extra) <= most}


def to_keep(
    checkpoints: Sequence[Checkpoint], n: int, gains: Mapping[int, float], chosen: int = 0
) -> list[Checkpoint]:
    """Returns the checkpoints whose folders stay, by step.

    They are the base, the `n` best by `gains` (over the base, by step; ties: lower KL; without gains: the
    last), and the `chosen` one, which would be delivered now.
    """
    tuned = [checkpoint for checkpoint in checkpoints if checkpoint.step > 0]
    if gains:
        tuned.sort(key=lambda one: (-gains.get(one.step, -math.inf), one.kl))
    else:
        tuned.sort(key=lambda one: -one.step)
    kept = {one.step for one in tuned[:n]} | {0, chosen}
    return [checkpoint for checkpoint in checkpoints if checkpoint.step in kept]


def checkpoint_to_json(checkpoint: Checkpoint) -> dict[str, Any]:
    """Returns a checkpoint as the training state holds it; the folder is stored by its name."""
    facts = {**asdict(checkpoint), "folder": checkpoint.folder.name}
    del facts["scored"]
    return {"checkpoint": facts}


def checkpoint_from_json(facts: dict[str, Any], run_dir: Path) -> Checkpoint:
    """Reverses `checkpoint_to_json`. States of 0.1.0 hold a bound beside it, which nothing reads."""
    checkpoint = facts["checkpoint"]
    return Checkpoint(**{**checkpoint, "folder": run_dir / checkpoint["folder"]})


def versions(config: RunConfig | None = None) -> dict[str, str]:
    """Returns the versions of what wrote a folder, and of what quantised the base of a run."""
    names = ["torch", "transformers", "peft", "safetensors"]
    if config is not None and config.base_precision in QUANTISED:
        names.append(LIBRARY)
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
