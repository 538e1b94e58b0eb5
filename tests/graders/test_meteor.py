from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import _count_chunks, align_words, single_meteor_score

from graders.meteor import MAX_PAIRS, align, chunks, meteor
from graders.text_similarity import tokens
from tests.shared_data import shared_rows

stem = PorterStemmer().stem


class NoSynonyms:
    """Stands in for WordNet, which would be a download."""

    def synsets(self, word):
        return []


def by_nltk(text, reference):
    return single_meteor_score(reference, text, wordnet=NoSynonyms())


def test_agrees_with_nltk_where_no_word_repeats():
    text = tokens("Near the Sorrento, a poorly rated venue called Wrestlers")
    reference = tokens("Wrestlers is a venue near the Sorrento, rated poor")
    assert meteor(text, reference, stem) == pytest.approx(by_nltk(text, reference))


def test_on_real_pairs_only_the_number_of_chunks_is_better_than_nltks():
    rows = shared_rows("data/e2e-nlg-200")[:100]
    same = 0
    for row in rows:
        text, reference = tokens(row["references"][-1]), tokens(row["reference"])
        ours, theirs = meteor(text, reference, stem), by_nltk(text, reference)
        matches = align(text, reference, stem)
        by_them = align_words(text, reference, wordnet=NoSynonyms())[0]
        assert len(matches) == len(by_them)
        assert chunks(matches) <= _count_chunks(by_them)
        assert ours >= theirs - 1e-12
        if chunks(matches) == _count_chunks(by_them):
            same += 1
            assert ours == pytest.approx(theirs)
    assert same >= 20


def test_repeated_words_are_aligned_in_few_chunks():
    text, reference = tokens("on the mat sat the cat"), tokens("the cat sat on the mat")
    assert chunks(align(text, reference, stem)) == 3  # "on the mat", "sat", "the cat"
    text, reference = tokens("the cat and the dog"), tokens("the dog and the cat and the dog")
    assert chunks(align(text, reference, stem)) == 1


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
    many = ["the"] * (int(MAX_PAIRS**0.5) + 5)
    assert len(align(many, many, stem)) == len(many)


words = st.lists(st.sampled_from(["a", "b", "c", "dog", "dogs"]), max_size=7)


@settings(deadline=None, max_examples=200)
@given(words, words)
def test_alignment_is_one_to_one_maximal_and_never_in_more_chunks_than_nltks(text, reference):
    matches = align(text, reference, stem)
    assert len({at for at, _ in matches}) == len({at for _, at in matches}) == len(matches)
    assert all(stem(text[i]) == stem(reference[j]) for i, j in matches)
    stems = [stem(word) for word in text], [stem(word) for word in reference]
    assert len(matches) == sum(min(stems[0].count(s), stems[1].count(s)) for s in set(stems[0]))
    assert by_nltk(text, reference) - 1e-12 <= meteor(text, reference, stem) <= 1


def fewest_chunks(text, reference):
    """By trying everything, for texts that are permutations of each other."""
    return min(
        chunks(list(enumerate_matches(order)))
        for order in permutations(range(len(reference)))
        if all(text[i] == reference[j] for i, j in enumerate(order))
    )


def enumerate_matches(order):
    from graders.meteor import Match

    return [Match(i, j) for i, j in enumerate(order)]


@settings(deadline=None, max_examples=60)
@given(st.permutations([*"aabbc"]), st.permutations([*"aabbc"]))
def test_chunks_are_the_fewest_or_one_more(text, reference):
    assert chunks(align(text, reference, stem)) <= fewest_chunks(text, reference) + 1
