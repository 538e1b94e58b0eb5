"""What surrounds the steps of a run, whatever its method: progress, checkpoints, states, pauses, resuming.

Reinforcement, supervised and dpo runs make their own updates and measure in their own ways; one keeper tells
their steps, keeps their checkpoints and lets a killed run go on as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from methods import metrics as names
from methods.run_config import RunConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.pass_tokens import PassesMade
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import checkpoint_folder, deliverable, save_checkpoint, to_keep
from workers.training.collector import Rollouts
from workers.training.folders import STATES_KEPT
from workers.training.good_copy import GoodCopy
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.state import (
    GOOD,
    Progress,
    load_state,
    newest_state,
    prune,
    read_progress,
    save_state,
    saved_steps,
    usable_state,
)
from workers.training.trust.selection import Judged, choose


class Keeper:
    """Keeps one run. Its calls are collective: every process of the world makes them in the same order."""

    def __init__(
        self,
        policy: Policy,
        optimizer: torch.optim.Optimizer,
        config: RunConfig,
        *,
        total_steps: int,
        belongs_to: str,
        recorder: Recorder,
        run_dir: Path,
        world: World = ALONE,
    ) -> None:
        """`belongs_to` is the fingerprint of config and data."""
        self.progress = Progress()
        self.total_steps = total_steps
        self._policy = policy
        self._optimizer = optimizer
        self._config = config
        self._belongs_to = belongs_to
        self._recorder = recorder
        self._run_dir = run_dir
        self._world = world
        self.good: GoodCopy | None = None
        """What a guard would go back to; None without one."""
        self.is_alone = True
        """Whether nothing but this run counts on its older states once it is over."""
        run_dir.mkdir(parents=True, exist_ok=True)

    def passes_made(self) -> PassesMade:
        """Returns how passes were made when the newest state that is whole was saved. It resumes nothing."""
        folder, _ = newest_state(self._run_dir, self._belongs_to)
        return PassesMade() if folder is None else read_progress(folder).passes

    def resume(self) -> Path | None:
        """Goes on from the newest state that is whole, and returns its folder; None if there is none.

        Every process reads it, then the main one removes what a resumed run makes anew.
        """
        folder = usable_state(self._run_dir, self._belongs_to, self._recorder)
        if folder is None:
            return None
        self.progress = load_state(folder, self._policy, self._optimizer)
        if self.good is not None:
            self.good.resume(folder / GOOD, self.progress.step)
        self._world.wait()
        if self._world.is_main:
            prune(self._run_dir, self.progress.step, self._recorder)
        if self.is_alone:  # a seed goes on from its state in each rung
            self._recorder.note("info", f"Resumed after step {self.progress.step}.")
        return folder

    def tell(self, epoch: int, values: Mapping[str, Any], clock: Clock) -> None:
        """Tells the metrics of the step that `progress` is at, with what the run has spent so far."""
        times = clock.metrics()
        self.progress.seconds += times[names.TIME_STEP]
        totals = {
            names.TRAINED_TOKENS: float(self.progress.trained_tokens),
            names.TIME_TOTAL: self.progress.seconds,
        }
        self._recorder.metrics(self.progress.step, epoch, {**values, **times, **totals})

    def keep_checkpoint(self, checkpoint: Checkpoint, judged: Sequence[Judged] = ()) -> None:
        """Writes the checkpoint of this step, tells it, and keeps it while it is among the best.

        `judged` are all checkpoints so far, by which the best are found; without them the newest are kept.
        """
        self._write_checkpoint(checkpoint)
        self._recorder.checkpoint(checkpoint)
        kept = [*self.progress.kept, checkpoint]
        chosen = choose(judged, deliverable(kept, self._config))
        self.progress.kept = to_keep(
            kept,
            self._config.checkpoints_kept,
            {one.step: one.mean for one in judged},
            chosen.step if chosen else 0,
        )

    def save(self, pending: Rollouts | None = None) -> None:
        """Saves the state, unless that of this step is saved; then removes what no state needs any more.

        `pending` are rollouts of the next step, where they were sampled ahead.
        """
        step = self.progress.step
        if self._world.broadcast(step in saved_steps(self._run_dir)):
            return
        self._recorder.phase("saving")
        self.progress.passes = PassesMade(self._policy.passes.most, self._policy.recomputes)
        folder = save_state(
            self._run_dir,
            self.progress,
            self._policy,
            self._optimizer,
            self._belongs_to,
            pending,
            self._world,
            None if self.good is None else self.good.unless_of(step),
        )
        self._recorder.state(step, folder)
        # Only now: until then a state that could be resumed counts on the checkpoints.
        is_last = self.is_alone and (step == self.total_steps or self.progress.ended is not None)
        states_kept = 1 if is_last else STATES_KEPT
        if self._world.is_main:
            prune(self._run_dir, step, self._recorder, states_kept=states_kept)

    def snapshot(self, measure: Callable[[], Checkpoint], pending: Rollouts | None = None) -> None:
        """Saves the state, and a checkpoint of it unless there is one.

        The checkpoint is no candidate for delivery, so that a run which pauses has the history of one that
        does not.
        """
        self.save(pending)
        if self._world.broadcast(self.checkpoint_folder().exists()):
            return
        checkpoint = measure()
        self._write_checkpoint(checkpoint)
        self._recorder.snapshot(checkpoint)

    def checkpoint_folder(self) -> Path:
        """Returns where the checkpoint of this step lies."""
        return checkpoint_folder(self._run_dir, self.progress.step)

    def _write_checkpoint(self, checkpoint: Checkpoint) -> None:
        self._recorder.phase("saving")
        self._policy.reshard()  # saving does it in the main process alone
        if self._world.is_main:
            save_checkpoint(self._policy, checkpoint)
        self._world.wait()
