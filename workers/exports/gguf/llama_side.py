"""llama.cpp's side of the check of a tokenizer, where llama-cpp-python is installed: `python llama_side.py`.

It imports nothing of ours, so that any Python that has llama-cpp-python can run it. A line of JSON comes in:
`file`, a GGUF file; `rules`, names for `tokenizer.ggml.pre` (or null, for the file's own); `texts`; `ids`, by
which each of them should be read. One goes out for each rule, up to the first by which all texts are read so.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Sequence
from typing import Any

RULE_KEY = b"tokenizer.ggml.pre"
PIECE_BYTES = 1024
"""Longer than any published token."""


class Vocabulary:
    """Is a GGUF file's vocabulary, with its own split rule or another; `llama` is the library."""

    def __init__(self, llama: Any, file: str, rule: str | None) -> None:
        self._llama = llama
        params = llama.llama_model_default_params()
        params.vocab_only = True
        if rule is not None:
            self._overrides = (llama.llama_model_kv_override * 2)()
            self._overrides[0].tag = llama.LLAMA_KV_OVERRIDE_TYPE_STR
            self._overrides[0].key = RULE_KEY
            self._overrides[0].value.val_str = rule.encode()
            params.kv_overrides = self._overrides
        self._model = llama.llama_model_load_from_file(file.encode(), params)
        if not self._model:
            raise ValueError("llama.cpp cannot load it")
        self._vocabulary = llama.llama_model_get_vocab(self._model)

    def close(self) -> None:
        self._llama.llama_model_free(self._model)

    def ids(self, text: str, *, added: bool) -> list[int]:
        """Returns the tokens of a text, special ones read as such; `added`: with bos and eos."""
        data = text.encode()
        found = (self._llama.llama_token * (len(data) + 8))()
        n = self._llama.llama_tokenize(self._vocabulary, data, len(data), found, len(found), added, True)
        return list(found[:n])

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens, put together of each one's."""
        pieces = []
        for token in ids:
            piece = ctypes.create_string_buffer(PIECE_BYTES)
            n = self._llama.llama_token_to_piece(self._vocabulary, token, piece, PIECE_BYTES, 0, True)
            pieces.append(piece.raw[:n])
        return b"".join(pieces).decode(errors="replace")

    def ends(self) -> list[int]:
        """Returns every token that ends an answer."""
        number = self._llama.llama_vocab_n_tokens(self._vocabulary)
        return [i for i in range(number) if self._llama.llama_vocab_is_eog(self._vocabulary, i)]


def tried(llama: Any, asked: dict[str, Any], rule: str | None) -> dict[str, Any]:
    """Returns which texts are read otherwise by a rule; for one that reads all rightly, all else as well."""
    try:
        vocabulary = Vocabulary(llama, asked["file"], rule)
    except ValueError as problem:
        return {"rule": rule, "fault": str(problem)}
    try:
        read = [vocabulary.ids(text, added=False) for text in asked["texts"]]
        odd = [i for i, ids in enumerate(read) if ids != asked["ids"][i]]
        found: dict[str, Any] = {"rule": rule, "version": llama.__version__, "odd": odd}
        if odd:
            return {**found, "example": read[odd[0]]}
        whole = [vocabulary.ids(text, added=True) for text in asked["texts"]]
        return {**found, "whole": whole, "back": list(map(vocabulary.text, read)), "ends": vocabulary.ends()}
    finally:
        vocabulary.close()


def main() -> None:
    """Answers the line that comes in."""
    import llama_cpp as llama  # every module of ours can be imported without it

    silent = llama.llama_log_callback(lambda *_: None)
    llama.llama_log_set(silent, ctypes.c_void_p())
    llama.llama_backend_init()
    asked = json.loads(sys.stdin.readline())
    for rule in asked["rules"]:
        found = tried(llama, asked, rule)
        print(json.dumps(found), flush=True)
        if found.get("odd") == []:
            return


if __name__ == "__main__":
    main()
