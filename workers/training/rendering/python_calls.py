"""Tool calls that are written as Python has them, `[add(x=1, y="a, b")]`, read by Python's own parser.

The response template that trl 1.16.0 has for LFM 2.5 takes a comma or a bracket in a text for the end of an
argument (findings/trl-lfm-commas-become-arguments.sh).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from workers.training.base.parts import ToolCall

_KEY = r"(?P<key>\w+)="
_TAG = re.compile(r"<\\\|\w+\\\|>")
_NAMES = {"true": True, "false": False, "null": None}
"""Values of JSON by names that are none of Python's."""


class PythonTags(NamedTuple):
    """Says between which tags a list of calls stands."""

    opening: str
    closing: str


def python_tags_of(template: Mapping[str, Any], call_tag: str) -> PythonTags | None:
    """Returns the tags of a response template whose calls are written as Python; None of any other."""
    calls = template["fields"].get("tool_calls") or {}
    pattern = (calls.get("content_args") or {}).get("tag_pattern", "")
    closing = _TAG.search(calls.get("close_pattern", ""))
    if not call_tag or closing is None or not pattern.startswith(_KEY):
        return None
    return PythonTags(call_tag, closing.group().replace("\\", ""))


def python_calls(text: str) -> list[ToolCall]:
    """Returns the calls of a list. Raises `ValueError` with the reason for everything else."""
    try:
        tree = _parsed(text.strip())
        calls = tree.elts if isinstance(tree, ast.List) else [tree]
        return [_call(each) for each in calls]
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(getattr(error, "msg", "it is nested too deep")) from None


def _parsed(text: str) -> ast.expr:
    """Returns the expression; texts may run over several lines, as the template writes them."""
    try:
        return ast.parse(text, mode="eval").body
    except SyntaxError:
        if "\n" not in text:
            raise
        return ast.parse(text.replace("\n", "\\n"), mode="eval").body


def _call(node: ast.expr) -> ToolCall:
    if not isinstance(node, ast.Call) or node.args or any(each.arg is None for each in node.keywords):
        raise ValueError("it is no call by keywords")
    return ToolCall(ast.unparse(node.func), {str(each.arg): _value(each.value) for each in node.keywords})


def _value(node: ast.expr) -> Any:
    return ast.literal_eval(_WithoutNames().visit(node))


class _WithoutNames(ast.NodeTransformer):
    """Puts values for the names that JSON has for them."""

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.copy_location(ast.Constant(_NAMES[node.id]), node) if node.id in _NAMES else node
