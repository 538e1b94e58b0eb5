"""The peer: stock TRL `GRPOTrainer` on the same rows, grades and steps.

Its last step is what its user gets; beside it stands its best checkpoint by validation, sampled as the model
would be served, eight answers to each validation row.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset
from datasets.utils.logging import disable_progress_bar
from peft import LoraConfig
from torch import Tensor
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from benchmarks.stability.engine import Outcome, config_of
from benchmarks.stability.evaluation import validation_reward
from benchmarks.stability.material import JobGrader, Material
from benchmarks.stability.plan import Run, seed_of
from benchmarks.stability.sampler import Loaded, answer_of, load

RATE_AT_4096 = 4e-5
"""Peak rate at hidden size 4096, falling with the width: what "auto" was in 0.1.0, where most of its runs
reached their reward within 20 of 40 steps. Ours may take another rate for the same multiplier."""
BETA, CLIP_LOW, CLIP_HIGH = 0.02, 0.2, 0.27
"""The engine's own defaults, given to TRL too: without a KL term it drifts further."""
LORA_RANK, LORA_ALPHA, GROUP_SIZE = 16, 32, 8
EVAL_EVERY = 5
"""Steps between its checkpoints: the engine's nearest."""


class Snapshots(TrainerCallback):
    """Keeps the adapter of every few steps in memory, and the last."""

    def __init__(self) -> None:
        self.kept: dict[int, dict[str, Tensor]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:  # noqa: ARG002
        if state.global_step % EVAL_EVERY == 0 or state.global_step == state.max_steps:
            self.kept[state.global_step] = {
                name: weight.detach().clone()
                for name, weight in model.named_parameters()
                if weight.requires_grad
            }


def run_stock(run: Run, material: Material, model: Path, work: Path) -> Outcome:
    """Trains with TRL and gives its last step and its best by validation."""
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    disable_progress_bar()
    steps = config_of(run, material, model).total_steps(len(material.train))
    grader, snapshots = JobGrader(run.data, run.seed), Snapshots()
    start, spent = time.perf_counter(), time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = _trainer(run, material, model, work, steps, grader)
        trainer.add_callback(snapshots)
        trainer.train()
    facts = {
        "status": "succeeded",
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - spent, 3),
        "steps": trainer.state.global_step,
        "total_steps": steps,
    }
    base = load(model)
    tuned = Loaded(trainer.model.eval(), base.tokenizer, base.end_ids)
    at = {step: partial(_with_weights, tuned, weights) for step, weights in snapshots.kept.items()}
    rewards = {step: _validated(run, material, get(), grader) for step, get in at.items()}
    best = max(rewards, key=lambda step: rewards[step])
    return Outcome({"last": at[max(at)], "best": at[best]}, {**facts, "best_step": best})


def _with_weights(tuned: Loaded, weights: dict[str, Tensor]) -> Loaded:
    tuned.model.load_state_dict(weights, strict=False)
    return tuned


def _validated(run: Run, material: Material, tuned: Loaded, grader: JobGrader) -> float:
    seed = seed_of("validation", run.data.name, run.seed)
    return validation_reward(tuned, material.valid, grader.pays, max_tokens=run.task.max_tokens, seed=seed)


def _trainer(run: Run, material: Material, model: Path, work: Path, steps: int, grader: JobGrader) -> Any:
    rows = [{"prompt": item["messages"], "row": i} for i, item in enumerate(material.train)]
    lora = LoraConfig(
        r=LORA_RANK,
        lora_alpha=LORA_ALPHA,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    trainer: Any = GRPOTrainer(
        model=str(model),
        reward_funcs=_reward_function(material, grader, load(model)),
        args=GRPOConfig(**_arguments(run, model, work, steps, len(rows))),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(model),
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _reward_function(
    material: Material, grader: JobGrader, base: Loaded
) -> Callable[..., list[float | None]]:
    """Grades the texts that a job of ours would see: those of TRL have end tokens that are not special."""

    def stability_reward(completion_ids: list[list[int]], row: list[int], **_: Any) -> list[float | None]:
        texts = [answer_of(base, tokens).text for tokens in completion_ids]
        return [grader.pays(text, material.train[i]) for text, i in zip(texts, row, strict=True)]

    return stability_reward


def _arguments(run: Run, model: Path, work: Path, steps: int, n_rows: int) -> dict[str, Any]:
    width = json.loads((model / "config.json").read_text())["hidden_size"]
    return {
        "output_dir": str(work),
        "use_cpu": True,
        "seed": seed_of("job", run.data.name, run.seed) % 2**31,
        "max_steps": steps,
        "per_device_train_batch_size": min(run.task.batch_size, n_rows) * GROUP_SIZE,
        "gradient_accumulation_steps": 1,
        "num_generations": GROUP_SIZE,
        "max_completion_length": run.task.max_tokens,
        "model_init_kwargs": {"dtype": "float32"},
        "bf16": False,
        "gradient_checkpointing": False,
        "learning_rate": RATE_AT_4096 * 4096 / width * run.rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "beta": BETA,
        "epsilon": CLIP_LOW,
        "epsilon_high": CLIP_HIGH,
        "temperature": 1.0,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
