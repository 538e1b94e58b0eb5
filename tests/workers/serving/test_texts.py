"""The shares of tokens, joined, are the text that training shows its graders; what is uncertain waits."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.properties import examples
from tests.workers.serving.tokenizers_of_kinds import KINDS, tokenizer_of
from workers.serving.completion_text import CompletionText
from workers.serving.requests import Token
from workers.serving.token_texts import TokenTexts
from workers.training.rendering.stop_strings import StopStrings

TEXTS = {kind: TokenTexts(tokenizer_of(kind)) for kind in KINDS}
STOPS = ("é", "</", "ab", " a", "a b", "\n\n", " ", "b.", "lo", "hello", "日", "�")
READ_AT_THE_END = {"repeats dropped"}


def ids_of(kind: str) -> st.SearchStrategy[list[int]]:
    """Rows of ids, some of them without a name, short names (bytes, spaces, specials) among them."""
    size = len(tokenizer_of(kind))
    return st.lists(st.integers(0, size) | st.integers(0, min(size, 300)), max_size=16)


def completion(
    kind: str, tokens: list[int], stops: list[str] | tuple[str, ...] = (), end: int | None = None
) -> tuple[CompletionText, list[str]]:
    """A completion as the engine tells it, and the texts that were certain after each token."""
    tokenizer = tokenizer_of(kind)
    found = StopStrings(tokenizer, stops)
    read = CompletionText(TEXTS[kind], frozenset({tokenizer.eos_token_id}), stops)
    told = []
    for n, token in enumerate(tokens, 1):
        finish: Any = "stop" if token == end or (stops and found.is_complete(tokens[:n])) else None
        finish = finish or ("length" if n == len(tokens) else None)
        read.push(Token(0, token, -1.0, (), finish))
        told.append(b"".join(piece.share for piece in read.take()).decode())  # never half a character
        if finish:
            break
    return read, told


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data())
def test_the_shares_of_tokens_joined_are_the_text(kind: str, data: Any) -> None:
    tokens = data.draw(ids_of(kind))
    shares = TEXTS[kind].shares(tokens)
    assert len(shares) == len(tokens)
    (text,) = StopStrings(tokenizer_of(kind), ()).decoded([tokens])
    assert b"".join(shares) == text.encode()


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(data=st.data())
def test_what_is_told_piece_by_piece_is_the_text_before_the_first_stop_string(kind: str, data: Any) -> None:
    stops = data.draw(st.lists(st.sampled_from(STOPS), min_size=1, max_size=3))
    tokens = data.draw(ids_of(kind).filter(bool))
    read, told = completion(kind, tokens, stops)
    decoding = StopStrings(tokenizer_of(kind), stops)
    (text,) = decoding.decoded([tokens[: read.tokens]])
    cut, is_cut = decoding.cut(text)
    assert "".join(told) == cut
    assert read.finish == ("stop" if is_cut else "length")


def test_tokenizers_are_read_as_they_come_unless_their_texts_are_certain_only_at_the_end() -> None:
    assert {kind for kind in KINDS if TEXTS[kind].are_read_at_the_end} == READ_AT_THE_END


def spelled(kind: str, text: str) -> list[int]:
    """A text byte by byte."""
    vocabulary = tokenizer_of(kind).get_vocab()
    if "<0xC3>" in vocabulary:
        return [vocabulary[f"<0x{byte:02X}>"] for byte in text.encode()]
    found: list[int] = tokenizer_of("bytes")(text).input_ids
    return found


def test_a_character_over_several_tokens_comes_whole_and_each_token_has_its_bytes() -> None:
    tokens = spelled("bytes", "aé日😀b")
    assert TEXTS["bytes"].shares(tokens) == [bytes([byte]) for byte in "aé日😀b".encode()]
    _, told = completion("bytes", tokens)
    assert told == ["a", "", "é", "", "", "日", "", "", "", "😀", "b"]
    assert TEXTS["bytes"].name(tokens[1], b"\xc3") == "bytes:\\xc3"
    assert TEXTS["bytes"].name(tokens[0], b"a") == "a"


def test_a_fallback_byte_waits_for_the_end_of_its_run_and_has_its_byte() -> None:
    kind = "first space dropped"
    tokens = [*spelled(kind, "é日"), tokenizer_of(kind).get_vocab()["b"]]
    _, told = completion(kind, tokens)
    assert told == ["", "", "", "", "", "é日b"]
    assert TEXTS[kind].shares(tokens) == [bytes([byte]) for byte in "é日b".encode()]


@pytest.mark.parametrize("kind", ["bytes", "first space dropped"])
def test_half_a_character_at_the_end_is_replaced_and_named_by_its_bytes(kind: str) -> None:
    first, second = spelled(kind, "日")[:2]
    read = CompletionText(TEXTS[kind], frozenset(), ())
    read.push(Token(0, first, -1.0, (), None))
    read.push(Token(0, second, -1.0, (), "length"))
    pieces = read.take()
    assert b"".join(piece.share for piece in pieces).decode() == tokenizer_of(kind).decode([first, second])
    names = [TEXTS[kind].name(piece.token.token, piece.share) for piece in pieces]
    assert names == ["bytes:\\xe6", "bytes:\\x97"]


def test_a_first_space_is_dropped_and_later_ones_are_not() -> None:
    kind = "first space dropped"
    hello, a = (tokenizer_of(kind).get_vocab()[name] for name in ("▁hello", "▁a"))
    assert TEXTS[kind].shares([hello, a]) == [b"hello", b" a"]
    assert TEXTS[kind].alternative(a, is_first=True) == ("a", b"a")
    assert TEXTS[kind].alternative(a, is_first=False) == (" a", b" a")
    assert TEXTS[kind].shares([hello], prompt=[a]) == [b" hello"]  # it goes on


def test_special_tokens_in_the_middle_are_shown_and_the_end_token_is_not() -> None:
    vocabulary = tokenizer_of("bytes").get_vocab()
    begin, end = vocabulary["<begin>"], vocabulary["<end>"]
    tokens = [*spelled("bytes", "a"), begin, *spelled("bytes", "b"), end]
    read, told = completion("bytes", tokens, end=end)
    assert ("".join(told), read.finish, read.tokens) == ("a<begin>b", "stop", 4)


def test_what_may_begin_a_stop_string_is_told_when_it_does_not() -> None:
    _, told = completion("bytes", spelled("bytes", "x</y</s>z"), ["</s>"])
    assert told == ["x", "", "", "</y", "", "", "", ""]
    _, told = completion("bytes", spelled("bytes", "x</"), ["</s>"])
    assert told == ["x", "", "</"]


def test_a_token_that_a_stop_string_begins_in_has_the_text_before_it() -> None:
    ab, a = tokenizer_of("merged bytes").get_vocab()["ab"], spelled("merged bytes", "a")[0]
    read = CompletionText(TEXTS["merged bytes"], frozenset(), ["b"])
    read.push(Token(0, a, -1.0, (), None))
    read.push(Token(0, ab, -2.0, (), "stop"))
    assert [(piece.token.token, piece.share) for piece in read.take()] == [(a, b"a"), (ab, b"a")]
    assert read.tokens == 2
