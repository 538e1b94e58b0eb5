"""The handed cases of models: each trains, and says what is special about it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.families.listed import BUILT_IN, Family, make_model
from scripts.families.trial import reinforce
from tests.shared_data import SHARED
from workers.inspect.engine import inspect
from workers.training.model.shape import read_shape

KINDS = ("model-config-names", "model-families-refused", "model-moe-lora", "model-window-is-no-context")

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore:.*_pattern keys did not match:RuntimeWarning"),  # PEFT
]


def cases() -> Iterator[Any]:
    for kind in KINDS:
        path = SHARED / "cases" / "models" / f"{kind}.json"
        handed = json.loads(path.read_text())["cases"] if path.exists() else []
        for i, case in enumerate(handed):
            yield pytest.param(kind, case["model"], id=f"{kind}-{i}")


def folder_of(model: dict[str, Any], folder: Path) -> Path:
    if "config_class" in model:
        import transformers

        kind = getattr(transformers, model["config_class"]).model_type
        family = Family(kind, kind, "", (), model["config"] | {"initializer_range": 0.2})
        return make_model(family, folder)
    shutil.copytree(BUILT_IN, folder)
    config = json.loads((folder / "config.json").read_text())
    edit = model["edit"]["config.json"]
    if isinstance(edit, str):
        del config[edit.removeprefix("remove ")]
    else:
        config |= edit
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_the_cases_are_there() -> None:
    if not (SHARED / "cases" / "models").is_dir():
        pytest.skip("no cases/models in the shared data (set CHERRY_SHARED to its folder)")
    assert len(list(cases())) >= 10


@pytest.mark.parametrize(("kind", "model"), list(cases()))
def test_a_handed_model_is_accepted_and_trains(kind: str, model: dict[str, Any], tmp_path: Path) -> None:
    folder = folder_of(model, tmp_path / "model")
    found = inspect(str(folder))
    assert (found["fault"], found["untried"]) == (None, None)
    trained = reinforce(folder, "lora", tmp_path / "run")
    assert trained["apart"] < 1e-4
    if kind == "model-moe-lora":
        assert trained["adapted"]["experts"][0] > 0
        assert any("LoRA adapts" in note for note in trained["notes"])
    if kind == "model-window-is-no-context":
        assert read_shape(folder).context == 1024
