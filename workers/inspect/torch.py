"""Which torch is installed, and what it can train on."""

from __future__ import annotations

from typing import Any

import torch


def inspect() -> dict[str, Any]:
    """Returns `version`, `cuda` (the version it was built for, or None) and `gpus` (their names)."""
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {"version": str(torch.__version__), "cuda": torch.version.cuda, "gpus": gpus}
