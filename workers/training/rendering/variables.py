"""Which variables a chat template reads, and which of them say whether and how much a model thinks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jinja2 import meta, nodes
from transformers.utils.chat_template_utils import _compile_jinja_template

from workers.training.rendering.template import KEPT

SWITCHES = ("enable_thinking", "thinking")
"""Turn thoughts on or off: Qwen, GLM, Gemma and Nemotron; LFM and DeepSeek."""
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")
"""Take a word for how much a model thinks: gpt-oss and Qwen3.8; others; Muse."""
FLAGS = "{effort}_effort"
"""Is true or false, for one effort: Nemotron 3 Super has `low_effort`, Ultra `medium_effort`."""
ASKED_FOR = ("defined", "undefined", "none")
"""Tests by which a template asks whether it was given something."""
DEFAULTED = ("default", "d")
"""Filters by which it does."""
OFFERED = frozenset(("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"))
"""Variables that a template is given in any case, so that nobody else may set them."""


@lru_cache(maxsize=KEPT)
def variables_read(template: str) -> frozenset[str]:
    """Returns the names that a chat template reads of what it is given.

    One that it sets itself is read where it asks for it first (`if date_string is not defined`).
    """
    environment = _compile_jinja_template(template).environment
    tree = environment.parse(template)
    own = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "store"}
    asking = [each for each in tree.find_all(nodes.Test) if each.name in ASKED_FOR]
    asking += [each for each in tree.find_all(nodes.Filter) if each.name in DEFAULTED]
    own -= {each.node.name for each in asking if isinstance(each.node, nodes.Name)}
    found: set[str] = meta.find_undeclared_variables(tree)
    return frozenset(found - set(environment.globals) - own)


def thinking_switches(template: str) -> list[str]:
    """Returns the variables by which a chat template turns thoughts on or off."""
    read = variables_read(template)
    return [name for name in SWITCHES if name in read]


def efforts(template: str, effort: str) -> dict[str, Any]:
    """Returns the variables that ask a template for an effort, and their values; none where it has none."""
    read = variables_read(template)
    words: dict[str, Any] = {name: effort for name in EFFORTS if name in read}
    flag = FLAGS.format(effort=effort)
    return words or ({flag: True} if flag in read else {})
