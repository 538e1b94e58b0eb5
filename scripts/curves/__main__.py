"""Makes the pictures of docs/reading-curves.md.

    python -m scripts.curves run [NAME ...]     trains them and keeps their metrics in docs/images/curves.json
    python -m scripts.curves draw               draws docs/images/curve-NAME.svg out of that file
    python -m scripts.curves take NAME CSV      keeps a recipe's result file in docs/images/recipes.json

A run took 1.5 to 8.5 minutes on two cores that ran other things; drawing takes no time.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path

from scripts.curves.drawing import Steps, drawing
from scripts.curves.runs import ROOT, RUNS, make

IMAGES = ROOT / "docs" / "images"
STORED = IMAGES / "curves.json"
RECIPES = IMAGES / "recipes.json"
COLUMNS = {
    "train_mean_reward": "reward/mean",
    "full_valid_mean_reward": "reward/valid_mean",
    "kl": "kl/probe_mean",
}
"""What of a result file is drawn."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("run", "draw", "take"))
    parser.add_argument("names", nargs="*", help="which runs (default: all); a name and a CSV file")
    args = parser.parse_args()
    if args.command == "run":
        for name in args.names or RUNS:
            keep(name)
    elif args.command == "take":
        name, file = args.names
        store(RECIPES, stored(RECIPES) | {name: take(Path(file))})
    else:
        for name, steps in (stored(STORED) | stored(RECIPES)).items():
            (IMAGES / f"curve-{name}.svg").write_text(drawing(steps), "utf-8")
    return 0


def keep(name: str) -> None:
    """Makes one run and writes its metrics beside those of the others."""
    with tempfile.TemporaryDirectory(prefix="cherry-curves-") as folder:
        steps = make(name, Path(folder) / name)
    runs = {**stored(STORED), name: steps}
    store(STORED, {key: runs[key] for key in RUNS if key in runs})


def take(result_file: Path) -> Steps:
    """Returns of a job's result file what is drawn."""
    with result_file.open(encoding="utf-8", newline="") as file:
        return [
            {"step": float(row["step"])}
            | {metric: float(row[column]) for column, metric in COLUMNS.items() if row.get(column)}
            for row in csv.DictReader(file)
        ]


def store(path: Path, runs: dict[str, Steps]) -> None:
    """Writes a line for each step."""
    parts = (
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(step) for step in steps) + "\n]"
        for name, steps in runs.items()
    )
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", "utf-8")


def stored(path: Path) -> dict[str, Steps]:
    found: dict[str, Steps] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


if __name__ == "__main__":
    raise SystemExit(main())
