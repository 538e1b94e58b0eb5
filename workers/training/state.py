"""The training state on disk: everything a killed run needs to go on as if nothing had happened.

safetensors and JSON only: reading a state runs no code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workers.config import TrainConfig
from workers.dataset import Row
from workers.training.checkpoints import Candidate, candidate_from_json, candidate_to_json, versions
from workers.training.errors import StateMismatch
from workers.training.folders import PARTIAL, FolderDamaged, publish, read_manifest
from workers.training.policy import Policy

STATES_KEPT = 2
"""The last one, and one to fall back to should it be damaged."""


@dataclass
class Progress:
    """Where a run is. Together with weights, optimizer and generators this is the whole state.

    The place in the data needs no more than `step`: the order of every epoch follows from the seed.

    Attributes:
        step: finished steps.
        trained_tokens: prompt and completion tokens seen in updates.
        steps_over_failure_limit: steps in a row with too many failed grades.
        non_finite_in_a_row: skipped updates in a row.
        base_rewards: mean validation reward of each row by the base.
        kept: checkpoints whose folders exist.
    """

    step: int = 0
    trained_tokens: int = 0
    steps_over_failure_limit: int = 0
    non_finite_in_a_row: int = 0
    base_rewards: list[float | None] = field(default_factory=list)
    kept: list[Candidate] = field(default_factory=list)


def state_folder(run_dir: Path, step: int) -> Path:
    """Where the training state after a step lies."""
    return run_dir / f"state_{step:06d}"


def saved_steps(run_dir: Path) -> list[int]:
    """Steps with a training state, the last first. Says nothing of damage."""
    names = [path.name for path in run_dir.glob("state_*") if path.is_dir()]
    return sorted((int(name[6:]) for name in names if name[6:].isdigit()), reverse=True)


def fingerprint(config: TrainConfig, train_rows: Sequence[Row], valid_rows: Sequence[Row]) -> str:
    """sha256 of what a state belongs to: the config (but for where it runs) and both data sets."""
    digest = hashlib.sha256()
    parts: list[Any] = [config.model_dump(mode="json", exclude={"model_path", "device"})]
    parts += [[row.item for row in rows] for rows in (train_rows, valid_rows)]
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def save_state(
    run_dir: Path, progress: Progress, policy: Policy, optimizer: torch.optim.Optimizer, belongs_to: str
) -> Path:
    """Save the state after `progress.step`. Atomic; older states stay until `prune`."""

    def write(folder: Path) -> None:
        save_file(_contiguous(dict(policy.trained())), folder / "trained.safetensors")
        save_file(_optimizer_tensors(policy, optimizer), folder / "optimizer.safetensors")
        save_file(_generator_tensors(), folder / "generators.safetensors")
        facts = {**asdict(progress), "kept": [candidate_to_json(candidate) for candidate in progress.kept]}
        (folder / "progress.json").write_text(json.dumps(facts, allow_nan=False))

    folder = state_folder(run_dir, progress.step)
    publish(folder, write, {"step": progress.step, "belongs_to": belongs_to, "versions": versions()})
    return folder


def newest_state(run_dir: Path, belongs_to: str) -> tuple[Path | None, list[str]]:
    """The newest state that is whole, with its checkpoints, and what is wrong with newer ones.

    Raises `StateMismatch` if the state is another run's.
    """
    faults = []
    for step in saved_steps(run_dir):
        folder = state_folder(run_dir, step)
        try:
            manifest = read_manifest(folder)
            for candidate in _read_progress(folder).kept:
                read_manifest(candidate.checkpoint.folder)
        except FolderDamaged as error:
            faults.append(str(error))
            continue
        if manifest.get("belongs_to") != belongs_to:
            raise StateMismatch(
                f"{folder.name} was saved with another config or other data; a new run needs a new folder."
            )
        return folder, faults
    return None, faults


def load_state(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Progress:
    """Put a state back that `newest_state` found whole."""
    policy.load_trained(load_file(folder / "trained.safetensors", device=str(policy.device)))
    _load_optimizer(policy, optimizer, load_file(folder / "optimizer.safetensors"))
    _load_generators(load_file(folder / "generators.safetensors"))
    return _read_progress(folder)


def prune(run_dir: Path, tell_dropped: Callable[[int], None], *, states_kept: int = STATES_KEPT) -> None:
    """Remove older states, checkpoints that no remaining state needs, and folders half written.

    The step of a checkpoint is told just before it goes: killed in between, it is told again, never lost.
    """
    states = saved_steps(run_dir)
    for step in states[states_kept:]:
        shutil.rmtree(state_folder(run_dir, step))
    needed = {
        candidate.checkpoint.folder.name
        for step in states[:states_kept]
        for candidate in _read_progress(state_folder(run_dir, step)).kept
    }
    for folder in sorted([*run_dir.glob("step_*"), *run_dir.glob(f"state_*{PARTIAL}")]):
        if folder.name not in needed:
            if folder.suffix != PARTIAL:
                tell_dropped(int(folder.name[5:]))
            shutil.rmtree(folder)


def _read_progress(folder: Path) -> Progress:
    try:
        facts = json.loads((folder / "progress.json").read_text())
        kept = [candidate_from_json(candidate, folder.parent) for candidate in facts["kept"]]
        return Progress(**{**facts, "kept": kept})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderDamaged(f"{folder.name} cannot be read: {error}") from error


def _optimizer_tensors(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and counts as "name/key"; empty before the first update."""
    return _contiguous(
        {
            f"{name}/{key}": value
            for name, weight in policy.trained().items()
            for key, value in optimizer.state.get(weight, {}).items()
        }
    )


def _load_optimizer(policy: Policy, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    optimizer.state.clear()
    weights = policy.trained()
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        weight = weights[name]
        # AdamW keeps its count on the CPU.
        optimizer.state[weight][key] = value if key == "step" else value.to(weight.device)


def _generator_tensors() -> dict[str, Tensor]:
    """torch's generators. Sampling and data order use none (see randomness.py)."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors


def _load_generators(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    cuda = [tensors[name] for name in sorted(tensors) if name != "cpu"]
    if torch.cuda.is_available() and len(cuda) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(cuda)


def _contiguous(tensors: dict[str, Any]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
