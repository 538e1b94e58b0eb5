"""Rows become token ids, by the model's own chat template; what is learned of them is marked.

A template need not say which tokens are the assistant's. So a conversation is rendered up to each assistant
message and again with it: what is new is the completion, with the token that ends it. A template that ends
answers with none gets one put behind them, so that the model learns to stop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from methods.rows import Row
from methods.tuning_rows import learned_messages
from workers.training.base.types import Prompt
from workers.training.rendering.conversation import Conversation, conversation
from workers.training.rendering.ends import Ends, ends_of
from workers.training.rendering.losses import Losses, losses, unsaid
from workers.training.rendering.parts import reader_of
from workers.training.rendering.template import Template, template_of
from workers.training.rendering.thought_marks import ThoughtMarks, opening_tag
from workers.training.rendering.vocabulary import special_tokens
from workers.training.row_faults import RowDoubt, RowFaults

NO_THOUGHTS_KNOWN = (
    "stand behind {tag} in the text of the answer, and the model's chat template knows no thoughts. The model"
    " learns to write them, but chats show them in the answer, and max_thinking_tokens cannot close them."
    " Add the model with a template that writes thoughts (`cherry models add --template`), and they are told."
)
THOUGHTS_TWICE = (
    "stand behind {tag} in the text of the answer, and the model's chat template opens thoughts before it"
    " too. What is learned so cannot be taken apart: give thoughts as reasoning_content."
)


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

    @property
    def n_longer(self) -> int:
        """Counts the tokens of the prompt with its longer completion."""
        return len(self.prompt) + max(len(self.chosen), len(self.rejected))


class _Rendered(NamedTuple):
    """A rendered conversation that ends with an answer, which begins at `start`.

    `problem` says what the template makes of it that nobody can learn from; else it is "". `unlike` is how
    the prompt ends that the model gets when it is asked, if the conversation does not go on from there; else
    it is "". `untold` says why thoughts in the answer's text will not be told from it; else it is "".
    """

    tokens: list[int]
    start: int
    problem: str
    lost: Losses
    unlike: str
    untold: str


class RenderedExamples(NamedTuple):
    """Holds a file's examples, and what the template leaves out that models are used to be without."""

    examples: list[Example]
    doubts: list[RowDoubt]


class RenderedPairs(NamedTuple):
    """Holds a file's pairs, and what the template leaves out that models are used to be without."""

    pairs: list[Pair]
    doubts: list[RowDoubt]


def make_examples(
    rows: Sequence[Row], tokenizer: Any, context: int, name: str, vocabulary: int | None = None
) -> list[Example]:
    """Tokenises chat rows. `name` ("training", "validation") says in errors which file a line is in.

    A row is one example, unless the template renders an earlier answer differently once the conversation goes
    on (some drop its reasoning): then each of its answers is one. Raises `PromptInvalid` and `OutOfContext`,
    which name all rows that have the fault. `vocabulary` is how many tokens the model has embedding rows for,
    where that is known.
    """
    return render_examples(rows, tokenizer, context, name, vocabulary).examples


def make_pairs(
    rows: Sequence[Row], tokenizer: Any, context: int, name: str, vocabulary: int | None = None
) -> list[Pair]:
    """Tokenises preference rows. Raises `PromptInvalid` and `OutOfContext`, as `make_examples` does."""
    return render_pairs(rows, tokenizer, context, name, vocabulary).pairs


def render_examples(
    rows: Sequence[Row], tokenizer: Any, context: int, name: str, vocabulary: int | None = None
) -> RenderedExamples:
    """Tokenises chat rows as `make_examples` does, and tells what is doubtful about them."""
    examples = []
    faults = RowFaults(name, len(rows))
    renderer = _Renderer(tokenizer)
    for i, row in enumerate(rows):
        learned = learned_messages(row.item)
        talks = [conversation(row.item, row.item["messages"][: place + 1]) for place in learned]
        found = _rendered(renderer, row, talks, learned, faults)
        for example in _joined(found, i) if found else ():
            faults.check_ids(row, example.tokens, tokenizer, vocabulary)
            if len(example.tokens) > context:
                faults.too_long(row, len(example.tokens))
            examples.append(example)
    faults.check(_length_told(context))
    return RenderedExamples(examples, faults.doubts())


def render_pairs(
    rows: Sequence[Row], tokenizer: Any, context: int, name: str, vocabulary: int | None = None
) -> RenderedPairs:
    """Tokenises preference rows as `make_pairs` does, and tells what is doubtful about them."""
    pairs = []
    faults = RowFaults(name, len(rows))
    renderer = _Renderer(tokenizer)
    for i, row in enumerate(rows):
        given = row.item["input"]
        outputs = (row.item["preferred_output"], row.item["non_preferred_output"])
        talks = [conversation(given, [*given["messages"], *output]) for output in outputs]
        both = _rendered(renderer, row, talks, (), faults)
        if not both:
            continue
        start = min(rendered.start for rendered in both)
        chosen, rejected = (tuple(rendered.tokens[start:]) for rendered in both)
        if chosen == rejected:
            faults.empty(row, "one text of both outputs")
            continue
        for rendered in both:
            faults.check_ids(row, rendered.tokens, tokenizer, vocabulary)
        longest = max(len(rendered.tokens) for rendered in both)
        if longest > context:
            faults.too_long(row, longest)
        pairs.append(Pair(tuple(both[0].tokens[:start]), chosen, rejected, i))
    faults.check(_length_told(context))
    return RenderedPairs(pairs, faults.doubts())


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


def _rendered(
    renderer: _Renderer, row: Row, talks: Sequence[Conversation], learned: Collection[int], faults: RowFaults
) -> list[_Rendered]:
    """Renders the conversations of a row, or notes what is wrong with them and returns nothing."""
    found = faults.attempt(row, lambda: [renderer.render(talk, learned) for talk in talks]) or []
    if problem := next((each.problem for each in found if each.problem), ""):
        faults.empty(row, problem)
        return []
    for each in found:
        faults.note(row, each.lost)
        faults.note_unlike(row, each.unlike)
        faults.note_untold(row, each.untold)
    return found


class _Renderer:
    """Renders conversations that end with an answer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ends: dict[Template, Ends] = {}
        self._special = frozenset(special_tokens(tokenizer).values())

    def render(self, talk: Conversation, learned: Collection[int]) -> _Rendered:
        """Renders a conversation whose last message is the answer. Raises what the template raises."""
        template = template_of(self._tokenizer, talk.tools)
        prompt_text = template.render(talk.prompt, is_open=True)
        text = template.render(talk, is_open=False)
        prompt, whole = template.tokens(prompt_text), template.tokens(text)
        start = _common_length(prompt, whole)
        problem = _problem(talk, start, len(whole))
        lost = losses(template, talk, learned)
        if not problem and (what := _unsaid(template, talk, prompt_text, text)):
            lost = Losses((*lost.grave, what), lost.mild)
        unlike = "" if text.startswith(prompt_text) else prompt_text[_common_length(prompt_text, text) :]
        ended, untold = self._ended(template, talk, whole, start), self._untold(template, talk, text)
        return _Rendered(ended, start, problem, lost, unlike, untold)

    def _untold(self, template: Template, talk: Conversation, text: str) -> str:
        """Says why thoughts that stand between tags in the answer's text will not be told from it."""
        tag = opening_tag(talk.messages[-1]["content"])
        if not tag:
            return ""
        if self._marks is None:
            return NO_THOUGHTS_KNOWN.format(tag=tag)
        before = template.render(talk.prompt, is_open=False)
        is_twice = text.count(self._marks.opening) - before.count(self._marks.opening) > 1
        return THOUGHTS_TWICE.format(tag=tag) if is_twice else ""

    @cached_property
    def _marks(self) -> ThoughtMarks | None:
        reader = reader_of(self._tokenizer)
        return None if reader is None else reader.marks

    def _ended(self, template: Template, talk: Conversation, whole: list[int], start: int) -> list[int]:
        """Returns the tokens with one that ends the answer, where the template has put none there."""
        ends = self._ends.get(template)
        if ends is None:
            ends = self._ends[template] = ends_of(template)
        usual = self._tokenizer.eos_token_id
        for token in reversed(whole[start:]):
            if token in {*ends, usual}:
                return whole
            if token not in self._special and self._tokenizer.decode(token).strip():
                break
        end = ends.after_calls if talk.messages[-1].get("tool_calls") else ends.after_answer
        end = usual if end is None else end
        return whole if end is None else [*whole, end]


def _problem(talk: Conversation, start: int, length: int) -> str:
    """Says what nobody can learn from: a model that learned silence would end at once."""
    answer = talk.messages[-1]
    if start == 0:
        return "no prompt"
    if start == length:
        return "no answer"
    is_said = answer["content"].strip() or answer.get("reasoning_content")
    return "" if is_said or answer.get("tool_calls") else "an empty answer"


def _unsaid(template: Template, talk: Conversation, prompt_text: str, text: str) -> str | None:
    """Returns what of the answer's words is not in what is new behind the prompt, if anything."""
    learned = text[_common_length(prompt_text, text) :]
    what = unsaid(talk, learned)
    if what is None:
        return None
    # a generation prompt may hold the answer's first characters, such as an opening tag
    given = template.render(talk.prompt, is_open=False)
    return unsaid(talk, text[_common_length(given, text) :])


def _common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
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
