"""Rows become token ids, by the model's own chat template; what is learned of them is marked.

A template need not say which tokens are the assistant's. So a conversation is rendered up to each assistant
message and again with it: what is new is the completion, with the token that ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from methods.rows import Row
from methods.tuning_rows import learned_messages
from workers.training.base.types import Prompt
from workers.training.prompts import as_template_message
from workers.training.row_faults import RowFaults


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
    """A rendered conversation that ends with an answer, which begins at `start`.

    `problem` says what the template makes of it that nobody can learn from; else it is "".
    """

    tokens: list[int]
    start: int
    problem: str


def make_examples(rows: Sequence[Row], tokenizer: Any, context: int, name: str) -> list[Example]:
    """Tokenises chat rows. `name` ("training", "validation") says in errors which file a line is in.

    A row is one example, unless the template renders an earlier answer differently once the conversation goes
    on (some drop its reasoning): then each of its answers is one. Raises `PromptInvalid` and `OutOfContext`,
    which name all rows that have the fault.
    """
    examples = []
    faults = RowFaults(name, len(rows))
    for i, row in enumerate(rows):
        tools = _tools(row.item)
        try:
            found = [
                _render(tokenizer, row.item["messages"][: place + 1], tools)
                for place in learned_messages(row.item)
            ]
        except MemoryError:
            raise
        except Exception as error:  # a template is a program of its own and may refuse a row in any way
            faults.refused(row, error)
            continue
        if problem := next((each.problem for each in found if each.problem), ""):
            faults.empty(row, problem)
            continue
        for example in _joined(found, i):
            if len(example.tokens) > context:
                faults.too_long(row, len(example.tokens))
            examples.append(example)
    faults.check(_length_told(context))
    return examples


def make_pairs(rows: Sequence[Row], tokenizer: Any, context: int, name: str) -> list[Pair]:
    """Tokenises preference rows. Raises `PromptInvalid` and `OutOfContext`, as `make_examples` does."""
    pairs = []
    faults = RowFaults(name, len(rows))
    for i, row in enumerate(rows):
        given = row.item["input"]
        try:
            both = [
                _render(tokenizer, [*given["messages"], *row.item[output]], _tools(given))
                for output in ("preferred_output", "non_preferred_output")
            ]
        except MemoryError:
            raise
        except Exception as error:  # a template is a program of its own and may refuse a row in any way
            faults.refused(row, error)
            continue
        start = min(rendered.start for rendered in both)
        chosen, rejected = (tuple(rendered.tokens[start:]) for rendered in both)
        problem = next((each.problem for each in both if each.problem), "")
        if problem or chosen == rejected:
            faults.empty(row, problem or "one text of both outputs")
            continue
        longest = max(len(rendered.tokens) for rendered in both)
        if longest > context:
            faults.too_long(row, longest)
        pairs.append(Pair(tuple(both[0].tokens[:start]), chosen, rejected, i))
    faults.check(_length_told(context))
    return pairs


def offered_tools(rows: Sequence[Row], method: str) -> list[tuple[list[dict[str, Any]], list[Any]]]:
    """Returns the prompts of rows that offer tools, as templates know them, with their tools."""
    found = []
    for row in rows:
        given = row.item["input"] if method == "dpo" else row.item
        if tools := _tools(given):
            last = learned_messages(row.item)[-1] if method == "supervised" else len(given["messages"])
            found.append(([_plain(message) for message in given["messages"][:last]], tools))
    return found


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


def _render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], tools: Any) -> _Rendered:
    """Renders a conversation whose last message is the answer. Raises what the template raises."""
    plain = [_plain(message) for message in messages]
    options = {"tools": tools, "tokenize": True, "return_dict": False}
    prompt = tokenizer.apply_chat_template(plain[:-1], add_generation_prompt=True, **options)
    whole = tokenizer.apply_chat_template(plain, **options)
    start = _common_length(prompt, whole)
    problem = ""
    if start == 0:
        problem = "no prompt"
    elif start == len(whole):
        problem = "no answer"
    elif _is_silence(tokenizer, whole[start:], plain, options, whole):
        problem = "an empty answer"
        if plain[-1].get("tool_calls"):
            problem += " (it shows no tool calls)"
    return _Rendered(whole, start, problem)


def _is_silence(
    tokenizer: Any, answer: Sequence[int], messages: list[dict[str, Any]], options: Any, whole: Sequence[int]
) -> bool:
    """Whether an answer says nothing: a model would learn from it to end at once.

    Its text is blank, or, where a template ends answers with a text, the same as that of an empty message.
    """
    if not tokenizer.decode(answer, skip_special_tokens=True).strip():
        return True
    last = messages[-1]
    if last["content"].strip() and not last.get("tool_calls"):
        return False
    silent = {"role": last["role"], "content": ""}
    try:
        return bool(tokenizer.apply_chat_template([*messages[:-1], silent], **options) == whole)
    except MemoryError:
        raise
    except Exception:  # a template that refuses silence does not make it of this message
        return False


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


def _length_told(context: int) -> Callable[[str, int], str]:
    return lambda whose, n: (
        f"{whose} conversation has {n:,} tokens with its answer, and the model holds {context:,}"
    )
