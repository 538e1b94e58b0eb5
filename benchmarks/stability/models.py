"""Where the models lie that the grid trains."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from benchmarks.stability.datasets import ENDS, ModelName

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("CHERRY_SHARED", ROOT.parent / "shared"))
"""Where `models/stories260k` lies, which is not in the repository."""


class ModelMissing(Exception):
    """A model that the plan needs is not on this machine."""


def source_of(name: ModelName) -> Path:
    """Returns the folder of a model as it came. Raises `ModelMissing`."""
    folders = {
        "nano": ROOT / "workers" / "models" / "cherry_nano",
        "stories": SHARED / "models" / "stories260k",
        "smollm2": Path(os.environ.get("SMOLLM2_MODEL", SHARED / "models" / "smollm2-135m")),
    }
    folder = folders[name]
    if not (folder / "config.json").exists():
        raise ModelMissing(
            f"There is no model in {folder}. CHERRY_SHARED names the folder of shared models,"
            " SMOLLM2_MODEL that of SmolLM2-135M-Instruct."
        )
    return folder


class Models:
    """The model folders, each made once: stories end with a sentence, as the others end with a turn."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder_of(self, name: ModelName) -> Path:
        """Returns the folder that runs train. Raises `ModelMissing`."""
        source = source_of(name)
        if name != "stories":
            return source
        folder = self._folder / "stories260k-sentences"
        if not folder.exists():
            folder.mkdir(parents=True)
            for file in source.iterdir():
                shutil.copyfile(file, folder / file.name)
            _end_with(folder, ENDS)
        return folder


def _end_with(folder: Path, texts: tuple[str, ...]) -> None:
    """Adds the tokens of these texts to those that end an answer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    path = folder / "generation_config.json"
    facts = json.loads(path.read_text())
    facts["eos_token_id"] += [tokenizer.convert_tokens_to_ids(text) for text in texts]
    path.write_text(json.dumps(facts))
