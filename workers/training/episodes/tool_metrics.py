"""The numbers of a step's episodes: turns, messages of a simulated user, and calls of each tool."""

from __future__ import annotations

import math
from collections.abc import Sequence

from methods import metrics as names
from workers.training.base.turns import CallResult
from workers.training.base.types import Completion, Split

UNKNOWN = "(unknown)"
"""Stands for all functions that there are not: no tool can be called so."""


def tool_metrics(split: Split, completions: Sequence[Completion]) -> dict[str, float]:
    """Returns what episodes did; nothing where completions have one turn."""
    episodes = [completion for completion in completions if completion.turns]
    if not episodes:
        return {}
    values = {
        names.EPISODE_TURNS.format(split=split): _mean([len(one.turns) for one in episodes]),
        names.EPISODES_LOST.format(split=split): float(sum(bool(one.lost) for one in episodes)),
    }
    of_users = [sum(len(turn.messages) for turn in one.turns) for one in episodes]
    if any(of_users):
        values[names.EPISODE_USER_TURNS.format(split=split)] = _mean(of_users)
    made: dict[str, list[CallResult]] = {}
    for result in (result for one in episodes for turn in one.turns for result in turn.results):
        made.setdefault(result.call.name if result.is_known else UNKNOWN, []).append(result)
    for tool, results in made.items():
        values |= {
            names.TOOL_CALLS.format(split=split, tool=tool): len(results) / len(episodes),
            names.TOOL_TOKENS.format(split=split, tool=tool): _mean([one.tokens for one in results]),
            names.TOOL_SECONDS.format(split=split, tool=tool): _mean([one.seconds for one in results]),
            names.TOOL_ERRORS.format(split=split, tool=tool): float(sum(one.is_error for one in results)),
        }
    return values


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
