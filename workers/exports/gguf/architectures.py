"""Which architectures are written, and what llama.cpp must be told of each.

llama.cpp's code of an architecture is fixed: what a config sets otherwise than that code computes is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGUFWriter, RopeScalingType
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from workers.exports.gguf.refused import GgufRefused
from workers.inspect.gguf import GLOBAL_EVERY, SIZED_SCALE

SILU, GELU = "silu", "gelu_pytorch_tanh"
SCALINGS = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Architecture:
    """Says how an architecture is written.

    Attributes:
        turns_pairs: its queries and keys are rotated as pairs of neighbours, not of halves.
        norms_add_one: its norms multiply by one more than their weights say.
        activation: what its MLP must use.
    """

    kind: MODEL_ARCH
    turns_pairs: bool = False
    norms_add_one: bool = False
    activation: str = SILU

    @property
    def name(self) -> str:
        """Returns what llama.cpp calls it."""
        return MODEL_ARCH_NAMES[self.kind]


ARCHITECTURES: Mapping[str, Architecture] = {
    "llama": Architecture(MODEL_ARCH.LLAMA, turns_pairs=True),
    "mistral": Architecture(MODEL_ARCH.LLAMA, turns_pairs=True),
    "qwen2": Architecture(MODEL_ARCH.QWEN2),
    "qwen3": Architecture(MODEL_ARCH.QWEN3),
    "gemma": Architecture(MODEL_ARCH.GEMMA, norms_add_one=True, activation=GELU),
    "gemma2": Architecture(MODEL_ARCH.GEMMA2, norms_add_one=True, activation=GELU),
    "gemma3_text": Architecture(MODEL_ARCH.GEMMA3, norms_add_one=True, activation=GELU),
}
"""By `model_type`. Each is held to transformers' logits by tests/workers/exports/gguf/test_llama.py."""


def architecture_of(config: Any) -> Architecture:
    """Returns how the model of a config is written. Raises `GgufRefused` with what cannot be."""
    found = ARCHITECTURES.get(config.model_type)
    if found is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise GgufRefused(
            f"A model of the type '{config.model_type}' is not written as GGUF; written are {known}."
        )
    if faults := [fault for check in CHECKS if (fault := check(config, found))]:
        raise GgufRefused(
            f"llama.cpp would compute this {config.model_type} model otherwise: {'; '.join(faults)}."
        )
    return found


def _activation_fault(config: Any, architecture: Architecture) -> str | None:
    name = getattr(config, "hidden_activation", None) or config.hidden_act
    return (
        None if name == architecture.activation else f"its MLP uses '{name}', not '{architecture.activation}'"
    )


def _rope_fault(config: Any, _: Architecture) -> str | None:
    for layers, parameters in _ropes(config).items():
        kind = parameters.get("rope_type", "default")
        if kind not in (SCALINGS if layers == "full_attention" else SCALINGS[:1]):
            return f"its positions are scaled by '{kind}'"
        if parameters.get("partial_rotary_factor", 1.0) != 1.0:
            return "only a part of each head is rotated"
    return None


def _window_fault(config: Any, architecture: Architecture) -> str | None:
    period = GLOBAL_EVERY.get(architecture.name)
    kinds = list(getattr(config, "layer_types", None) or [])
    if period is not None:
        asked = [
            "full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(len(kinds))
        ]
        return (
            None
            if kinds == asked
            else f"not every {period}th of its layers, and no other, attends to everything"
        )
    window = getattr(config, "sliding_window", None)
    uses = "sliding_attention" in kinds or (config.model_type == "mistral" and window is not None)
    if uses and window < config.max_position_embeddings:
        return f"its attention ends after a window of {window} tokens"
    return None


def _scale_fault(config: Any, architecture: Architecture) -> str | None:
    scalar = getattr(config, "query_pre_attn_scalar", None)
    if scalar is None:
        return None
    is_sized = config.num_hidden_layers == SIZED_SCALE[architecture.name]
    usual = config.hidden_size / config.num_attention_heads if is_sized else head_size(config)
    return None if scalar == usual else f"its scores are divided by the root of {scalar}, not of {usual:g}"


def _bidirectional_fault(config: Any, _: Architecture) -> str | None:
    return "it attends to both sides" if getattr(config, "use_bidirectional_attention", None) else None


CHECKS: tuple[Callable[[Any, Architecture], str | None], ...] = (
    _activation_fault,
    _rope_fault,
    _window_fault,
    _scale_fault,
    _bidirectional_fault,
)


def head_size(config: Any) -> int:
    """Returns the width of an attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def add_config(writer: GGUFWriter, config: Any) -> None:
    """Writes what llama.cpp must know of a config that `architecture_of` takes."""
    head = head_size(config)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_rope_dimension_count(head)
    _add_rope(writer, config)
    if writer.arch in GLOBAL_EVERY:
        writer.add_sliding_window(config.sliding_window)
    for name, add in (
        ("attn_logit_softcapping", writer.add_attn_logit_softcapping),
        ("final_logit_softcapping", writer.add_final_logit_softcapping),
    ):
        if (cap := getattr(config, name, None)) is not None:
            add(cap)


def rope_factors(config: Any) -> torch.Tensor | None:
    """Returns by what each frequency of a head is divided, for configs whose frequencies differ in that."""
    parameters = _ropes(config)["full_attention"]
    if parameters.get("rope_type") != "llama3":
        return None
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    steps = torch.arange(0, head_size(config), 2, dtype=torch.float64) / head_size(config)
    return (float(parameters["rope_theta"]) ** -steps / scaled.double()).float()


def _ropes(config: Any) -> dict[str, dict[str, Any]]:
    """Returns the parameters of rotation by the kind of layer."""
    parameters = dict(config.rope_parameters or {})
    if "full_attention" in parameters:
        return {kind: dict(of or {}) for kind, of in parameters.items() if isinstance(of, dict)}
    return {"full_attention": parameters}


def _add_rope(writer: GGUFWriter, config: Any) -> None:
    ropes = _ropes(config)
    of_all = ropes["full_attention"]
    writer.add_rope_freq_base(of_all["rope_theta"])
    if of_all.get("rope_type") == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(of_all["factor"])
    if "sliding_attention" in ropes:
        writer.add_rope_freq_base_swa(ropes["sliding_attention"]["rope_theta"])
