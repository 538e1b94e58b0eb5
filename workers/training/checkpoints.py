"""Checkpoints: complete model folders, which of them to keep, and which to deliver."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from workers.training.base.types import Checkpoint
from workers.training.evaluate import Estimate, lower_bound
from workers.training.folders import publish
from workers.training.model.policy import Policy


@dataclass(frozen=True)
class Candidate:
    """Holds a checkpoint and what its selection needs.

    Attributes:
        bound: lower confidence bound of the paired validation difference to the base, in grader units. 0 for
            the base itself; None where nothing is known, such as without validation rows.
    """

    checkpoint: Checkpoint
    bound: float | None

    @property
    def step(self) -> int:
        """Returns the step of the checkpoint."""
        return self.checkpoint.step


def checkpoint_folder(run_dir: Path, step: int) -> Path:
    """Returns where the checkpoint of a step lies."""
    return run_dir / f"step_{step:06d}"


def save_checkpoint(policy: Policy, checkpoint: Checkpoint) -> None:
    """Writes `checkpoint.folder` (`model/`, `adapter/` for LoRA, `manifest.json`) atomically."""

    def write(folder: Path) -> None:
        policy.save_model(folder / "model")
        policy.save_adapter(folder / "adapter")

    facts = {key: value for key, value in asdict(checkpoint).items() if key != "folder"}
    publish(checkpoint.folder, write, {**facts, "versions": versions()})


def make_candidate(
    folder: Path, step: int, epoch: int, kl: Estimate, valid: Estimate | None, difference: Estimate | None
) -> Candidate:
    """Puts a checkpoint's numbers together. `valid` and `difference` are None without validation rows."""
    checkpoint = Checkpoint(
        step=step,
        epoch=epoch,
        folder=folder,
        kl=kl.mean,
        kl_stderr=kl.stderr,
        valid_reward=valid.mean if valid else None,
        valid_reward_stderr=valid.stderr if valid else None,
        advantage_over_base=difference.mean if difference else None,
        advantage_stderr=difference.stderr if difference else None,
    )
    return Candidate(checkpoint, lower_bound(difference) if difference else None)


def select(candidates: Sequence[Candidate]) -> Candidate:
    """Returns the one to deliver: the highest lower bound over the base, then the lower KL, then the earlier.

    The base takes part with a bound of 0, so nothing is delivered that is not better than the base with 95 %
    confidence on the validation rows. Without validation rows it is the last step.
    """
    judged = [(c.bound, c) for c in candidates if c.bound is not None]
    if not judged:
        return max(candidates, key=lambda c: c.step)
    return min(judged, key=lambda pair: (-pair[0], pair[1].checkpoint.kl, pair[1].step))[1]


def to_keep(candidates: Sequence[Candidate], n: int) -> list[Candidate]:
    """Returns the candidates whose folders stay, by step.

    They are the base, the `n` best by validation reward (ties: lower KL; without validation: the last), and
    the one that would be delivered now.
    """
    tuned = [candidate for candidate in candidates if candidate.step > 0]
    if any(candidate.checkpoint.valid_reward is not None for candidate in tuned):
        tuned.sort(key=_by_validation)
    else:
        tuned.sort(key=lambda candidate: -candidate.step)
    kept = {c.step for c in tuned[:n]} | {0, select(candidates).step}
    return [candidate for candidate in candidates if candidate.step in kept]


def candidate_to_json(candidate: Candidate) -> dict[str, Any]:
    """Returns a candidate as the training state holds it; the folder is stored by its name."""
    folder = candidate.checkpoint.folder.name
    return {"checkpoint": {**asdict(candidate.checkpoint), "folder": folder}, "bound": candidate.bound}


def candidate_from_json(facts: dict[str, Any], run_dir: Path) -> Candidate:
    """Reverses `candidate_to_json`."""
    checkpoint = facts["checkpoint"]
    return Candidate(Checkpoint(**{**checkpoint, "folder": run_dir / checkpoint["folder"]}), facts["bound"])


def versions() -> dict[str, str]:
    """Returns the versions of what wrote a folder."""
    libraries = {name: version(name) for name in ("torch", "transformers", "peft", "safetensors")}
    return {"python": platform.python_version(), **libraries}


def _by_validation(candidate: Candidate) -> tuple[float, float]:
    reward = candidate.checkpoint.valid_reward
    return (math.inf if reward is None else -reward, candidate.checkpoint.kl)
