"""Lets a run on a GPU use only operations that give the same bits each time (`deterministic` of a job).

Several operations of CUDA add numbers up in the order in which threads happen to come (atomics). PyTorch
knows slower ones for most of them; for the rest it raises. On a CPU all that a run uses is deterministic.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from workers.training.base.errors import NotDeterministic

WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""cuBLAS's workspace of a fixed size, without which its sums may differ from call to call. It counts where it
is set before CUDA is used; PyTorch refuses matrix products without it."""
MISSING = " does not have a deterministic implementation"


@contextmanager
def deterministic(wanted: bool, device: torch.device) -> Iterator[None]:
    """Allows no other operations while the block runs, if that is wanted and it runs on a GPU.

    Raises `NotDeterministic` out of the block where one was used that has no such implementation.
    """
    if not wanted or device.type != "cuda":
        yield
        return
    os.environ.update(WORKSPACE)
    with only_deterministic():
        yield


@contextmanager
def only_deterministic() -> Iterator[None]:
    """Does as `deterministic`, wherever the block runs."""
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        yield
    except RuntimeError as problem:
        operation, missing, _ = str(problem).partition(MISSING)
        if not missing:
            raise
        raise NotDeterministic(operation.strip()) from problem
    finally:
        torch.use_deterministic_algorithms(before[0])
        cudnn.deterministic, cudnn.benchmark = before[1:]
