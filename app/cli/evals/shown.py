"""Shows runs, items and comparisons to a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.cli.evals import comparison
from app.cli.output import print_table
from app.cli.preflights import say

HEADINGS = {
    "name": "Criterion",
    "n": "Rows",
    "a": "A",
    "b": "B",
    "gain": "B - A",
    "interval": "95 % interval",
    "p": "p",
}
MOST_CHARACTERS = 160
"""Of a row or an answer that are shown."""


def print_run(run: Mapping[str, Any]) -> None:
    """Prints what a run has come to."""
    say(f"{run['id']}  {run['name']}: {run['status']}" + (f", {run['model']}" if run["model"] else ""))
    if run["error"] and run["error"]["message"]:
        say(run["error"]["message"], "red")
    counts = run["result_counts"]
    say(f"Passed {passed(run)}; {counts['failed']} failed, {counts['errored']} could not be judged.")
    for one in run["per_testing_criteria_results"]:
        judged = one["passed"] + one["failed"]
        say(f"  {one['testing_criteria']}: {one['passed']} of {judged}")


def passed(run: Mapping[str, Any]) -> str:
    """Returns how many items have passed, in words."""
    counts = run["result_counts"]
    return f"{counts['passed']} of {counts['total']}"


def print_item(item: Mapping[str, Any]) -> None:
    """Prints an item on one line, with what is wrong with it."""
    sample, why = item["sample"], item["sample"]["error"]["message"]
    said = sample["output"][0]["content"] if sample["output"] else ""
    for result in item["results"]:
        if error := result.get("error"):
            why = why or error["message"]
    shown = json.dumps(item["datasource_item"], ensure_ascii=False)
    say(f"{item['status']}: {_short(shown)} -> {_short(why or said)}", "yellow" if why else "")


def _short(text: str, most: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def as_json_of(compared: comparison.Comparison) -> dict[str, Any]:
    """Returns a comparison as JSON tells it."""
    criteria = [
        {
            "name": one.name,
            "mean_a": one.mean_a,
            "mean_b": one.mean_b,
            **(
                {}
                if one.found is None
                else {"n": one.found.n, "difference": one.found.mean, "p": one.found.p}
            ),
            "interval": _interval(one),
        }
        for one in compared.criteria
    ]
    return {**compared._asdict(), "criteria": criteria}


def _interval(one: comparison.Criterion) -> list[float] | None:
    """Returns the 95 % interval of the difference; None of too few rows."""
    if one.found is None or one.found.n < comparison.LEAST_ROWS:
        return None
    return [one.found.low, one.found.high]


def print_comparison(compared: comparison.Comparison) -> None:
    """Prints a comparison as a table."""
    say(f"{compared.rows} rows that both runs have.")
    if compared.only_a or compared.only_b:
        say(f"{compared.only_a} only A has, {compared.only_b} only B.", "yellow")
    print_table(HEADINGS, [_row(one) for one in compared.criteria], empty="Nothing was judged in both.")


def _row(one: comparison.Criterion) -> dict[str, str]:
    if one.found is None:
        return {"name": one.name, "n": "0", **dict.fromkeys(("a", "b", "gain", "interval", "p"), "")}
    interval = _interval(one)
    return {
        "name": one.name,
        "n": str(one.found.n),
        "a": f"{one.mean_a:.3g}",
        "b": f"{one.mean_b:.3g}",
        "gain": f"{one.found.mean:+.3g}",
        "interval": f"{interval[0]:+.3g} to {interval[1]:+.3g}" if interval else "too few rows",
        "p": f"{one.found.p:.2g}",
    }
