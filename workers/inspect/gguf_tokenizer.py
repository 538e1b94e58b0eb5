"""The tokenizer of a GGUF file, split by the rule that the file names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPACE = "▁"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"


class TokenizerUnknown(Exception):
    """Says why a file's tokenizer cannot be made."""


class Rule(NamedTuple):
    """Says how a rule splits text.

    Attributes:
        pattern: what a piece is; None for GPT-2's own.
        alone_digits: each digit is a piece, before anything else.
        ignores_merges: a piece that is a token needs no merges.
        adds_bos: where the file does not say.
    """

    pattern: str | None
    alone_digits: bool = False
    ignores_merges: bool = False
    adds_bos: bool = False


_AFTER_WORDS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_AFTER_WORDS}"
_QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_AFTER_WORDS}"
RULES: Mapping[str, Rule] = {
    "gpt-2": Rule(None),
    "smollm": Rule(None, alone_digits=True),
    "llama-bpe": Rule(_LLAMA3, ignores_merges=True, adds_bos=True),
    "dbrx": Rule(_LLAMA3),
    "smaug-bpe": Rule(_LLAMA3),
    "qwen2": Rule(_QWEN2),
    "deepseek-r1-qwen": Rule(_QWEN2),
    "stablelm2": Rule(_QWEN2),
}
"""By `tokenizer.ggml.pre`, as the published tokenizers of these names split. `make gguf` holds each to
llama.cpp."""


def tokenizer_of(fields: Mapping[str, Any]) -> tuple[Any, list[int]]:
    """Returns a file's tokenizer, and the ids that end an answer. Raises `TokenizerUnknown`."""
    said = {name.removeprefix("tokenizer.ggml."): value for name, value in fields.items()}
    tokens, kind = said.get("tokens"), said.get("model")
    if not tokens or kind not in ("gpt2", "llama"):
        raise TokenizerUnknown(f"its tokenizer is of the kind '{kind}'; read are gpt2 and llama")
    made, adds_bos = _byte_level(said, tokens) if kind == "gpt2" else _pieces(said, tokens)
    special = {
        f"{name}_token": tokens[i]
        for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))
        if (i := said.get(f"{key}_token_id")) is not None
    }
    _add_tokens(made, said, tokens)
    if said.get("add_bos_token", adds_bos) and "bos_token" in special:
        bos = special["bos_token"]
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, said["bos_token_id"])]
        )
    make: Any = PreTrainedTokenizerFast
    tokenizer = make(tokenizer_object=made, clean_up_tokenization_spaces=False, **special)
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    ends = [said[f"{name}_token_id"] for name in ("eos", "eot", "eom") if f"{name}_token_id" in said]
    if not ends:
        raise TokenizerUnknown("it names no token that ends an answer")
    return tokenizer, sorted(set(ends))


def _byte_level(said: Mapping[str, Any], tokens: Sequence[str]) -> tuple[Any, bool]:
    name = said.get("pre", "default")
    rule = RULES.get(name)
    if rule is None:
        raise TokenizerUnknown(
            f"its tokenizer splits by the rule '{name}'; read are {', '.join(sorted(RULES))}"
        )
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [(left, right) for left, right in map(_parted, said["merges"]) if left + right in vocab]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=rule.ignores_merges))
    made.pre_tokenizer = split_by(rule)
    made.decoder = decoders.ByteLevel()
    return made, rule.adds_bos


def split_by(rule: Rule) -> Any:
    """Returns what splits text by a rule."""
    split: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if rule.alone_digits else []
    if rule.pattern is not None:
        split.append(pre_tokenizers.Split(Regex(rule.pattern), "isolated"))
    split.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rule.pattern is None))
    return pre_tokenizers.Sequence(split)


def rules_of(content: Mapping[str, Any]) -> list[str]:
    """Returns the names of the rules by which a tokenizer.json splits, of those known here."""
    first = content["pre_tokenizer"] or {}
    parts = first.get("pretokenizers", [first])
    patterns = [part["pattern"].get("Regex") for part in parts if part.get("type") == "Split"]
    digits = any(part.get("type") == "Digits" for part in parts)
    own = any(part.get("type") == "ByteLevel" and part["use_regex"] for part in parts)
    ignores = content["model"].get("ignore_merges", False)
    said = ([None] if own else patterns, digits, ignores)
    return [
        name
        for name, rule in RULES.items()
        if ([rule.pattern], rule.alone_digits, rule.ignores_merges) == said
    ]


def _parted(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _pieces(said: Mapping[str, Any], tokens: Sequence[str]) -> tuple[Any, bool]:
    vocab = {token: i for i, token in enumerate(tokens)}
    unknown = tokens[said.get("unknown_token_id", 0)]
    made = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=_merges(tokens, vocab, said["scores"], said["token_type"]),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=TokenType.BYTE in said["token_type"],
        )
    )
    replaced: list[Any] = [normalizers.Replace(" ", SPACE)]
    back: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if said.get("add_space_prefix", True):
        replaced.insert(0, normalizers.Prepend(SPACE))
        back.append(decoders.Strip(" ", 1, 0))
    made.normalizer = normalizers.Sequence(replaced)
    made.decoder = decoders.Sequence(back)
    return made, True


def _merges(
    tokens: Sequence[str], vocab: Mapping[str, int], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Returns the pairs whose token is in the vocabulary, the highest score first."""
    found = []
    for i, token in enumerate(tokens):
        if kinds[i] not in (TokenType.NORMAL, TokenType.USER_DEFINED):
            continue
        for at in range(1, len(token)):
            left, right = token[:at], token[at:]
            if left in vocab and right in vocab:
                found.append((-scores[i], i, left, right))
    return [(left, right) for *_, left, right in sorted(found)]


def _add_tokens(made: Any, said: Mapping[str, Any], tokens: Sequence[str]) -> None:
    kinds = said.get("token_type", ())
    for i, kind in enumerate(kinds):
        if kind in (TokenType.CONTROL, TokenType.UNKNOWN):
            made.add_special_tokens([AddedToken(tokens[i], special=True, normalized=False)])
        elif kind == TokenType.USER_DEFINED:
            made.add_tokens([AddedToken(tokens[i], special=False, normalized=False)])
