"""Whether transformers knows a model folder's config and tokenizer, and what its chat template can show.

A template is a program. Whoever asks sets limits of time and memory for it, since it may never end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
)

from methods.model_files.configs import TEMPLATE, TOKENIZER_CONFIG
from workers.training.rendering.ends import template_end_ids
from workers.training.rendering.family import family_of
from workers.training.rendering.gaps import cannot_show
from workers.training.rendering.template import template_of
from workers.training.rendering.vocabulary import vocabulary_of

FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
ASKED = "Say the word cherry."
USER = {"role": "user", "content": ASKED}
MAX_RENDERED = 2**20
"""Characters that a template may make of one short question; the longest published ones add 10,000."""


def inspect(folder: str) -> dict[str, Any]:
    """Returns `fault`, the file that cannot be used and why, or None; `cannot_show`: its templates' gaps."""
    if fault := _config_fault(folder):
        return _refused(fault)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **FROM_HERE)
    except MemoryError:
        raise
    except Exception as problem:
        return _refused(f"the tokenizer (tokenizer.json) cannot be loaded: {_said(problem)}")
    if not tokenizer.chat_template:
        return _refused("the tokenizer has no chat template")
    if fault := _template_fault(tokenizer):
        place = TEMPLATE if Path(folder, TEMPLATE).is_file() else TOKENIZER_CONFIG
        return _refused(f"the chat template ({place}) {fault}")
    if fault := _vocabulary_fault(tokenizer, folder):
        return _refused(fault)
    return {
        "fault": None,
        "cannot_show": cannot_show(tokenizer),
        "family": family_of(tokenizer)._asdict(),
    }


def _refused(fault: str) -> dict[str, Any]:
    return {"fault": fault, "cannot_show": [], "family": None}


def _config_fault(folder: str) -> str | None:
    try:
        config = AutoConfig.from_pretrained(folder, **FROM_HERE)
    except Exception as problem:  # the values are whatever somebody has written
        return f"config.json is none that transformers can read: {_said(problem)}"
    mappings = (AutoModelForCausalLM._model_mapping, AutoModelForImageTextToText._model_mapping)
    if not any(type(config) in mapping for mapping in mappings):
        return f"config.json says '{config.model_type}', which is no causal language model"
    return None


def _template_fault(tokenizer: Any) -> str | None:
    try:
        template = template_of(tokenizer, None)
        rendered = template.render(template.trial(USER), is_open=True)
    except MemoryError:
        raise
    except Exception as problem:  # a template is a program of its own and may fail in any way
        return f"does not render a user's message: {_said(problem)}"
    if len(rendered) > MAX_RENDERED:
        return f"makes {len(rendered):,} characters of a short question"
    if ASKED not in rendered:
        return "renders a user's message without its text"
    return None


def _vocabulary_fault(tokenizer: Any, folder: str) -> str | None:
    """Says so if a conversation of a question and an answer takes a token that the model does not know."""
    vocabulary = vocabulary_of(AutoConfig.from_pretrained(folder, **FROM_HERE))
    template = template_of(tokenizer, None)
    tokens = template.tokens(template.render(template.trial(USER), is_open=True))
    used = {*tokens, tokenizer.eos_token_id, *template_end_ids(tokenizer), *_configured_ends(folder)}
    beyond = sorted(token for token in used - {None} if vocabulary is not None and token >= vocabulary)
    if not beyond:
        return None
    name = tokenizer.convert_ids_to_tokens(beyond[0]) if beyond[0] < len(tokenizer) else "?"
    return (
        f"the tokenizer is of another model: its conversations take the token {name!r} ({beyond[0]}), and the"
        f" model has embedding rows for {vocabulary:,} tokens"
    )


def _configured_ends(folder: str) -> set[int]:
    """Returns the ids that the generation config ends texts with; none without one."""
    try:
        ends = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    except Exception:  # it may be missing, and says nothing about the tokenizer then
        return set()
    return set(ends if isinstance(ends, list) else [ends])


def _said(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0][:300] if lines else 'it says nothing'}"
