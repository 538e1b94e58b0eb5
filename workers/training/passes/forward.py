"""The model's forward over completions: logits' last states, by the path that the model takes (path.py).

On the fast path each prompt is read once for all its completions and without padding: the stream of a batch
(packing.py) goes through unmodified transformers modules, or for some families through the same weights in
fewer operations (fused_decoder.py); only attention knows where one sequence ends and the next begins
(packed_attention.py). The general path runs plain padded rows. In any case the result is that of one row for
each prompt + completion.

N completion tokens, H wide states.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from workers.training.model.attention import Attend
from workers.training.model.head import output_head
from workers.training.model.parts import decoder_of
from workers.training.passes.fused_decoder import fused_states, is_known
from workers.training.passes.packing import Batch, PackedCompletion, make_batches, per_completion
from workers.training.passes.path import (
    PROBE_TOLERANCE,
    difference,
    probe,
    states_by_modules,
    states_by_rows,
    why_general,
)
from workers.training.passes.token_logprobs import token_kl, token_logprobs

__all__ = [
    "Batch",
    "PackedCompletion",
    "batches_for",
    "completion_states",
    "make_batches",
    "output_head",
    "per_completion",
    "token_kl",
    "token_logprobs",
    "why_general",
]

log = logging.getLogger(__name__)

_fused: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def batches_for(
    model: Any, completions: Sequence[PackedCompletion], token_budget: int, device: torch.device
) -> list[Batch]:
    """Splits completions over forward passes of a model, each of at most so many tokens by its own path."""
    longest = max((len(one.prompt.tokens) + len(one.completion.tokens) for one in completions), default=0)
    # Asked without completions too: of a sharded model all processes find it out together.
    is_general = why_general(model, longest) is not None
    return make_batches(completions, token_budget, device, repeats_prompts=is_general)


def completion_states(model: Any, batch: Batch) -> Tensor:
    """Returns the decoder's states that predict each completion token, (N, H).

    It makes one pass through the decoder.
    """
    if why_general(model, batch.reach) is None:
        return _packed_states(model, batch, batch.attention)
    return states_by_rows(model, batch)


def _packed_states(model: Any, batch: Batch, attend: Attend) -> Tensor:
    if _is_fused(model):
        return fused_states(decoder_of(model), batch, attend)
    return states_by_modules(model, batch, attend)


def _is_fused(model: Any) -> bool:
    """Says whether fused_decoder.py runs the decoder: it is known, and was once seen to give the same."""
    decoder = decoder_of(model)
    if not is_known(decoder):
        return False
    if decoder not in _fused:
        batch = probe(model)
        with torch.no_grad():
            found = fused_states(decoder, batch, batch.attention)
            apart = difference(found, states_by_modules(model, batch, batch.attention))
        _fused[decoder] = apart <= PROBE_TOLERANCE[torch.float32]
        if not _fused[decoder]:
            log.warning("decoder_not_fused", extra={"difference": apart})
    return _fused[decoder]
