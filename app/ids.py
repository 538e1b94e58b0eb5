"""Makes ids and names in OpenAI's forms."""

from __future__ import annotations

import secrets
import string

ALPHANUMERIC = string.ascii_letters + string.digits


def random_id(prefix: str, length: int = 24) -> str:
    """Returns `prefix` and that many unguessable alphanumerics, such as `ftjob-` + 24."""
    number = secrets.randbelow(len(ALPHANUMERIC) ** length)  # one call of the system's, not one a letter
    letters = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHANUMERIC))
        letters.append(ALPHANUMERIC[digit])
    return prefix + "".join(letters)
