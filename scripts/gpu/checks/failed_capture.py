"""`python -m scripts.gpu.checks.failed_capture DEVICE`: is all well after a capture that fails?

It is made as the sampler makes it (sampling/graphed/graphs.py): the stream has to be the one of before, and
what is freed has to go back to the driver. On a CPU the device made of CPU memory stands in.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import torch

from scripts.gpu.as_if_cuda import as_if_cuda
from scripts.gpu.checks.warned import show_warnings
from workers.training.sampling.graphed.graphs import CudaGraph, Graphs

NUMBERS = 1 << 26


def main(device: str) -> int:
    """Prints what happens; returns 1 if the capture does not fail or something is not as before, else 0."""
    show_warnings()
    with as_if_cuda() if device == "cpu" else nullcontext():
        x = torch.ones(1024, device="cuda")
        stream, free = torch.cuda.current_stream(), free_now()
        graphs = Graphs(CudaGraph)

        def look() -> torch.Tensor:
            return x * float((x * 2).sum())

        is_refused = graphs.of(look) is look and not graphs.is_on
        has_stream = torch.cuda.current_stream() == stream
        held = torch.ones(NUMBERS, device="cuda")
        del held
        lost = free - free_now()
        total = float(Graphs(CudaGraph).of(lambda: x * 3)().sum())
        print(f"refused: {is_refused}; stream as before: {has_stream}; lost: {lost / 2**20:,.0f} MiB of 256")
        print("captured again:", total)
    return int(not is_refused or not has_stream or lost > 64 * 2**20 or total != 3 * 1024)


def free_now() -> int:
    """Returns the driver's free bytes when all that is unused was given back to it."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return free


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
