"""The state of a job with several arms: one folder with what each of them needs to go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from workers.training.arms.segments import Segment, Segments
from workers.training.base.distributed import World
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import checkpoint_folder, versions
from workers.training.folders import (
    MANIFEST,
    PARTIAL,
    STATES_KEPT,
    FolderDamaged,
    publish,
    read_manifest,
)
from workers.training.state import (
    Progress,
    check_owner,
    read_progress,
    saved_steps,
    state_folder,
    write_progress,
)
from workers.training.trust.verdict import Sampled

FACTS = "arms.json"
LAST_NUMBER = "last_number"
"""Of a state of several arms, in its manifest: the largest number of a step so far."""


@dataclass
class JobProgress:
    """Says where a job with several arms is.

    Attributes:
        arms: where each arm is that has begun, by its number.
        segments: which numbers the steps of each arm have in the job.
        went_on: after each rung that is over, the arms that went on, best first.
        sampled: how checkpoints are judged; None before the first evaluation.
        failed: codes of arms that could not be trained further, by their number.
        ahead: by how many seconds the job's clock is ahead of an arm's own, which counts its steps alone.
    """

    arms: dict[int, Progress] = field(default_factory=dict)
    segments: Segments = field(default_factory=Segments)
    went_on: list[list[int]] = field(default_factory=list)
    sampled: Sampled | None = None
    failed: dict[int, str] = field(default_factory=dict)
    ahead: dict[int, float] = field(default_factory=dict)

    @property
    def step(self) -> int:
        """Returns how many steps all arms have made."""
        return sum(progress.step for progress in self.arms.values())

    @property
    def last_number(self) -> int:
        """Returns the largest number of a step that was made."""
        return max((self.segments.of(arm, progress.step) for arm, progress in self.arms.items()), default=0)

    @property
    def seconds(self) -> float:
        """Returns what the job's steps have taken by the clock: those of arms side by side count once."""
        return max((self.ahead[arm] + progress.seconds for arm, progress in self.arms.items()), default=0.0)


def arm_folder(run_dir: Path, arm: int) -> Path:
    """Returns where an arm's own states and checkpoints lie."""
    return run_dir / f"arm_{arm}"


def save(run_dir: Path, job: JobProgress, whole: Mapping[int, Path], belongs_to: str) -> Path:
    """Publishes the job's state after one of its steps.

    `whole` are the states of arms that may go on; of the others only their progress is kept.
    """
    facts = {
        "segments": job.segments.all,
        "went_on": job.went_on,
        "sampled": job.sampled,
        "failed": job.failed,
        "ahead": job.ahead,
    }

    def write(folder: Path) -> None:
        (folder / FACTS).write_text(json.dumps(facts))
        for arm, progress in job.arms.items():
            inside = arm_folder(folder, arm)
            if arm in whole:
                link_folder(whole[arm], inside)
            else:
                inside.mkdir()
                write_progress(inside, progress)

    folder = state_folder(run_dir, job.step)
    about = {"step": job.step, LAST_NUMBER: job.last_number, "belongs_to": belongs_to, "versions": versions()}
    publish(folder, write, about)
    return folder


def prune(run_dir: Path, now: int) -> None:
    """Removes later states of the job, those that are too old, and folders half written."""
    later = [step for step in saved_steps(run_dir) if step > now]
    states = saved_steps(run_dir)[len(later) :]
    for step in [*later, *states[STATES_KEPT:]]:
        shutil.rmtree(state_folder(run_dir, step))
    for partial in run_dir.glob(f"*{PARTIAL}"):
        shutil.rmtree(partial)


def steps_needed(run_dir: Path, arm: int) -> set[int]:
    """Returns the arm's own steps whose checkpoints a saved state of the job counts on."""
    needed = set()
    for step in saved_steps(run_dir):
        inside = arm_folder(state_folder(run_dir, step), arm)
        if inside.exists():
            needed |= {one.step for one in read_progress(inside, arm_folder(run_dir, arm)).kept}
    return needed


def resume(run_dir: Path, belongs_to: str, recorder: Recorder, world: World) -> JobProgress:
    """Puts the arms' folders back as the newest state of the job that is whole has them.

    States and checkpoints may lie by the job's steps beside the arms' folders, where storage has brought
    them. It is collective: all processes choose, then the main one changes what is on disk.
    """
    found, faults = _newest(run_dir, belongs_to)
    world.wait()
    for fault in faults:
        recorder.note("warn", f"A saved training state cannot be used: {fault}.")
    job, folder = found or (JobProgress(), None)
    if world.is_main:
        _put_back(run_dir, job, folder)
    world.wait()
    if folder is not None:
        recorder.note("info", f"Resumed after step {job.step}.")
    return job


def _newest(run_dir: Path, belongs_to: str) -> tuple[tuple[JobProgress, Path] | None, list[str]]:
    faults = []
    for step in saved_steps(run_dir):
        folder = state_folder(run_dir, step)
        try:
            check_owner(folder, read_manifest(folder), belongs_to)
            job = _read(folder, run_dir)
            for arm, checkpoint in _kept(job):
                read_manifest(_where(run_dir, job, arm, checkpoint))
        except FolderDamaged as error:
            faults.append(str(error))
            continue
        return (job, folder), faults
    return None, faults


def _read(folder: Path, run_dir: Path) -> JobProgress:
    try:
        facts = json.loads((folder / FACTS).read_text())
        numbers = sorted(int(inside.name[4:]) for inside in folder.glob("arm_*"))
        return JobProgress(
            {arm: read_progress(arm_folder(folder, arm), arm_folder(run_dir, arm)) for arm in numbers},
            Segments([Segment(*segment) for segment in facts["segments"]]),
            facts["went_on"],
            Sampled(*facts["sampled"]) if facts["sampled"] is not None else None,
            {int(arm): code for arm, code in facts["failed"].items()},
            {int(arm): seconds for arm, seconds in facts["ahead"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderDamaged(f"{folder.name} cannot be read: {error}") from error


def _kept(job: JobProgress) -> Iterator[tuple[int, Checkpoint]]:
    for arm, progress in job.arms.items():
        for checkpoint in progress.kept:
            yield arm, checkpoint


def _where(run_dir: Path, job: JobProgress, arm: int, checkpoint: Checkpoint) -> Path:
    """Returns where a checkpoint lies now: in its arm's folder, or by the job's step."""
    if checkpoint.folder.exists():
        return checkpoint.folder
    return checkpoint_folder(run_dir, job.segments.of(arm, checkpoint.step))


def _put_back(run_dir: Path, job: JobProgress, folder: Path | None) -> None:
    for arm, checkpoint in _kept(job):
        if not checkpoint.folder.exists():
            link_folder(_where(run_dir, job, arm, checkpoint), checkpoint.folder)
    for brought in run_dir.glob("step_*"):
        shutil.rmtree(brought)
    for own in run_dir.glob("arm_*"):
        arm = int(own.name[4:])
        for step in saved_steps(own):
            shutil.rmtree(state_folder(own, step))
        if arm not in job.arms:
            shutil.rmtree(own)
    prune(run_dir, -1 if folder is None else job.step)
    for saved in [state_folder(run_dir, step) for step in saved_steps(run_dir)]:
        for arm in job.arms:
            inside = arm_folder(saved, arm)
            if (inside / MANIFEST).exists():
                own = state_folder(arm_folder(run_dir, arm), read_manifest(inside, verify=False)["step"])
                if not own.exists():
                    link_folder(inside, own)


def forget(run_dir: Path, arm: int) -> None:
    """Removes the states of an arm that trains no more; its checkpoints stay until `drop`."""
    own = arm_folder(run_dir, arm)
    for step in saved_steps(own):
        shutil.rmtree(state_folder(own, step))


def checkpoint_steps(run_dir: Path, arm: int) -> list[int]:
    """Returns the arm's own steps with a checkpoint's folder."""
    folders = arm_folder(run_dir, arm).glob("step_*")
    return sorted(int(folder.name[5:]) for folder in folders if folder.suffix != PARTIAL)


def remove_checkpoint(run_dir: Path, arm: int, step: int) -> None:
    """Removes the checkpoint of an arm's own step."""
    shutil.rmtree(checkpoint_folder(arm_folder(run_dir, arm), step))


def link_folder(source: Path, folder: Path) -> None:
    """Makes a folder appear whole that shares its files with another one; published files never change."""
    partial = folder.with_name(folder.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, partial, copy_function=_link)
    partial.rename(folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
