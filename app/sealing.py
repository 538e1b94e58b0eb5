"""Encrypts secrets that must be read again in the database, under the operator's CHERRY_SECRET_KEY.

It is AES-256-GCM. Each sealed value is bound to what it belongs to, so that a row's secret moved to another
row cannot be opened there.
"""

from __future__ import annotations

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.settings import Settings

MIN_KEY = 32
NONCE = 12
KEY_ID = 4


class NoSecretKey(Exception):
    """This process has no usable CHERRY_SECRET_KEY."""


class NotOpened(Exception):
    """A sealed value that this key does not open, or that belongs elsewhere."""


class Sealer:
    """Seals and opens with one key."""

    def __init__(self, settings: Settings) -> None:
        """Makes the key. Raises `NoSecretKey`."""
        key = settings.secret_key.get_secret_value().encode()
        if len(key) < MIN_KEY:
            raise NoSecretKey(f"CHERRY_SECRET_KEY must be set, to {MIN_KEY} characters or more.")
        self._id = hashlib.sha256(b"cherry key id\0" + key).digest()[:KEY_ID]
        self._cipher = AESGCM(hashlib.sha256(b"cherry sealing\0" + key).digest())

    def seal(self, plain: bytes, belongs_to: str) -> bytes:
        nonce = os.urandom(NONCE)
        return self._id + nonce + self._cipher.encrypt(nonce, plain, belongs_to.encode())

    def open(self, sealed: bytes, belongs_to: str) -> bytes:
        """Opens a sealed value. Raises `NotOpened`."""
        key_id, nonce, rest = sealed[:KEY_ID], sealed[KEY_ID : KEY_ID + NONCE], sealed[KEY_ID + NONCE :]
        if key_id != self._id:
            raise NotOpened(f"The secret of {belongs_to} was sealed with another CHERRY_SECRET_KEY.")
        try:
            return self._cipher.decrypt(nonce, rest, belongs_to.encode())
        except InvalidTag:
            raise NotOpened(f"The secret of {belongs_to} has been tampered with.") from None
