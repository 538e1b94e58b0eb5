"""Makes rows of stored completions, by the format of a job's method, or says why there is none."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from workers.datasets.stored import Kept, Said

LEAST_GOOD = 0.5
"""The mean reward below which an answer is none to imitate, where the filter has no bound. Chosen: half."""
FULL_MARKS = 1.0
"""The mean reward of an answer that is its own reference."""


class Source(NamedTuple):
    """Where a part of a row came from."""

    part: str
    completion_id: str
    choice: int
    model: str
    feedback_ids: list[str]


@dataclass(frozen=True)
class Candidate:
    """A row that may come into the file.

    Attributes:
        stored_at: when the newest of its completions was stored.
        said_at: when the newest feedback was given that decided about it; None without any. Of rows with the
            same prompt the one of which something was said last stays.
    """

    row: dict[str, Any]
    sources: tuple[Source, ...]
    stored_at: datetime
    said_at: datetime | None


class LeftOut(NamedTuple):
    """Why a completion became no row."""

    completion_id: str
    reason: str


def candidates(
    format_: str, kept: Iterable[Kept], request: Mapping[str, Any]
) -> Iterator[Candidate | LeftOut]:
    """Yields a row, or the reason why there is none: for each completion, of dpo for each prompt."""
    if format_ == "dpo":
        yield from map(_preference, _by_prompt(kept))
    elif format_ == "supervised":
        least = request["filter"]["min_reward"]
        yield from (_answered(each, LEAST_GOOD if least is None else least) for each in kept)
    else:
        yield from (_asked(each, has_reference=request["references"]) for each in kept)


def _asked(kept: Kept, *, has_reference: bool) -> Candidate | LeftOut:
    """Returns a reinforcement row: what was asked, and the true answer."""
    if not has_reference:
        return _candidate(kept, {"messages": kept.messages}, 0, [])
    if (said := kept.newest("reference")) is not None:
        return _candidate(kept, _with_reference(kept, said.reference), said.choice, [said])
    if (said := kept.newest("correction")) is not None:
        return _candidate(kept, _with_reference(kept, said.correction), said.choice, [said])
    best = _best(kept)
    if best is not None and kept.reward(best) == FULL_MARKS and not _is_blank(kept.choices[best].text):
        return _candidate(kept, _with_reference(kept, kept.choices[best].text), best, _rewards(kept, best))
    return LeftOut(kept.id, "no_reference")


def _with_reference(kept: Kept, reference: Any) -> dict[str, Any]:
    return {"messages": kept.messages, "reference": reference}


def _answered(kept: Kept, least: float) -> Candidate | LeftOut:
    """Returns a supervised row: what was asked, and the correction or an answer that is good enough."""
    if (said := kept.newest("correction")) is not None:
        if _is_blank(said.correction):
            return LeftOut(kept.id, "empty")
        return _candidate(kept, _with_answer(kept, str(said.correction)), said.choice, [said])
    best = _best(kept)
    if (
        best is None and kept.newest("reference") is not None
    ):  # somebody looked, and did not say that it is good
        return LeftOut(kept.id, "only_reference")
    if best is None:
        whole = [place for place, choice in enumerate(kept.choices) if not choice.is_cut]
        if not whole:
            return LeftOut(kept.id, "truncated")
        best = whole[0]
    elif (kept.reward(best) or 0.0) < least:
        return LeftOut(kept.id, "low_reward")
    if _is_blank(kept.choices[best].text):
        return LeftOut(kept.id, "empty")
    return _candidate(kept, _with_answer(kept, kept.choices[best].text), best, _rewards(kept, best))


def _is_blank(text: str | None) -> bool:
    """Tells whether an answer is none: templates strip it, and a job refuses what is left."""
    return not (text or "").strip()


def _with_answer(kept: Kept, text: str) -> dict[str, Any]:
    return {"messages": [*kept.messages, _answer(text)]}


def _answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _best(kept: Kept) -> int | None:
    """Returns the whole choice with the highest mean reward, the first of equals; None without a reward."""
    means = [(kept.reward(place), -place) for place, choice in enumerate(kept.choices) if not choice.is_cut]
    rewarded = [(mean, place) for mean, place in means if mean is not None]
    return -max(rewarded)[1] if rewarded else None


def _rewards(kept: Kept, choice: int) -> list[Said]:
    return [each for each in kept.said if each.choice == choice and each.reward is not None]


def _candidate(kept: Kept, row: dict[str, Any], choice: int, said: Sequence[Said]) -> Candidate:
    source = Source("prompt", kept.id, choice, kept.model, [each.id for each in said])
    return Candidate(row, (source,), kept.created_at, max((each.created_at for each in said), default=None))


class _Answer(NamedTuple):
    """A whole answer to a prompt, with its mean reward."""

    text: str
    reward: float
    kept: Kept
    choice: int


def _by_prompt(kept: Iterable[Kept]) -> list[list[Kept]]:
    """Returns the completions of each prompt together, as messages tell it."""
    groups: dict[str, list[Kept]] = defaultdict(list)
    for each in kept:
        groups[json.dumps(each.messages, sort_keys=True)].append(each)
    return list(groups.values())


def _preference(group: Sequence[Kept]) -> Candidate | LeftOut:
    """Returns a dpo row of all completions of one prompt.

    A correction is preferred to what it corrects; else the answer with the highest reward to that with the
    lowest.
    """
    corrected = [(said, kept) for kept in group if (said := kept.newest("correction")) is not None]
    if corrected:
        said, kept = max(corrected, key=lambda each: each[0].created_at)
        return _corrected(said, kept)
    answers = list(_rewarded(group))
    if not answers:
        return LeftOut(group[-1].id, "no_pair")
    best = max(answers, key=lambda answer: answer.reward)
    worst = min(answers, key=lambda answer: answer.reward)
    if best.reward <= worst.reward or best.text == worst.text:
        return LeftOut(group[-1].id, "no_pair")
    return _pair(best, worst)


def _corrected(said: Said, kept: Kept) -> Candidate | LeftOut:
    written = kept.choices[said.choice].text
    if _is_blank(written) or _is_blank(said.correction) or written == said.correction:
        return LeftOut(kept.id, "no_pair")
    row = _row_of_pair(kept, said.correction or "", written)
    sources = tuple(
        Source(part, kept.id, said.choice, kept.model, [said.id]) for part in ("preferred", "non_preferred")
    )
    return Candidate(row, sources, kept.created_at, said.created_at)


def _rewarded(group: Sequence[Kept]) -> Iterator[_Answer]:
    for kept in group:
        for place, choice in enumerate(kept.choices):
            if not (_is_blank(choice.text) or choice.is_cut) and (reward := kept.reward(place)) is not None:
                yield _Answer(choice.text, reward, kept, place)


def _pair(best: _Answer, worst: _Answer) -> Candidate:
    row = _row_of_pair(best.kept, best.text, worst.text)
    sources = tuple(
        Source(part, answer.kept.id, answer.choice, answer.kept.model, answer.kept.rewarded(answer.choice))
        for part, answer in (("preferred", best), ("non_preferred", worst))
    )
    said = _rewards(best.kept, best.choice) + _rewards(worst.kept, worst.choice)
    newest = max(best.kept.created_at, worst.kept.created_at)
    return Candidate(row, sources, newest, max(each.created_at for each in said))


def _row_of_pair(kept: Kept, preferred: str, other: str) -> dict[str, Any]:
    return {
        "input": {"messages": kept.messages},
        "preferred_output": [_answer(preferred)],
        "non_preferred_output": [_answer(other)],
    }
