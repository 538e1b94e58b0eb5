"""What a job's wish for more or less thinking means to a model: variables of its template, or a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from methods.auto import EFFORT_SHARES
from workers.training.rendering.parts import PartsReader, reader_of
from workers.training.rendering.template import ASKED, rendered_or_none, template_of, with_variables
from workers.training.rendering.variables import (
    OFFERED,
    SWITCHES,
    efforts,
    thinking_switches,
    variables_read,
)

DEFAULT = "default"
_WORDS_OF_HIGH = ("high", "xhigh", "max")
"""How templates call the most effort: Qwen3.8 knows low, medium and xhigh."""


class VariableUnknown(ValueError):
    """Says that a chat template reads no variable of this name, or that it is not the job's to set."""


class Thinking(NamedTuple):
    """Says how a model is told to think.

    Attributes:
        variables: what its chat template is rendered with.
        thinks: whether its completions then begin with thoughts.
        budget_share: the share of a completion that is left to thoughts; None where the template sees to the
            effort, and where none was asked for.
        told: what was made of the wish, as a sentence; "" without one.
        is_void: nothing could be made of it.
    """

    variables: dict[str, Any]
    thinks: bool
    budget_share: float | None = None
    told: str = ""
    is_void: bool = False


def thinking_of(
    tokenizer: Any, effort: str = DEFAULT, budget: int | None = None, given: Mapping[str, Any] | None = None
) -> Thinking:
    """Returns what `reasoning_effort`, `max_thinking_tokens` and `template_kwargs` mean to a model.

    Raises `VariableUnknown`.
    """
    given = dict(given or {})
    if not tokenizer.chat_template:  # it is told when a row is rendered
        return Thinking(given, thinks=False)
    _check_known(tokenizer, given)
    reader = reader_of(tokenizer)
    if reader is None or not reader.may_think:
        told = "" if effort == DEFAULT and budget is None else _nothing_to_set(effort)
        return Thinking(given, thinks=False, told=told, is_void=bool(told))
    variables = {**_wished(tokenizer, effort, budget, given), **given}
    is_templates = bool(variables.keys() - given.keys() - set(SWITCHES))
    thinks = _begins_with_thoughts(reader, with_variables(tokenizer, variables))
    is_bounded = effort != DEFAULT and budget is None and not is_templates
    share = EFFORT_SHARES[effort] if is_bounded else None
    return Thinking(variables, thinks, share, _told(effort, budget, variables, share))


def _check_known(tokenizer: Any, given: Mapping[str, Any]) -> None:
    read = variables_read(template_of(tokenizer, None).text) - OFFERED
    for name in given:
        if name not in read:
            known = ", ".join(sorted(read)) or "none"
            raise VariableUnknown(
                f"The model's chat template reads no variable '{name[:60]}' that a job may set."
                f" It reads: {known}."
            )


def _wished(tokenizer: Any, effort: str, budget: int | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the variables by which a template is asked for an effort, or told not to think."""
    text = template_of(tokenizer, None).text
    switches = dict.fromkeys(_switches(tokenizer), budget != 0)
    if budget == 0:
        return switches if _renders(tokenizer, {**given, **switches}) else {}
    if effort == DEFAULT:
        return {}
    words = _WORDS_OF_HIGH if effort == "high" else (effort,)
    for word in words:
        found = {name: word if value == effort else value for name, value in efforts(text, effort).items()}
        if _renders(tokenizer, {**given, **switches, **found}):
            return {**switches, **found}
    return switches if _renders(tokenizer, {**given, **switches}) else {}


def _switches(tokenizer: Any) -> list[str]:
    """Returns the variables that turn thoughts on or off, as far as the prompt shows that they do."""
    named = thinking_switches(template_of(tokenizer, None).text)
    return [
        name
        for name in named
        if _prompt(with_variables(tokenizer, {name: True}))
        != _prompt(with_variables(tokenizer, {name: False}))
    ]


def _renders(tokenizer: Any, variables: Mapping[str, Any]) -> bool:
    return _prompt(with_variables(tokenizer, variables)) is not None


def _prompt(tokenizer: Any) -> str | None:
    template = template_of(tokenizer, None)
    return rendered_or_none(template, template.trial({"role": "user", "content": ASKED}))


def _begins_with_thoughts(reader: PartsReader, tokenizer: Any) -> bool:
    """Whether the template lets the model think: its prompt does not close thoughts, or switch them off."""
    prompt = _prompt(tokenizer)
    if prompt is None or reader.marks is None or reader.marks.start(prompt) == "answer":
        return False
    if reader.marks.start(prompt) == "thoughts":
        return True
    switches = _switches(tokenizer)
    off = _prompt(_also(tokenizer, dict.fromkeys(switches, False)))
    on = _prompt(_also(tokenizer, dict.fromkeys(switches, True)))
    return not switches or prompt != off or off == on


def _also(tokenizer: Any, variables: Mapping[str, Any]) -> Any:
    return with_variables(tokenizer, {**dict(template_of(tokenizer, None).variables), **variables})


def _nothing_to_set(effort: str) -> str:
    wish = "max_thinking_tokens" if effort == DEFAULT else "reasoning_effort"
    return f"{wish} changes nothing: the model's chat template shows no thoughts."


def _told(effort: str, budget: int | None, variables: Mapping[str, Any], share: float | None) -> str:
    said = [f"{name}={value!r}" for name, value in sorted(variables.items())]
    parts = [f"its chat template is given {', '.join(said)}"] if said else []
    if share is not None:
        parts.append(f"thoughts get {share:.0%} of max_completion_tokens")
    if budget is not None:
        parts.append(f"thoughts are closed after {budget:,} tokens")
    wish = "" if effort == DEFAULT else f" for the reasoning effort '{effort}'"
    return f"How the model thinks{wish}: {'; '.join(parts)}." if parts else ""
