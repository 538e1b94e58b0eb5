"""Turns results into the Markdown of docs/benchmarks.md: bars, sides, and a line a data set and rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from benchmarks.stability import bars
from benchmarks.stability.bars import Bar
from benchmarks.stability.datasets import GRID
from benchmarks.stability.findings import BEST, LAST, Finding, broken_in, found_in
from benchmarks.stability.plan import RATES
from benchmarks.stability.statistics import middle_mean, worst_decile

FILES = {"ours": "ours.jsonl", "coin": "coin.jsonl", "trl": "trl.jsonl", "smol": "smol.jsonl"}
BEFORE = "today.jsonl"
"""The runs of the build before, made with `--build PATH --label today`."""


def text_of(folder: Path) -> str:
    """Returns the whole report of a folder of results."""
    grid, sound = (found_in(folder / FILES["ours"], (part,)) for part in ("grid", "sound"))
    before = found_in(folder / BEFORE, ("grid",))
    peer = {model: found_in(folder / FILES["trl"], ("trl",), model) for model in (LAST, BEST)}
    coin, smol = found_in(folder / FILES["coin"], ("coin",)), found_in(folder / FILES["smol"], ("smol",))
    coin_before = found_in(folder / BEFORE, ("coin",))
    sides = {"ours": grid, "the build before": before, "TRL, last step": peer[LAST], "TRL, best": peer[BEST]}
    parts = [
        _title([*grid, *sound, *coin, *smol]),
        bars_of(grid, sound, coin, smol, before, peer),
        sides_of(sides),
        data_sets_of(sides),
        coin_of({"ours": coin, "the build before": coin_before}),
        smol_of(smol),
        _broken([folder / name for name in (*FILES.values(), BEFORE)]),
    ]
    return "\n\n".join(part for part in parts if part)


def _title(found: Sequence[Finding]) -> str:
    builds = Counter(each.result["build"] for each in found)
    named = ", ".join(f"{build} ({count})" for build, count in builds.items()) or "none"
    return f"Runs of ours by build: {named}."


def bars_of(
    grid: Sequence[Finding],
    sound: Sequence[Finding],
    coin: Sequence[Finding],
    smol: Sequence[Finding],
    before: Sequence[Finding],
    peer: dict[str, list[Finding]],
) -> str:
    """A line for each bar."""
    every = [*grid, *sound, *coin, *smol]
    if not every:
        return ""
    found: list[Bar] = [
        bars.never_worse(every),
        bars.gains(every),
        bars.forgetting(every),
        bars.false_alarms([*grid, *sound]),
        *([bars.false_claims(coin)] if coin else []),
        *bars.beside_peer(grid, peer[LAST]),
        *bars.time_beside(grid, before),
    ]
    words = {True: "met", False: "**missed**", None: "too few runs"}
    rows = [(bar.name, bar.said, words[bar.is_met]) for bar in found]
    return table(("bar", "found", ""), rows)


def sides_of(sides: dict[str, list[Finding]]) -> str:
    """What each side delivers over all of its runs, and over those that all sides have made."""
    present = {name: found for name, found in sides.items() if found}
    shared = (
        set.intersection(*({_key(each) for each in found} for found in present.values()))
        if present
        else set()
    )
    rows = [_side(name, found) for name, found in present.items()]
    if len(present) > 1 and shared:
        common = {name: [each for each in found if _key(each) in shared] for name, found in present.items()}
        rows += [_side(f"{name}, runs of all sides", found) for name, found in common.items()]
    names = ("side", "runs", "tuned", "mean gain", "middle half", "worst tenth", "worst", "worse (Holm)")
    return table((*names, "meant: worse", "forgot > 1", "CPU s a run"), rows)


def _side(name: str, found: Sequence[Finding]) -> Sequence[str]:
    gains = [each.gain for each in found if each.can_differ]
    return (
        name,
        str(len(found)),
        str(sum(each.is_tuned for each in found)),
        f"{fmean(gains):+.3f}",
        f"{middle_mean(gains):+.3f}",
        f"{worst_decile(gains):+.3f}",
        f"{min(gains):+.3f}",
        str(len(bars.worse_than_base(found))),
        str(len(bars.worse_than_base(found, "meant"))),
        str(sum(each.forgotten > bars.MOST_FORGOTTEN for each in found)),
        f"{fmean([each.result['cpu_seconds'] for each in found]):.1f}",
    )


def data_sets_of(sides: dict[str, list[Finding]]) -> str:
    """A line for each data set and rate: means over the seeds."""
    ours, *others = sides
    rows = []
    for data in GRID:
        for rate in RATES:
            cells = {
                name: [each for each in found if each.run.data.name == data.name and each.run.rate == rate]
                for name, found in sides.items()
            }
            if any(cells.values()):
                rest = [_reward(cells[name]) for name in others]
                rows.append((data.title, f"x{rate}", _base(cells), *_cell(cells[ours]), *rest))
    own = ("delivered", "tuned", "worst gain", "forgot most", "KL", "acts", "steps")
    return table(("data set", "rate", "base", *own, *others), rows)


def _cell(found: Sequence[Finding]) -> Sequence[str]:
    if not found:
        return ("",) * 7
    tuned = [each for each in found if each.is_tuned]
    return (
        _reward(found),
        f"{len(tuned)} of {len(found)}",
        f"{min(each.gain for each in found):+.2f}",
        f"{max(each.forgotten for each in found):+.2f}",
        f"{fmean([each.judged['kl'] for each in tuned]):.2f}" if tuned else "",
        str(sum(bool(each.acts) for each in found)),
        f"{fmean([each.result['steps'] for each in found]):.0f}",
    )


def _base(cells: dict[str, list[Finding]]) -> str:
    return _mean([each.base_reward for found in cells.values() for each in found])


def _reward(found: Sequence[Finding]) -> str:
    return _mean([each.reward for each in found])


def _mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f}" if values else ""


def coin_of(sides: dict[str, list[Finding]]) -> str:
    """Claims under a coin, by the way in which the job came by its evaluation rows."""
    rows = []
    for name, found in sides.items():
        for title in dict.fromkeys(each.run.data.title for each in found):
            cell = [each for each in found if each.run.data.title == title]
            claims, tuned = sum(each.claims_gain for each in cell), sum(each.is_tuned for each in cell)
            rows.append((name, title, str(len(cell)), str(claims), str(tuned)))
    return table(("side", "coin as the reward", "runs", "claims", "tuned models"), rows) if rows else ""


def smol_of(found: Sequence[Finding]) -> str:
    """Each run of the instruction model."""
    rows = [
        (
            each.run.data.title,
            f"x{each.run.rate}",
            str(each.run.seed),
            f"{each.base_reward:.3f}",
            f"{each.reward:.3f}",
            f"{each.judged['kl']:.2f}",
            f"{each.forgotten:+.2f}",
            str(each.result["verdict"]),
            str(len(each.acts)),
            f"{each.result['seconds']:.0f}",
        )
        for each in found
    ]
    names = (
        "SmolLM2-135M",
        "rate",
        "seed",
        "base",
        "delivered",
        "KL",
        "forgot",
        "verdict",
        "acts",
        "seconds",
    )
    return table(names, rows) if rows else ""


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; without rows, nothing."""
    if not rows:
        return ""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _broken(paths: Sequence[Path]) -> str:
    found = broken_in(paths)
    return "Runs without a result:\n\n" + "\n".join(f"- {each}" for each in found) if found else ""


def _key(finding: Finding) -> tuple[tuple[str, int], int]:
    return finding.rows, finding.run.rate
