"""The engine's trial of a model's config, before anybody starts a job with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from workers.inspect.engine import inspect

NANO = Path(__file__).parents[2] / "workers" / "models" / "cherry_nano"
RIGHT = {"fault": None, "path": "fast", "reason": None, "untried": None}


def write(folder: Path, family: str, **config: Any) -> str:
    AutoConfig.for_model(family, **config).save_pretrained(folder)
    return str(folder)


def test_the_built_in_model_takes_the_fast_path() -> None:
    assert inspect(str(NANO)) == RIGHT


@pytest.mark.parametrize(
    ("family", "config", "reason"),
    [
        ("gemma2", {"hidden_size": 64, "head_dim": 8}, "capped scores"),
        ("mamba", {"hidden_size": 64}, "does not let its attention be replaced"),
        ("rwkv", {"hidden_size": 64}, "reads the whole sequence for every token"),
    ],
)
def test_the_general_path_is_told_with_its_reason(
    tmp_path: Path, family: str, config: dict[str, Any], reason: str
) -> None:
    found = inspect(write(tmp_path, family, **config))
    assert (found["fault"], found["path"], found["untried"]) == (None, "general", None)
    assert reason in found["reason"]


def test_a_large_model_is_tried_small(tmp_path: Path) -> None:
    """Seventy billion parameters, of which the trial needs few."""
    folder = write(tmp_path, "qwen3_moe", num_hidden_layers=94, num_experts=128, hidden_size=1024)
    assert inspect(folder) == RIGHT


def test_what_is_too_large_even_so_is_not_tried(tmp_path: Path) -> None:
    folder = write(tmp_path, "llama", hidden_size=16_384, num_attention_heads=128)
    assert "too large for a trial" in inspect(folder)["untried"]


def test_values_that_no_model_can_have_are_told(tmp_path: Path) -> None:
    folder = shutil.copytree(NANO, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["num_key_value_heads"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    found = inspect(str(folder))
    assert found["fault"] is not None or found["untried"] is not None
