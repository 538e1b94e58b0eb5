"""What the sampler takes of a GPU: which one, how much of its memory, and until when it keeps that."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import structlog

from app.devices.claims import Claim, claims_of
from app.devices.listing import VISIBLE, sampler_device
from app.errors import ServerError
from app.settings import Settings

if TYPE_CHECKING:
    import torch  # an idle sampler has none of it in memory

log = structlog.get_logger(__name__)

SHARED, OWN = 0.25, 0.95
"""Of a GPU's memory: where trainings use it too, and where it is the sampler's own. Chosen, not measured."""
IDLE_SECONDS = 300.0
"""How long a GPU's memory is kept without a request. Chosen, not measured: to load a model takes seconds."""


def share_of(settings: Settings) -> float:
    """Returns the most that the sampler takes of its GPU's memory, a number up to 1."""
    if settings.sampler_gpu_share != "auto":
        return settings.sampler_gpu_share
    return OWN if settings.sampler_gpu else SHARED


def idle_seconds(settings: Settings, device: torch.device) -> float:
    """Returns after how long without a request a model on that device is let go of."""
    if settings.sampler_idle != "auto":
        return settings.sampler_idle.total_seconds() or math.inf
    return IDLE_SECONDS if device.type == "cuda" else math.inf


def take_part(settings: Settings) -> list[Claim | int]:
    """Lets this process see the sampler's GPU alone, and trainings know what it takes of that.

    It is called before CUDA is used. Returns what has to be kept for as long as that is to hold.
    """
    if settings.sampler_device == "cpu":
        os.environ[VISIBLE] = ""
        return []
    device = sampler_device(settings)
    if device is None:  # the driver tells of none: torch may find one
        return []
    os.environ[VISIBLE] = device.name
    claims, kept = claims_of(settings), list[Claim | int]()
    if settings.sampler_gpu:
        held = claims.take([device], 1, "the sampler")
        if isinstance(held, Claim):
            kept.append(held)
        else:
            log.warning("sampler_gpu_is_taken", device=device.name, by=claims.holder(device))
    mark = claims.mark_sampler(device, share_of(settings))
    return kept if mark is None else [*kept, mark]


@contextmanager
def fitting(name: str, share: float) -> Iterator[None]:
    """Says, where a model does not fit into the sampler's share, what can be done. Raises `ServerError`."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as problem:
        raise ServerError(
            f"The model '{name}' does not fit into the {share:.0%} of the GPU's memory that the sampler may"
            " take (CHERRY_SAMPLER_GPU_SHARE), or not beside what runs there now. The operator can give it"
            " more, or a GPU of its own (CHERRY_SAMPLER_GPU)."
        ) from problem


def give_back() -> None:
    """Returns memory that nothing uses any more to the machine and to the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()
