"""What a generation config says of decoding: by which answers differ from those that training samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GENERATION_CONFIG = "generation_config.json"
OTHER_DECODING: dict[str, tuple[Any, ...]] = {
    "repetition_penalty": (None, 1.0),
    "encoder_repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "bad_words_ids": (None, []),
    "sequence_bias": (None, {}, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "exponential_decay_length_penalty": (None,),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "num_beams": (None, 1),
    "guidance_scale": (None, 1.0),
}
"""Fields of a generation config by which greedy answers differ from the most likely tokens, and the values
with which they do not (generation/configuration_utils.py of transformers).
"""
OTHER_SAMPLING = (
    "min_p",
    "top_h",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "penalty_alpha",
    "dola_layers",
)
"""Further fields that leave some tokens out of what is drawn from, or choose in another way."""


def as_trained(said: Mapping[str, Any], temperature: float) -> dict[str, Any]:
    """Returns a generation config that draws from the whole distribution, as training does.

    What it says of special tokens and lengths stays. Without the three numbers `transformers` draws from the
    50 likeliest tokens, and its server takes the likeliest.
    """
    kept = {name: each for name, each in said.items() if name not in (*OTHER_DECODING, *OTHER_SAMPLING)}
    return {**kept, "do_sample": True, "temperature": temperature, "top_p": 1.0, "top_k": 0}
