"""How large a model is, as the arithmetic of memory takes it."""

from __future__ import annotations

from typing import NamedTuple


class ModelSize(NamedTuple):
    """Says how large a model is, in numbers.

    Attributes:
        parameters: of all weights.
        matrices: of the matrices in its layers, which LoRA adapts.
        adapted: rows and columns of these matrices together: an adapter's numbers for each rank.
        layers: of the decoder.
        hidden: the width of its states.
        intermediate: the width inside its MLPs.
        cached: numbers that attention keeps of one token, over all layers.
        vocabulary: tokens that it has embedding rows for.
        context: most tokens of prompt and completion together.
        stored_bytes: of a number on disk.
        queries: the width of all query heads of a layer together; 0 stands for `hidden`.
        has_normed_heads: whether a layer norms queries and keys.
    """

    parameters: int
    matrices: int
    adapted: int
    layers: int
    hidden: int
    intermediate: int
    cached: int
    vocabulary: int
    context: int
    stored_bytes: int
    queries: int = 0
    has_normed_heads: bool = False
