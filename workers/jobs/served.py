"""The check, as a model is published, that whoever is served by it gets what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import structlog
import torch

from workers.training.base.errors import ModelInvalid
from workers.training.model.base_model import load_base
from workers.training.sampling.scored_texts import largest_difference, read_scored

log = structlog.get_logger(__name__)

TOLERANCE, HALF_TOLERANCE = 1e-3, 0.25
"""Nats by which a token may differ, where the model computes in fp32 and in 16 bits. Measured: cherry-nano
differs by 4e-5, a model in bf16 by up to 0.17 (docs/benchmarks.md, Sampler against trainer).
"""


class Served(NamedTuple):
    """Says how a model answers beside what its trainer has noted.

    Attributes:
        served_difference: the largest of a token's log-probability, in nats.
        served_tolerance: up to which it is rounding.
        served_tokens: compared.
    """

    served_difference: float
    served_tolerance: float
    served_tokens: int


def check_served(folder: Path, device: torch.device) -> Served | None:
    """Loads a checkpoint's model as the sampler does, and compares its log-probabilities with the trainer's.

    Returns None where the trainer has noted none, or the model cannot be loaded beside what is there.
    """
    texts = read_scored(folder)
    if not texts:
        return None
    try:
        base = load_base(folder / "model", device)
        found = largest_difference(base, texts)
    except (ModelInvalid, torch.OutOfMemoryError) as problem:
        log.warning("served_not_checked", problem=str(problem))
        return None
    most = TOLERANCE if base.compute_dtype == torch.float32 else HALF_TOLERANCE
    return Served(found, most, sum(len(text.logprobs) for text in texts))


def served_warning(step: int, found: Served) -> str | None:
    """Returns what the owner of a model should know that answers otherwise than it was trained."""
    if found.served_difference <= found.served_tolerance:  # nan is not
        return None
    return (
        f"The model of step {step}, loaded as it is served, is not the one that was trained: of"
        f" {found.served_tokens} tokens one's log-probability differs by {found.served_difference:.3g} nats;"
        f" up to {found.served_tolerance:g} is rounding. Compare its answers with the job's before use."
    )
