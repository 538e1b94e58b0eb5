"""What headers and config of a model folder say of its size at a glance, with no library that knows more."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from methods.model_files.configs import CONFIG
from methods.model_files.weights import WeightsInvalid, stored_tensors, weight_files

POSITIONS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""What configs call the positions that a model has; their classes know further names and defaults."""
INNER = "text_config"


class Glance(NamedTuple):
    """Holds the numbers of all weights together, and the context; None where it is not said."""

    parameters: int
    context: int | None


def at_a_glance(folder: Path) -> Glance | None:
    """Returns what is to be seen; None of a folder that is not here, or whose files do not hold."""
    try:
        files = weight_files(folder)
        shapes = [tensor.shape for file in files for tensor in stored_tensors(file).values()]
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except (OSError, ValueError, KeyError, WeightsInvalid):
        return None
    return Glance(sum(map(math.prod, shapes)), _context(config))


def _context(config: Any) -> int | None:
    if not isinstance(config, dict):
        return None
    inner = config.get(INNER)
    parts = [config, inner if isinstance(inner, dict) else {}]
    said = (part.get(name) for part in parts for name in POSITIONS)
    return next((value for value in said if isinstance(value, int)), None)
