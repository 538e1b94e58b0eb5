"""How one job shares its steps among several seeds, and the length of a control.

Successive halving: all seeds train a little, the better half goes on for twice as long, and so on, until one
is left: Jamieson and Talwalkar 2016, AISTATS, arXiv:1502.07943.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

CONTROL_SHARE = 0.25
"""Share of a run's steps that a control trains for, at least `CONTROL_EVALUATIONS` evaluations. Chosen, not
measured: most runs of the trial reached their reward within that.
"""
CONTROL_EVALUATIONS = 2


class Rung(NamedTuple):
    """Says how far a number of seeds is trained before they are compared.

    Attributes:
        end: the step of each one's own at which the rung ends.
        arms: seeds that are trained so far.
    """

    end: int
    arms: int


def rungs(total: int, interval: int, n_seeds: int) -> list[Rung]:
    """Returns the rungs of `n_seeds` runs of `total` steps; the last one has a single seed and all steps.

    There are ceil(log2 n) halvings. Before the last of them half of the steps are done, before the one before
    a quarter, and so on, rounded to evaluations.
    """
    halvings = math.ceil(math.log2(n_seeds))
    found, arms = [], n_seeds
    for number in range(halvings):
        end = to_evaluations(total / 2 ** (halvings - number), interval, total)
        found.append(Rung(end, arms))
        arms = better_half(arms)
    return [*found, Rung(total, arms)]


def better_half(arms: int) -> int:
    """Returns how many of so many seeds go on."""
    return -(-arms // 2)


def control_steps(total: int, interval: int) -> int:
    """Returns the steps of a control beside runs of `total` steps."""
    quarter = to_evaluations(CONTROL_SHARE * total, interval, total)
    return min(total, max(quarter, CONTROL_EVALUATIONS * interval))


def steps_of(plan: Sequence[Rung]) -> int:
    """Returns the steps of all seeds together, where nothing ends one early."""
    ends = [0, *(rung.end for rung in plan)]
    return sum(rung.arms * (rung.end - before) for rung, before in zip(plan, ends, strict=False))


def steps_beside(plan: Sequence[Rung], devices: int) -> int:
    """Returns how many steps last one after another where each of so many devices trains a seed at a time."""
    return steps_of([rung._replace(arms=-(-rung.arms // devices)) for rung in plan])


def looks_of(plan: Sequence[Rung], interval: int) -> int:
    """Returns how many checkpoints of all seeds may be compared with the base."""
    ends = [0, *(rung.end for rung in plan)]
    return sum(
        rung.arms * -(-(rung.end - before) // interval) for rung, before in zip(plan, ends, strict=False)
    )


def to_evaluations(steps: float, interval: int, total: int) -> int:
    """Returns the evaluation nearest to so many steps: at least the first one, at most the last step."""
    return min(total, max(1, round(steps / interval)) * interval)


def arm_seeds(seed: int, n_seeds: int) -> list[int]:
    """Returns the seeds of a job, all different: its own first, the others follow from it."""
    seeds, number = [seed], 0
    while len(seeds) < n_seeds:
        number += 1
        digest = hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest()
        derived = int.from_bytes(digest, "little") % 2**31
        if derived not in seeds:
            seeds.append(derived)
    return seeds
