"""Whether transformers knows a model folder's config and tokenizer, and what its chat template renders.

A template is a program. Whoever asks sets limits of time and memory for it, since it may never end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from methods.model_files.configs import TEMPLATE, TOKENIZER_CONFIG

FROM_HERE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
ASKED = "Say the word cherry."
USER = {"role": "user", "content": ASKED}
MAX_RENDERED = 2**20
"""Characters that a template may make of one short question; the longest published ones add 10,000."""
ALSO_TRIED: tuple[dict[str, Any], ...] = (
    {"conversation": [{"role": "system", "content": "Be brief."}, USER]},
    {"conversation": [USER, {"role": "assistant", "content": "cherry"}]},
    {"conversation": [USER], "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
)
"""Conversations that a template may refuse, but must come to an end with."""


def inspect(folder: str) -> dict[str, Any]:
    """Returns `fault`: the file that cannot be used and why, or None."""
    return {"fault": _config_fault(folder) or _tokenizer_fault(folder)}


def _config_fault(folder: str) -> str | None:
    try:
        config = AutoConfig.from_pretrained(folder, **FROM_HERE)
    except Exception as problem:  # the values are whatever somebody has written
        return f"config.json is none that transformers can read: {_said(problem)}"
    mappings = (AutoModelForCausalLM._model_mapping, AutoModelForImageTextToText._model_mapping)
    if not any(type(config) in mapping for mapping in mappings):
        return f"config.json says '{config.model_type}', which is no causal language model"
    return None


def _tokenizer_fault(folder: str) -> str | None:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **FROM_HERE)
    except MemoryError:
        raise
    except Exception as problem:
        return f"the tokenizer (tokenizer.json) cannot be loaded: {_said(problem)}"
    if not tokenizer.chat_template:
        return "the tokenizer has no chat template"
    fault = _template_fault(tokenizer)
    place = TEMPLATE if Path(folder, TEMPLATE).is_file() else TOKENIZER_CONFIG
    return fault and f"the chat template ({place}) {fault}"


def _template_fault(tokenizer: Any) -> str | None:
    try:
        rendered = tokenizer.apply_chat_template([USER], tokenize=False, add_generation_prompt=True)
    except MemoryError:
        raise
    except Exception as problem:  # a template is a program of its own and may fail in any way
        return f"does not render a user's message: {_said(problem)}"
    for conversation in ALSO_TRIED:
        _rendered_or_refused(tokenizer, **conversation)
    return _text_fault(rendered)


def _rendered_or_refused(tokenizer: Any, **conversation: Any) -> None:
    try:
        tokenizer.apply_chat_template(**conversation, tokenize=False)
    except MemoryError:
        raise
    except Exception:  # it says no to this conversation
        return


def _text_fault(rendered: str) -> str | None:
    if len(rendered) > MAX_RENDERED:
        return f"makes {len(rendered):,} characters of a short question"
    if ASKED not in rendered:
        return "renders a user's message without its text"
    return None


def _said(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return f"{type(problem).__name__}: {lines[0][:300] if lines else 'it says nothing'}"
