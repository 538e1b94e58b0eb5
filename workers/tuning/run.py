"""One supervised or dpo run, from a config and rows to the checkpoint of its last epoch.

TRL trains the epochs one by one (trainers.py). After each: the full validation, the exact KL to the start,
a checkpoint and the training state. The last epoch's checkpoint is delivered: `n_epochs` means what it says,
and the earlier ones, with their validation losses, are there to choose from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from methods import metrics as names
from methods.rows import Row
from methods.tune_config import TuneConfig
from workers.training.base.determinism import deterministic
from workers.training.base.distributed import World
from workers.training.base.errors import NonFinite, RunCancelled, RunPaused
from workers.training.base.randomness import shuffled
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint
from workers.training.checkpoints import make_checkpoint
from workers.training.keeper import Keeper
from workers.training.measures.drift import DriftMeter
from workers.training.measures.pass_plan import PassPlanner
from workers.training.metrics import Clock
from workers.training.model.adapter import what_is_adapted
from workers.training.model.delivered import decodes_otherwise
from workers.training.model.policy import Policy
from workers.training.result import RunResult
from workers.training.state import Progress, fingerprint
from workers.training.update import make_optimizer
from workers.tuning.examples import Example, Pair, make_examples, make_pairs, probe_prompts
from workers.tuning.measure import Measure, Score, both_completions, dpo_measure, score, supervised_measure
from workers.tuning.trainers import EpochTrainer, temporary_files_in

SCRATCH = "trainer"

DPO_NAMES = {
    names.DPO_REWARD_ACCURACY: "rewards/accuracies",
    names.DPO_REWARD_MARGIN: "rewards/margins",
    names.DPO_REWARD_CHOSEN: "rewards/chosen",
    names.DPO_REWARD_REJECTED: "rewards/rejected",
}
"""Our names of what TRL's DPOTrainer tells of a step."""


def _never() -> bool:
    return False


def tune(
    config: TuneConfig,
    train_rows: Sequence[Row],
    valid_rows: Sequence[Row],
    recorder: Recorder,
    run_dir: Path,
    should_stop: Callable[[], bool] = _never,
    should_pause: Callable[[], bool] = _never,
    canary_rows: Sequence[Row] | None = None,
) -> RunResult:
    """Trains until the last epoch, from the last state in `run_dir` if there is one.

    Asks `should_stop` and `should_pause` before every step, and saves its state if it shall; for a pause it
    makes a checkpoint too. Raises `RunCancelled`, `RunPaused`, or `RunFailed` with a stable code.
    """
    place = World().device(config.device)
    with deterministic(config.deterministic, place), temporary_files_in(run_dir / SCRATCH):
        run = TuneRun(
            config, train_rows, valid_rows, recorder, run_dir, should_stop, should_pause, canary_rows
        )
        for epoch in range(run.progress.step // config.eval_interval + 1, config.n_epochs + 1):
            run.train_epoch(epoch)
            run.end_epoch(epoch)
    best = run.progress.kept[-1]
    return RunResult(best=best, steps=run.total_steps, trained_tokens=run.progress.trained_tokens)


class TuneRun:
    """Keeps a run under way."""

    def __init__(
        self,
        config: TuneConfig,
        train_rows: Sequence[Row],
        valid_rows: Sequence[Row],
        recorder: Recorder,
        run_dir: Path,
        should_stop: Callable[[], bool],
        should_pause: Callable[[], bool],
        canary_rows: Sequence[Row] | None = None,
    ) -> None:
        recorder.phase("loading")
        self.config = config
        self.engine_config = config.as_engine_config()
        self.recorder = recorder
        self.scratch = run_dir / SCRATCH
        self.should_stop, self.should_pause = should_stop, should_pause
        self.policy = Policy.load(self.engine_config)
        self.policy.sync_rollout()
        make: Callable[..., Any] = make_examples if config.method == "supervised" else make_pairs
        tokenizer, context = self.policy.tokenizer, self.policy.context
        vocabulary = self.policy.vocabulary
        self.train_examples: list[Any] = make(train_rows, tokenizer, context, "training", vocabulary)
        self.valid_examples: list[Any] = make(valid_rows, tokenizer, context, "validation", vocabulary)
        self.total_steps = config.total_steps(len(self.train_examples))
        self._resumed_step = 0
        self.optimizer = make_optimizer(self.policy, self.engine_config)
        self.keeper = Keeper(
            self.policy,
            self.optimizer,
            config,
            total_steps=self.total_steps,
            belongs_to=fingerprint(config, train_rows, valid_rows),
            recorder=recorder,
            run_dir=run_dir,
        )
        examples = [*self.train_examples, *self.valid_examples]
        planner = PassPlanner(self.policy, config, max(map(_n_tokens, examples)), recorder)
        planner.settle(self.keeper.passes_made(), self.optimizer)
        probe = probe_prompts(self.valid_examples or self.train_examples)
        self.drift = DriftMeter(self.policy, probe, self.engine_config, canary_rows=canary_rows)
        self._reference = self._reference_scores()
        self._clock = Clock(recorder)
        self._values: dict[str, float] = {}
        self._used_rate = 0.0
        self.epoch_trainer = self._epoch_trainer()
        self._resume()

    @property
    def progress(self) -> Progress:
        """Says where the run is."""
        return self.keeper.progress

    def _epoch_trainer(self) -> EpochTrainer:
        """Makes the trainer, before any state is put back: dpo's reference is the policy as it is now."""
        made: list[EpochTrainer] = []
        while not made:
            with self.policy.passes.watched() as failures:
                made.append(self._make_trainer())
            if failures:
                self.policy.passes.halve(failures)
        return made[0]

    def _make_trainer(self) -> EpochTrainer:
        scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, self._rate)
        return EpochTrainer(
            self.policy,
            self.config,
            self.train_examples,
            self.optimizer,
            scheduler,
            _Listener(self),
            self.scratch,
            lambda: self._clock.alive("loading"),
        )

    def _rate(self, updates: int) -> float:
        """Returns the share of the peak for the next update, after so many of this process."""
        return self.config.rate(self._resumed_step + updates + 1)

    def train_epoch(self, epoch: int) -> None:
        """Makes the epoch's updates that are still to be made.

        One that runs out of memory is begun again in smaller passes: until its step is told, no weight has
        changed.
        """
        while order := self._left(epoch):
            with self.policy.passes.watched() as failures:
                self.epoch_trainer.train(order)
            if not failures:
                return
            self.policy.passes.halve(failures)
            self.epoch_trainer.begin_anew()

    def _left(self, epoch: int) -> list[int]:
        """Returns the examples of an epoch that are still to be trained on, in their order."""
        done = self.progress.step - (epoch - 1) * self.config.eval_interval
        return self._order(epoch)[done * self.config.batch_size :]

    def before_step(self) -> None:
        """Stops or pauses here if that is asked for; all is as after the last step."""
        self._clock = Clock(self.recorder)
        self.recorder.phase("updating")
        self.epoch_trainer.begin()
        if self.should_stop():
            self.keeper.save()
            raise RunCancelled(self.progress.step)
        if self.should_pause():
            self.keeper.snapshot(lambda: self._candidate(self._epoch(), with_validation=False))
            raise RunPaused(self.progress.step)

    def before_update(self) -> None:
        """Notes the rate. Raises `NonFinite` before weights are lost."""
        self._used_rate = float(self.optimizer.param_groups[0]["lr"])
        gradients = [weight.grad for weight in self.policy.trained().values() if weight.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            raise NonFinite(
                f"Loss or gradient was not finite at step {self.progress.step + 1}."
                " A lower learning rate may help."
            )

    def after_step(self, logs: Mapping[str, float]) -> None:
        """Takes in an update: what it told, its tokens; between epochs' ends, it looks at the validation."""
        step = self.progress.step = self.progress.step + 1  # first: the weights have changed
        self.policy.sync_rollout()
        self.progress.trained_tokens += sum(_n_tokens(example) for example in self._batch(step))
        self._values = self._step_values(logs)
        if step % self.config.eval_interval == 0:
            return  # the end of the epoch says more
        if step % self.config.valid_every == 0 and self.valid_examples:
            with self._clock.phase("validating", "eval"):
                self._values |= _named("valid", self._measure(self._valid_batch(step)))
        self._tell()
        if step % self.config.save_state_every == 0:
            self.keeper.save()

    def end_epoch(self, epoch: int) -> None:
        """Validates in full, measures the KL, tells the epoch's last step, saves checkpoint and state."""
        candidate = self._candidate(epoch)
        self._tell()
        self.keeper.keep_checkpoint(candidate)
        self.keeper.save()

    def _candidate(self, epoch: int, *, with_validation: bool = True) -> Checkpoint:
        """Measures the policy as it is delivered."""
        step = self.progress.step
        with self._clock.phase("validating", "eval"), self.policy.as_delivered() as error:
            drift = self.drift.measure()
            self._values |= drift.metrics()
            if with_validation and self.valid_examples:
                self._values |= _named("valid", self._measure(self._valid_batch(step)))
                self._values |= _named("full_valid", self._measure(range(len(self.valid_examples))))
        folder = self.keeper.checkpoint_folder()
        checkpoint = make_checkpoint(folder, step, epoch, drift.kl.start.per_token, None, scored=drift.scored)
        checkpoint.extra.update(drift.extra())
        if error is not None:
            checkpoint.extra["rounding_error"] = error
        return checkpoint

    def _tell(self) -> None:
        self.keeper.tell(self._epoch(), self._values, self._clock)

    def _step_values(self, logs: Mapping[str, float]) -> dict[str, float]:
        values = {
            names.LOSS.format(split="train"): float(logs["loss"]),
            names.LEARNING_RATE: self._used_rate,
            names.GRAD_NORM: float(logs["grad_norm"]),
        }
        accuracy = self.epoch_trainer.accuracy
        values[names.ACCURACY.format(split="train")] = (
            accuracy.take() if accuracy else float(logs["mean_token_accuracy"])
        )
        values |= {ours: float(logs[theirs]) for ours, theirs in DPO_NAMES.items() if theirs in logs}
        return values

    def _measure(self, chosen: Sequence[int]) -> Measure:
        """Returns loss and accuracy on these validation examples."""
        examples = [self.valid_examples[i] for i in chosen]
        if self.config.method == "supervised":
            return supervised_measure(self._score(examples))
        reference = [self._reference[2 * i + k] for i in chosen for k in (0, 1)]
        return dpo_measure(self._score(both_completions(examples)), reference, self.config.beta)

    def _score(self, examples: Sequence[Example]) -> list[Score]:
        return score(self.policy.measured_model, examples, self.policy.passes, self._alive)

    def _reference_scores(self) -> list[Score]:
        """Returns what the start makes of the validation pairs: it never changes."""
        if self.config.method == "supervised":
            return []
        with self.policy.reference() as reference:
            pairs = both_completions(self.valid_examples)
            return score(reference, pairs, self.policy.passes, lambda: None)

    def _alive(self) -> None:
        self._clock.alive("validating")

    def _order(self, epoch: int) -> list[int]:
        return shuffled(len(self.train_examples), "order", self.config.seed, epoch)

    def _batch(self, step: int) -> list[Any]:
        place = (step - 1) % self.config.eval_interval * self.config.batch_size
        order = self._order(-(-step // self.config.eval_interval))
        return [self.train_examples[i] for i in order[place : place + self.config.batch_size]]

    def _valid_batch(self, step: int) -> list[int]:
        """Returns another batch at each look, from the file's first row to its last, round and round."""
        n = len(self.valid_examples)
        size = min(self.config.batch_size, n)
        first = (step - 1) // self.config.valid_every * size
        return [(first + i) % n for i in range(size)]

    def _epoch(self) -> int:
        return -(-self.progress.step // self.config.eval_interval)

    def _resume(self) -> None:
        if self.keeper.resume() is None:
            if (said := what_is_adapted(self.policy.adapted)) is not None:
                self.recorder.note(*said)
            if (warning := decodes_otherwise(self.policy.folder)) is not None:
                self.recorder.note("warn", warning)
            return
        self._resumed_step = self.progress.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * self._rate(0)


class _Listener(TrainerCallback):
    """Tells a run what its trainer does."""

    def __init__(self, run: TuneRun) -> None:
        self._run = run

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._run.before_step()

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        self._run.before_update()

    def on_log(self, *_: Any, **told: Any) -> None:
        logs: Mapping[str, float] = told["logs"]
        if "loss" in logs:  # a step's; at the end of an epoch comes a summary
            self._run.after_step(logs)


def _n_tokens(example: Example | Pair) -> int:
    return example.n_tokens if isinstance(example, Pair) else len(example.tokens)


def _named(split: str, measure: Measure) -> dict[str, float]:
    values = {names.LOSS: measure.loss, names.ACCURACY: measure.accuracy}
    if measure.reward_accuracy is not None and measure.reward_margin is not None:
        values[names.DPO_VALID_REWARD_ACCURACY] = measure.reward_accuracy
        values[names.DPO_VALID_REWARD_MARGIN] = measure.reward_margin
    return {name.format(split=split): value for name, value in values.items()}
