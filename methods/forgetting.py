"""How much a checkpoint may have forgotten: what decides whether the guard lets it be delivered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RISE, ERROR = "canary_over_base", "canary_over_base_stderr"
"""The rise of the canary's loss over the base's and its standard error, in a checkpoint's `trust`."""
BOUND_ERRORS = 1.6448536269514722
"""Standard errors up to the one-sided 95 % bound of a normal distribution."""


def most_forgotten(measured: Mapping[str, Any]) -> float:
    """Returns the one-sided 95 % upper bound of the rise of the canary's loss, in nats per token.

    It is 0 of a checkpoint without that measurement.
    """
    return float(measured.get(RISE) or 0.0) + BOUND_ERRORS * float(measured.get(ERROR) or 0.0)
