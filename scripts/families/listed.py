"""The families that are tried, and the tiny random models and rows they are tried with."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

SCRIPTS = Path(__file__).parents[1]
LIST = SCRIPTS / "families.toml"
BUILT_IN = SCRIPTS.parent / "workers" / "models" / "cherry_nano"

VOCABULARY = 1280
"""Of the built-in model's tokenizer, which every tiny model has."""
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
}


class Family(NamedTuple):
    """Is one entry of the list."""

    name: str
    type: str
    released: str
    models: tuple[str, ...]
    config: Mapping[str, Any]
    template: str | None = None


def families() -> list[Family]:
    """Returns the list, in its order."""
    entries = tomllib.loads(LIST.read_text())["family"]
    return [
        Family(
            entry["name"],
            entry["type"],
            entry["released"],
            tuple(entry["models"]),
            entry.get("config", {}),
            entry.get("template"),
        )
        for entry in entries
    ]


def gaps(family: Family) -> list[str] | None:
    """Returns what the family's original template cannot show; None where trl has none of it."""
    if family.template is None:
        return None
    import trl
    from transformers import AutoTokenizer

    from workers.training.rendering.gaps import cannot_show

    tokenizer: Any = AutoTokenizer.from_pretrained(BUILT_IN)
    folder = Path(trl.__file__).parent / "chat_templates"
    tokenizer.chat_template = (folder / f"{family.template}.jinja").read_text()
    return cannot_show(tokenizer)


def make_model(family: Family, folder: Path) -> Path:
    """Writes a tiny random model of a family, with the built-in model's tokenizer and template."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(BUILT_IN)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    special["bos_token_id"] = special["eos_token_id"]
    sizes = SIZES | special
    given = dict(family.config)
    text = given.pop("text_config", None)
    if text is not None:
        config = AutoConfig.for_model(family.type, text_config=sizes | text, **given)
    else:
        config = AutoConfig.for_model(family.type, **(sizes | given))
    torch.manual_seed(0)
    model: Any = loader(config).from_config(config)
    model.generation_config.eos_token_id = special["eos_token_id"]
    model.generation_config.pad_token_id = special["pad_token_id"]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def loader(config: Any) -> Any:
    """Returns the auto class that the engine loads such a model with."""
    from workers.training.model.base_model import auto_class

    return auto_class(config)


def rows(method: str, n: int = 4) -> list[Any]:
    """Returns some short rows of a method."""
    from methods.rows import Row

    words = ("Say cherry.", "Name the city of the person in question, please.", "Count.", "What is it?")
    return [Row(i + 1, _item(method, words[i % len(words)])) for i in range(n)]


def _item(method: str, text: str) -> dict[str, Any]:
    asked = [{"role": "user", "content": text}]
    answer = [{"role": "assistant", "content": f"{text} Yes."}]
    if method == "supervised":
        return {"messages": asked + answer}
    if method == "dpo":
        refused = [{"role": "assistant", "content": "No."}]
        return {"input": {"messages": asked}, "preferred_output": answer, "non_preferred_output": refused}
    return {"messages": asked, "answer": text}
