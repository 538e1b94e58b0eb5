"""Which variables a chat template reads, and which of them say whether and how much a model thinks."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, ClassVar

from jinja2 import TemplateSyntaxError, meta
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from workers.training.rendering.template import KEPT

SWITCHES = ("enable_thinking", "thinking")
"""Turn thoughts on or off: Qwen, GLM, Gemma and Nemotron; LFM and DeepSeek."""
EFFORTS = ("reasoning_effort", "thinking_effort", "reasoning_strength")
"""Take a word for how much a model thinks: gpt-oss and Qwen3.8; others; Muse."""
FLAGS = "{effort}_effort"
"""Is true or false, for one effort: Nemotron 3 Super has `low_effort`, Ultra `medium_effort`."""
OFFERED = frozenset(("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"))
"""Variables that a template is given in any case, so that nobody else may set them."""


class _Generation(Extension):
    """Reads `{% generation %}`, which marks what the assistant has written, as if it were not there."""

    tags: ClassVar = {"generation"}

    def parse(self, parser: Parser) -> Node | list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=KEPT)
def variables_read(template: str) -> frozenset[str]:
    """Returns the names that a chat template reads and does not always set itself."""
    environment = ImmutableSandboxedEnvironment(extensions=[_Generation, loopcontrols])
    try:
        return frozenset(meta.find_undeclared_variables(environment.parse(template)))
    except TemplateSyntaxError:  # it is told when a row is rendered
        return frozenset()


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
