"""The chat templates of some forty published models, as TRL brings them, each with a tokenizer of bytes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import trl
from transformers import PreTrainedTokenizerFast

from tests.tiny_model import byte_tokenizer

_FOLDER = Path(trl.__file__).parent / "chat_templates"
TEMPLATES = {
    path.stem: path.read_text("utf-8")
    for path in sorted(_FOLDER.glob("*.jinja"))
    if not path.stem.endswith("_training")
}
_SPECIAL = re.compile(
    r"<[|｜][^<>|｜'\"\s{}]{1,40}[|｜]?>|<[a-z_]+\|>|<(?:end_of_turn|start_of_turn|/s|end_of_utterance)>"
)


@cache
def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    """Returns a tokenizer of bytes with a template and the special tokens that it writes."""
    template = TEMPLATES[name]
    tokenizer = byte_tokenizer(template)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(_SPECIAL.findall(template)))})
    return tokenizer
