"""Stock TRL's side: `GRPOTrainer.train()` itself, with timers around its own methods."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import torch
from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import LoraConfig
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.engine.setup import (
    BETA,
    CLIP_HIGH,
    CLIP_LOW,
    LORA_ALPHA,
    LORA_RANK,
    MAX_GRAD_NORM,
    Setup,
)
from benchmarks.engine.timing import StepCost, Timer
from benchmarks.engine.workloads import make_reward

SETTINGS = (
    "no gradient checkpointing, one micro-batch, no dropout, transformers `generate` with its dynamic cache,"
    " SDPA attention, fused AdamW, no logging, no telemetry"
)


class Stock:
    """A stock trainer. `overrides` are fields of GRPOConfig."""

    def __init__(self, setup: Setup, **overrides: Any) -> None:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        disable_progress_bar()
        self.setup = setup
        self.timer = Timer(setup.device)
        self.prompt_ids: list[list[int]] = []
        """Of the last step, each one G times."""
        self._lengths: tuple[int, ...] = ()
        self._rewards: list[float] = []
        self._output = tempfile.TemporaryDirectory()
        self.trainer = self._make_trainer(overrides)
        self._watch()

    def train(self, on_step: Callable[[int, StepCost], None]) -> None:
        """Train `setup.steps` steps; `on_step(step, cost)` is called after each, outside the timing."""
        self.trainer.add_callback(_StepClock(self, on_step))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.trainer.train()
        self._output.cleanup()

    def cost(self) -> StepCost:
        """Of what was done since the last call."""
        G = self.setup.workload.group
        prompt_tokens = sum(map(len, self.prompt_ids[::G]))
        return StepCost(
            self.timer.take(), self._lengths, prompt_tokens, sum(self._rewards) / len(self._rewards)
        )

    def _make_trainer(self, overrides: dict[str, Any]) -> Any:
        setup, workload = self.setup, self.setup.workload
        tokenizer = AutoTokenizer.from_pretrained(setup.folder)
        rows = [{"prompt": row.item["messages"], "row": row.item["row"]} for row in setup.rows()]
        if not workload.ends:
            never = setup.never_an_end(tokenizer)
            overrides = {"generation_kwargs": {"eos_token_id": [never]}, **overrides}
        lora = LoraConfig(
            r=LORA_RANK,
            lora_alpha=LORA_ALPHA,  # type: ignore[arg-type]
            lora_dropout=0.0,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer: Any = GRPOTrainer(
                model=setup.folder,
                reward_funcs=self._reward_function(),
                args=GRPOConfig(**{**_arguments(setup, self._output.name), **overrides}),
                train_dataset=Dataset.from_list(rows),
                processing_class=tokenizer,
                peft_config=lora if setup.adapter == "lora" else None,
            )
        trainer.remove_callback(PrinterCallback)
        if not workload.ends:
            trainer.eos_token_ids = [never]
        return trainer

    def _reward_function(self) -> Callable[..., list[float | None]]:
        reward = make_reward(self.setup.workload)

        def benchmark_reward(completions: list[Any], row: list[int], **_: Any) -> list[float | None]:
            texts = [completion[0]["content"] for completion in completions]
            self._rewards = [reward(text, i) for text, i in zip(texts, row, strict=True)]
            return [*self._rewards]

        return benchmark_reward

    def _watch(self) -> None:
        """Put timers around the trainer's own methods."""
        trainer, timer = self.trainer, self.timer
        generate, logprobs = trainer._generate_single_turn, trainer._get_per_token_logps_and_entropies

        def watched_generate(prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> Any:
            with timer.phase("generate"):
                found = generate(prompt_ids, *args, **kwargs)
            self.prompt_ids = prompt_ids
            self._lengths = tuple(map(len, found[0]))
            return found

        def watched_logprobs(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():  # the policy's, within the loss
                return logprobs(*args, **kwargs)
            with timer.phase("reference"):
                return logprobs(*args, **kwargs)

        trainer._generate_single_turn = watched_generate
        trainer._get_per_token_logps_and_entropies = watched_logprobs
        # It prepares its inputs (sampling, rewards) first: that part is taken out again.
        trainer.training_step = timer.timed("train", trainer.training_step)
        trainer._prepare_inputs = timer.timed("rest", trainer._prepare_inputs)


class _StepClock(TrainerCallback):
    """The time from one step's end to the next step's end is that step's, loader and optimiser included."""

    def __init__(self, stock: Stock, on_step: Callable[[int, StepCost], None]) -> None:
        self._stock = stock
        self._on_step = on_step

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._stock.timer.enter("rest")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        self._stock.timer.leave()
        self._on_step(state.global_step - 1, self._stock.cost())
        self._stock.timer.enter("rest")

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._stock.timer.leave()


def _arguments(setup: Setup, output: str) -> dict[str, Any]:
    workload = setup.workload
    return {
        "output_dir": output,
        "use_cpu": setup.device == "cpu",
        "seed": setup.seed,
        "max_steps": setup.steps,
        "per_device_train_batch_size": workload.prompts * workload.group,
        "gradient_accumulation_steps": 1,
        "num_generations": workload.group,
        "max_completion_length": workload.max_tokens,
        "shuffle_dataset": False,
        "model_init_kwargs": {"dtype": setup.dtype},
        "bf16": setup.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "learning_rate": setup.learning_rate,
        "lr_scheduler_type": "constant",
        "max_grad_norm": MAX_GRAD_NORM,
        "weight_decay": 0.0,
        "loss_type": "dapo",
        "beta": BETA,
        "epsilon": CLIP_LOW,
        "epsilon_high": CLIP_HIGH,
        "use_bias_correction_kl": True,
        "temperature": 1.0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": setup.device == "cuda",
    }
