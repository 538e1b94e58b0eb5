"""Which path a model takes: the fast one, or the general one through its own forward and its own cache.

The fast path reads each prompt once for all its completions, in training (packing.py) and in sampling. It
needs layers that mix tokens by attention alone, and attention that can be replaced. Everything else takes the
general path: a row for each prompt + completion in training, and in sampling the model's own cache.
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
from workers.training.model.arithmetic import in_fp32
from workers.training.model.parts import decoder_of
from workers.training.passes.packing import Batch, PackedCompletion, make_batches, padded_rows

log = logging.getLogger(__name__)

PROBE_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""The largest difference between packed and plain states, relative to a state's norm. Measured on eight
families of tiny random models in fp32: at most 8e-7, of the fused forward 1.4e-6 (docs/benchmarks.md).
"""
HALF_TOLERANCE = 5e-2
"""The same in 16 bits, where 1.0e-2 to 2.2e-2 was measured in bf16 with two layers. Only for models that
cannot compute in fp32 for the trial (sharded, quantised); rounding counts beside it (`_rounding`).
"""

PLAIN_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers that the fast path's attention stands for."""
LIMITS_OF_MASKS = ("attention_chunk_size", "index_topk")
"""What a config says of limits that reach attention in its mask alone, where the fast path has none."""

_reasons: WeakKeyDictionary[nn.Module, str | None] = WeakKeyDictionary()
_windows: WeakKeyDictionary[nn.Module, int | None] = WeakKeyDictionary()


def why_general(model: Any, reach: int = 0) -> str | None:
    """Returns why a model takes the general path; None if it takes the fast one.

    It finds out once for each model, by small passes through its decoder. `reach` is the most tokens that any
    token looks at: above the model's shortest window, the fast path would be wrong.
    """
    decoder = decoder_of(model)
    if decoder not in _reasons:
        _reasons[decoder] = _reason(model)
        if _reasons[decoder] is not None:
            log.warning("path_is_general", extra={"reason": _reasons[decoder]})
    if _reasons[decoder] is not None:
        return _reasons[decoder]
    window = shortest_window(model)
    if window is not None and window < reach:
        return f"{reach} tokens of prompt and completion do not fit the window of {window} tokens."
    return None


def shortest_window(model: Any) -> int | None:
    """Returns the fewest tokens that a layer of a model on the fast path sees; None where all see all."""
    decoder = decoder_of(model)
    if decoder not in _windows:
        _windows[decoder] = min(attention.windows(model), default=None)
    return _windows[decoder]


def states_by_modules(model: Any, batch: Batch, attend: attention.Attend) -> Tensor:
    """Returns the states that predict each token, (N, H), by the model's modules over the packed stream."""
    with attention.use(attend, reach=batch.reach):
        states = decoder_of(model)(
            input_ids=batch.token_ids, position_ids=batch.positions, use_cache=False
        ).last_hidden_state
    found: Tensor = states[0].index_select(0, batch.predictors)
    return found


def states_by_rows(model: Any, batch: Batch) -> Tensor:
    """Returns the same by the model's own forward over a row for each prompt + completion."""
    rows, places = zip(*padded_rows(batch), strict=True)
    # No layer looks ahead and padding is on the right: no token ever sees padding, so no mask is needed.
    ids = pad_sequence(list(rows), batch_first=True)
    states = decoder_of(model)(input_ids=ids, use_cache=False).last_hidden_state
    chosen = torch.cat([i * ids.shape[1] + place for i, place in enumerate(places)])
    found: Tensor = states.flatten(0, 1).index_select(0, chosen)
    return found


def difference(found: Tensor, expected: Tensor) -> float:
    """Returns the largest difference of any state, relative to its norm: (N, H), (N, H) -> a scalar."""
    return float(((found - expected).float().norm(dim=-1) / expected.float().norm(dim=-1)).max())


@torch.inference_mode(mode=False)  # weights that are widened for the check would be inference tensors
@torch.no_grad()
def _reason(model: Any) -> str | None:
    """Compares a small packed batch with plain rows; returns why they may not stand for each other, if so."""
    name, config = type(model).__name__, model.config.get_text_config(decoder=True)
    if not type(model)._supports_attention_backend:
        return f"{name} does not let its attention be replaced."
    if model.config._attn_implementation != attention.NAME:
        unknown = f"{name}'s attention is more than that of the fast path (capped scores, sinks or the like)."
        return attention.why_own(model) or unknown
    if others := set(getattr(config, "layer_types", None) or ()) - PLAIN_LAYERS:
        return f"{name} has layers of {', '.join(sorted(others))}."
    if limits := [limit for limit in LIMITS_OF_MASKS if getattr(config, limit, None) is not None]:
        return f"{name} hides tokens from its attention ({', '.join(limits)})."
    batch = probe(model)
    try:
        with in_fp32(model) as is_exact:
            return _trial(model, batch, is_exact)
    except RuntimeError as error:  # some models' code wants the dtype of the weights, or memory is short
        log.info("packing_tried_in_16_bits", extra={"reason": str(error)})
        return _trial(model, batch, is_exact=False)


def _trial(model: Any, batch: Batch, is_exact: bool) -> str | None:
    """Returns why a model's states in a packed batch are not those of plain rows, if they are not."""
    name, config = type(model).__name__, model.config.get_text_config(decoder=True)
    calls: list[nn.Module] = []

    def counted(module: nn.Module, *args: Any) -> Tensor:
        calls.append(module)
        return batch.attention(module, *args)

    try:
        packed = states_by_modules(model, batch, counted)
    except (attention.Unsupported, TypeError, ValueError, RuntimeError) as error:
        return f"{name} cannot read a packed batch: {error}"
    if len(calls) != config.num_hidden_layers:
        return f"{name} has layers whose attention cannot be replaced."
    expected = states_by_rows(model, batch)
    apart = difference(packed, expected)
    if apart <= PROBE_TOLERANCE.get(packed.dtype, HALF_TOLERANCE):  # NaN is no agreement
        return None
    if not is_exact and apart <= _rounding(model, batch, expected):
        return None
    return f"{name} computes other states in a packed batch (relative difference {apart:.1e})."


def _rounding(model: Any, batch: Batch, states: Tensor) -> float:
    """Returns the difference that embeddings make that are off by half a unit in the last place."""
    with attention.nudged(model):
        return difference(states_by_rows(model, batch), states)


def probe(model: Any) -> Batch:
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
