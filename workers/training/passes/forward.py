"""The model's forward over completions, each prompt once for all its completions and without padding.

The stream of a batch (packing.py) goes through unmodified transformers modules, or for some families through
the same weights in fewer operations (fused_decoder.py); only attention knows where one sequence ends and the
next begins (packed_attention.py). A model whose attention cannot be replaced that way gets plain padded rows.
In any case the result is that of one row for each prompt + completion.

N completion tokens, H wide states.
"""

from __future__ import annotations

import logging
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from workers.training.base.types import Completion, Prompt
from workers.training.model import attention
from workers.training.passes.fused_decoder import fused_states, is_known
from workers.training.passes.packing import Batch, PackedCompletion, make_batches, padded_rows, per_completion
from workers.training.passes.token_logprobs import token_kl, token_logprobs

__all__ = [
    "Batch",
    "PackedCompletion",
    "completion_states",
    "make_batches",
    "per_completion",
    "token_kl",
    "token_logprobs",
    "why_padded",
]

log = logging.getLogger(__name__)

PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""The largest difference between packed and plain states, relative to a state's norm. Measured on eight
families of tiny random models in fp32: at most 8e-7, of the fused forward 1.4e-6 (docs/benchmarks.md).
"""
HALF_TOLERANCE = 5e-2
"""The same in 16 bits, where 1.0e-2 to 2.2e-2 was measured in bf16."""

_fused: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
_reasons: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()


def completion_states(model: Any, batch: Batch) -> Tensor:
    """Returns the decoder's states that predict each completion token, (N, H).

    It makes one pass through the decoder.
    """
    if why_padded(model) is None:
        return _packed_states(model, batch, batch.attention)
    return _padded_states(model, batch)


def why_padded(model: Any) -> str | None:
    """Returns why a model gets padded rows, which cost time and memory; None if it is run packed.

    It finds out once for each model, by two small passes through its decoder.
    """
    decoder = model.get_decoder()
    if decoder not in _reasons:
        _reasons[decoder] = _reason(model)
        if _reasons[decoder] is not None:
            log.warning("prompts_not_shared", extra={"reason": _reasons[decoder]})
    return _reasons[decoder]


def _packed_states(model: Any, batch: Batch, attend: attention.Attend) -> Tensor:
    if _is_fused(model):
        return fused_states(model.get_decoder(), batch, attend)
    return _states_by_modules(model, batch, attend)


def _states_by_modules(model: Any, batch: Batch, attend: attention.Attend) -> Tensor:
    with attention.use(attend, reach=batch.reach):
        states = model.get_decoder()(
            input_ids=batch.token_ids, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
    found: Tensor = states[0].index_select(0, batch.predictors)
    return found


def _padded_states(model: Any, batch: Batch) -> Tensor:
    rows, places = zip(*padded_rows(batch), strict=True)
    # Causal attention and padding on the right: no token ever sees padding, so no mask is needed.
    ids = pad_sequence(list(rows), batch_first=True)
    states = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
    chosen = torch.cat([i * ids.shape[1] + place for i, place in enumerate(places)])
    found: Tensor = states.flatten(0, 1).index_select(0, chosen)
    return found


def _is_fused(model: Any) -> bool:
    """Says whether fused_decoder.py runs the decoder: it is known, and was once seen to give the same."""
    decoder = model.get_decoder()
    if not is_known(decoder):
        return False
    if decoder not in _fused:
        batch = _probe(model)
        with torch.no_grad():
            found = fused_states(decoder, batch, batch.attention)
            difference = _difference(found, _states_by_modules(model, batch, batch.attention))
        _fused[decoder] = difference <= PROBE_TOLERANCE[torch.float32]
        if not _fused[decoder]:
            log.warning("decoder_not_fused", extra={"difference": difference})
    return _fused[decoder]


def _difference(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference of any state, relative to its norm: (N, H), (N, H) -> a scalar."""
    return float(((found - expected).float().norm(dim=-1) / expected.float().norm(dim=-1)).max())


@torch.no_grad()
def _reason(model: Any) -> str | None:
    """Compares a small packed batch with plain rows; returns why they may not stand for each other, if so."""
    name = type(model).__name__
    if not type(model)._supports_attention_backend or model.config._attn_implementation != attention.NAME:
        return f"{name} does not let its attention be replaced."
    batch = _probe(model)
    calls: list[nn.Module] = []

    def counted(module: nn.Module, *args: Any) -> Tensor:
        calls.append(module)
        return batch.attention(module, *args)

    try:
        packed = _states_by_modules(model, batch, counted)
    except (attention.Unsupported, TypeError, ValueError, RuntimeError) as error:
        return f"{name} cannot read a packed batch: {error}"
    if len(calls) != model.config.get_text_config(decoder=True).num_hidden_layers:
        return f"{name} has layers whose attention cannot be replaced."
    plain = _padded_states(model, batch)
    difference = _difference(packed, plain)
    if not difference <= PROBE_TOLERANCE.get(packed.dtype, HALF_TOLERANCE):  # NaN is no agreement
        return f"{name} computes other states in a packed batch (relative difference {difference:.1e})."
    return None


def _probe(model: Any) -> Batch:
    """Returns two prompts with three completions each, of different lengths; the same in every process."""
    generator = torch.Generator().manual_seed(0)
    vocabulary = model.get_input_embeddings().num_embeddings

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(torch.randint(vocabulary, (n,), generator=generator).tolist())

    completions = []
    for row, lengths in enumerate([(5, 4, 1, 6), (3, 2, 7, 3)]):
        prompt = Prompt(row, {}, tokens(lengths[0]))
        for n in lengths[1:]:
            completions.append(PackedCompletion(prompt, Completion(tokens(n), (0.0,) * n, "", "length")))
    (batch,) = make_batches(completions, 1000, model.get_input_embeddings().weight.device)
    return batch
