"""One case: a workload on a model, with the settings that both sides share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoTokenizer

from benchmarks.engine.workloads import Workload, make_rows
from methods.rows import Row

LORA_RANK = 16
LORA_ALPHA = 32.0
BETA = 0.04
CLIP_LOW, CLIP_HIGH = 0.2, 0.27
MAX_GRAD_NORM = 1.0

Adapter = Literal["lora", "full"]
Dtype = Literal["float32", "bfloat16"]
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Setup:
    """Everything both sides are given.

    Attributes:
        folder: the model's.
        steps: steps each side makes.
    """

    workload: Workload
    model: str
    folder: str
    adapter: Adapter
    dtype: Dtype
    device: Device
    steps: int
    seed: int = 1

    @property
    def learning_rate(self) -> float:
        """Full fine-tunes take a tenth of the adapter's rate."""
        return self.workload.learning_rate * (1.0 if self.adapter == "lora" else 0.1)

    def rows(self) -> list[Row]:
        return make_rows(self.workload, AutoTokenizer.from_pretrained(self.folder))

    def rows_of_step(self, rows: Sequence[Row], step: int) -> list[int]:
        """Indices of a step's prompts: in order, over and over."""
        P = self.workload.prompts
        return [(step * P + i) % len(rows) for i in range(P)]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Setup:
        facts: dict[str, Any] = json.loads(text)
        return cls(**{**facts, "workload": Workload(**facts["workload"])})

    def never_an_end(self, tokenizer: Any) -> int:
        """An id past the vocabulary: as an end token it is looked for and never met."""
        config = json.loads((Path(self.folder) / "config.json").read_text())
        return max(int(config["vocab_size"]), len(tokenizer))
