"""How a run makes its passes on a GPU: tokens and gradient checkpointing by what is free, told and kept."""

from __future__ import annotations

import logging

import torch

from methods.memory import Run, run_of
from methods.sizes.model_size import ModelSize
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from workers.training.base.device_memory import free_bytes
from workers.training.base.distributed import ALONE, World
from workers.training.base.pass_tokens import Failure, Halved, PassesMade, in_words
from workers.training.base.recorder import Recorder
from workers.training.model import fitting
from workers.training.model.fitting import Plan, in_gib
from workers.training.model.policy import Policy
from workers.training.model.size import size_of
from workers.training.sampling.graphed.kept import release

log = logging.getLogger(__name__)

SMALLER = "A pass has at most {:,} tokens: one of an attempt before ran out of the device's memory."


class PassPlanner:
    """Decides once for a run how its passes are made, and says so. Its calls are collective."""

    def __init__(
        self,
        policy: Policy,
        config: TrainConfig | TuneConfig,
        longest: int,
        recorder: Recorder,
        world: World = ALONE,
    ) -> None:
        """`longest` is the longest prompt, or example, in tokens."""
        self._policy = policy
        self._config = config
        self._longest = longest
        self._recorder = recorder
        self._world = world
        policy.passes.tell = self._tell
        policy.passes.explain = self._explain
        policy.passes.make_room = lambda: release(policy.rollout_model)

    def settle(
        self, made: PassesMade, optimizer: torch.optim.Optimizer, most_tokens: int | None = None
    ) -> None:
        """Lets passes be made as `made` says, as a saved state has it, or decides it.

        `most_tokens` is what an attempt before has left: its passes were too large.
        """
        if made.tokens is None:
            made = PassesMade(*self._decide(optimizer))
        self._policy.passes.most = made.tokens or self._policy.passes.most
        if made.recomputes:
            self._policy.recompute()
        if most_tokens is not None and most_tokens < self._policy.passes.most:
            self._policy.passes.most = most_tokens
            self._recorder.note("warn", SMALLER.format(most_tokens))

    def _decide(self, optimizer: torch.optim.Optimizer) -> Plan:
        usual = Plan(self._policy.passes.most, self._policy.recomputes)
        free = free_bytes(self._policy.device)
        if free is None or "auto" not in (
            self._config.micro_batch_tokens,
            self._config.gradient_checkpointing,
        ):
            return usual
        free = min(self._world.gather(free))  # alike in every process
        found = self._sizes()
        if found is None:
            log.warning("passes_not_planned", extra={"reason": "the size of the model is not known"})
            return usual
        plan = decide(*found, free, has_moments=bool(optimizer.state))
        self._recorder.note("info", _told(*found, free, plan))
        return plan

    def _sizes(self) -> tuple[ModelSize, Run] | None:
        size = size_of(self._policy.folder)
        return None if size is None else (size, run_of(self._config, size, self._longest, "cuda"))

    def _tell(self, halved: Halved) -> None:
        self._recorder.note("warn", in_words(halved))

    def _explain(self, failure: Failure) -> str:
        found = self._sizes()
        return in_figures(failure, found)


def decide(size: ModelSize, run: Run, free: int, *, has_moments: bool) -> Plan:
    """Returns how passes are made where `free` bytes are left beside the model and its optimizer."""
    return fitting.plan(size, run, fitting.room_beside(size, run, free, has_moments=has_moments))


def _told(size: ModelSize, run: Run, free: int, plan: Plan) -> str:
    room = fitting.room_beside(size, run, free, has_moments=True)
    each = fitting.bytes_of_token(size, run, plan)
    again = (
        "" if not plan.recomputes else " Layers are run again in the backward pass (gradient_checkpointing)."
    )
    return (
        f"A pass has at most {plan.tokens:,} tokens: of {in_gib(free)} that are free, passes may take"
        f" {in_gib(room)}, and a token takes {each / 2**20:,.2f} MiB.{again}"
    )


def in_figures(failure: Failure, found: tuple[ModelSize, Run] | None) -> str:
    """Returns what a sequence that did not fit needed, what was free, and what would fit."""
    free = "" if failure.free is None else f" {in_gib(failure.free)} are free without it."
    told = f"A pass of one sequence of {failure.tokens:,} tokens does not fit the device's memory."
    if found is None:
        return f"{told}{free} PyTorch said: {failure.said}"
    size, run = found
    alone = run._replace(pass_tokens=failure.tokens)
    needs = fitting.bytes_of_pass(size, alone)
    has = fitting.certain_bytes(size, alone) + (failure.free or 0)
    fits = "; ".join(fitting.what_fits(size, run, has)) or "nothing that this service can change"
    return (
        f"{told} It is expected to take {in_gib(needs)} beside the model.{free} What would fit: {fits}; a"
        " smaller model; a larger GPU."
    )
