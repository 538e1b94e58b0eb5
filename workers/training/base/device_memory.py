"""What a process may still take of its GPU's memory: the one place that asks."""

from __future__ import annotations

import torch

_shares: dict[torch.device, float] = {}


def limit_share(device: torch.device, share: float) -> None:
    """Lets this process take at most `share` of the whole memory of a GPU, a number up to 1.

    PyTorch's allocator raises `torch.OutOfMemoryError` above it. On a CPU nothing is limited.
    """
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(share, device)
        _shares[device] = share


def free_bytes(device: torch.device) -> int | None:
    """Returns what this process may still allocate on a GPU, in bytes; None on a CPU.

    That is what the driver has free and what PyTorch holds without use, within the process's share.
    """
    if device.type != "cuda":
        return None
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    unused = torch.cuda.memory_reserved(device) - allocated
    return max(0, min(free + unused, int(_shares.get(device, 1.0) * total) - allocated))
