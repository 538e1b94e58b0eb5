"""Signs and checks cards with ed25519. No database and no network: whoever has a public key can check one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.cards.canonical import canonical

ALGORITHM = "ed25519"
ID_DIGITS = 32
"""Hexadecimal digits of a key's id: 128 bits, so that no second key with the same id can be found."""
OBJECT = "fine_tuning.job.card"
CARD_FILE, MARKDOWN_FILE = "card.json", "card.md"
"""What a download calls a card."""
SIGNED = ("card", "markdown_sha256")
"""The parts of a document over whose canonical form its signature is."""
ENVELOPE = frozenset({"object", *SIGNED, "signature", "unsigned_reason"})


class KeyUnreadable(ValueError):
    """A text holds no public key of cards; the message says what does."""


class SignatureWrong(Exception):
    """A document's signature is not of a given key over this content; the message says what is wrong."""


def key_id(public: bytes) -> str:
    """Returns the id of a public key, which follows from its bytes."""
    return f"ck_{hashlib.sha256(public).hexdigest()[:ID_DIGITS]}"


def document_of(card: Mapping[str, Any], markdown: str) -> dict[str, Any]:
    """Returns what is handed out of a card, not signed yet."""
    of_text = hashlib.sha256(markdown.encode()).hexdigest()
    return {"object": OBJECT, "card": dict(card), "markdown_sha256": of_text, "signature": None}


def signed(document: Mapping[str, Any], private: Ed25519PrivateKey) -> dict[str, Any]:
    """Returns the document with its signature."""
    public = private.public_key().public_bytes_raw()
    value = base64.b64encode(private.sign(_signed_bytes(document))).decode()
    signature = {"algorithm": ALGORITHM, "key_id": key_id(public), "value": value}
    return {**document, "signature": signature, "unsigned_reason": None}


def unsigned(document: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Returns the document with what kept it from being signed."""
    return {**document, "signature": None, "unsigned_reason": reason}


def check(document: Any, keys: Mapping[str, bytes]) -> None:
    """Raises `SignatureWrong` unless one of these public keys, by id, has signed the document."""
    if not isinstance(document, dict) or set(document) != ENVELOPE or document["object"] != OBJECT:
        raise SignatureWrong("the card is no document of the form that Cherry writes")
    signature = document["signature"]
    if signature is None:
        raise SignatureWrong(f"the card is not signed: {document['unsigned_reason']}")
    if document["unsigned_reason"] is not None or not isinstance(signature, dict):
        raise SignatureWrong("the card's signature is not of the form that Cherry writes")
    if set(signature) != {"algorithm", "key_id", "value"} or signature["algorithm"] != ALGORITHM:
        raise SignatureWrong(f"the card's signature is not {ALGORITHM}")
    public = keys.get(str(signature["key_id"]))
    if public is None:
        known = ", ".join(sorted(keys))
        raise SignatureWrong(f"the card was signed with the key {signature['key_id']}, not with {known}")
    try:
        value = base64.b64decode(signature["value"], validate=True)
        Ed25519PublicKey.from_public_bytes(public).verify(value, _signed_bytes(document))
    except (InvalidSignature, ValueError, TypeError):
        raise SignatureWrong(
            "the signature is bad: the card has changed since it was signed, or somebody else has signed it"
        ) from None


def read_keys(text: str) -> dict[str, bytes]:
    """Returns the public keys, by id, of a text: base64, PEM, or JSON as the service lists its keys.

    Raises `KeyUnreadable`.
    """
    text = text.strip()
    try:
        if text.startswith("{"):
            found = [_raw(each["public_key"]) for each in json.loads(text)["data"]]
        elif text.startswith("-----BEGIN"):
            found = [_of_pem(text)]
        else:
            found = [_raw(text)]
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise KeyUnreadable(
            "the key is no ed25519 public key: give its base64, a PEM, or the JSON that `cherry cards keys"
            " --json` prints, or a file with one of these"
        ) from None
    return {key_id(public): public for public in found}


def _raw(encoded: str) -> bytes:
    public = base64.b64decode(encoded, validate=True)
    return Ed25519PublicKey.from_public_bytes(public).public_bytes_raw()


def _of_pem(text: str) -> bytes:
    public = serialization.load_pem_public_key(text.encode())
    if not isinstance(public, Ed25519PublicKey):
        raise ValueError("another algorithm")
    return public.public_bytes_raw()


def _signed_bytes(document: Mapping[str, Any]) -> bytes:
    return canonical({name: document[name] for name in SIGNED})
