"""What a training pass takes on a GPU for its activations, by the shape of the model and its tokens.

The numbers are counted, not chosen: `python -m benchmarks.activations` runs passes of models without weights
and follows every tensor; `--write` puts its table here. Where code of a pass changes, it is run again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from methods.sizes.model_size import ModelSize

Adapter = Literal["lora", "full"]
Layout = Literal["packed", "rows"]
"""How tokens lie in a pass: each prompt once for all its completions, or one row for each sequence, as the
supervised and dpo methods have them."""


class Kind(NamedTuple):
    """Says what a pass is like.

    Attributes:
        number_bytes: of a number in its arithmetic.
        has_wide_branch: whether an adapter computes in fp32 beside a base in 16 bits, as PEFT has it where
            the base is sharded. Elsewhere it computes in 16 bits too.
    """

    layout: Layout
    adapter: Adapter
    number_bytes: int
    has_wide_branch: bool = False


class Kept(NamedTuple):
    """Holds bytes for each token and each number of a width.

    Attributes:
        hidden: that a layer keeps for the backward pass, by the width of the states,
        inner: by the width inside its MLP,
        queries: by the width of all its query heads together,
        keys: by that of its key heads.
        normed_queries: more by the width of queries where heads are normed, as in Qwen3,
        normed_keys: and by that of keys.
        ends: that is kept outside of layers, by the width of the states.
        hidden_beside: that the backward pass of a layer takes beside what is kept, by the width of the
            states,
        inner_beside: and by that inside the MLP.
        ends_beside: the same of the last norm and the output layer, by the width of the states.
    """

    hidden: float
    inner: float
    queries: float
    keys: float
    normed_queries: float
    normed_keys: float
    ends: float
    hidden_beside: float
    inner_beside: float
    ends_beside: float


# table: begin
TABLE: Mapping[Kind, Kept] = {
    Kind("packed", "lora", 2): Kept(12.0, 6.0, 6.1, 4.0, 4.1, 4.1, 1.8, 0.0, 6.0, 20.0),
    Kind("packed", "lora", 2, True): Kept(28.0, 8.0, 8.1, 4.0, 4.1, 4.1, 1.8, 0.2, 4.0, 20.0),
    Kind("packed", "lora", 4): Kept(16.0, 16.0, 12.1, 8.0, 4.1, 4.1, 3.6, 0.0, 8.0, 20.0),
    Kind("packed", "full", 2): Kept(22.0, 6.0, 6.1, 4.0, 10.1, 8.1, 7.8, 0.0, 5.9, 18.2),
    Kind("packed", "full", 4): Kept(24.0, 16.0, 12.1, 8.0, 8.1, 8.1, 11.6, 0.0, 8.0, 16.2),
    Kind("rows", "lora", 2): Kept(12.0, 6.0, 10.1, 0.0, 4.1, 4.1, 1.8, 0.0, 6.0, 20.0),
    Kind("rows", "lora", 2, True): Kept(28.0, 8.0, 12.1, 0.0, 4.1, 4.1, 1.8, 0.2, 4.0, 20.0),
    Kind("rows", "lora", 4): Kept(16.0, 16.0, 20.1, 0.0, 4.1, 4.1, 3.6, 0.0, 8.0, 20.0),
    Kind("rows", "full", 2): Kept(22.0, 6.0, 10.1, 0.0, 12.1, 6.1, 7.8, 0.0, 5.9, 18.2),
    Kind("rows", "full", 4): Kept(24.0, 16.0, 20.1, 0.0, 8.1, 8.1, 11.6, 0.0, 8.0, 16.2),
}
# table: end

LOGITS = {"packed": 4.5 * (128 << 20), "rows": 4.5 * (128 << 20)}
"""Bytes of a pass's logits and of what is made of them: they exist in pieces (passes/token_logprobs.py), or
in TRL's tiles. Pieces are larger where a GPU has more free memory than that when they are made, with an
eighth of it at most: they take no more than is there, so what has to be there for them is this.
"""

HEAD_GRADIENTS = 1.5, 3.0
"""fp32 gradients of a trained output layer that exist beside the one that stays, by the same counts: while a
piece's softmax is differentiated, and when its gradient is added to those before, with one piece of logits
left. At the second moment a process on a CPU grew by 3.0 of them in fp32 and by 2.5 in bf16.
"""


def of_token(size: ModelSize, kind: Kind, *, recomputes: bool) -> float:
    """Returns the bytes that one more token takes at the peak of a pass, without its logits.

    `recomputes` says that layers are run again in the backward pass (gradient checkpointing), so that only
    their inputs are kept.
    """
    return _kept(size, kind, recomputes=recomputes) + _beside(size, kind, recomputes=recomputes)


def of_pass(size: ModelSize, kind: Kind, tokens: int, *, recomputes: bool) -> int:
    """Returns the bytes that a pass of so many tokens takes at its peak, with its logits."""
    kept = tokens * _kept(size, kind, recomputes=recomputes)
    beside = tokens * _beside(size, kind, recomputes=recomputes)
    return int(kept + max(beside + _of_pending(size, kind), of_logits(size, kind, tokens)))


def of_logits(size: ModelSize, kind: Kind, tokens: int) -> int:
    """Returns the bytes that logits of so many tokens take, in pieces, and gradients of a trained head."""
    logits = min(LOGITS[kind.layout], 4.5 * 4 * tokens * size.vocabulary)
    gradient = 4 * size.vocabulary * size.hidden if kind.adapter == "full" else 0
    early, late = (gradients * gradient for gradients in HEAD_GRADIENTS)
    return int(max(logits + early, logits / 4.5 + late))


def _of_pending(size: ModelSize, kind: Kind) -> int:
    """Returns the bytes of the output layer's gradient where it waits for the embeddings' through all layers.

    It does so where both are one trained weight.
    """
    embeddings = size.vocabulary * size.hidden
    is_tied = size.parameters - size.matrices < 2 * embeddings
    return 4 * embeddings if kind.adapter == "full" and is_tied else 0


def of_copies(size: ModelSize, kind: Kind, *, recomputes: bool) -> int:
    """Returns the bytes of the weights that autocast copies for a pass, where every weight is trained.

    A layer that is run again copies its own anew.
    """
    if kind.adapter == "lora" or kind.number_bytes != 2:
        return 0
    return 2 * size.matrices // (size.layers if recomputes else 1)


def _layer(size: ModelSize, kept: Kept) -> float:
    """Returns the bytes of one token that a layer keeps."""
    queries, keys = size.queries or size.hidden, size.cached / (2 * size.layers)
    found = kept.hidden * size.hidden + kept.inner * size.intermediate
    found += kept.queries * queries + kept.keys * keys
    if size.has_normed_heads:
        found += kept.normed_queries * queries + kept.normed_keys * keys
    return found


def _kept(size: ModelSize, kind: Kind, *, recomputes: bool) -> float:
    kept = TABLE[kind]
    layer = kind.number_bytes * size.hidden if recomputes else _layer(size, kept)
    return size.layers * layer + kept.ends * size.hidden


def _beside(size: ModelSize, kind: Kind, *, recomputes: bool) -> float:
    kept = TABLE[kind]
    layer = kept.hidden_beside * size.hidden + kept.inner_beside * size.intermediate
    if recomputes:
        layer += _layer(size, kept)
    return max(layer, kept.ends_beside * size.hidden)
