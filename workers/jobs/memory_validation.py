"""Holds what a job takes against the memory that trainings have: by numbers, before anything is loaded."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from app.jobs import machine_memory
from app.jobs.capacity import count_gpus
from app.jobs.machine_memory import Memory
from app.settings import Settings, get_settings
from methods import memory
from methods.memory import Device, Need, Run
from methods.sizes.model_size import ModelSize
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig
from workers.jobs.job_data import JobInvalid
from workers.training.model import fitting

INSUFFICIENT = "insufficient_memory"
MOST_USES = 4
"""Of what takes memory: so many are told, the largest first. Chosen, not measured."""


class Place(NamedTuple):
    """Says where a job trains, and what memory there is; `memory` is None where that is not known."""

    device: Device
    memory: Memory | None
    is_busy: bool
    """Whether a training runs now, which will be over when the job begins."""


def place_of(config: TrainConfig | TuneConfig, settings: Settings, *, is_busy: bool) -> Place:
    """Returns where a job trains, as far as the settings let this machine speak for those that train."""
    on_gpu = config.device == "cuda" or (config.device == "auto" and _has_gpu(settings))
    found = machine_memory.of_training(settings, on_gpu=on_gpu)
    return Place("cuda" if on_gpu else "cpu", found, is_busy)


def check_memory(
    config: TrainConfig | TuneConfig, folder: Path, longest: int, *, is_busy: bool
) -> str | None:
    """Returns what is doubtful about the memory of a job, if anything is.

    `longest` is its longest prompt, or example, in tokens. Raises `JobInvalid` for a job that cannot fit.
    """
    from workers.training.model.size import size_of

    settings = get_settings()
    if settings.training_memory_gib == "unknown":
        return None
    size, place = size_of(folder), place_of(config, settings, is_busy=is_busy)
    if size is None or place.memory is None:
        return None
    return judge(config, size, longest, place)


def judge(config: TrainConfig | TuneConfig, size: ModelSize, longest: int, place: Place) -> str | None:
    """Does what `check_memory` does, for a model of this size in this place."""
    assert place.memory is not None, "it is compared with something"
    run = memory.run_of(config, size, longest, place.device)
    have = place.memory.total if place.is_busy else place.memory.free
    if place.device == "cuda":
        run = fitting.planned(size, _fits_gpu(config, size, run, place.memory.total), have)
    need = memory.of_training(size, run)
    what = "GPU" if place.device == "cuda" else "machine"
    if need.certain > place.memory.total:
        message = (
            f"The job cannot fit: {_uses(need, certain=True)} take {_gib(need.certain)} together, and the"
            f" {what} has {_gib(place.memory.total)}. {_advice(config, is_certain=True)}"
        )
        raise JobInvalid(INSUFFICIENT, message, _param(config))
    if need.total <= have:
        return None
    free = "" if place.is_busy else f", of which {_gib(place.memory.free)} are free now"
    return (
        f"The job may run out of memory: it is expected to take {_gib(need.total)} at its peak"
        f" ({_uses(need, certain=False)}), and the {what} has {_gib(place.memory.total)}{free}."
        f" {_advice(config, is_certain=False)}"
    )


def _fits_gpu(config: TrainConfig | TuneConfig, size: ModelSize, run: Run, total: int) -> Run:
    """Returns the run. Raises `JobInvalid` where no pass of its longest sequence fits a GPU, with figures."""
    least = Need(fitting.least(size, run))
    if least.total <= total:
        return run
    fits = fitting.what_fits(size, run, total)
    fits.append("a smaller model" if not fits else "a smaller model or a larger GPU")
    message = (
        f"The job cannot fit: {_uses(least, certain=False)} take {_gib(least.total)} together, and the GPU"
        f" has {_gib(total)}. What would fit: {'; '.join(fits)}."
    )
    raise JobInvalid(INSUFFICIENT, message, _param(config))


def _has_gpu(settings: Settings) -> bool:
    return (count_gpus(os.environ) if settings.gpus == "auto" else settings.gpus) > 0


def _uses(need: Need, *, certain: bool) -> str:
    uses = [use for use in need.uses if use.bytes and (use.is_certain or not certain)]
    largest = sorted(uses, key=lambda use: -use.bytes)[:MOST_USES]
    return ", ".join(f"{use.what} {_gib(use.bytes)}" for use in largest)


def _gib(size: int) -> str:
    return f"{size / 2**30:,.2f} GiB"


def _param(config: TrainConfig | TuneConfig) -> str:
    method = config.method if isinstance(config, TuneConfig) else "reinforcement"
    return "model" if config.adapter == "lora" else f"method.{method}.hyperparameters.adapter"


def _advice(config: TrainConfig | TuneConfig, *, is_certain: bool) -> str:
    """Says what to lower, the most effective first."""
    found = ["adapter 'lora'"] if config.adapter == "full" else ["a smaller model"]
    if config.adapter == "lora" and is_certain and config.lora_rank > 1:
        found.append(f"a lora_rank below {config.lora_rank}")
    if config.processes > 1 and config.device != "cuda":
        found.append(f"fewer processes than {config.processes}")
    if not is_certain:
        if config.gradient_checkpointing is not True:
            found.append("gradient_checkpointing true")
        if isinstance(config, TrainConfig):
            found += [
                f"a group_size below {config.group_size}",
                f"max_completion_tokens below {config.max_completion_tokens}",
            ]
        size = config.prompts_per_step if isinstance(config, TrainConfig) else config.batch_size
        found += [f"a batch_size below {size}"] if size > 1 else []
    return f"To lower it: {', '.join(found)}; or train on a larger one."
