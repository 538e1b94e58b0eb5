"""The parts of a causal model: what comes before its output layer."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel


def decoder_of(model: Any) -> Any:
    """Returns the decoder of a causal model: what makes states of tokens.

    Transformers finds it by names that some families use for something else (Llama 4, ModernBERT's decoder).
    """
    found = model.get_decoder()
    is_one = isinstance(found, PreTrainedModel) and found is not model
    return found if is_one else model.model


def decoder_name(model: Any) -> str:
    """Returns the name that the decoder has among the model's modules."""
    decoder = decoder_of(model)
    return next(str(name) for name, module in model.named_modules() if module is decoder)
