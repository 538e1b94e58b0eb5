"""How many rows, prompts and tokens a GPU's sampler has memory for.

S slots of rows, n prompts, G completions of each.
"""

from __future__ import annotations

from typing import NamedTuple

CACHE_SHARE = 0.25
"""The share of a GPU's free memory that sampling may take, asked once for each model, before the first
update. The rest is the update's: gradient and moments, which do not exist yet then, and activations. Chosen:
a model whose every weight is trained needs three times the bytes of its fp32 weights in the first update.
"""
MOST_SLOTS = 1024
"""Rows beyond which more of them are no faster. It follows from a GPU's numbers: an H200 computes 200 to 300
multiplications for each weight in the time in which it reads it, and each row takes one.
"""
LOGIT_BYTES = 24
"""What a row takes for each token of the vocabulary. It follows from what is held at once: its logits twice
in 16 bits, and five times in fp32 as they are scaled, made probabilities and added up (draw.py).
"""
LEAST_ROWS = 8
"""The rows of the smallest step. Chosen: below, reading the weights takes the time, not rows."""


class Shape(NamedTuple):
    """Says what a sampler's memory holds.

    Attributes:
        slots: of rows.
        groups: slots of prompts.
        samples: most completions of one prompt.
        prompt_columns, columns: tokens of a prompt and of a completion.
    """

    slots: int
    groups: int
    samples: int
    prompt_columns: int
    columns: int


class Needs(NamedTuple):
    """Says what calls want.

    Attributes:
        rows: completions to be sampled side by side, where memory allows.
        groups: prompts that these may be of.
        samples: most completions of one prompt.
        prompt_columns, columns: tokens of the longest prompt and completion.
    """

    rows: int
    groups: int
    samples: int
    prompt_columns: int
    columns: int

    def and_those(self, others: Needs | None) -> Needs:
        """Returns what does for both."""
        return self if others is None else Needs(*map(max, self, others))


class Costs(NamedTuple):
    """Says what a token takes in all layers' caches, and a row beside its tokens: bytes."""

    token: int
    row: int

    def of(self, shape: Shape) -> int:
        """Counts the bytes of a sampler's memory."""
        tokens = shape.slots * shape.columns + shape.groups * shape.prompt_columns
        return tokens * self.token + shape.slots * self.row


def plan(needs: Needs, costs: Costs, budget: int | None) -> Shape:
    """Returns the shape that does for these needs within so many bytes, or without a bound.

    Where they do not suffice it has fewer rows, but those of one prompt's completions at least. Prompts have
    a slot for each row where all prompts then take no more than all completions: so calls with fewer
    completions of a prompt find room for as many rows.
    """
    prompt_columns, columns = doubled(needs.prompt_columns, 64), _whole(needs.columns, 64)
    least = _whole(needs.samples, LEAST_ROWS)
    slots = wanted = max(least, _whole(min(needs.rows, MOST_SLOTS), LEAST_ROWS))
    while True:
        needed = -(-needs.groups * slots // wanted)
        groups = min(slots, max(1, needed, slots * columns // prompt_columns))
        shape = Shape(slots, groups, needs.samples, prompt_columns, columns)
        if slots == least or budget is None or costs.of(shape) <= budget:
            return shape
        slots = max(least, slots - _whole(slots // 16, LEAST_ROWS))


def doubled(n: int, least: int) -> int:
    """Returns the first of least, twice that, ... that is n or more, for a `least` that is a power of 2."""
    return max(least, 1 << (n - 1).bit_length())


def _whole(n: int, step: int) -> int:
    return -(-n // step) * step
