"""Stop strings are found at the token that completes them, for every way in which tokens make text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from tests.properties import examples
from tests.tiny_model import byte_tokenizer
from workers.training.rendering.stop_strings import StopStrings


def merged_bytes():
    """Bytes, and tokens of several bytes, some of which end in the middle of a character."""
    fast = byte_tokenizer()
    vocabulary = fast.get_vocab()
    for text in ("ab", " ab", "é</", "</", "an", "\n\n"):
        written = "".join(fast.tokenize(text))
        vocabulary[written] = len(vocabulary)
    vocabulary["a" + "".join(fast.tokenize("é"))[0]] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def sentence_pieces():
    """Words with a mark for the space before them, and single bytes for what has no token."""
    pieces = ["<unk>", "<end>", "▁", "▁ab", "ab", "a", "b", "▁</", "</", "an", "s", ">", "▁a", "."]
    vocabulary = {piece: i for i, piece in enumerate([*pieces, *(f"<0x{i:02X}>" for i in range(256))])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>")


TOKENIZERS = {"bytes": byte_tokenizer(), "merged": merged_bytes(), "pieces": sentence_pieces()}
STOPS = ("é", "</", "ab", " a", "a b", "\n\n", "é</an", "日本", " ", "b.")


def likely_tokens(tokenizer):
    """Ids that make up the stop strings, special ones and all the merged ones."""
    ids = {i for piece, i in tokenizer.get_vocab().items() if len(piece) > 1 and not piece.startswith("<0x")}
    written = [f"<0x{byte:02X}>" for stop in STOPS for byte in stop.encode()]
    ids |= {tokenizer.get_vocab().get(piece) for piece in written}
    for stop in STOPS:
        ids |= set(byte_tokenizer()(stop).input_ids) if len(tokenizer) < 270 else set()
    return sorted(ids - {None})


def first_hit(tokenizer, stops, tokens):
    for n in range(1, len(tokens) + 1):
        text = tokenizer.decode(tokens[:n], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if any(stop in text for stop in stops):
            return n
    return None


def test_bytes_that_half_a_character_spoils_are_no_text():
    tokenizer = TOKENIZERS["pieces"]
    tokens = tokenizer.convert_tokens_to_ids(["<0x97>", "<0x0A>", "<0x20>", "ab"])
    assert first_hit(tokenizer, [" a"], tokens) is None
    assert not StopStrings(tokenizer, [" a"]).is_complete(tokens)
    assert StopStrings(tokenizer, [" a"]).is_complete([tokens[0], tokenizer.eos_token_id, *tokens[1:]])
    assert StopStrings(tokenizer, [" a"]).is_complete(tokens[1:])


@pytest.mark.parametrize("name", TOKENIZERS)
@examples(50)
@given(data=st.data())
def test_a_stop_string_is_found_at_the_token_that_completes_it(name, data):
    tokenizer = TOKENIZERS[name]
    stops = data.draw(st.lists(st.sampled_from(STOPS), min_size=1, max_size=3))
    tokens = data.draw(st.lists(st.sampled_from(likely_tokens(tokenizer)), min_size=1, max_size=30))
    found = StopStrings(tokenizer, stops)
    hits = (n for n in range(1, len(tokens) + 1) if found.is_complete(tokens[:n]))
    assert next(hits, None) == first_hit(tokenizer, stops, tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("stop", STOPS)
def test_each_stop_string_is_found_after_a_long_text(name, stop):
    tokenizer = TOKENIZERS[name]
    vocabulary = tokenizer.get_vocab()
    if name == "pieces":
        ending = [vocabulary.get(f"<0x{byte:02X}>") for byte in stop.encode()]
    else:
        ending = byte_tokenizer()(stop).input_ids
    filler = [token for token in likely_tokens(tokenizer) if tokenizer.decode([token]) == "s"]
    filler = filler or [vocabulary["a"]]
    tokens = filler * 50 + ending
    found = StopStrings(tokenizer, [stop])
    assert found.is_complete(tokens)
    assert not found.is_complete(tokens[:-1])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_stop_string_is_found_right_behind_other_characters_of_several_bytes(name):
    vocabulary = TOKENIZERS[name].get_vocab()

    def spelled(text):
        if name == "pieces":
            return [vocabulary[f"<0x{byte:02X}>"] for byte in text.encode()]
        return byte_tokenizer()(text).input_ids

    found = StopStrings(TOKENIZERS[name], ["é"])
    assert found.is_complete(spelled("日本日本日本é"))


def test_few_tokens_are_decoded_for_each_new_one():
    decoded = []

    class Counting:
        def batch_decode(self, rows, **options):
            decoded.append(sum(map(len, rows)))
            return TOKENIZERS["bytes"].batch_decode(rows, **options)

        def convert_ids_to_tokens(self, token):
            return TOKENIZERS["bytes"].convert_ids_to_tokens(token)

    found = StopStrings(Counting(), ["ab"])
    tokens = byte_tokenizer()("b" * 200 + "ab").input_ids
    assert [n for n in range(1, 203) if found.is_complete(tokens[:n])] == [202]
    assert max(decoded) <= 4


def test_the_text_ends_before_the_first_stop_string():
    found = StopStrings(TOKENIZERS["bytes"], ["bc", "abcd", "x"])
    assert found.cut("aabcdx") == ("a", True)
    assert found.cut("hello") == ("hello", False)
    assert found.cut("xa") == ("", True)
