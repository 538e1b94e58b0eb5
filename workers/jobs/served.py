"""The check, as a model is published, that whoever is served by it gets what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import structlog
import torch

from workers.training.base.errors import ModelInvalid
from workers.training.base.types import ScoredText
from workers.training.model.adapter_files import NotSeparable, read_adapter
from workers.training.model.adapter_rows import AdapterRows
from workers.training.model.base_model import BaseModel, load_base
from workers.training.passes.path import why_general
from workers.training.sampling.decode_attention import layer_shapes
from workers.training.sampling.decoders import by_modules
from workers.training.sampling.scored_texts import largest_difference, read_scored

log = structlog.get_logger(__name__)

TOLERANCE, HALF_TOLERANCE = 1e-3, 0.25
"""Nats by which a token may differ, where the model is stored and computes in fp32, and where either has 16
bits. Measured: cherry-nano differs by 4e-5, a model in bf16 by up to 0.17 (docs/benchmarks.md, Sampler
against trainer); an adapter over a base in 16 bits keeps what the merged weights, as measured, have lost.
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


def check_served(folder: Path, base: Path | None, device: torch.device) -> Served | None:
    """Loads a checkpoint's model as the sampler does, and compares its log-probabilities with the trainer's.

    That is the adapter over `base`, where there is one that the sampler takes apart, or the merged model.
    Returns None where the trainer has noted none, or the model cannot be loaded beside what is there.
    """
    texts = read_scored(folder)
    if not texts:
        return None
    try:
        model, found = _difference(folder, base, device, texts)
    except (ModelInvalid, torch.OutOfMemoryError) as problem:
        log.warning("served_not_checked", problem=str(problem))
        return None
    is_exact = model.compute_dtype == model.stored_dtype == torch.float32
    return Served(found, TOLERANCE if is_exact else HALF_TOLERANCE, sum(len(text.logprobs) for text in texts))


def _difference(
    folder: Path, base: Path | None, device: torch.device, texts: Sequence[ScoredText]
) -> tuple[BaseModel, float]:
    if base is not None and (folder / "adapter").is_dir():
        model = load_base(base, device)
        with suppress(NotSeparable):
            return model, _beside_base(folder / "adapter", model, texts)
    merged = load_base(folder / "model", device)
    return merged, largest_difference(merged, texts)


def _beside_base(adapter: Path, base: BaseModel, texts: Sequence[ScoredText]) -> float:
    """Scores with an adapter that stands beside its base. Raises `NotSeparable` where it cannot."""
    if (why := why_general(base.model)) is not None:
        raise NotSeparable(why)
    rows = AdapterRows(base.model)
    rows.put(0, read_adapter(adapter, base.model))
    layer_shapes(base.model, base.device)  # it runs a row of its own, so before the adapter's are counted
    with rows.use(torch.zeros(len(texts), dtype=torch.long).numpy()):
        return largest_difference(base, texts, by_modules)


def served_warning(step: int, found: Served) -> str | None:
    """Returns what the owner of a model should know that answers otherwise than it was trained."""
    if found.served_difference <= found.served_tolerance:  # nan is not
        return None
    return (
        f"The model of step {step}, loaded as it is served, is not the one that was trained: of"
        f" {found.served_tokens} tokens one's log-probability differs by {found.served_difference:.3g} nats;"
        f" up to {found.served_tolerance:g} is rounding. Compare its answers with the job's before use."
    )
