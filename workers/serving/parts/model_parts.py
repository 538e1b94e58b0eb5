"""What is known of a model's thoughts and tool calls, by its chat template."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from workers.serving.parts.call_syntax import CallSyntax, call_syntax
from workers.training.rendering.parts import PartsReader, reader_of
from workers.training.rendering.response_templates import call_tag_of


@dataclass(frozen=True, eq=False)
class ModelParts:
    """Holds it.

    Attributes:
        reader: what takes completions apart.
        call_tag: what tool calls begin with; "" where that is not known.
        syntax: how calls are written; None where no completion can be held to them.
    """

    reader: PartsReader
    call_tag: str
    syntax: CallSyntax | None


def parts_of(tokenizer: Any, end_ids: Collection[int]) -> ModelParts | None:
    """Returns what is known of a tokenizer's model; None where it has neither thoughts nor calls."""
    reader = reader_of(tokenizer, end_ids)
    if reader is None:
        return None
    if not reader.calls_tools:
        return ModelParts(reader, "", None)
    has_header = reader.marks is not None and bool(reader.marks.header)  # a call has another than an answer
    syntax = None if has_header else call_syntax(tokenizer)
    lead = "" if syntax is None else syntax.lead.strip()
    return ModelParts(reader, call_tag_of(tokenizer) or lead, syntax)
