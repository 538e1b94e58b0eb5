"""Tokenizers of every kind that models have: how their tokens make text differs."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.tiny_model import byte_tokenizer

ROOT = Path(__file__).parents[3]
NANO = ROOT / "workers/models/cherry_nano"
STORIES = ROOT.parent / "shared/models/stories260k"
FALLBACK = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = ["<unk>", "<end>", "▁", "▁a", "b", "▁▁", "c▁", ".", "▁hello", "é", "\n", "\n\n", "</"]
WORDS = [
    "<unk>",
    "<end>",
    "un",
    "##aff",
    "##able",
    "hello",
    ",",
    ".",
    "?",
    "'",
    "##s",
    "do",
    "n't",
    "é",
    "日",
]


def merged_bytes() -> Any:
    """Bytes, and tokens of several bytes, some of which end in the middle of a character."""
    fast = byte_tokenizer()
    vocabulary = fast.get_vocab()
    for text in ("ab", " ab", "é</", "</", "an", "\n\n", "日本"):
        written = "".join(fast.tokenize(text))
        vocabulary[written] = len(vocabulary)
    vocabulary["a" + "".join(fast.tokenize("é"))[0]] = len(vocabulary)
    vocabulary["".join(fast.tokenize("日"))[2] + "a"] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")


def of_words(decoder: Any, words: list[str], **options: Any) -> Any:
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if decoder is not None:
        tokenizer.decoder = decoder
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<end>", **options
    )


def sentence_pieces(*last: Any) -> Any:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), *last]
    return of_words(decoders.Sequence(steps), [*PIECES, *FALLBACK])


KINDS: dict[str, Callable[[], Any]] = {
    "bytes": byte_tokenizer,
    "merged bytes": merged_bytes,
    "built-in": lambda: AutoTokenizer.from_pretrained(NANO),
    "first space dropped": lambda: sentence_pieces(decoders.Fuse(), decoders.Strip(" ", 1, 0)),
    "first space kept": lambda: sentence_pieces(decoders.Fuse()),
    "each space dropped": lambda: sentence_pieces(decoders.Strip(" ", 1, 0)),
    "metaspace": lambda: of_words(decoders.Metaspace(), PIECES),
    "metaspace, first space kept": lambda: of_words(decoders.Metaspace(prepend_scheme="never"), PIECES),
    "word pieces": lambda: of_words(decoders.WordPiece("##", True), WORDS),
    "word pieces, cleaned up": lambda: of_words(
        decoders.WordPiece("##", False), WORDS, clean_up_tokenization_spaces=True
    ),
    "ends of words": lambda: of_words(
        decoders.BPEDecoder("</w>"), ["<unk>", "<end>", "a</w>", "b", ".</w>", "hel", "lo</w>", "é</w>"]
    ),
    "words": lambda: of_words(None, ["<unk>", "<end>", "a", "hello", "é", " "]),
    "spaces fused": lambda: of_words(
        decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Replace(Regex(" +"), " ")]),
        PIECES,
    ),
    "repeats dropped": lambda: of_words(decoders.CTC("<end>", "|", True), ["<unk>", "<end>", "|", *"abcd"]),
}
if (STORIES / "tokenizer.json").is_file():
    KINDS["stories260k"] = lambda: AutoTokenizer.from_pretrained(STORIES)


@lru_cache
def tokenizer_of(kind: str) -> Any:
    return KINDS[kind]()
