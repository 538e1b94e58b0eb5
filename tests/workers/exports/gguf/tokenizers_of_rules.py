"""Tokenizers that split as the published ones of llama.cpp's rules do, trained on a few texts."""

from __future__ import annotations

from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.tiny_model import CHAT_TEMPLATE, byte_tokenizer
from workers.exports.gguf.texts import texts_for
from workers.inspect.gguf_tokenizer import RULES, split_by

SPECIAL = ["<pad>", "<begin>", "<end>"]
TOKENS = 1200


def trained(rule: str) -> Any:
    """Returns a byte-level BPE tokenizer whose pieces are cut by a rule's pattern."""
    how = RULES[rule]
    tokenizer = Tokenizer(models.BPE(ignore_merges=how.ignores_merges))
    tokenizer.pre_tokenizer = split_by(how)
    return _finished(tokenizer)


def of_no_rule() -> Any:
    """Returns a tokenizer that cuts before every vowel, which no rule of llama.cpp's does."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("[aeiou][^aeiou]*"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return _finished(tokenizer)


def _finished(tokenizer: Any) -> Any:
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENS,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts_for(byte_tokenizer()), trainer)
    pad, begin, end = SPECIAL
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=begin, eos_token=end, unk_token=None
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
