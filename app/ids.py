"""Ids and names in OpenAI's forms."""

from __future__ import annotations

import secrets
import string

ALPHANUMERIC = string.ascii_letters + string.digits


def random_id(prefix: str, length: int = 24) -> str:
    """`prefix` and that many unguessable alphanumerics, such as `ftjob-` + 24."""
    return prefix + "".join(secrets.choice(ALPHANUMERIC) for _ in range(length))
