"""Rows become token ids, by the model's own chat template; what is learned of them is marked.

A template need not say which tokens are the assistant's. So a conversation is rendered up to each assistant
message and again with it: what is new is the completion, with the token that ends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from methods.rows import Row
from methods.tuning_rows import learned_messages
from workers.training.base.errors import OutOfContext, PromptInvalid
from workers.training.base.types import Prompt
from workers.training.prompts import as_template_message


@dataclass(frozen=True)
class Example:
    """Is one sequence to learn from.

    Attributes:
        tokens: the whole of it.
        is_learned: for each token, whether the loss counts it. Never the first one.
        n_prompt: tokens before the last completion that is learned.
        row: 0-based index of its row.
    """

    tokens: tuple[int, ...]
    is_learned: tuple[bool, ...]
    n_prompt: int
    row: int


@dataclass(frozen=True)
class Pair:
    """Is two completions of one prompt. `chosen` and `rejected` are the completions' tokens alone."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    row: int

    @property
    def n_tokens(self) -> int:
        """Counts what the model reads for it: the prompt twice."""
        return 2 * len(self.prompt) + len(self.chosen) + len(self.rejected)


class _Rendered(NamedTuple):
    """Is a rendered conversation that ends with a completion, which begins at `start`."""

    tokens: list[int]
    start: int


def make_examples(rows: Sequence[Row], tokenizer: Any, context: int, name: str) -> list[Example]:
    """Tokenises chat rows. `name` ("training", "validation") says in errors which file a line is in.

    A row is one example, unless the template renders an earlier completion differently once the conversation
    goes on (some drop its reasoning): then each of its completions is one. Raises `PromptInvalid`,
    `OutOfContext`.
    """
    examples = []
    for i, row in enumerate(rows):
        tools = _tools(row.item)
        found = [
            _render(tokenizer, row.item["messages"][: place + 1], tools, row, name)
            for place in learned_messages(row.item)
        ]
        for example in _joined(found, i):
            _check_length(len(example.tokens), context, row, name)
            examples.append(example)
    return examples


def make_pairs(rows: Sequence[Row], tokenizer: Any, context: int, name: str) -> list[Pair]:
    """Tokenises preference rows. Raises `PromptInvalid`, `OutOfContext`."""
    pairs = []
    for i, row in enumerate(rows):
        given = row.item["input"]
        both = [
            _render(tokenizer, [*given["messages"], *row.item[output]], _tools(given), row, name)
            for output in ("preferred_output", "non_preferred_output")
        ]
        start = min(rendered.start for rendered in both)
        chosen, rejected = (tuple(rendered.tokens[start:]) for rendered in both)
        if chosen == rejected:
            raise PromptInvalid(
                f"The chat template makes one text of both outputs of the {name} row on line {row.line}."
            )
        _check_length(max(len(rendered.tokens) for rendered in both), context, row, name)
        pairs.append(Pair(tuple(both[0].tokens[:start]), chosen, rejected, i))
    return pairs


def probe_prompts(examples: Sequence[Example] | Sequence[Pair]) -> list[Prompt]:
    """Returns the prompts on which a model's distance from its start is measured: each row's last, once."""
    prompts = {}
    for example in examples:
        tokens = example.prompt if isinstance(example, Pair) else example.tokens[: example.n_prompt]
        prompts[example.row] = Prompt(row=example.row, item={}, tokens=tuple(tokens))
    return list(prompts.values())


def _joined(renderings: Sequence[_Rendered], row: int) -> Iterator[Example]:
    """Yields one example of renderings that each continue the one before; else one for each of them."""
    whole = renderings[-1].tokens
    if all(whole[: len(each.tokens)] == each.tokens for each in renderings):
        is_learned = [False] * len(whole)
        for each in renderings:
            is_learned[each.start : len(each.tokens)] = [True] * (len(each.tokens) - each.start)
        yield Example(tuple(whole), tuple(is_learned), renderings[-1].start, row)
        return
    for each in renderings:
        is_learned = [i >= each.start for i in range(len(each.tokens))]
        yield Example(tuple(each.tokens), tuple(is_learned), each.start, row)


def _render(
    tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any, row: Row, name: str
) -> _Rendered:
    """Renders a conversation with its last message, the completion, and notes where that starts."""
    plain = [_plain(message) for message in messages]
    options = {"tools": tools, "tokenize": True, "return_dict": False}
    try:
        prompt = tokenizer.apply_chat_template(plain[:-1], add_generation_prompt=True, **options)
        whole = tokenizer.apply_chat_template(plain, **options)
    except Exception as error:  # a template is a program of its own and may refuse a row in any way
        message = f"The model's chat template refused the {name} row on line {row.line}: {error}"
        raise PromptInvalid(message) from error
    start = _common_length(prompt, whole)
    if start == 0 or start == len(whole):
        problem = "no prompt" if start == 0 else "no answer"
        raise PromptInvalid(
            f"The model's chat template makes {problem} of the {name} row on line {row.line}."
        )
    return _Rendered(whole, start)


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a message as open models' templates know it: no weight, and tools for functions of old."""
    kept = {key: value for key, value in message.items() if key not in ("weight", "function_call")}
    if message["role"] == "function":
        kept["role"] = "tool"
    if call := message.get("function_call"):
        kept["tool_calls"] = [{"type": "function", "function": call}]
    return as_template_message(kept)


def _tools(item: Mapping[str, Any]) -> list[Any] | None:
    functions = [{"type": "function", "function": function} for function in item.get("functions") or ()]
    return [*(item.get("tools") or ()), *functions] or None


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length


def _check_length(n_tokens: int, context: int, row: Row, name: str) -> None:
    if n_tokens > context:
        raise OutOfContext(
            f"The {name} row on line {row.line} is too long: it has {n_tokens:,} tokens with its answer, and"
            f" the model holds {context:,}."
        )
