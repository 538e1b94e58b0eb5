"""The training state on disk: everything a killed run needs to go on as if nothing had happened.

It is safetensors and JSON only: reading a state runs no code.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from safetensors.torch import load_file, save_file
from torch import Tensor

from graders import TokenUsage
from methods.rows import Row
from workers.training.base.distributed import ALONE, World
from workers.training.base.errors import StateMismatch
from workers.training.base.group_json import group_from_json, group_to_json, usage_from_json
from workers.training.base.pass_tokens import PassesMade
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint, Prompt
from workers.training.checkpoints import checkpoint_from_json, checkpoint_to_json, versions
from workers.training.collector import Rollouts
from workers.training.folders import PARTIAL, STATES_KEPT, FolderDamaged, publish, read_manifest
from workers.training.hints import Hints
from workers.training.model.policy import Policy
from workers.training.model.sharding import gather_whole
from workers.training.optimizer_state import load_optimizer, optimizer_tensors
from workers.training.trust.base_answers import BaseAnswers
from workers.training.trust.flat_reward import FlatStart
from workers.training.trust.guard import Guard, guard_from_json
from workers.training.trust.judge_talk import JudgeTalk
from workers.training.trust.kl_control import KlController
from workers.training.trust.rewards_seen import RewardsSeen
from workers.training.trust.selection import Look
from workers.training.visits import Visits

GOOD = "good.safetensors"
"""The weights and the optimizer of the last good state, where the state's own are later ones."""

PROGRESS = "progress.json"
"""Where a run is, in a state's folder."""

WHERE_IT_RUNS = {"model_path", "origin_path", "device", "processes", "sharding"}
BEFORE_AUTO = {"micro_batch_tokens": 16_384, "gradient_checkpointing": False}
"""What fields were that change no result beyond rounding, before the worker chose them."""
FROM_THE_GRADER = {"reward_range", "gold_range", "asks_judge"}
SINCE_0_1_0 = {
    "kl_probe_samples",
    "eval_temperature",
    "validation_split",
    "max_steps",
    "max_seconds",
    "max_sampled_tokens",
    "max_judge_calls",
    "max_cost",
    "on_budget",
    "early_stop",
    "early_stop_evals",
    "allow_flat_reward",
    "kl_target",
    "kl_target_share",
    "guard",
    "guard_kl",
    "guard_kl_share",
    "guard_canary",
    "guard_rollbacks",
    "n_seeds",
    "eval_seed",
    "controls",
    "skip_flat_prompts",
    "prices",
    "tools",
    "max_episode_steps",
    "environment",
    "base_precision",
}
"""Fields of a config that came later, each with a default that stands for what was done before."""


@dataclass
class Progress:
    """Says where a run is. Together with weights, optimizer and generators this is the whole state.

    The place in the data needs no more than `step`: how every epoch is shuffled follows from the seed.

    Attributes:
        step: finished steps.
        trained_tokens: prompt and completion tokens seen in updates.
        steps_over_failure_limit: steps in a row with too many failed grades.
        has_graded: some completion has got a grade.
        non_finite_in_a_row: skipped updates in a row.
        hints: how long what may be hinted at has lasted.
        controller: by how much the KL target has raised beta.
        guard: what the guard has seen and done.
        is_mismatch_noted: the person was told that sampler and trainer disagree.
        seconds: how long the finished steps took.
        grader_usage: tokens that graders' models have read and written so far, by model.
        looks: what checkpoints were judged by at each evaluation, the base's first.
        gold: what the gold grader has said at each evaluation, the base's first; empty without one.
        is_gold_noted: the person was told that the gold reward falls.
        kept: checkpoints whose folders exist.
        visits: what the finished steps have found of each prompt.
        start: what the first completions had for rewards, while they were all the same.
        rewards_seen: how large rewards have been so far.
        sampled_tokens: completion tokens sampled for training and validation.
        spent_before: what had been spent of each budget when the run paused for one.
        base_answers: what the base wrote where checkpoints are judged, for graders that compare with it.
        judge_talk: which prompts had completions that speak to the judge.
        passes: how passes are made on this run's device.
        ended: why the run is over before its last step ("early_stop", "guard", or the budget); None while it
            is not.
    """

    step: int = 0
    trained_tokens: int = 0
    steps_over_failure_limit: int = 0
    has_graded: bool = False
    non_finite_in_a_row: int = 0
    hints: Hints = field(default_factory=Hints)
    controller: KlController = field(default_factory=KlController)
    guard: Guard = field(default_factory=Guard)
    is_mismatch_noted: bool = False
    seconds: float = 0.0
    grader_usage: dict[str, TokenUsage] = field(default_factory=dict)
    looks: list[Look] = field(default_factory=list)
    gold: list[Look] = field(default_factory=list)
    is_gold_noted: bool = False
    kept: list[Checkpoint] = field(default_factory=list)
    visits: Visits = field(default_factory=Visits)
    start: FlatStart = field(default_factory=FlatStart)
    rewards_seen: RewardsSeen = field(default_factory=RewardsSeen)
    sampled_tokens: int = 0
    spent_before: dict[str, float] = field(default_factory=dict)
    judge_talk: JudgeTalk = field(default_factory=JudgeTalk)
    ended: str | None = None
    base_answers: BaseAnswers = field(default_factory=BaseAnswers)
    passes: PassesMade = field(default_factory=PassesMade)

    def grant(self, spent_before: Mapping[str, float]) -> None:
        """Lets each budget count from what had been spent of it when another arm of the job paused."""
        for name, spent in spent_before.items():
            self.spent_before[name] = max(spent, self.spent_before.get(name, 0.0))


def state_folder(run_dir: Path, step: int) -> Path:
    """Returns where the training state after a step lies."""
    return run_dir / f"state_{step:06d}"


def saved_steps(run_dir: Path) -> list[int]:
    """Returns the steps with a training state, the last first. It does not look for damage."""
    names = [path.name for path in run_dir.glob("state_*") if path.is_dir()]
    return sorted((int(name[6:]) for name in names if name[6:].isdigit()), reverse=True)


def fingerprint(config: BaseModel, train_rows: Sequence[Row], valid_rows: Sequence[Row]) -> str:
    """Returns the sha256 of what a state belongs to: the config and both data sets.

    Where it runs is left out, and what follows from the grader, which is no part of it either. So are fields
    that 0.1.0 did not know, where they mean what it did: its states go on.
    """
    digest = hashlib.sha256()
    facts = config.model_dump(mode="json", exclude=WHERE_IT_RUNS | FROM_THE_GRADER)
    facts |= {name: was for name, was in BEFORE_AUTO.items() if facts[name] == "auto"}
    fields = type(config).model_fields
    means_the_same = {name for name in SINCE_0_1_0 & facts.keys() if facts[name] == _default(fields[name])}
    parts: list[Any] = [{name: value for name, value in facts.items() if name not in means_the_same}]
    parts += [[row.item for row in rows] for rows in (train_rows, valid_rows)]
    for part in parts:
        digest.update(json.dumps(part, sort_keys=True, ensure_ascii=False).encode())
    return digest.hexdigest()


def _default(info: FieldInfo) -> Any:
    """Returns a field's default as JSON has it."""
    return list(info.default) if isinstance(info.default, tuple) else info.default


def save_state(
    run_dir: Path,
    progress: Progress,
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    belongs_to: str,
    pending: Rollouts | None = None,
    world: World = ALONE,
    good: Mapping[str, Tensor] | None = None,
) -> Path:
    """Saves the state after `progress.step`, with the next step's rollouts if they were sampled ahead.

    `good` is what the guard would go back to, tensors of any shape, if that differs. It is atomic; older
    states stay until `prune`. It is collective: the main process writes, all go on when it has.
    """
    trained = gather_whole(policy.trained(), world)
    moments = gather_whole(optimizer_tensors(policy, optimizer), world)

    def write(folder: Path) -> None:
        save_file(_contiguous(trained), folder / "trained.safetensors")
        save_file(_contiguous(moments), folder / "optimizer.safetensors")
        save_file(_generator_tensors(), folder / "generators.safetensors")
        write_progress(folder, progress)
        if good is not None:
            save_file(dict(good), folder / GOOD)
        if pending is not None:
            (folder / "pending.json").write_text(json.dumps(_rollouts_to_json(pending)))

    folder = state_folder(run_dir, progress.step)
    if world.is_main:
        publish(folder, write, {"step": progress.step, "belongs_to": belongs_to, "versions": versions()})
    world.wait()
    return folder


def newest_state(run_dir: Path, belongs_to: str) -> tuple[Path | None, list[str]]:
    """Returns the newest state that is whole, with its checkpoints, and what is wrong with newer ones.

    Raises `StateMismatch` if the state is another run's.
    """
    faults = []
    for step in saved_steps(run_dir):
        folder = state_folder(run_dir, step)
        try:
            manifest = read_manifest(folder)
            for checkpoint in read_progress(folder).kept:
                read_manifest(checkpoint.folder)
        except FolderDamaged as error:
            faults.append(str(error))
            continue
        check_owner(folder, manifest, belongs_to)
        return folder, faults
    return None, faults


def check_owner(folder: Path, manifest: Mapping[str, Any], belongs_to: str) -> None:
    """Raises `StateMismatch` if a state is another run's."""
    if manifest.get("belongs_to") != belongs_to:
        raise StateMismatch(
            f"{folder.name} was saved with another config or other data; a new run needs a new folder."
        )


def usable_state(run_dir: Path, belongs_to: str, recorder: Recorder) -> Path | None:
    """Returns the newest state that is whole; faults of newer ones are reported through `recorder`."""
    folder, faults = newest_state(run_dir, belongs_to)
    for fault in faults:
        recorder.note("warn", f"A saved training state cannot be used: {fault}.")
    return folder


def load_state(folder: Path, policy: Policy, optimizer: torch.optim.Optimizer) -> Progress:
    """Puts a state back that `newest_state` found whole."""
    policy.load_trained(load_file(folder / "trained.safetensors"))
    load_optimizer(policy, optimizer, load_file(folder / "optimizer.safetensors"))
    _load_generators(load_file(folder / "generators.safetensors"))
    return read_progress(folder)


def load_pending(folder: Path, prompts: Sequence[Prompt]) -> Rollouts | None:
    """Returns the rollouts that were waiting for their update when a state was saved; None without any."""
    file = folder / "pending.json"
    return _rollouts_from_json(json.loads(file.read_text()), prompts) if file.exists() else None


def prune(run_dir: Path, now: int, recorder: Recorder, *, states_kept: int = STATES_KEPT) -> None:
    """Removes older states, later ones, checkpoints that no remaining state needs, and folders half written.

    Later states are those after the step that a run is at `now`: it makes them anew. The step of a checkpoint
    is told just before it goes: killed in between, it is told again, never lost.
    """
    later = [step for step in saved_steps(run_dir) if step > now]
    states = saved_steps(run_dir)[len(later) :]
    for step in [*later, *states[states_kept:]]:
        shutil.rmtree(state_folder(run_dir, step))
    needed = {
        checkpoint.folder.name
        for step in states[:states_kept]
        for checkpoint in read_progress(state_folder(run_dir, step)).kept
    }
    for folder in sorted([*run_dir.glob("step_*"), *run_dir.glob(f"state_*{PARTIAL}")]):
        if folder.name not in needed:
            if folder.suffix != PARTIAL and (step := int(folder.name[5:])) <= now:
                recorder.dropped(step)
            shutil.rmtree(folder)


def write_progress(folder: Path, progress: Progress) -> None:
    """Writes into a folder where a run is."""
    facts = {**asdict(progress), "kept": [checkpoint_to_json(kept) for kept in progress.kept]}
    (folder / PROGRESS).write_text(json.dumps(facts, allow_nan=False))


def read_progress(folder: Path, run_dir: Path | None = None) -> Progress:
    """Reverses `write_progress`. `run_dir` is where the checkpoints are, by default beside the folder."""
    try:
        facts = json.loads((folder / PROGRESS).read_text())
        beside = folder.parent if run_dir is None else run_dir
        rebuilt = {
            "kept": [checkpoint_from_json(checkpoint, beside) for checkpoint in facts["kept"]],
            "looks": _looks_from_json(facts),
            "gold": [_look_from_json(look) for look in facts.get("gold", [])],
            "grader_usage": usage_from_json(facts.get("grader_usage", {})),
            "hints": Hints(**facts.get("hints", {})),
            "visits": Visits(**facts.get("visits", {})),
            "start": FlatStart(**facts.get("start", {})),
            "rewards_seen": RewardsSeen(**facts.get("rewards_seen", {})),
            "controller": KlController(**facts.get("controller", {})),
            "base_answers": BaseAnswers.from_json(facts.get("base_answers", {})),
            "judge_talk": JudgeTalk(**facts.get("judge_talk", {})),
            "guard": guard_from_json(facts.get("guard", {})),
            "passes": PassesMade(**facts.get("passes", {})),
        }
        return Progress(**{**facts, **rebuilt})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderDamaged(f"{folder.name} cannot be read: {error}") from error


def _looks_from_json(facts: dict[str, Any]) -> list[Look]:
    """Takes the looks out of a state's facts. One of 0.1.0 holds the base's rewards alone."""
    base = facts.pop("base_rewards", [])
    looks = facts.get("looks", [[0, 0.0, base]] if base else [])
    return [_look_from_json(look) for look in looks]


def _look_from_json(facts: Sequence[Any]) -> Look:
    step, kl, rows, *is_given_up = facts
    return Look(step, kl, tuple(rows), *is_given_up)


def _rollouts_to_json(rollouts: Rollouts) -> dict[str, Any]:
    """Returns rollouts as JSON, which keeps every bit of a float. Prompts are stored by their row."""
    trained = {id(group) for group in rollouts.trained}
    marks = [{"is_trained": id(group) in trained} for group in rollouts.groups]
    groups = [group_to_json(group) | mark for group, mark in zip(rollouts.groups, marks, strict=True)]
    return {"rounds": rollouts.rounds, "groups": groups}


def _rollouts_from_json(facts: dict[str, Any], prompts: Sequence[Prompt]) -> Rollouts:
    groups = [group_from_json(group, prompts) for group in facts["groups"]]
    trained = [group for group, was in zip(groups, facts["groups"], strict=True) if was["is_trained"]]
    return Rollouts(groups, trained, facts["rounds"])


def _generator_tensors() -> dict[str, Tensor]:
    """Returns the state of torch's generators. Sampling and data order use none (see randomness.py)."""
    tensors = {"cpu": torch.get_rng_state()}
    # Otherwise the run computes elsewhere, and asking would open a context.
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        tensors["cuda"] = torch.cuda.get_rng_state()  # of its own GPU, not of every one there is
    return tensors


def _load_generators(tensors: dict[str, Tensor]) -> None:
    torch.set_rng_state(tensors["cpu"])
    cuda = tensors.get("cuda", tensors.get("cuda0"))  # the second is how 0.1.0 named it
    if cuda is not None and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.set_rng_state(cuda)


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
