"""Finds prompts that are there twice, exactly or nearly, within a file and across two.

Exact means the same messages, white space apart. Nearly the same are prompts whose runs of three words agree
to `LEAST_SIMILARITY` (Jaccard), in the way of MinHash and banding: Broder 1997, On the resemblance and
containment of documents. What many rows share (a template, a system prompt) is left out before, so that rows
of one template are compared by what they ask. A prompt with other numbers is another prompt.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from methods.messages import text_of

RUN = 3
"""Words in a run. Chosen, not measured."""
LEAST_SIMILARITY = 0.8
"""Share of runs that near duplicates have in common: of a prompt of 40 words, two may be others. Chosen, not
measured.
"""
MAX_WORDS = 1000
"""Words of a prompt that are compared. Chosen, not measured: 50,000 such prompts are a minute's work."""
COMMON_ROWS, COMMON_SHARE, COMMON_OF_FEW = 10, 0.05, 0.5
"""A run in more rows than this, and in more than this share of them, belongs to a template; of few rows, one
in more than half of them. Chosen, not measured.
"""
BANDS, ROWS_OF_A_BAND = 16, 4
"""Of two prompts that have 80 % of their runs in common, one pair in 5,000 is missed: (1 - 0.8^4)^16."""
MOST_COMPARED = 20
"""Earlier prompts of one bucket that a prompt is compared with. Chosen, not measured: it bounds the work."""

Hashes = NDArray[np.uint64]
_WORD = re.compile(r"[぀-ヿ㐀-鿿가-힯]|\w+|[^\w\s.,;:!?'\"()]")
"""A word, a letter of a script that has no spaces, or a sign that may mean something, such as + or <."""
_DIGIT = re.compile(r"\d")
_MIX = np.uint64(0x9E3779B97F4A7C15)


class Prompt(NamedTuple):
    """What a row asks, as it is compared.

    Attributes:
        line: in the file.
        exact: the same for exact duplicates.
        text: what near duplicates are looked for in.
        reference: the row's right answer as text, or None where it has none.
    """

    line: int
    exact: str
    text: str
    reference: str | None


class Copy(NamedTuple):
    """A prompt that an earlier one resembles; places are those in the list that was given."""

    place: int
    first: int
    is_exact: bool


def prompt_of(line: int, item: Mapping[str, Any], reference: str | None) -> Prompt:
    """Returns a row as it is compared; rows of every method have a form."""
    source = item["input"] if "input" in item and "messages" not in item else item
    said = [text_of(message.get("content")) for message in source["messages"]]
    exact = [
        [message["role"], " ".join(text.split()), message.get("tool_calls")]
        for message, text in zip(source["messages"], said, strict=True)
    ]
    return Prompt(
        line,
        json.dumps([exact, source.get("tools")], sort_keys=True),
        "\n".join(said),
        reference,
    )


def find_copies(prompts: Sequence[Prompt]) -> list[Copy]:
    """Returns each prompt that repeats an earlier one, with the first of its kind, in their order."""
    found: dict[int, Copy] = {}
    first: dict[str, int] = {}
    for place, prompt in enumerate(prompts):
        earlier = first.setdefault(prompt.exact, place)
        if earlier != place:
            found[place] = Copy(place, earlier, is_exact=True)
    distinct = list(first.values())
    for later, earlier in _near([prompts[place].text for place in distinct]):
        found[distinct[later]] = Copy(distinct[later], distinct[earlier], is_exact=False)
    return [found[place] for place in sorted(found)]


def find_conflicts(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Returns groups of places that have exactly the same prompt, and not all the same reference."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, prompt in enumerate(prompts):
        if prompt.reference is not None:
            groups[prompt.exact].append(place)
    return [places for places in groups.values() if len({prompts[place].reference for place in places}) > 1]


def _near(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yields (later, earlier): a text, and an earlier one that it nearly is."""
    words = [_WORD.findall(unicodedata.normalize("NFKC", text).casefold())[:MAX_WORDS] for text in texts]
    numbers = [tuple(word for word in found if _DIGIT.search(word)) for found in words]
    runs = _without_common(_runs(words))
    whole = [tuple(found) for found in words]
    seen_whole: dict[tuple[str, ...], int] = {}
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for place, mine in enumerate(runs):
        same = seen_whole.setdefault(whole[place], place)
        if same != place:
            yield place, same
            continue
        if not mine.size:
            continue
        keys = [(band, part.tobytes()) for band, part in enumerate(_signature(mine))]
        candidates = sorted({other for key in keys for other in buckets[key][:MOST_COMPARED]})
        near = (
            other
            for other in candidates
            if numbers[other] == numbers[place] and _similarity(runs[other], mine) >= LEAST_SIMILARITY
        )
        if (earlier := next(near, None)) is not None:
            yield place, earlier
            continue  # what resembles this one resembles the earlier one closely enough to be found by it
        for key in keys:
            buckets[key].append(place)


def _runs(words: Sequence[Sequence[str]]) -> list[Hashes]:
    """Returns the different runs of each text, as numbers, sorted. A short text is one run."""
    numbers: dict[str, int] = {}
    found = []
    for text in words:
        ids = np.array([numbers.setdefault(word, len(numbers) + 1) for word in text], dtype=np.uint64)
        size = min(RUN, len(ids))
        hashed = np.zeros(len(ids) - size + 1 if size else 0, dtype=np.uint64)
        for offset in range(size):
            hashed = _mixed(hashed + ids[offset : offset + len(hashed)])
        found.append(np.unique(hashed))
    return found


def _without_common(runs: Sequence[Hashes]) -> list[Hashes]:
    """Returns the runs without those of templates."""
    if not runs:
        return []
    values, counts = np.unique(np.concatenate(runs), return_counts=True)
    enough = max(COMMON_ROWS, COMMON_SHARE * len(runs))
    common = values[counts > min(enough, max(2, COMMON_OF_FEW * len(runs)))]
    return [mine[~np.isin(mine, common, assume_unique=True)] for mine in runs]


def _signature(runs: Hashes) -> Hashes:
    """Returns the least value of the runs under each of many hashes, (BANDS, ROWS_OF_A_BAND)."""
    seeds = _mixed(np.arange(1, BANDS * ROWS_OF_A_BAND + 1, dtype=np.uint64))
    least: Hashes = _mixed(runs[None, :] ^ seeds[:, None]).min(axis=1)
    return least.reshape(BANDS, ROWS_OF_A_BAND)


def _mixed(values: Hashes) -> Hashes:
    """Returns numbers spread over all 64 bits: the finaliser of splitmix64 (Steele et al. 2014)."""
    values = values + _MIX
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _similarity(first: Hashes, second: Hashes) -> float:
    """Returns the Jaccard index of two sets."""
    both = np.intersect1d(first, second, assume_unique=True).size
    return float(both / (first.size + second.size - both))
