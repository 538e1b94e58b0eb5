"""TRL's SFTTrainer and DPOTrainer, set up to train the engine's policy epoch by epoch.

They compute losses and gradients and make the updates; the order of the examples, the rates, states,
validations and checkpoints are ours (run.py). The model they are given is the policy's own, with its adapter
in place, so that to them it is a model some of whose weights are trained. Departures from TRL's defaults: no
dropout, no decay, no bf16 autocast (the policy knows its arithmetic), no truncation (validation refuses what
is too long), no balance loss of routers where TRL does not find the number of experts (Granite MoE), and for
dpo the reference's log-probabilities are computed once, before the first update, when the policy still is the
reference.
"""

from __future__ import annotations

import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import torch
from huggingface_hub import constants
from transformers import PrinterCallback, TrainerCallback
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer
from trl.trainer.utils import disable_dropout_in_model

from methods.tune_config import TuneConfig
from workers.training.model.policy import Policy
from workers.tuning.examples import Example, Pair
from workers.tuning.measure import Alive

constants.HF_HUB_DISABLE_TELEMETRY = True
"""TRL tells Hugging Face of each trainer that is made, unless this says no."""


class Batching(NamedTuple):
    """Says how a batch is cut: `micro` examples share a pass, `passes` passes make an update."""

    micro: int
    passes: int


def batching(most_tokens: int, batch_size: int, n_examples: int, longest: int) -> Batching:
    """Puts as many examples in a pass as `most_tokens` hold, and so that passes of one update are all alike.

    The last update of an epoch has fewer examples; passes that divide both sizes weigh the same there too.
    """
    most = max(1, most_tokens // longest)
    if batch_size <= most:
        return Batching(batch_size, 1)
    common = math.gcd(batch_size, n_examples)
    micro = max(size for size in range(1, most + 1) if common % size == 0)
    return Batching(micro, batch_size // micro)


class Accuracy:
    """Counts the tokens that TRL's forward found likeliest: TRL itself averages over passes of any size."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._counts: list[torch.Tensor] = []

    def take(self) -> float:
        """Returns the share since this was last asked."""
        correct, n_tokens = torch.stack(self._counts).sum(0).tolist()
        self._counts.clear()
        return float(correct / n_tokens)

    def forget(self) -> None:
        """Leaves out what was counted since this was last asked."""
        self._counts.clear()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Counts what runs inside."""
        hook = self._model.register_forward_hook(self._count)
        try:
            yield
        finally:
            hook.remove()

    def _count(self, _model: Any, _given: Any, outputs: Any) -> None:
        if getattr(outputs, "is_top1", None) is not None and torch.is_grad_enabled():
            self._counts.append(torch.stack([outputs.is_top1.sum(), outputs.label_mask.sum()]))


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Makes `datasets` put its files there: it leaves them when a process ends without ceremony."""
    folder.mkdir(parents=True, exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before


class EpochTrainer:
    """Runs a TRL trainer epoch by epoch, on the examples of each in the order that we give."""

    def __init__(
        self,
        policy: Policy,
        config: TuneConfig,
        examples: Sequence[Example] | Sequence[Pair],
        optimizer: torch.optim.Optimizer,
        scheduler: Any,
        listener: TrainerCallback,
        scratch: Path,
        alive: Alive,
    ) -> None:
        _quieten()
        disable_dropout_in_model(policy.model)
        self._policy = policy
        self._batch_size = config.batch_size
        self._n_examples = len(examples)
        self._longest = max(map(_n_tokens, examples))
        self.begin()
        options = {
            "model": policy.model,
            "args": _arguments(policy, config, self._cut(), scratch),
            "train_dataset": _dataset(examples),
            "processing_class": _with_padding(policy.tokenizer),
            "callbacks": [listener],
            "optimizers": (optimizer, scheduler),
        }
        self.accuracy = Accuracy(policy.model) if config.method == "supervised" else None
        make = SFTTrainer if config.method == "supervised" else partial(_Dpo, alive)
        self._trainer: Any = make(**options)
        self._trainer.remove_callback(PrinterCallback)
        self._examples: Any = self._trainer.train_dataset

    def begin(self) -> None:
        """Takes note that passes of a step begin, or those of the reference."""
        micro = self._cut().micro
        self._policy.passes.begin(micro * self._longest, micro)

    def begin_anew(self) -> None:
        """Forgets an update that failed, and puts as many examples in a pass as there may be now.

        The next call of `train` begins with the update that failed.
        """
        self._policy.model.zero_grad(set_to_none=True)
        cut = self._cut()
        arguments = self._trainer.args
        arguments.per_device_train_batch_size = self._trainer._train_batch_size = cut.micro
        arguments.gradient_accumulation_steps = cut.passes
        self._trainer._metrics["train"].clear()
        if self.accuracy is not None:
            self.accuracy.forget()

    def _cut(self) -> Batching:
        return batching(self._policy.passes.most, self._batch_size, self._n_examples, self._longest)

    def train(self, order: Sequence[int]) -> None:
        """Make the updates of one epoch, or of what is left of it, over the examples in this order."""
        self._trainer.train_dataset = self._examples.select(order)
        if self.accuracy is None:
            self._trainer.train()
            return
        with self.accuracy.counting():
            self._trainer.train()


class _Dpo(DPOTrainer):
    """TRL's, for pairs that are tokens already; its SFTTrainer takes such by itself."""

    def __init__(self, alive: Alive, **options: Any) -> None:
        self._tell_alive = alive
        super().__init__(**options)

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        self._tell_alive()
        return super().compute_ref_log_probs(model, inputs)  # type: ignore[no-untyped-call]


def _arguments(policy: Policy, config: TuneConfig, cut: Batching, scratch: Path) -> Any:
    shared: dict[str, Any] = {
        "output_dir": str(scratch),
        "seed": config.seed,
        "num_train_epochs": 1,
        "per_device_train_batch_size": cut.micro,
        "gradient_accumulation_steps": cut.passes,
        "train_sampling_strategy": "sequential",
        "max_grad_norm": config.max_grad_norm,
        "max_length": None,
        "use_cpu": policy.device.type == "cpu",
        "bf16": False,
        "gradient_checkpointing": False,  # the policy has it where the config asks for it
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": policy.device.type != "cpu",
    }
    if _lacks_experts(policy.model):
        shared["router_aux_loss_coef"] = 0.0
    if config.method == "supervised":
        return SFTConfig(**shared)
    return DPOConfig(**shared, beta=config.beta, precompute_ref_log_probs=True)


def _lacks_experts(model: Any) -> bool:
    """Says whether TRL would look in vain for the number of experts, which a router's balance loss needs."""
    config = model.config.get_text_config(decoder=True)
    return hasattr(config, "router_aux_loss_coef") and not hasattr(config, "num_experts")


def _dataset(examples: Sequence[Example] | Sequence[Pair]) -> Any:
    rows = [_columns(example) for example in examples]
    return datasets.Dataset.from_list(rows)


def _columns(example: Example | Pair) -> dict[str, list[int]]:
    """As TRL's collators read it; -100 is a label that the loss leaves out."""
    if isinstance(example, Pair):
        sides = (example.prompt, example.chosen, example.rejected)
        return dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(list, sides), strict=True))
    marked = zip(example.tokens, example.is_learned, strict=True)
    return {
        "input_ids": list(example.tokens),
        "labels": [token if is_learned else -100 for token, is_learned in marked],
    }


def _n_tokens(example: Example | Pair) -> int:
    return example.n_tokens if isinstance(example, Pair) else len(example.tokens)


def _with_padding(tokenizer: Any) -> Any:
    """Some tokenizers have no token to pad with; what it is does not matter, since nothing attends to it."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _quieten() -> None:
    """No bars and no advice between a worker's log lines."""
    datasets.disable_progress_bars()
    # transformers 5.23 has renamed what TRL 1.16 asks for by the old name
    warnings.filterwarnings("ignore", ".*gradient_checkpointing.*", FutureWarning)
    for name in ("transformers", "trl", "datasets", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)
