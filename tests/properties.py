"""How property tests draw their examples: the same ones in every run, or with `make fuzz-tests` new ones.

Both profiles of hypothesis measure no time, so that a busy machine fails no test.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SEEDED, FUZZ = "seeded", "fuzz"

FACTOR = int(os.environ.get("CHERRY_FUZZ_FACTOR", "50"))
"""So many times the usual number of examples are tried with the profile `fuzz`."""

USUAL = 100
"""Examples of a property that does not say how many."""


def register_profiles() -> None:
    """Makes the profiles known; `seeded` holds unless `--hypothesis-profile` names another."""
    timeless = settings(
        deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True, max_examples=USUAL
    )
    settings.register_profile(SEEDED, timeless, derandomize=True, database=None)
    settings.register_profile(FUZZ, timeless, max_examples=USUAL * FACTOR)
    settings.load_profile(SEEDED)


def examples(count: int) -> settings:
    """Returns settings under which a property is tried on `count` examples, and on more when fuzzing."""
    is_fuzzing = settings.get_current_profile_name() == FUZZ
    return settings(max_examples=count * FACTOR if is_fuzzing else count)
