"""What a config says of a model's size, whatever it calls it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoConfig

from workers.training.model.shape import WITHOUT_LIMIT, Shape, read_shape, shape_of

NANO = Path(__file__).parents[4] / "workers" / "models" / "cherry_nano"
ENDLESS = SimpleNamespace(model_max_length=int(1e30))


@pytest.mark.parametrize(
    ("family", "given", "expected"),
    [
        pytest.param("gpt2", {"n_embd": 64, "n_positions": 512, "n_head": 4}, Shape(64, 512), id="old-names"),
        pytest.param("mpt", {"d_model": 64, "max_seq_len": 512, "n_heads": 4}, Shape(64, 512), id="mpt"),
        pytest.param("llama", {"hidden_size": 64}, Shape(64, 2048), id="class-default"),
        pytest.param(
            "mistral",
            {"hidden_size": 64, "sliding_window": 64, "max_position_embeddings": 1024},
            Shape(64, 1024),
            id="a-window-is-no-limit",
        ),
        pytest.param(
            "mistral3",
            {"text_config": {"model_type": "mistral", "hidden_size": 64, "max_position_embeddings": 512}},
            Shape(64, 512),
            id="text-part",
        ),
        pytest.param("mamba", {"hidden_size": 64}, Shape(64, WITHOUT_LIMIT), id="no-limit"),
    ],
)
def test_a_configs_class_knows_names_and_defaults(family: str, given: Any, expected: Shape) -> None:
    assert shape_of(AutoConfig.for_model(family, **given), ENDLESS) == expected


def test_where_the_config_has_no_limit_the_tokenizers_holds() -> None:
    config = AutoConfig.for_model("bloom", hidden_size=64)
    assert shape_of(config, SimpleNamespace(model_max_length=777)) == Shape(64, 777)


def test_a_config_that_leaves_positions_out_is_read(tmp_path: Path) -> None:
    folder = shutil.copytree(NANO, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    del config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps(config))
    assert read_shape(folder) == Shape(256, 2048)
