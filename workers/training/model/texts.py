"""What a model's folder says of its texts, without its weights: tokenizer, end tokens, context."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from workers.training.base.errors import ModelInvalid
from workers.training.model.base_model import end_ids, faults_are_the_models
from workers.training.model.shape import shape_of


class TextSide(NamedTuple):
    """Holds what of `BaseModel` needs no weights."""

    tokenizer: Any
    end_ids: tuple[int, ...]
    context: int
    vocabulary: int


def read_texts(folder: Path) -> TextSide:
    """Reads a model folder; nothing outside it is read and no code in it is run. Raises `ModelInvalid`."""
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    with faults_are_the_models(f"The model folder '{folder.name}' cannot be loaded"):
        tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
        config = AutoConfig.from_pretrained(folder, **offline)
        if (folder / "generation_config.json").is_file():
            generation = GenerationConfig.from_pretrained(folder, **offline)
        else:
            generation = GenerationConfig.from_model_config(config)
        if tokenizer.chat_template is None:
            raise ModelInvalid(f"The model '{folder.name}' has no chat template.")
        vocabulary = int(config.get_text_config(decoder=True).vocab_size)
        return TextSide(
            tokenizer, end_ids(generation, tokenizer), shape_of(config, tokenizer).context, vocabulary
        )
