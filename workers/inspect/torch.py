"""Which torch is installed, and what it can train on."""

from __future__ import annotations

from typing import Any

import torch


def inspect() -> dict[str, Any]:
    """Returns `version`, `cuda` (the version it was built for, or None) and `gpus` (how many it finds).

    Asking for more of a GPU than whether it is there would open a context on it.
    """
    gpus = torch.cuda.device_count()
    return {"version": str(torch.__version__), "cuda": torch.version.cuda, "gpus": gpus}
