"""Holds the results to the bars: each is a sentence with its figures, and met or not."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from benchmarks.stability.findings import Finding, pairs
from benchmarks.stability.plan import RATES
from benchmarks.stability.statistics import clustered, highest_rate, holm, interval, worse_p

MOST_FORGOTTEN = 1.0
"""Nats per token on text of no job."""
FALSE_CLAIMS, COIN_RUNS = 15, 200
FALSE_ALARMS, SOUND_RUNS = 2, 100
SHOWN = 8
"""Runs that are named where a bar is not met."""


class Bar(NamedTuple):
    """One bar. `is_met` is None where there are too few runs to tell."""

    name: str
    said: str
    is_met: bool | None


def worse_than_base(every: Sequence[Finding], of: str = "worth") -> list[tuple[Finding, float]]:
    """Returns the tuned models that are worse than their base by Holm's correction, with their p."""
    tested = [each for each in every if each.is_tuned and (of != "worth" or each.can_differ)]
    values = [worse_p(each.differences(of)) for each in tested]
    falls = holm(values)
    return [(each, p) for each, p, fell in zip(tested, values, falls, strict=True) if fell]


def never_worse(every: Sequence[Finding]) -> Bar:
    """No delivered model is worse than its base."""
    tested = [each for each in every if each.is_tuned and each.can_differ]
    found = worse_than_base(every)
    at_once = sum(worse_p(each.differences()) <= 0.05 for each in tested)
    said = f"{len(found)} of {len(tested)} tuned models by Holm at 5 % ({at_once} with p <= 0.05 alone)"
    return Bar("worse than the base", said + _named([each for each, _ in found]), not found)


def gains(every: Sequence[Finding]) -> Bar:
    """The mean gain of the tuned models is above 0."""
    tuned = [each for each in every if each.is_tuned and each.can_differ]
    if not tuned:
        return Bar("mean gain of tuned models", "none was delivered", None)
    found = clustered([each.gain for each in tuned], [each.rows for each in tuned])
    return Bar("mean gain of tuned models", str(found), found.low > 0)


def false_claims(coin: Sequence[Finding]) -> Bar:
    """A coin as the reward teaches nothing: every claim of a gain is false."""
    claims = [each for each in coin if each.claims_gain]
    said = (
        f"{len(claims)} of {len(coin)}; the rate is below {highest_rate(len(claims), len(coin)):.1%} (95 %)"
    )
    is_met = None if len(coin) < COIN_RUNS else len(claims) <= FALSE_CLAIMS
    return Bar("gains claimed under a coin", said, is_met)


def forgetting(every: Sequence[Finding]) -> Bar:
    """No delivered model has forgotten much."""
    tuned = [each for each in every if each.is_tuned]
    far = [each for each in tuned if each.forgotten > MOST_FORGOTTEN]
    most = max((each.forgotten for each in tuned), default=0.0)
    said = (
        f"{len(far)} of {len(tuned)} tuned models above +{MOST_FORGOTTEN:g}, the most {most:+.2f} nats/token"
    )
    return Bar("loss on unrelated text", said + _named(far), not far)


def false_alarms(every: Sequence[Finding]) -> Bar:
    """A guard does not act on runs of clean data at the plain rate that end well."""
    clean = [each for each in every if each.run.data.is_clean and each.run.rate == 1]
    sound = [each for each in clean if each.forgotten <= MOST_FORGOTTEN and not _is_worse(each)]
    acted = [each for each in sound if each.acts]
    said = f"{len(acted)} of {len(sound)} sound runs ({len(clean)} on clean data at x1)" + _named(acted)
    return Bar("false alarms that act", said, None if len(sound) < SOUND_RUNS else len(acted) <= FALSE_ALARMS)


def _is_worse(finding: Finding) -> bool:
    return worse_p(finding.differences()) <= 0.05


def beside_peer(ours: Sequence[Finding], peer: Sequence[Finding]) -> list[Bar]:
    """Final reward less TRL's, pair by pair, at each rate."""
    bars = []
    for rate in RATES:
        both = [pair for pair in pairs(ours, peer) if pair[0].run.rate == rate and pair[0].can_differ]
        if len(both) < 2:
            continue
        found = interval([mine.reward - theirs.reward for mine, theirs in both])
        is_met = found.mean >= -found.stderr if rate == 1 else found.mean > 0
        mine, theirs = (fmean([pair[i].reward for pair in both]) for i in (0, 1))
        said = f"{mine:.3f} against {theirs:.3f}: {found.mean:+.3f} +- {found.stderr:.3f} (n={found.n})"
        bars.append(Bar(f"reward less TRL's {peer[0].model} at x{rate}", said, is_met))
    return bars


def time_beside(ours: Sequence[Finding], before: Sequence[Finding]) -> list[Bar]:
    """Seconds of a run beside those of the build before, over the same runs."""
    both = pairs(ours, before)
    bars = []
    for name, key in (("wall clock", "seconds"), ("CPU time", "cpu_seconds")):
        if both:
            mine, theirs = (fmean([pair[i].result[key] for pair in both]) for i in (0, 1))
            said = f"{mine:.1f} s against {theirs:.1f} s ({mine / theirs:.2f}, n={len(both)})"
            bars.append(Bar(f"{name} of a run beside the build before", said, mine <= theirs))
    return bars


def _named(found: Sequence[Finding]) -> str:
    if not found:
        return ""
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ": " + ", ".join(each.run.id for each in found[:SHOWN]) + more
