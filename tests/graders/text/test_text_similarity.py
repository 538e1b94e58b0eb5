import time
import warnings
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz import fuzz, utils
from rouge_score.rouge_scorer import RougeScorer

from graders import Sample, build_grader, parse_grader
from graders.text.text_similarity import similarity, tokens
from tests.properties import examples
from tests.shared_data import shared_rows

METRICS = [
    "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5",
    "rouge_l",
]  # fmt: skip
FUNCTIONS = {metric: similarity(metric) for metric in METRICS}
LONG = "The quick brown fox jumps over the lazy dog near the river bank."


def grader(metric):
    return build_grader(
        parse_grader(
            {
                "type": "text_similarity",
                "input": "{{sample.output_text}}",
                "reference": "{{item.reference}}",
                "evaluation_metric": metric,
            }
        )
    )


def grade(metric, output, reference):
    return grader(metric).grade(Sample(output), {"reference": reference}).value


@pytest.fixture(scope="module")
def pairs():
    """Real pairs: two human descriptions of one restaurant, and of two different ones."""
    rows = shared_rows("data/e2e-nlg-200")
    same = [(row["references"][1], row["reference"]) for row in rows if len(row["references"]) > 1]
    other = [(row["reference"], after["reference"]) for row, after in pairwise(rows)]
    return same[:60] + other[:60]


@pytest.mark.parametrize("metric", METRICS)
def test_a_copy_scores_one(metric):
    expected = 1 if metric != "meteor" else 1 - 0.5 * (1 / len(tokens(LONG))) ** 3
    assert grade(metric, LONG, LONG) == pytest.approx(expected)


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_l"])
def test_a_copy_of_one_word_scores_one(metric):
    assert grade(metric, "yes", "yes") == 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("output", "reference"), [("", LONG), (LONG, ""), ("", ""), (" \n", LONG), ("!!!", LONG)]
)  # fmt: skip
def test_empty_texts_are_like_nothing(metric, output, reference):
    assert grade(metric, output, reference) == 0


@pytest.mark.parametrize("metric", METRICS)
def test_better_texts_score_higher(metric):
    near = grade(metric, "The quick brown fox jumps over the lazy cat near the river bank.", LONG)
    far = grade(metric, "A slow green turtle sleeps under a tree in town.", LONG)
    assert 0 <= far < near <= 1


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    "output",
    [
        pytest.param("x" * 900_000, id="huge-word"),
        pytest.param("the " * 200_000, id="huge-repetition"),
        pytest.param(" ".join(map(str, range(100_000))), id="huge-numbers"),
        pytest.param((LONG + " ") * 3_000, id="reference-repeated"),
        pytest.param("<think>" * 50_000, id="nested-tags"),
        pytest.param("é\u0301\u200b\u202e漢字🍒 \0" * 5_000, id="unicode"),
        pytest.param("\ud800 \udfff", id="lone-surrogates"),
        pytest.param("{{item.reference}}", id="names-the-variable"),
    ],
)
def test_hostile_output_gets_a_low_value_soon(metric, output):
    started = time.thread_time()
    value = grade(metric, output, LONG * 5)
    assert time.thread_time() - started < 5
    assert 0 <= value < 0.7


@pytest.mark.parametrize("metric", ["bleu", "gleu", "meteor", "rouge_1", "rouge_l"])
def test_repeating_the_reference_does_not_pay(metric):
    assert grade(metric, " ".join([LONG] * 20), LONG) < 0.65


def test_25_is_not_5():
    assert grade("bleu", "25", "5") == 0
    assert grade("rouge_1", "25", "5") == 0
    assert grade("fuzzy_match", "25", "5") < 1


def test_look_alike_letters_are_other_letters():
    assert grade("rouge_1", "Раris", "Paris") == 0


def test_rouge_is_rouge_score(pairs):
    kinds = ["rouge1", "rouge2", "rouge3", "rouge4", "rouge5", "rougeL"]
    scorer = RougeScorer(kinds, use_stemmer=True)
    for text, reference in pairs:
        expected = scorer.score(reference, text)
        for kind in kinds:
            got = FUNCTIONS[f"rouge_{kind[5:].lower()}"](text, reference)
            assert got == pytest.approx(expected[kind].fmeasure, abs=1e-12), (kind, text, reference)


def test_fuzzy_match_is_rapidfuzz_weighted_ratio(pairs):
    for text, reference in pairs:
        expected = fuzz.WRatio(text, reference, processor=utils.default_process) / 100
        assert FUNCTIONS["fuzzy_match"](text, reference) == expected


def by_hand_ngrams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def overlap(text, reference, n):
    left, right = by_hand_ngrams(text, n), by_hand_ngrams(reference, n)
    return sum(min(left.count(gram), right.count(gram)) for gram in set(left))


def test_gleu_by_its_definition(pairs):
    for text, reference in pairs:
        a, b = tokens(text), tokens(reference)
        hits = sum(overlap(a, b, n) for n in range(1, 5))
        grams = max(sum(max(0, len(words) - n + 1) for n in range(1, 5)) for words in (a, b))
        assert FUNCTIONS["gleu"](text, reference) == pytest.approx(hits / grams)


def test_bleu_by_its_definition(pairs):
    for text, reference in pairs:
        a, b = tokens(text), tokens(reference)
        hits = [overlap(a, b, n) for n in range(1, 5)]
        misses, product = 0, 1.0
        for n, hit in enumerate(hits, start=1):
            misses += hit == 0
            product *= (hit or 0.5**misses) / (len(a) - n + 1)
        brevity = min(1.0, 2.718281828459045 ** (1 - len(b) / len(a)))
        expected = brevity * product**0.25 if hits[0] else 0
        assert FUNCTIONS["bleu"](text, reference) == pytest.approx(expected)


def test_tokens_keep_case_and_split_punctuation():
    assert tokens("It's 5% — naïve_x!") == ["It", "'", "s", "5", "%", "—", "naïve_x", "!"]


texts = st.lists(
    st.sampled_from(["the", "The", "cat", "cats", "sat", ".", "25", "é", "\0", " "]), max_size=12
)


@examples(60)
@given(texts.map(" ".join), texts.map(" ".join))
def test_every_metric_is_between_0_and_1_and_warns_of_nothing(text, reference):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in METRICS:
            assert 0 <= grader(metric).grade(Sample(text), {"reference": reference}).value <= 1
            if metric in ("gleu", "rouge_1", "rouge_2", "rouge_l"):
                assert FUNCTIONS[metric](text, reference) == pytest.approx(FUNCTIONS[metric](reference, text))


def test_bleu_is_sacrebleus(pairs):
    from sacrebleu.metrics import BLEU

    theirs = BLEU(tokenize="none", smooth_method="exp", effective_order=True)
    for text, reference in pairs:
        words, wanted = tokens(text), tokens(reference)
        expected = theirs.sentence_score(" ".join(words), [" ".join(wanted)]).score / 100
        if set(words) & set(wanted):
            assert FUNCTIONS["bleu"](text, reference) == pytest.approx(expected)


def test_bleu_and_gleu_are_nltks(pairs):
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    from nltk.translate.gleu_score import sentence_gleu

    for text, reference in pairs:
        words, wanted = tokens(text), [tokens(reference)]
        bleu = sentence_bleu(wanted, words, smoothing_function=SmoothingFunction().method3)
        assert FUNCTIONS["bleu"](text, reference) == pytest.approx(bleu)
        assert FUNCTIONS["gleu"](text, reference) == pytest.approx(sentence_gleu(wanted, words))


GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
GUIDE_REFERENCE = "It is a guide to action that ensures that the military will forever heed Party commands"


@pytest.mark.parametrize(
    ("metric", "text", "reference", "published"),
    [
        # rouge-score's README
        (
            "rouge_1",
            "The quick brown dog jumps on the log.",
            "The quick brown fox jumps over the lazy dog",
            12 / 17,
        ),
        (
            "rouge_l",
            "The quick brown dog jumps on the log.",
            "The quick brown fox jumps over the lazy dog",
            10 / 17,
        ),
        # rapidfuzz's documentation of WRatio with its default processor
        ("fuzzy_match", "this is a test", "this is a new test!!!", 0.95),
    ],
)
def test_published_values(metric, text, reference, published):
    assert grade(metric, text, reference) == pytest.approx(published, abs=5e-5)


def test_meteor_gives_the_value_that_nltk_publishes():
    """In its documentation of `single_meteor_score`; no synonyms take part in it."""
    assert grade("meteor", GUIDE, GUIDE_REFERENCE) == pytest.approx(0.6944, abs=5e-5)
