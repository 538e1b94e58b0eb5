"""A decode step of a Llama or Qwen model in one call: from last tokens to the logits of the next.

All completions of a group read their prompt's keys together. What a row comes to does not depend on the
others, to the bit. Norm and gate are those of the training pass (`kernels.rows`), with plain weights and
sums in its order, so that roundings are mostly the trainer's.

Shapes: B active completions in slots 0..B, n prompts, L layers, states H wide, heads = kv_heads * folded of D
each, V tokens; Hp, Dp, and Ip of the gate: widths rounded up to whole panels of 16 columns
(`kernels.panels`), where weights are 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.training.kernels import compiled, compiled_over_given
from workers.training.kernels.attend import KeyValueArrays, Rows, attend, make_scratch
from workers.training.kernels.low_rank import DOWN, GATE, KEY, OUT, QUERY, UP, VALUE, Adapters, add_low_rank
from workers.training.kernels.panels import (
    ADDED,
    IN_CACHE,
    PANEL,
    START,
    STREAMED,
    WRITTEN,
    Reading,
    multiply,
)
from workers.training.kernels.rows import gated, norm_row

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


HEAD_PANELS = 32
"""Panels of the head whose logits are computed before they are put in their rows. Chosen, not measured."""


class Weights(NamedTuple):
    """Holds all that a step reads of the model.

    Attributes:
        embedding: (V, H).
        norm, mlp_norm, last_norm: (L, H), (L, H) and (H,).
        qkv: (L, panels, Hp, 16), and `qkv_bias`, (L, panels * 16).
        head_norm: (L, heads + kv_heads, D), of queries and keys; (L, 0, 0) where there is none.
        out: (L, panels, heads * Dp, 16).
        gate, up: (L, Ip / 16, Hp, 16).
        down: (L, panels, Ip, 16).
        head: (panels, Hp, 16).
        cos, sin: (positions, D / 2).
        eps, head_eps: of the norms.
        scaling: of the scores.
        streams: whether no cache holds them all.
    """

    embedding: Floats
    norm: Floats
    mlp_norm: Floats
    last_norm: Floats
    qkv: Floats
    qkv_bias: Floats
    head_norm: Floats
    out: Floats
    gate: Floats
    up: Floats
    down: Floats
    head: Floats
    cos: Floats
    sin: Floats
    eps: np.float32
    head_eps: np.float32
    scaling: np.float32
    streams: np.bool_


@compiled
def decode(
    first: int,
    last: int,
    all_rows: Rows,
    ids: Ints,
    weights: Weights,
    adapters: Adapters,
    prompts: KeyValueArrays,
    completions: KeyValueArrays,
    logits: Floats,
) -> None:
    """Reads the last token of each completion, keeps its keys and values, and writes the logits of the next.

    The completions are those from `first` to `last` in `all_rows.slots`. Row i of `ids` (B,) and of
    `logits` (B, V) belongs to slot i.
    """
    slots = all_rows.slots[first:last]
    rows = Rows(slots, all_rows.group, all_rows.counts, all_rows.prompt_lengths, all_rows.own)
    normed = read(rows, ids, weights, adapters, prompts, completions)
    made = np.empty((len(slots), min(len(weights.head), HEAD_PANELS) * PANEL), np.float32)
    _logits(normed, weights.head, slots, made, logits, STREAMED if weights.streams else IN_CACHE)


@compiled
def read(
    rows: Rows,
    ids: Ints,
    weights: Weights,
    adapters: Adapters,
    prompts: KeyValueArrays,
    completions: KeyValueArrays,
) -> Floats:
    """Reads a token of each row, keeps its keys and values, and returns its last states, (B, H or more).

    Rows may be tokens of one text, one behind the other, in `completions`: each sees those before it.
    """
    B, H = len(rows.slots), weights.embedding.shape[1]
    _, _, kv_heads, _, D, _ = prompts.keys.shape
    Dp, inner = prompts.values.shape[3] * PANEL, weights.down.shape[2]
    heads = weights.out.shape[2] // Dp
    states = np.zeros((B, weights.qkv.shape[2]), np.float32)
    normed = np.zeros_like(states)
    # An adapter's outputs are whole panels: the last may reach behind those of the base.
    mixed = np.empty((B, (weights.qkv.shape[1] + 1) * PANEL), np.float32)
    lower = np.empty((B, adapters.widest), np.float32)
    queries = np.empty((kv_heads, B, heads // kv_heads, D), np.float32)
    attended = np.zeros((B, heads * Dp), np.float32)
    opened, raised = np.empty((B, inner), np.float32), np.empty((B, inner), np.float32)
    active = np.empty((B, inner), np.float32)
    has_adapters = len(adapters.places) > 0
    scratch = make_scratch(rows, heads // kv_heads, Dp)
    reading = STREAMED if weights.streams else IN_CACHE
    for b in range(B):
        token = weights.embedding[ids[rows.slots[b]]]
        for i in range(H):
            states[b, i] = token[i]
    for layer in range(len(weights.qkv)):
        _normalise(states, weights.norm[layer], weights.eps, normed)
        _product(normed, weights.qkv[layer], mixed, WRITTEN, reading)
        if has_adapters:
            at = 0
            for linear, outputs in ((QUERY, heads * D), (KEY, kv_heads * D), (VALUE, kv_heads * D)):
                _adapt(adapters, rows.slots, layer, linear, outputs, normed, mixed, at, lower)
                at += outputs
        _rotate(layer, rows, weights, mixed, queries, completions)
        attend(layer, rows, queries, prompts, completions, scratch, attended)
        _product(attended, weights.out[layer], states, ADDED, reading)
        if has_adapters:
            _adapt(adapters, rows.slots, layer, OUT, H, attended, states, 0, lower)
        _normalise(states, weights.mlp_norm[layer], weights.eps, normed)
        _product(normed, weights.gate[layer], opened, WRITTEN, reading)
        _product(normed, weights.up[layer], raised, WRITTEN, reading)
        if has_adapters:
            _adapt(adapters, rows.slots, layer, GATE, inner, normed, opened, 0, lower)
            _adapt(adapters, rows.slots, layer, UP, inner, normed, raised, 0, lower)
        gated(0, B, opened, raised, active)
        _product(active, weights.down[layer], states, ADDED, reading)
        if has_adapters:
            _adapt(adapters, rows.slots, layer, DOWN, H, active, states, 0, lower)
    _normalise(states, weights.last_norm, weights.eps, normed)
    return normed


@compiled_over_given
def _normalise(states: Floats, weight: Floats, eps: np.float32, normed: Floats) -> None:
    width = len(weight)
    for b in range(len(states)):
        norm_row(states[b, :width], weight, eps, normed[b, :width])


@compiled_over_given
def _product(x: Floats, panels: Floats, out: Floats, is_added: np.bool_, reading: Reading) -> None:
    """Multiplies (B, inner or more) by (panels, inner, 16); writes to or adds to (B, panels * 16)."""
    n, inner, _ = panels.shape
    given, made = (x.reshape(-1), START, x.shape[1]), (out.reshape(-1), START, out.shape[1], PANEL)
    multiply(len(x), inner, given, (panels.reshape(-1), START, inner * PANEL), n, made, is_added, reading)


@compiled_over_given
def _adapt(
    adapters: Adapters,
    slots: Ints,
    layer: int,
    linear: int,
    outputs: int,
    x: Floats,
    out: Floats,
    at: int,
    lower: Floats,
) -> None:
    """Adds what the rows' adapters make of (B, inner) to (B, outputs or more), from column `at` on."""
    given, made = (x.reshape(-1), START, x.shape[1]), (out.reshape(-1), at, out.shape[1], PANEL)
    add_low_rank(adapters, slots, layer, linear, (x.shape[1], outputs), given, made, lower)


@compiled_over_given
def _rotate(
    layer: int, rows: Rows, weights: Weights, mixed: Floats, queries: Floats, stored: KeyValueArrays
) -> None:
    """Brings queries and keys to their norm and position; keeps keys and values in their column."""
    kv_heads, B, folded, D = queries.shape
    heads, half = kv_heads * folded, D // 2
    bias = weights.qkv_bias[layer]
    for b in range(B):
        slot = rows.slots[b]
        own = rows.own[slot]
        column = rows.counts[slot] - 1
        position = rows.prompt_lengths[rows.group[slot]] + column
        row = mixed[b]
        for i in range(len(bias)):
            row[i] += bias[i]
        cos, sin = weights.cos[position], weights.sin[position]
        for head in range(heads + kv_heads):
            rotated = row[head * D : (head + 1) * D]
            if weights.head_norm.size > 0:
                norm_row(rotated, weights.head_norm[layer, head], weights.head_eps, rotated)
            for d in range(half):
                one, other = rotated[d], rotated[d + half]
                rotated[d] = one * cos[d] - other * sin[d]
                rotated[d + half] = other * cos[d] + one * sin[d]
        for head in range(heads):
            for d in range(D):
                queries[head // folded, b, head % folded, d] = row[head * D + d] * weights.scaling
        for head in range(kv_heads):
            keys, values = stored.keys[layer, own, head], stored.values[layer, own, head]
            for d in range(D):
                keys[column // PANEL, d, column % PANEL] = row[(heads + head) * D + d]
                values[d // PANEL, column, d % PANEL] = row[(heads + kv_heads + head) * D + d]


@compiled_over_given
def _logits(
    states: Floats, head: Floats, slots: Ints, made: Floats, logits: Floats, reading: Reading
) -> None:
    n, inner, _ = head.shape
    B, width = states.shape
    given, out = (states.reshape(-1), START, width), (made.reshape(-1), START, made.shape[1], PANEL)
    for first in range(0, n, HEAD_PANELS):
        panels = (head.reshape(-1), first * inner * PANEL, inner * PANEL)
        multiply(B, inner, given, panels, min(n - first, HEAD_PANELS), out, WRITTEN, reading)
        at, end = first * PANEL, min((first + HEAD_PANELS) * PANEL, logits.shape[1])
        for b in range(B):
            row = logits[slots[b]]
            for i in range(at, end):
                row[i] = made[b, i - at]
