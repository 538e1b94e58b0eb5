"""Secrets kept readable are readable only with the operator's key, and only where they belong."""

from __future__ import annotations

import pytest

from app.sealing import NoSecretKey, NotOpened, Sealer
from app.settings import Settings


def sealer(key: str) -> Sealer:
    return Sealer(Settings(DATABASE_URL="postgresql://x/y", broker_url="memory://", secret_key=key))


def test_a_sealed_secret_opens_where_it_belongs_and_nowhere_else() -> None:
    mine = sealer("k" * 32)
    sealed = mine.seal(b"secret", "whe_1")
    assert b"secret" not in sealed
    assert mine.open(sealed, "whe_1") == b"secret"
    assert mine.seal(b"secret", "whe_1") != sealed
    with pytest.raises(NotOpened, match="tampered"):
        mine.open(sealed, "whe_2")
    with pytest.raises(NotOpened, match="tampered"):
        mine.open(sealed[:-1] + bytes([sealed[-1] ^ 1]), "whe_1")
    with pytest.raises(NotOpened, match="another CHERRY_SECRET_KEY"):
        sealer("other" * 10).open(sealed, "whe_1")


@pytest.mark.parametrize("key", ["", "short"])
def test_no_secret_is_sealed_without_a_real_key(key: str) -> None:
    with pytest.raises(NoSecretKey, match="CHERRY_SECRET_KEY"):
        sealer(key)
