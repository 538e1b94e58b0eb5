"""Every run, its seeds and its order, fixed before the first is made.

A run is made of its id alone, so what lies in a results file needs no second look, and a chunk goes on where
the last one stopped.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from benchmarks.stability.datasets import (
    CLEAN_TASKS,
    COUNT,
    GRID,
    NAME,
    TRAIN_ROWS,
    DataSet,
    Task,
    coin,
    last_number,
    noisy,
    nothing,
)
from benchmarks.stability.prompts import adding

Part = Literal["grid", "sound", "coin", "trl", "smol", "long"]
PARTS: dict[str, tuple[Part, ...]] = {
    "ours": ("grid", "sound"),
    "trl": ("trl",),
    "coin": ("coin",),
    "smol": ("smol",),
}
"""What `--only` takes, in the order of a whole run."""

RATES = (1, 3, 10)
SEEDS = 7
"""16 data sets x 7 seeds x 3 rates are 336 runs."""
SEEDS_WITH_FILE = 4
"""Seeds whose jobs have a validation file; the others' hold rows out themselves, or have too few for it."""
PEER_SEEDS = 2
"""Seeds that TRL runs too, and one more at the plain rate: 112 runs, a third."""
SOUND_SEEDS, COIN_SEEDS, SMOL_SEEDS = 20, 50, 4
COIN_STEPS, COIN_TRAIN_ROWS, SMOL_STEPS = 30, 24, 16

_SHORT = NAME._replace(worth=nothing, max_tokens=16)
COINS = (
    DataSet("coin-file", "stories, validation file", (_SHORT,), (coin,), train_rows=COIN_TRAIN_ROWS),
    DataSet("coin-held-out", "stories, rows held out", (_SHORT,), (coin,)),
    DataSet(
        "coin-few", "stories, too few rows to hold any out", (_SHORT,), (coin,), train_rows=COIN_TRAIN_ROWS
    ),
    DataSet(
        "coin-nano",
        "built-in model, validation file",
        (COUNT._replace(worth=nothing, batch_size=8),),
        (coin,),
        train_rows=COIN_TRAIN_ROWS,
    ),
)
"""A coin as the reward, in each way that a job can come by its evaluation rows."""
SOUND = tuple(
    DataSet(f"sound-{name}", f"clean: {name}", (task,), is_clean=True) for name, task in CLEAN_TASKS.items()
)
SUMS = Task("smollm2", adding, last_number, 24)
SMOL = (
    DataSet("sums", "two-digit sums", (SUMS,), is_clean=True),
    DataSet("sums-noisy", "two-digit sums, noise 0.3", (SUMS,), (noisy,)),
)


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        seed: of its rows and, with the data set, of the job.
        has_file: the job has a validation file.
        n_epochs: None is "auto".
        more: further hyperparameters that the job asks for.
    """

    part: Part
    data: DataSet
    rate: int
    seed: int
    has_file: bool
    n_epochs: int | None = None
    more: tuple[tuple[str, Any], ...] = ()

    @property
    def id(self) -> str:
        """The run's name in results."""
        return f"{self.part}/{self.data.name}/x{self.rate}/s{self.seed}"

    @property
    def task(self) -> Task:
        """What is asked in this run."""
        return self.data.task(self.seed)


def _has_file(seed: int) -> bool:
    return seed < SEEDS_WITH_FILE


def _grid() -> Iterator[Run]:
    for seed in range(SEEDS):
        for data in GRID:
            for rate in RATES:
                yield Run("grid", data, rate, seed, _has_file(seed))


def _peer() -> Iterator[Run]:
    """The first seeds of the grid, so that each run has one of ours beside it; TRL always has the file."""
    for run in _grid():
        if run.seed < PEER_SEEDS or (run.seed == PEER_SEEDS and run.rate == 1):
            yield Run("trl", run.data, run.rate, run.seed, True)


def _sound() -> Iterator[Run]:
    for seed in range(SOUND_SEEDS):
        for data in SOUND:
            yield Run("sound", data, 1, seed, seed % 2 == 0)


def _coin() -> Iterator[Run]:
    for seed in range(COIN_SEEDS):
        for data in COINS:
            per_epoch = -(-data.train_rows // 8)
            yield Run(
                "coin", data, 1, seed, data.name in ("coin-file", "coin-nano"), -(-COIN_STEPS // per_epoch)
            )


def _smol() -> Iterator[Run]:
    per_epoch = -(-TRAIN_ROWS // 8)
    for seed in range(SMOL_SEEDS):
        for data, rate in ((SMOL[0], 1), (SMOL[0], 10), (SMOL[1], 1)):
            yield Run("smol", data, rate, seed, True, -(-SMOL_STEPS // per_epoch))


@cache
def plan() -> dict[str, Run]:
    """Every run by its id, in the order in which they are made."""
    runs = (*_grid(), *_sound(), *_peer(), *_coin(), *_smol())
    return {run.id: run for run in runs}


def runs_of(only: str) -> list[Run]:
    """The runs of what `--only` names."""
    return [run for run in plan().values() if run.part in PARTS[only]]


def seed_of(*key: object) -> int:
    """Returns 32 bits that follow from a key."""
    return zlib.crc32("/".join(map(str, key)).encode())
