"""Attention of one new token of each completion: over its group's prompt, and over its own tokens beside it.

The scores of a group's completions with their prompt are one product, which reads the prompt's keys once.
They lie beside those with their own tokens under one softmax.
Shapes as in `kernels.decode`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled, compiled_over_given
from workers.training.kernels.panels import ADDED, IN_CACHE, IN_PAIRS, PANEL, START, WRITTEN, multiply
from workers.training.kernels.softmax import exponentials, largest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

TOGETHER = 24
"""Queries that read a prompt together: their scores stay in the processor's cache. Measured on a decode
step of cherry-nano, 2 x 16 completions, prompts of 512: 9.7 ms with 4, 9.0 with 12, 8.4 with 24, 10.1 with 48
(docs/benchmarks.md).
"""

ONE, LOWEST = np.float32(1), np.float32(-np.inf)


class KeyValueArrays(NamedTuple):
    """Holds keys and values of all layers.

    Attributes:
        keys: (L, slots, kv_heads, blocks of 16 columns, D, 16).
        values: (L, slots, kv_heads, Dp / 16, columns, 16).
    """

    keys: Floats
    values: Floats


class Rows(NamedTuple):
    """Holds completions by slot.

    Attributes:
        slots: of those that are read, the ones of one group beside each other.
        group: (B,) the slot of each one's prompt.
        counts: (B,) tokens sampled.
        prompt_lengths: (n,).
        own: (B,) where each one's own keys and values lie.
    """

    slots: Ints
    group: Ints
    counts: Ints
    prompt_lengths: Ints
    own: Ints


class GroupHead(NamedTuple):
    """Is what is computed at a time: a head of keys, for completions of one group.

    These are told by their places in `Rows.slots`.
    """

    layer: int
    kv_head: int
    first: int
    last: int


class Scratch(NamedTuple):
    """Is room for what is computed at a time: scores, (queries, columns), their sums, and (queries, Dp)."""

    scores: Floats
    sums: Floats
    found: Floats


@compiled
def make_scratch(rows: Rows, folded: int, Dp: int) -> Scratch:
    """Makes room for some rows, by the longest."""
    longest_prompt = longest = 0
    for slot in rows.slots:
        longest_prompt = max(longest_prompt, rows.prompt_lengths[rows.group[slot]])
        longest = max(longest, rows.counts[slot])
    n = min(max(1, TOGETHER // folded), len(rows.slots)) * folded
    columns = (_blocks(longest_prompt) + _blocks(longest)) * PANEL
    sizes = np.empty((n, columns), np.float32), np.empty(n, np.float32), np.empty((n, Dp), np.float32)
    return Scratch(sizes[0], sizes[1], sizes[2])


@compiled_over_given
def attend(
    layer: int,
    rows: Rows,
    queries: Floats,
    prompts: KeyValueArrays,
    completions: KeyValueArrays,
    scratch: Scratch,
    out: Floats,
) -> None:
    """Attends from (kv_heads, B, folded, D) queries; writes (B, heads * Dp).

    What they ask for has been kept already.
    """
    kv_heads, B, folded, D = queries.shape
    most = max(1, TOGETHER // folded)
    scores, sums, found = scratch
    for kv_head in range(kv_heads):
        first = 0
        while first < B:
            group = rows.group[rows.slots[first]]
            last = first + 1
            while last < B and last - first < most and rows.group[rows.slots[last]] == group:
                last += 1
            task = GroupHead(layer, kv_head, first, last)
            _score(task, rows, queries, prompts, completions, scores)
            _exponentials(task, rows, folded, scores, sums)
            _weigh(task, rows, folded, scores, prompts, completions, found)
            for b in range(first, last):
                for head in range(folded):
                    row = (b - first) * folded + head
                    at = (kv_head * folded + head) * found.shape[1]
                    scale = ONE / sums[row]
                    for d in range(D):
                        out[b, at + d] = found[row, d] * scale
            first = last


@compiled_over_given
def _blocks(length: int) -> int:
    """Returns how many panels so many columns take; own tokens' scores start behind those of the prompt's."""
    return (length + PANEL - 1) // PANEL


@compiled_over_given
def _place(stored: Floats, layer: int, slot: int, kv_head: int) -> int:
    """Returns where a head's keys or values start among all."""
    _, slots, heads, blocks, rows, _ = stored.shape
    return int(((layer * slots + slot) * heads + kv_head) * blocks * rows * PANEL)


@compiled_over_given
def _ahead(task: GroupHead, rows: Rows, b: int, stored: Floats) -> np.int64:
    """Returns how far ahead of a completion's keys or values those lie that are read next."""
    following = b + 1 if b + 1 < len(rows.slots) else b
    one, other = rows.own[rows.slots[b]], rows.own[rows.slots[following]]
    return np.int64(
        _place(stored, task.layer, other, task.kv_head) - _place(stored, task.layer, one, task.kv_head)
    )


@compiled_over_given
def _score(
    task: GroupHead,
    rows: Rows,
    queries: Floats,
    prompts: KeyValueArrays,
    completions: KeyValueArrays,
    scores: Floats,
) -> None:
    """Multiplies each query with the keys of its prompt and its own."""
    _, B, folded, D = queries.shape
    asked, at, stride = queries.reshape(-1), (task.kv_head * B + task.first) * folded * D, scores.shape[1]
    group, made = rows.group[rows.slots[task.first]], scores.reshape(-1)
    length = rows.prompt_lengths[group]
    keys, keys_at = prompts.keys.reshape(-1), _place(prompts.keys, task.layer, group, task.kv_head)
    n, blocks, block = (task.last - task.first) * folded, _blocks(length), D * PANEL
    out = (made, START, stride, PANEL)
    multiply(n, D, (asked, at, D), (keys, keys_at, block), blocks, out, WRITTEN, IN_CACHE)
    keys = completions.keys.reshape(-1)
    for b in range(task.first, task.last):
        slot, row = rows.slots[b], (b - task.first) * folded
        keys_at = _place(completions.keys, task.layer, rows.own[slot], task.kv_head)
        query, out = (asked, at + row * D, D), (made, row * stride + blocks * PANEL, stride, PANEL)
        own = (keys, keys_at, block)
        reading = (_ahead(task, rows, b, completions.keys), IN_PAIRS)
        multiply(folded, D, query, own, _blocks(rows.counts[slot]), out, WRITTEN, reading)


@compiled_over_given
def _exponentials(task: GroupHead, rows: Rows, folded: int, scores: Floats, sums: Floats) -> None:
    """Turns scores into their exponentials, relative to the row's highest, and notes their sums."""
    length = rows.prompt_lengths[rows.group[rows.slots[task.first]]]
    numbers, stride = scores.reshape(-1), scores.shape[1]
    for row in range((task.last - task.first) * folded):
        count = rows.counts[rows.slots[task.first + row // folded]]
        at, own_at = row * stride, row * stride + _blocks(length) * PANEL
        prompts, own = numbers[at : at + length], numbers[own_at : own_at + count]
        top = largest(own, largest(prompts, LOWEST))
        sums[row] = exponentials(prompts, top) + exponentials(own, top)


@compiled_over_given
def _weigh(
    task: GroupHead,
    rows: Rows,
    folded: int,
    scores: Floats,
    prompts: KeyValueArrays,
    completions: KeyValueArrays,
    found: Floats,
) -> None:
    """Adds up the values of prompt and own tokens, weighed by `scores`."""
    given, made, stride, width = scores.reshape(-1), found.reshape(-1), scores.shape[1], found.shape[1]
    group = rows.group[rows.slots[task.first]]
    length = rows.prompt_lengths[group]
    values, columns = prompts.values.reshape(-1), prompts.values.shape[4]
    at = _place(prompts.values, task.layer, group, task.kv_head)
    n = (task.last - task.first) * folded
    weighed, out = (values, at, columns * PANEL), (made, START, width, PANEL)
    multiply(n, length, (given, START, stride), weighed, width // PANEL, out, WRITTEN, IN_CACHE)
    values, columns = completions.values.reshape(-1), completions.values.shape[4]
    for b in range(task.first, task.last):
        slot, row = rows.slots[b], (b - task.first) * folded
        at = _place(completions.values, task.layer, rows.own[slot], task.kv_head)
        own = (given, row * stride + _blocks(length) * PANEL, stride)
        weighed, out = (values, at, columns * PANEL), (made, row * width, width, PANEL)
        reading = (_ahead(task, rows, b, completions.values), IN_PAIRS)
        multiply(folded, rows.counts[slot], own, weighed, width // PANEL, out, ADDED, reading)
