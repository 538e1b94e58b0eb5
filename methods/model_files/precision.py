"""How many bits a number of the frozen base has, beside which an adapter is trained. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

BasePrecision = Literal["auto", "bf16", "int8", "nf4"]
QUANTISED: tuple[Literal["int8"], Literal["nf4"]] = ("int8", "nf4")
"""Of these the weights are held by bitsandbytes."""
QUANTISATION = "quantization_config.json"
"""The file beside an adapter that says how its base is quantised, for `BitsAndBytesConfig.from_dict`."""
LIBRARY, EXTRA = "bitsandbytes", "cherry-rft[quant]"
NOT_INSTALLED = (
    "base_precision '{precision}' needs the package bitsandbytes, which is not installed where this service"
    f" trains: `pip install '{EXTRA}'` there, or leave base_precision out."
)


class Refusal(NamedTuple):
    """Says which hyperparameter does not go with the precision of the base, and why."""

    name: str
    message: str


def refusal(asked: Mapping[str, Any]) -> Refusal | None:
    """Returns why a run with these hyperparameters cannot have the base precision that it asks for, if so."""
    precision = asked.get("base_precision") or "auto"
    if precision == "auto":
        return None
    if asked.get("adapter") == "full":
        return Refusal(
            "base_precision",
            f"base_precision '{precision}' is of a frozen base, and adapter 'full' trains every weight of it"
            " in fp32: leave base_precision out, or train with adapter 'lora'.",
        )
    if precision == "bf16" and asked.get("dtype") == "float32":
        return Refusal(
            "base_precision",
            "base_precision 'bf16' computes in bf16, and dtype asks for 'float32': leave one of the two out.",
        )
    if precision in QUANTISED and asked.get("sharding") == "fsdp":
        return Refusal(
            "base_precision",
            f"base_precision '{precision}' does not go with sharding 'fsdp', which splits the rows of a"
            " weight over the processes, while quantised numbers lie in blocks with common scales: leave"
            " sharding out. Every process then holds the whole quantised base, and they share each step.",
        )
    return None


def is_quantised(config: Mapping[str, Any] | None) -> bool:
    """Says whether the base of a stored config has 4- or 8-bit weights; configs of 0.1.0 do not say it."""
    return config is not None and config.get("base_precision") in QUANTISED


def is_installed() -> bool:
    """Says whether this Python has bitsandbytes; it is not imported."""
    return find_spec(LIBRARY) is not None


def trains_here() -> bool:
    """Says whether this Python could train at all: the API may run where there is no torch."""
    return find_spec("torch") is not None
