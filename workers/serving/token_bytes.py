"""Which bytes a token is by its name, and how bytes become text: what is no character is replaced."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

BROKEN = "\N{REPLACEMENT CHARACTER}"
REPLACED = BROKEN.encode()
_FALLBACK = re.compile("<0x([0-9A-Fa-f]{2})>")
_INCOMPLETE = "unexpected end of data"
"""Python's reason where more bytes could make a character of the last ones."""


def _byte_level_alphabet() -> dict[str, int]:
    """Returns the bytes that the letters of byte-level vocabularies stand for.

    Source: `bytes_to_unicode` of GPT-2 (github.com/openai/gpt-2, src/encoder.py).
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    letters = {chr(byte): byte for byte in shown}
    return letters | {chr(256 + i): byte for i, byte in enumerate(hidden)}


_ALPHABET = _byte_level_alphabet()


def spelled(name: str) -> bytes:
    """Returns what a token's name spells where all letters stand for bytes; else the name itself."""
    try:
        return bytes(_ALPHABET[letter] for letter in name)
    except KeyError:
        return name.encode()


def fallback_byte(name: str) -> bytes | None:
    """Returns the byte that a name such as <0xC3> stands for; None for every other name."""
    found = _FALLBACK.fullmatch(name)
    return bytes.fromhex(found[1]) if found else None


def name_of(tokenizer: Any, token: int) -> str | None:
    """Returns a token's name in the vocabulary; None for an id that has none."""
    try:
        name = tokenizer.convert_ids_to_tokens(token)
    except (IndexError, KeyError, ValueError, OverflowError):  # tokenizers say so in different ways
        return None
    return name if isinstance(name, str) else None


def is_text(data: bytes) -> bool:
    """Says whether bytes are whole characters."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def shares(pieces: Sequence[bytes], *, is_end: bool) -> list[bytes]:
    """Returns what each piece has of the text of all of them: their bytes, or of what is no character U+FFFD.

    Before the end, pieces from the first one on that waits for the rest of a character are left out.
    """
    data = b"".join(pieces)
    written: list[bytes] = []
    while len(written) < len(data):
        start = len(written)
        try:
            data[start:].decode()
        except UnicodeDecodeError as fault:
            written += _single(data[start : start + fault.start])
            if fault.reason == _INCOMPLETE and not is_end:
                break
            written += [REPLACED] + [b""] * (fault.end - fault.start - 1)
        else:
            written += _single(data[start:])
    return _by_piece(pieces, written)


def _single(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def _by_piece(pieces: Sequence[bytes], written: Sequence[bytes]) -> list[bytes]:
    found, end = [], 0
    for piece in pieces:
        start, end = end, end + len(piece)
        if end > len(written):
            break
        found.append(b"".join(written[start:end]))
    return found
