"""What fits a device's memory: tokens of a pass by what is free, and what to change where a run does not fit.

No torch here: validation asks before anything is loaded, a run when its model lies on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from methods.memory import (
    FLOAT32,
    MOMENTS,
    PASS_TOKENS,
    SENSIBLE_TOKENS,
    Run,
    Use,
    cache,
    of_pass,
    of_training,
)
from methods.model_files.precision import QUANTISED
from methods.sizes import activations
from methods.sizes.model_size import ModelSize

SPARE = 0.05
"""Share of the free memory that is left alone: the allocator cannot use every piece. Chosen, not measured."""
LEAST_TOKENS = 64
"""The fewest tokens that are chosen for a pass; a longer sequence still has one of its own."""
MOST_GPUS = 8
"""GPUs up to which a plan is looked for. Chosen: what one machine has."""
SHORTER = (8192, 4096, 2048, 1024, 512, 256, 128, 64)
"""Lengths of completions that are tried, the longest first. Chosen."""


class Plan(NamedTuple):
    """Says how passes are made: with how many tokens at most, and whether layers are run again backward."""

    tokens: int
    recomputes: bool


def plan(size: ModelSize, run: Run, room: int) -> Plan:
    """Returns how passes are made in `room` bytes, which are free beside all else that the run holds.

    What the run says is kept; None is decided. Layers are run again where fewer than `SENSIBLE_TOKENS`, or
    than the step has, or than its longest sequence, would share a pass without.
    """
    recomputes = run.recomputes
    if recomputes is None:
        wanted = max(min(SENSIBLE_TOKENS, run.step_tokens), min(run.longest, PASS_TOKENS))
        recomputes = tokens_in(size, run, room, recomputes=False) < wanted
    if run.pass_tokens is not None:
        return Plan(run.pass_tokens, recomputes)
    fit = tokens_in(size, run, room, recomputes=recomputes)
    return Plan(max(LEAST_TOKENS, min(PASS_TOKENS, fit)), recomputes)


def tokens_in(size: ModelSize, run: Run, room: int, *, recomputes: bool) -> int:
    """Returns how many tokens a pass may have in `room` bytes; 0 where none fit."""
    once = of_pass(size, run._replace(pass_tokens=1, recomputes=recomputes))
    fixed = sum(use.bytes for use in once[1:]) + activations.of_logits(size, run.kind, PASS_TOKENS)
    each = activations.of_token(size, run.kind, recomputes=recomputes)
    return max(0, int(((1 - SPARE) * room - fixed) / each))


def room_beside(size: ModelSize, run: Run, free: int, *, has_moments: bool) -> int:
    """Returns the bytes that passes may take of those that are `free` when the model lies on the device.

    Taken off are gradients, moments unless the optimizer has them already, and the sampler's cache.
    """
    later = _trained(size, run) * FLOAT32 * (1 if has_moments else 1 + MOMENTS)
    return max(0, free - later - cache(size, run._replace(free=free)))


def planned(size: ModelSize, run: Run, total: int) -> Run:
    """Returns the run with what it leaves open decided for a GPU of `total` bytes."""
    if run.device == "cpu":
        return run
    taken = of_training(size, run).total - bytes_of_pass(size, run) - cache(size, run)
    later = _trained(size, run) * FLOAT32 * (1 + MOMENTS)
    run = run._replace(free=max(0, total - taken + later))
    tokens, recomputes = plan(size, run, max(0, total - taken - cache(size, run)))
    return run._replace(pass_tokens=tokens, recomputes=recomputes)


def _trained(size: ModelSize, run: Run) -> int:
    """Returns the numbers that a process trains."""
    trained = size.parameters if run.adapter == "full" else run.rank * size.adapted
    return trained // (run.processes if run.is_sharded and run.adapter == "full" else 1)


def least(size: ModelSize, run: Run) -> tuple[Use, ...]:
    """Returns what a run takes at least on a GPU: what is certain, and a pass of its longest sequence.

    Layers are run again in it unless the run says no.
    """
    alone = run._replace(pass_tokens=run.longest, recomputes=run.recomputes is not False)
    need = of_training(size, alone)
    certain = tuple(use for use in need.uses if use.is_certain or use.what == "libraries")
    return (*certain, *of_pass(size, alone))


def least_bytes(size: ModelSize, run: Run) -> int:
    """Returns the sum of `least`."""
    return sum(use.bytes for use in least(size, run))


def what_fits(size: ModelSize, run: Run, total: int) -> list[str]:
    """Returns what fits a GPU of `total` bytes instead, each with the bytes that it takes at least."""
    return [f"{words} ({in_gib(least_bytes(size, changed))})" for words, changed in _others(size, run, total)]


def bytes_of_token(size: ModelSize, run: Run, plan: Plan) -> float:
    """Returns what one more token of a pass takes."""
    return activations.of_token(size, run.kind, recomputes=plan.recomputes)


def bytes_of_pass(size: ModelSize, run: Run) -> int:
    """Returns what the run's largest pass takes."""
    return sum(use.bytes for use in of_pass(size, run))


def certain_bytes(size: ModelSize, run: Run) -> int:
    """Returns what the run takes for its whole length on one GPU."""
    return of_training(size, run).certain


def in_gib(size: int) -> str:
    """Writes bytes for people."""
    return f"{size / 2**30:,.2f} GiB"


def _others(size: ModelSize, run: Run, total: int) -> Iterator[tuple[str, Run]]:
    """Yields changes of a run after which it fits, in words, the smallest change first."""

    def fits(changed: Run) -> bool:
        return least_bytes(size, changed) <= total

    if run.recomputes is False and fits(changed := run._replace(recomputes=True)):
        yield "gradient_checkpointing true", changed
    for tokens in SHORTER:
        if tokens < run.answer_tokens and fits(changed := run._replace(answer_tokens=tokens)):
            yield f"max_completion_tokens {tokens:,}", changed
            break
    if run.adapter == "full" and fits(changed := run._replace(adapter="lora")):
        yield "adapter 'lora'", changed
    if run.adapter == "lora" and not run.is_sharded:
        for precision in QUANTISED:
            changed = run._replace(precision=precision)
            if run.precision not in QUANTISED and fits(changed):
                yield f"base_precision '{precision}'", changed
                break
    if not run.is_of_rows:
        for n in range(2, MOST_GPUS + 1):
            changed = run._replace(processes=n, is_sharded=True)
            if n > (run.processes if run.is_sharded else 1) and fits(changed):
                yield f"sharding 'fsdp' over {n} GPUs", changed
                break
