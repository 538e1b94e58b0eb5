"""Causal attention over a packed stream: each prompt's keys and values serve all its completions.

An item of the work is one key/value head of one group. Its keys lie in a buffer, [prompt, completion], in
which one completion after the other takes the place behind the prompt. The queries of all heads that share
the keys are taken a few tokens at a time; their scores of `KEYS` keys at a time stay in cache
(FlashAttention, arXiv:2205.14135). Nothing is padded, and little that is hidden is computed.

N tokens, H query heads, K key/value heads of width D. A layout is (P,) first tokens of the groups, (P + 1,)
places of their first runs in (R,) lengths of runs: each group's prompt, then its completions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled
from workers.training.kernels.exponential import exp
from workers.training.kernels.softmax import exponentials, largest
from workers.training.kernels.tiles import COLUMNS, ROWS, add_product, multiply

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

QUERIES, KEYS = 32, 256
"""Rows and columns of the scores that exist at a time. Measured on a layer of cherry-nano, forward and
backward: 16 and 32 rows of 256 columns and 32 of 512 are alike; 32 of 64 or 128 and 64 of 256 take up to a
third more (docs/benchmarks.md).
"""

STEP = KEYS + COLUMNS
"""The distance between rows of scores: a power of two would put a column's numbers in the same few places
of the cache.
"""

ZERO, ONE, LOWEST = np.float32(0), np.float32(1), np.float32(-np.inf)


@compiled
def attend(
    first: int, last: int, starts: Integers, firsts: Integers, lengths: Integers,
    query: Floats, key: Floats, value: Floats, scaling: np.float32, out: Floats, sums: Floats,
) -> None:  # fmt: skip
    """Attends causally: (N, H, D) queries, (N, K, D) keys and values -> (N, H, D).

    It also writes the (N, H) log-sum-exp of the scores. Source: FlashAttention, Dao et al. 2022,
    arXiv:2205.14135, algorithm 1.
    """
    width, kv_heads = query.shape[2], key.shape[1]
    group = query.shape[1] // kv_heads
    wide, columns = -(-width // COLUMNS) * COLUMNS, _key_columns(firsts, lengths)
    tokens, rows = _tile(group)
    transposed_keys = np.zeros((width, columns), np.float32)
    values = np.zeros((columns, wide), np.float32)
    queries, found = np.zeros((rows, wide), np.float32), np.zeros((rows, wide), np.float32)
    scores = np.zeros((rows, STEP), np.float32)
    tops, totals = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
    for item in range(first, last):
        segment, head = item // kv_heads, item % kv_heads
        at, before = starts[segment], 0
        for run in range(firsts[segment], firsts[segment + 1]):
            for t in range(lengths[run]):
                for j in range(width):
                    transposed_keys[j, before + t] = key[at + t, head, j]
                _scale(value[at + t, head], ONE, values[before + t])
            for start in range(0, lengths[run], tokens):
                n = min(tokens, lengths[run] - start)
                _take(query, at + start, n, head * group, group, scaling, queries)
                _attend(
                    queries,
                    n * group,
                    group,
                    before + start,
                    transposed_keys,
                    values,
                    scores,
                    found,
                    tops,
                    totals,
                )
                for i in range(n * group):
                    token, of = at + start + i // group, head * group + i % group
                    _scale(found[i], ONE / totals[i], out[token, of])
                    sums[token, of] = tops[i] + np.float32(math.log(totals[i]))
            at += lengths[run]
            before = lengths[firsts[segment]]


@compiled
def _attend(
    queries: Floats, used: int, group: int, before: int, transposed_keys: Floats, values: Floats,
    scores: Floats, found: Floats, tops: Floats, totals: Floats,
) -> None:  # fmt: skip
    """Adds up the values that `used` queries see, the first of which sees `before` keys and its own.

    The sums are to be divided by `totals`.
    """
    width, columns = transposed_keys.shape
    wide = values.shape[1]
    for i in range(used):
        tops[i], totals[i] = LOWEST, ZERO
        _clear(found[i])
    seen = before + used // group
    for start in range(0, seen, KEYS):
        n = min(KEYS, seen - start)
        multiply(scores, STEP, queries, wide, transposed_keys, start, columns, used, n, width)
        for i in range(used):
            visible = max(0, min(n, before + i // group + 1 - start))
            row = scores[i, :visible]
            top = largest(row, tops[i])
            total = exponentials(row, top)
            _clear(scores[i, visible:n])
            if start > 0:
                shrink = exp(tops[i] - top)
                total += totals[i] * shrink
                _scale(found[i], shrink, found[i])
            tops[i], totals[i] = top, total
        add_product(found, 0, wide, scores, STEP, 1, values, start * wide, wide, used, wide, n)


@compiled
def attend_gradient(
    first: int, last: int, starts: Integers, firsts: Integers, lengths: Integers,
    query: Floats, key: Floats, value: Floats, scaling: np.float32, out: Floats, sums: Floats,
    grad: Floats, of_query: Floats, of_key: Floats, of_value: Floats,
) -> None:  # fmt: skip
    """Computes the gradients of the operands, (N, H, D) and (N, K, D) twice, from the output's."""
    width, kv_heads = query.shape[2], key.shape[1]
    group = query.shape[1] // kv_heads
    wide, columns = -(-width // COLUMNS) * COLUMNS, _key_columns(firsts, lengths)
    tokens, rows = _tile(group)
    keys = np.zeros((columns, wide), np.float32)
    transposed = np.zeros((2, width, columns), np.float32)  # keys and values
    sides = np.zeros((2, columns, wide), np.float32)  # gradients of both
    tiles = np.zeros((3, rows, wide), np.float32)  # queries, their gradient, that of their output
    scores = np.zeros((2, rows, STEP), np.float32)  # probabilities, and the gradient of the scores
    known = np.zeros((2, rows), np.float32)  # log-sum-exp; output times its gradient
    for item in range(first, last):
        segment, head = item // kv_heads, item % kv_heads
        at, before = starts[segment], 0
        for run in range(firsts[segment], firsts[segment + 1]):
            n = lengths[run]
            for t in range(n):
                _scale(key[at + t, head], ONE, keys[before + t])
                for j in range(width):
                    transposed[0, j, before + t] = key[at + t, head, j]
                    transposed[1, j, before + t] = value[at + t, head, j]
            for start in range(0, n, tokens):
                some = min(tokens, n - start)
                _take(query, at + start, some, head * group, group, scaling, tiles[0])
                _take(grad, at + start, some, head * group, group, ONE, tiles[2])
                for i in range(some * group):
                    token, of = at + start + i // group, head * group + i % group
                    known[0, i], known[1, i] = sums[token, of], _dot(grad[token, of], out[token, of])
                _gradient(tiles, some * group, group, before + start, keys, transposed, sides, scores, known)
                for i in range(some * group):
                    token, of = at + start + i // group, head * group + i % group
                    _scale(tiles[1, i], scaling, of_query[token, of])
            if before:
                _give(sides, before, n, at, head, of_key, of_value)
            at += n
            before = lengths[firsts[segment]]
        _give(sides, 0, before, starts[segment], head, of_key, of_value)


@compiled
def _gradient(
    tiles: Floats, used: int, group: int, before: int, keys: Floats, transposed: Floats, sides: Floats,
    scores: Floats, known: Floats,
) -> None:  # fmt: skip
    """Does what `_attend` does, backwards. The gradients of keys and values are added to."""
    width, columns = transposed[0].shape
    wide = keys.shape[1]
    queries, of_queries, grad = tiles
    for i in range(used):
        _clear(of_queries[i])
    seen = before + used // group
    for start in range(0, seen, KEYS):
        n = min(KEYS, seen - start)
        multiply(scores[0], STEP, queries, wide, transposed[0], start, columns, used, n, width)
        multiply(scores[1], STEP, grad, wide, transposed[1], start, columns, used, n, width)
        whole = -(-n // ROWS) * ROWS
        for i in range(used):
            visible = max(0, min(n, before + i // group + 1 - start))
            probs, slopes = scores[0, i, :visible], scores[1, i, :visible]
            top, along = known[0, i], known[1, i]
            for j in range(visible):
                prob = exp(probs[j] - top)
                probs[j] = prob
                slopes[j] = prob * (slopes[j] - along)
            _clear(scores[0, i, visible:whole])
            _clear(scores[1, i, visible:whole])
        at = start * wide
        add_product(sides[1], at, wide, scores[0], 1, STEP, grad, 0, wide, n, wide, used)
        add_product(sides[0], at, wide, scores[1], 1, STEP, queries, 0, wide, n, wide, used)
        add_product(of_queries, 0, wide, scores[1], STEP, 1, keys, at, wide, used, wide, n)


@compiled
def _key_columns(firsts: Integers, lengths: Integers) -> int:
    """Returns places for the keys of any prompt and completion.

    That is a tile more than they have, and an odd number of cache lines.
    """
    most = 0
    for segment in range(len(firsts) - 1):
        prompt = lengths[firsts[segment]]
        for run in range(firsts[segment], firsts[segment + 1]):
            most = max(most, lengths[run] if run == firsts[segment] else prompt + lengths[run])
    return most // (2 * COLUMNS) * 2 * COLUMNS + 3 * COLUMNS


@compiled
def _tile(group: int) -> tuple[int, int]:
    """Returns the tokens whose queries are taken at a time, and the rows of their buffers."""
    tokens = max(1, QUERIES // group)
    return tokens, -(-tokens * group // ROWS) * ROWS


@compiled
def _take(
    values: Floats, at: int, tokens: int, head: int, group: int, factor: np.float32, rows: Floats
) -> None:
    """Copies `group` heads of some tokens, times a factor: a row for each, one token's after the other's."""
    for i in range(tokens * group):
        _scale(values[at + i // group, head + i % group], factor, rows[i])


@compiled
def _give(sides: Floats, place: int, n: int, at: int, head: int, of_key: Floats, of_value: Floats) -> None:
    """Hands out the gradients of n keys and values, and begins anew."""
    for t in range(n):
        of_keys, of_values = sides[0, place + t], sides[1, place + t]
        _scale(of_keys, ONE, of_key[at + t, head])
        _scale(of_values, ONE, of_value[at + t, head])
        _clear(of_keys)
        _clear(of_values)


@compiled
def _scale(x: Floats, factor: np.float32, scaled: Floats) -> None:
    """Scales as many numbers as both hold."""
    for j in range(min(len(x), len(scaled))):
        scaled[j] = x[j] * factor


@compiled
def _clear(x: Floats) -> None:
    for j in range(len(x)):
        x[j] = ZERO


@compiled
def _dot(x: Floats, y: Floats) -> np.float32:
    total = ZERO
    for j in range(len(x)):
        total += x[j] * y[j]
    return total
