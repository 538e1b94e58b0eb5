"""A tokenizer as llama.cpp reads it: tokens, their types, merges or scores, special ids, chat templates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gguf import GGUFWriter, Keys, TokenType

from workers.exports.gguf.refused import GgufRefused

BYTE_LEVEL, PIECES = "gpt2", "llama"
"""What llama.cpp calls byte-level BPE, and BPE over text in which a space is `SPACE`."""
SPACE = "▁"
NO_MERGES = ("<no> <merges>",)
"""Stands for none, which llama.cpp does not read: these two texts never meet."""
DEFAULT = "default"


class Vocabulary(NamedTuple):
    """Holds what a GGUF file says of a tokenizer.

    Attributes:
        model: `BYTE_LEVEL` or `PIECES`.
        tokens: by id, as many as the model has embedding rows for.
        types: of each token.
        merges: of byte-level BPE, as two texts with a space between them.
        scores: of each token; the pair whose token has the highest is merged first.
        special: ids by what they mean: bos, pad, unk.
        ends: the ids that end an answer, the tokenizer's own first.
        adds_bos: a text begins with bos.
        adds_eos: a text ends with eos.
        prefixes_space: a text is read as if a space stood before it.
        templates: chat templates by name.
    """

    model: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    special: Mapping[str, int]
    ends: tuple[int, ...]
    adds_bos: bool
    adds_eos: bool
    prefixes_space: bool
    templates: Mapping[str, str]

    def add_to(self, writer: GGUFWriter) -> None:
        """Writes all but the name of the split rule, `tokenizer.ggml.pre`."""
        writer.add_tokenizer_model(self.model)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        if self.model == BYTE_LEVEL:
            writer.add_token_merges(self.merges or NO_MERGES)
        else:
            writer.add_token_scores(self.scores)
            writer.add_add_space_prefix(self.prefixes_space)
        self._add_special(writer)
        self._add_templates(writer)

    def _add_templates(self, writer: GGUFWriter) -> None:
        others = sorted(self.templates.keys() - {DEFAULT})
        for name in others:
            writer.add_string(Keys.Tokenizer.CHAT_TEMPLATE_N.format(name=name), self.templates[name])
        if others:
            writer.add_array(Keys.Tokenizer.CHAT_TEMPLATES, others)
        if DEFAULT in self.templates:
            writer.add_chat_template(self.templates[DEFAULT])

    def _add_special(self, writer: GGUFWriter) -> None:
        # llama.cpp takes some token of its own choice where none is named.
        writer.add_bos_token_id(self.special.get("bos", self.ends[0]))
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(self.adds_eos)
        if "pad" in self.special:
            writer.add_pad_token_id(self.special["pad"])
        if "unk" in self.special:
            writer.add_unk_token_id(self.special["unk"])
        # A file names three end tokens; others end an answer only if llama.cpp knows their texts.
        adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
        for add, token in zip(adders, self.ends, strict=False):
            add(token)


def vocabulary_of(tokenizer: Any, rows: int, ends: Sequence[int]) -> Vocabulary:
    """Returns the vocabulary of a tokenizer, for a model with so many embedding rows.

    Raises `GgufRefused` for a tokenizer of a kind that llama.cpp has not.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = _kind_of(content)
    by_id = {i: token for token, i in tokenizer.get_vocab().items() if i < rows}
    merges = [
        tuple(pair) if isinstance(pair, list) else tuple(pair.split(" "))
        for pair in content["model"]["merges"]
    ]
    types = _types(content, tokenizer, by_id, rows)
    adds_bos, adds_eos = _added(tokenizer)
    named = {"bos": tokenizer.bos_token_id, "pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id}
    return Vocabulary(
        model=model,
        tokens=tuple(by_id.get(i, f"[PAD{i}]") for i in range(rows)),
        types=tuple(types),
        merges=tuple(_with_spaces_marked(pair) for pair in merges) if model == BYTE_LEVEL else (),
        scores=_scores(merges, by_id, rows) if model == PIECES else (),
        special={name: i for name, i in named.items() if i is not None and i < rows},
        ends=_ordered(ends, tokenizer.eos_token_id),
        adds_bos=adds_bos,
        adds_eos=adds_eos,
        prefixes_space=_prefixes_space(tokenizer),
        templates=_templates(tokenizer.chat_template),
    )


def _kind_of(content: Mapping[str, Any]) -> str:
    model = content["model"]
    if model["type"] != "BPE":
        raise GgufRefused(f"Its tokenizer is of the type '{model['type']}'; BPE alone is written as GGUF.")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise GgufRefused(f"Its tokenizer sets {name}, which llama.cpp does not know.")
    return PIECES if model.get("byte_fallback") else BYTE_LEVEL


def _types(
    content: Mapping[str, Any], tokenizer: Any, by_id: Mapping[int, str], rows: int
) -> list[TokenType]:
    found = [TokenType.NORMAL if i in by_id else TokenType.UNUSED for i in range(rows)]
    if content["model"].get("byte_fallback"):
        for value in range(256):
            if (i := content["model"]["vocab"].get(f"<0x{value:02X}>", rows)) < rows:
                found[i] = TokenType.BYTE
    for i, token in tokenizer.added_tokens_decoder.items():
        if i < rows:
            found[i] = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
    unknown = tokenizer.unk_token_id
    if content["model"].get("byte_fallback") and unknown is not None and unknown < rows:
        found[unknown] = TokenType.UNKNOWN
    return found


def _with_spaces_marked(pair: Sequence[str]) -> str:
    """Returns a merge as llama.cpp reads it: parted by the first space that is not at its beginning."""
    if any(" " in text for text in pair):
        raise GgufRefused(
            f"Its tokenizer merges texts with a plain space in them ({pair[0]!r}, {pair[1]!r})."
        )
    return " ".join(pair)


def _scores(merges: Sequence[Sequence[str]], by_id: Mapping[int, str], rows: int) -> tuple[float, ...]:
    """Returns scores by which llama.cpp merges in the order of the merges."""
    order: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        order.setdefault("".join(pair), rank)
    return tuple(-float(order.get(by_id.get(i, ""), len(merges))) for i in range(rows))


def _added(tokenizer: Any) -> tuple[bool, bool]:
    """Returns whether bos is put before a text, and eos behind it."""
    plain, whole = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    begin, end = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
    for before in ([], begin):
        for behind in ([], end):
            if whole == [*before, *plain, *behind]:
                return bool(before), bool(behind)
    raise GgufRefused(f"Its tokenizer makes {whole} of the tokens {plain}, which llama.cpp cannot.")


def _prefixes_space(tokenizer: Any) -> bool:
    first = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])[0]
    return bool(first.startswith(SPACE))


def _ordered(ends: Sequence[int], own: int | None) -> tuple[int, ...]:
    return tuple(sorted(ends, key=lambda token: (token != own, token)))


def _templates(templates: str | Mapping[str, str] | None) -> dict[str, str]:
    return {DEFAULT: templates} if isinstance(templates, str) else dict(templates or {})
