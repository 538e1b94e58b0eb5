"""Tells that CPU kernels have yet to be compiled, where a run is the first of its version on a machine."""

from __future__ import annotations

import torch

COMPILES = (
    "Compiling the CPU kernels, once for each version on a machine: 10 to 20 s on one free core. The first"
    " step takes so much longer."
)


def will_compile(device: torch.device) -> bool:
    """Tells whether no kernel has been compiled yet that a run on this device would use."""
    if device.type != "cpu":
        return False
    from workers.training.kernels import machine_code_folder

    folder = machine_code_folder()
    return folder is None or next(folder.rglob("*.nbi"), None) is None
