from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import single_meteor_score

from graders.text.meteor import align, meteor
from graders.text.text_similarity import tokens
from tests.properties import examples
from tests.shared_data import shared_rows

stem = PorterStemmer().stem


class NoSynonyms:
    """Stands in for WordNet, which would be a download."""

    def synsets(self, word):
        return []


def by_nltk(text, reference):
    return single_meteor_score(reference, text, wordnet=NoSynonyms())


def test_equals_nltk_on_real_pairs():
    rows = shared_rows("data/e2e-nlg-200")
    pairs = [(row["references"][-1], row["reference"]) for row in rows]
    pairs += [(row["reference"], other["reference"]) for row, other in pairwise(rows)]
    for text, reference in pairs:
        left, right = tokens(text), tokens(reference)
        assert meteor(left, right, stem) == pytest.approx(by_nltk(left, right), abs=1e-12)
    assert len(pairs) >= 300


def test_stems_match_after_equal_words():
    assert meteor(["dogs"], ["dog"], stem) == meteor(["dog"], ["dog"], stem) == 0.5
    matches = align(["dogs", "dog"], ["dog", "dogs"], stem)
    assert sorted(matches) == [(0, 1), (1, 0)]


def test_by_hand():
    """3 of 4 words matched in 1 chunk, reference of 3: P = 3/4, R = 1."""
    mean = 0.75 / (0.9 * 0.75 + 0.1)
    assert meteor(tokens("the cat sat down"), tokens("the cat sat"), stem) == pytest.approx(
        mean * (1 - 0.5 * (1 / 3) ** 3)
    )


def test_no_common_word_or_no_word_is_0():
    assert meteor(["a"], ["b"], stem) == meteor([], ["b"], stem) == meteor(["a"], [], stem) == 0


def test_very_many_equal_words_are_matched_in_linear_time():
    many = ["the"] * 100_000  # quadratic time would take hours
    assert len(align(many, many, stem)) == len(many)


words = st.lists(st.sampled_from(["a", "b", "c", "dog", "dogs"]), max_size=7)


@examples(200)
@given(words, words)
def test_alignment_is_one_to_one_and_maximal_and_the_value_is_nltks(text, reference):
    matches = align(text, reference, stem)
    assert len({at for at, _ in matches}) == len({at for _, at in matches}) == len(matches)
    assert all(stem(text[i]) == stem(reference[j]) for i, j in matches)
    stems = [stem(word) for word in text], [stem(word) for word in reference]
    assert len(matches) == sum(min(stems[0].count(s), stems[1].count(s)) for s in set(stems[0]))
    if text and reference:
        assert meteor(text, reference, stem) == pytest.approx(by_nltk(text, reference), abs=1e-12)
