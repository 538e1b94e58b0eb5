"""`text_similarity`: how alike two texts are, 0 to 1.

nltk and rouge-score load numpy and four hundred modules (0.4 s), so they are imported when a grader that
needs them is built, not with this module. None of them needs downloaded data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rapidfuzz import fuzz, utils
from rapidfuzz.distance import LCSseq

from graders.grading import Score, grade_by
from graders.template import Template
from graders.types import Grade, Sample

MAX_TEXT = 65_536
"""Characters of each text that are compared; what follows is not read, so that no answer is slow to grade."""

MAX_FUZZY_TEXT = 8_192
"""The same for fuzzy_match, whose partial alignment takes cubic time."""

Similarity = Callable[[str, str], float]
"""(input, reference) to 0..1."""

_WORD = re.compile(r"\w+|[^\w\s]")


def tokens(text: str) -> list[str]:
    """Words and single punctuation marks, case kept: `It's 5%` gives It ' s 5 %."""
    return _WORD.findall(text)


def similarity(metric: str) -> Similarity:
    """The function behind an `evaluation_metric`. A text without any token is like nothing: 0."""
    match metric:
        case "fuzzy_match":
            return fuzzy_match
        case "bleu":
            return _bleu()
        case "gleu":
            return _gleu()
        case "meteor":
            return _meteor()
        case "rouge_l":
            return _rouge_l()
        case _:
            return _rouge_n(int(metric.removeprefix("rouge_")))


def fuzzy_match(text: str, reference: str) -> float:
    """rapidfuzz WRatio after its default processing (lower case, only letters and digits), over 100."""
    text, reference = text[:MAX_FUZZY_TEXT], reference[:MAX_FUZZY_TEXT]
    return fuzz.WRatio(text, reference, processor=utils.default_process) / 100


def _bleu() -> Similarity:
    """Sentence BLEU-4 (Papineni et al. 2002) with smoothing 3 of Chen and Cherry 2014 (NIST's, sacrebleu's).

    For texts shorter than four tokens only the n-gram orders that exist count, so that a copy scores 1.
    """
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method3

    def bleu(text: str, reference: str) -> float:
        words = tokens(text)
        if not words:
            return 0.0
        return float(
            sentence_bleu([tokens(reference)], words, smoothing_function=smoothing, auto_reweigh=True)
        )

    return bleu


def _gleu() -> Similarity:
    """Google BLEU (Wu et al. 2016): the smaller of precision and recall of all 1- to 4-grams."""
    from nltk.translate.gleu_score import sentence_gleu

    def gleu(text: str, reference: str) -> float:
        return float(sentence_gleu([tokens(reference)], tokens(text)))

    return gleu


def _meteor() -> Similarity:
    from nltk.stem.porter import PorterStemmer

    from graders.meteor import meteor

    stem = PorterStemmer().stem

    def similar(text: str, reference: str) -> float:
        return meteor(tokens(text), tokens(reference), stem)

    return similar


def _rouge_n(n: int) -> Similarity:
    """F-measure of n-gram overlap (Lin 2004), words stemmed."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    kind = f"rouge{n}"
    scorer = RougeScorer([kind], tokenizer=DefaultTokenizer(use_stemmer=True))

    def rouge(text: str, reference: str) -> float:
        return float(scorer.score(reference, text)[kind].fmeasure)

    return rouge


def _rouge_l() -> Similarity:
    """F-measure of the longest common subsequence: rouge-score's tokens and value, found faster."""
    from rouge_score.tokenizers import DefaultTokenizer

    tokenize = DefaultTokenizer(use_stemmer=True).tokenize

    def rouge_l(text: str, reference: str) -> float:
        words, wanted = tokenize(text), tokenize(reference)
        if not words or not wanted:
            return 0.0
        return 2 * LCSseq.similarity(words, wanted) / (len(words) + len(wanted))

    return rouge_l


@dataclass(frozen=True)
class TextSimilarity:
    """A built `text_similarity` grader."""

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
