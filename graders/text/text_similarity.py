"""Grades `text_similarity`: how alike two texts are, 0 to 1.

nltk and rouge-score load numpy and four hundred modules (0.4 s), so they are imported when a grader that
needs them is built, not with this module. None of them needs downloaded data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from rapidfuzz import fuzz, utils
from rapidfuzz.distance import LCSseq

from graders.grading import Score, grade_by
from graders.template import Template
from graders.types import Grade, Sample

MAX_TEXT = 65_536
"""Characters of each text that are compared; what follows is not read, so that no answer is slow to grade."""

MAX_FUZZY_TEXT = 8_192
"""The same for fuzzy_match, whose partial alignment takes cubic time."""

MAX_KNOWN = 2_048
"""Characters of a reference whose n-grams are kept."""

Similarity = Callable[[str, str], float]
"""(input, reference) to 0..1."""

_WORD = re.compile(r"\w+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Returns the words and single punctuation marks, case kept: `It's 5%` gives It ' s 5 %."""
    return _WORD.findall(text)


def similarity(metric: str) -> Similarity:
    """Returns the function behind an `evaluation_metric`. A text without any token is like nothing: 0."""
    match metric:
        case "fuzzy_match":
            return fuzzy_match
        case "bleu":
            return bleu
        case "gleu":
            return gleu
        case "meteor":
            return _meteor()
        case "rouge_l":
            return _rouge_l()
        case _:
            return _rouge_n(int(metric.removeprefix("rouge_")))


def fuzzy_match(text: str, reference: str) -> float:
    """Returns rapidfuzz's WRatio over 100, after its default processing.

    That keeps letters and digits only, in lower case.
    """
    text, reference = text[:MAX_FUZZY_TEXT], reference[:MAX_FUZZY_TEXT]
    return fuzz.WRatio(text, reference, processor=utils.default_process) / 100


class Grams(NamedTuple):
    """Counts a text's n-grams: how often each of order 1, 2, 3 and 4 stands there."""

    words: int
    orders: tuple[dict[Any, int], ...]


def _grams(text: str) -> Grams:
    words = tokens(text)
    return Grams(len(words), tuple(_ngrams(words, n) for n in range(1, 5)))


_known_grams = lru_cache(maxsize=256)(_grams)


def _reference_grams(reference: str) -> Grams:
    """Returns a reference's n-grams.

    The last short references are remembered: each row is graded again and again.
    """
    return _known_grams(reference) if len(reference) <= MAX_KNOWN else _grams(reference)


def bleu(text: str, reference: str) -> float:
    """Returns sentence BLEU-4 (Papineni et al. 2002), 0 to 1.

    Smoothing is number 3 of Chen and Cherry 2014 (NIST's, sacrebleu's). For texts shorter than four tokens
    only the n-gram orders that exist count, so that a copy scores 1. The value is equal to that of nltk's
    `sentence_bleu` with `auto_reweigh`, found several times as fast.
    """
    mine, wanted = _grams(text), _reference_grams(reference)
    orders = min(4, mine.words)
    if not orders:
        return 0.0
    logs, halvings = [], 0
    for n in range(orders):
        possible = mine.words - n
        found = _common(mine.orders[n], wanted.orders[n])
        if found == 0:
            if n == 0:
                return 0.0
            halvings += 1
        logs.append(math.log(found / possible if found else 1 / (2**halvings * possible)))
    brevity = 1.0 if mine.words > wanted.words else math.exp(1 - wanted.words / mine.words)
    return brevity * math.exp(math.fsum(logs) / orders)


def gleu(text: str, reference: str) -> float:
    """Returns Google BLEU (Wu et al. 2016), 0 to 1, as nltk computes it.

    It is the smaller of precision and recall of all 1- to 4-grams.
    """
    mine, wanted = _grams(text), _reference_grams(reference)
    longest = max(mine.words, wanted.words)
    grams = sum(max(longest - n, 0) for n in range(4))
    return sum(map(_common, mine.orders, wanted.orders)) / grams if grams else 0.0


def _ngrams(words: list[str], n: int) -> dict[Any, int]:
    """Counts how often each stands there.

    The loop is plain: a Counter costs more for texts of a few words.
    """
    counts: dict[Any, int] = {}
    for gram in words if n == 1 else zip(*[words[start:] for start in range(n)], strict=False):
        counts[gram] = counts.get(gram, 0) + 1
    return counts


def _common(one: dict[Any, int], other: dict[Any, int]) -> int:
    """Counts the grams of both, each as often as in the one that has it less often."""
    common = 0
    for gram, count in one.items():
        if gram in other:
            there = other[gram]
            common += count if count < there else there
    return common


def _stemmer() -> Callable[[str], str]:
    """Returns Porter's stemmer, which remembers the words of a text's usual length."""
    from nltk.stem.porter import PorterStemmer

    stem = PorterStemmer().stem
    remembered = lru_cache(maxsize=2**15)(stem)
    return lambda word: remembered(word) if len(word) <= 32 else stem(word)


def _meteor() -> Similarity:
    from graders.text.meteor import meteor

    stem = _stemmer()

    def similar(text: str, reference: str) -> float:
        return meteor(tokens(text), tokens(reference), stem)

    return similar


def _rouge_tokens() -> Callable[[str], list[str]]:
    """Returns rouge-score's tokenizer: lower case, letters and digits, words of over 3 letters stemmed."""
    from rouge_score.tokenize import tokenize

    class Stemmer:
        stem = staticmethod(_stemmer())

    return lambda text: tokenize(text, Stemmer)


def _rouge_n(n: int) -> Similarity:
    """Returns the F-measure of n-gram overlap (Lin 2004) of stemmed words: rouge-score's, found faster."""
    tokenize = _rouge_tokens()

    def rouge(text: str, reference: str) -> float:
        words, wanted = tokenize(text), tokenize(reference)
        sizes = max(len(words) - n + 1, 0) + max(len(wanted) - n + 1, 0)
        return 2 * _common(_ngrams(words, n), _ngrams(wanted, n)) / sizes if sizes else 0.0

    return rouge


def _rouge_l() -> Similarity:
    """Returns the F-measure of the longest common subsequence: rouge-score's value, found faster."""
    tokenize = _rouge_tokens()

    def rouge_l(text: str, reference: str) -> float:
        words, wanted = tokenize(text), tokenize(reference)
        if not words or not wanted:
            return 0.0
        return 2 * LCSseq.similarity(words, wanted) / (len(words) + len(wanted))

    return rouge_l


@dataclass(frozen=True)
class TextSimilarity:
    """Grades how alike two texts are: a built `text_similarity` grader."""

    name: str
    input: Template
    reference: Template
    similarity: Similarity
    type: str = "text_similarity"

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        return grade_by(self._score, sample, item)

    def _score(self, sample: Sample, item: Mapping[str, Any]) -> Score:
        reference = self.reference.render(sample, item)[:MAX_TEXT]
        text = self.input.render(sample, item)[:MAX_TEXT]
        return Score(min(1.0, max(0.0, self.similarity(text, reference))))
