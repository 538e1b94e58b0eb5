"""What a request wishes of a model's thoughts, and what that means to its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from app.errors import BadRequest
from workers.serving.wire import ChatTemplateOptions
from workers.training.rendering.template import with_variables
from workers.training.rendering.thinking import DEFAULT, VariableUnknown, thinking_of

KEPT = 64
"""Wishes that a process remembers, with a tokenizer for each. Chosen, not measured."""
EFFORTS: Mapping[str, str] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}
"""OpenAI's words for how much a model is to think, and those that jobs have for it; "none" is no thoughts."""


class Rendering(NamedTuple):
    """Says how a request's messages are rendered, and how long its model may think.

    Attributes:
        tokenizer: with the variables that its chat template is given.
        max_thinking_tokens: the thoughts are closed behind so many tokens; None for no bound.
        budget_share: the share of a completion that thoughts may take, where the effort is a bound.
    """

    tokenizer: Any
    max_thinking_tokens: int | None
    budget_share: float | None

    def budget(self, max_tokens: int) -> int | None:
        """Returns the bound of the thoughts of a completion of at most so many tokens."""
        if self.budget_share is None:
            return self.max_thinking_tokens
        return int(self.budget_share * max_tokens)


def rendering_of(tokenizer: Any, options: ChatTemplateOptions) -> Rendering:
    """Returns how a request is rendered. Raises `BadRequest` for a wish that its model cannot fulfil."""
    effort, budget = options.reasoning_effort, options.max_thinking_tokens
    given = options.chat_template_kwargs or {}
    if effort is None and budget is None and not given:
        return Rendering(tokenizer, None, None)
    return _rendering(tokenizer, effort, budget, json.dumps(given, sort_keys=True))


@lru_cache(KEPT)
def _rendering(tokenizer: Any, effort: str | None, budget: int | None, given: str) -> Rendering:
    bound = 0 if effort == "none" else budget
    word = EFFORTS.get(effort or "", DEFAULT)
    try:
        thinking = thinking_of(tokenizer, word, bound, json.loads(given))
    except VariableUnknown as problem:
        raise BadRequest(str(problem), param="chat_template_kwargs", code="invalid_value") from None
    if thinking.is_void and word != DEFAULT:
        told = f"Unsupported parameter: {thinking.told}"
        raise BadRequest(told, param="reasoning_effort", code="unsupported_parameter")
    return Rendering(with_variables(tokenizer, thinking.variables), bound, thinking.budget_share)
