"""`python -m scripts.gpu.checks.failed_capture DEVICE`: is all well after a capture that fails?

On a CPU the device made of CPU memory stands in.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import torch

from scripts.gpu.as_if_cuda import as_if_cuda

NUMBERS = 1 << 24


def main(device: str) -> int:
    """Prints what happens; returns 1 if the capture does not fail or nothing works after it, else 0."""
    with as_if_cuda() if device == "cpu" else nullcontext():
        x = torch.ones(1024, device="cuda")
        if not _is_refused(x):
            print("a host read in a capture was not refused")
            return 1
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.ones(NUMBERS, device="cuda").sum().item()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            y = x * 3
        graph.replay()
        total = float(y.sum())
        print("captures again:", total)
    return int(total != 3 * 1024)


def _is_refused(x: torch.Tensor) -> bool:
    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
            (x * 2).sum().item()
    except RuntimeError as error:
        print("refused as expected:", str(error).splitlines()[0][:120])
        return True
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
