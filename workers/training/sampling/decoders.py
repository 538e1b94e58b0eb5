"""The ways of decoding, each with the cache that goes with it, and which of them a model gets."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from workers.training.model.parts import decoder_of
from workers.training.passes.path import shortest_window, why_general
from workers.training.sampling.decode_attention import decode, layer_shapes, prefill
from workers.training.sampling.decode_step import ActiveRows, exact_step
from workers.training.sampling.general_decoder import GeneralDecoder, bytes_kept
from workers.training.sampling.graphed import gpu_decoder
from workers.training.sampling.graphed.graphs import CudaGraph
from workers.training.sampling.graphed.sampler import StepFunction
from workers.training.sampling.lean_decoder import LeanDecoder, can_be_lean, is_known, linears
from workers.training.sampling.slot_cache import SlotCache
from workers.training.sampling.static_decoder import StaticDecoder
from workers.training.sampling.trials import LENGTHS, SAMPLES, STEPS, is_right

if TYPE_CHECKING:
    from workers.training.sampling.panel_cache import PanelCache

COMPILED_FROM = 16
"""Tokens that a call may sample from which copying the weights into panels pays. Measured with
cherry-nano: the copy takes 8 to 16 ms, and a step of one row 2 ms instead of 7, so it pays from 3 tokens;
more was chosen for models whose copy is dearer (docs/benchmarks.md).
"""

COMPILED_BYTES = 256 << 20
"""The largest weights that are decoded by compiled kernels in several threads, times the threads, which each
read all of them. Chosen, not measured: about what the processor's last cache holds.
"""
COMPILED_BYTES_ALONE = 1 << 30
"""The same in one thread, which reads them from memory as fast as memory gives them. Measured on a model of
538 MB: a step of 1 row takes 16 ms, one of 8 rows 21 (docs/benchmarks.md). Chosen as for the lean decoder.
"""

LEAN_FROM = 16
"""Completions in a call from which copying the weights for the lean decoder pays. Measured with
cherry-nano: the copy takes 12 to 23 ms, and a step 3 to 4 ms less, so it pays from 4 to 6 steps; completions
stand for steps (docs/benchmarks.md).
"""

DECODES = "cherry_decodes"
"""The attribute of a model that keeps whether the fast path decodes it rightly; its copies have it too."""

STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embedding in which a position's rotation does not depend on the length of the sequence."""


class CacheSize(NamedTuple):
    """Says what a cache is to hold."""

    groups: int
    prompt_columns: int
    slots: int
    columns: int
    """Tokens of a completion, at first."""
    most_columns: int
    """Tokens of the longest completion."""


Decode = Callable[[ActiveRows, Tensor], Tensor]
"""Reads the last tokens (B,) of active completions and returns the logits of the next, (B, V)."""

Decoder = tuple["SlotCache | PanelCache | GeneralDecoder", Decode]
"""A cache, and what decodes over it. On the general path both are one."""

MakeDecoder = Callable[[Any, CacheSize, int, int], Decoder]
"""(model, size, samples of each prompt, completions in the call) -> a decoder for this call."""


def make_decoder(model: Any, size: CacheSize, samples: int, n_completions: int) -> Decoder:
    """Chooses the fastest way of decoding that the model and its device allow."""
    if not is_fast(model, size.prompt_columns + size.most_columns):
        return general(model, size, samples, n_completions)
    if n_completions * size.most_columns >= COMPILED_FROM and can_be_compiled(model):
        return compiled(model, size, samples, n_completions)
    if model.device.type == "cuda":
        return static(model, size, samples, n_completions)
    if n_completions >= LEAN_FROM and can_be_lean(model):
        return lean(model, size, samples, n_completions)
    return by_modules(model, size, samples, n_completions)


def general(model: Any, size: CacheSize, samples: int, _n_completions: int) -> Decoder:
    """Decodes by the model's own forward and cache; for every model, and windows of any length."""
    decoder = GeneralDecoder(model, size.groups, size.slots, samples)
    return decoder, decoder


def is_fast(model: Any, reach: int) -> bool:
    """Says whether the fast path's caches hold all that the model keeps of what it has read."""
    if why_general(model, reach) is not None:
        return False
    if not hasattr(model, DECODES):
        setattr(model, DECODES, is_known(model) or _decodes(model))
    found: bool = getattr(model, DECODES)
    return found


def _decodes(model: Any) -> bool:
    n, longest = len(LENGTHS), max(LENGTHS)
    window = shortest_window(model)
    if window is not None and window < longest + STEPS:
        return True  # a trial would need the general path; shorter sequences are what it was made for
    cache = slot_cache(model, CacheSize(n, longest, n * SAMPLES, STEPS, STEPS))
    return is_right(
        model,
        lambda ids, lengths: prefill(model, cache, 0, ids, lengths),
        lambda active, ids: decode(model, cache, exact_step(active, ids)),
    )


def bytes_of_group(model: Any, samples: int, longest_prompt: int, most_columns: int) -> int:
    """Returns what a cache holds of one prompt and its completions, at most.

    On the fast path twice as many prompts as completions need at first: groups share slots while their last
    ones go on. On the general path every completion has a copy of its prompt's.
    """
    longest = longest_prompt + most_columns
    if not is_fast(model, longest):
        always, each = bytes_kept(model)
        return max(1, samples * (always + longest * each))
    layers, like = layer_shapes(model, model.device)
    per_token = sum(layer.numbers for layer in layers) * like.element_size()
    return (min(samples, 2) * longest_prompt + samples * most_columns) * per_token


def compiled(model: Any, size: CacheSize, _samples: int, _n_completions: int) -> Decoder:
    """Decodes by one compiled call a step; for models that `can_be_compiled`."""
    from workers.training.sampling.compiled_decoder import CompiledDecoder
    from workers.training.sampling.panel_cache import PanelCache

    layers, _ = layer_shapes(model, model.device)
    cache = PanelCache(
        layers,
        groups=size.groups,
        prompt_columns=size.prompt_columns,
        slots=size.slots,
        columns=size.most_columns,
    )
    return cache, CompiledDecoder(model, cache, size.prompt_columns + size.most_columns)


def static(model: Any, size: CacheSize, samples: int, _n_completions: int) -> Decoder:
    """Decodes over static tensors of few sizes, as CUDA graphs where there is a GPU."""
    cache = slot_cache(model, size)
    capture = CudaGraph if model.device.type == "cuda" else None
    return cache, StaticDecoder(model, cache, samples, capture, step_function(model).decode)


def step_function(model: Any) -> StepFunction:
    """Returns what computes a model's decode steps over static tensors: kernels of our own on a GPU."""
    on_gpu = model.device.type == "cuda"
    return StepFunction(gpu_decoder.step_function(model) if on_gpu else partial(decode, model))


def lean(model: Any, size: CacheSize, _samples: int, _n_completions: int) -> Decoder:
    """Decodes over merged weights; for models that `can_be_lean`."""
    cache, decoder = slot_cache(model, size), LeanDecoder(model)
    return cache, lambda active, ids: decoder.decode(cache, exact_step(active, ids))


def by_modules(model: Any, size: CacheSize, _samples: int, _n_completions: int) -> Decoder:
    """Decodes by the model's own modules; for every model."""
    cache = slot_cache(model, size)
    return cache, lambda active, ids: decode(model, cache, exact_step(active, ids))


def slot_cache(model: Any, size: CacheSize) -> SlotCache:
    """Returns what all but the compiled decoder read."""
    return SlotCache(
        *layer_shapes(model, model.device),
        groups=size.groups,
        prompt_columns=size.prompt_columns,
        slots=size.slots,
        columns=size.columns,
    )


def can_be_compiled(model: Any, most_bytes: int | None = None) -> bool:
    """Says whether the kernels do all that this model does, in fp32, and its weights are few enough."""
    if not is_known(model):
        return False
    threads = torch.get_num_threads()
    most = most_bytes or (COMPILED_BYTES // threads if threads > 1 else COMPILED_BYTES_ALONE)
    decoder, head = decoder_of(model), model.get_output_embeddings()
    weights = [*decoder.parameters(), head.weight]
    others = [linear for layer in decoder.layers for linear in linears(layer)[3:]]
    return (
        all(tensor.dtype == torch.float32 for tensor in weights)
        and sum(tensor.nbytes for tensor in weights) <= most
        and all(linear.bias is None for linear in (*others, head))
        and decoder.config.hidden_act == "silu"
        and decoder.config.rope_parameters["rope_type"] in STATIC_ROPE
    )
