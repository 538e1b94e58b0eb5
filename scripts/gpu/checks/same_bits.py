"""`python -m scripts.gpu.checks.same_bits FOLDER RUN OTHER...`: are their metrics the same bits?

Two runs of one seed, and one that was killed and went on, are so on a CPU. On a GPU this says what holds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

NOT_COMPARED = ("time/", "grades/")


def main(folder: Path, base: str, others: list[str]) -> int:
    """Prints a line for each other run; returns 1 where one has told nothing or other steps, else 0."""
    expected = series(folder / base)
    failed = not expected
    for other in others:
        found = series(folder / other)
        failed |= found.keys() != expected.keys()
        print(f"{base} against {other}: {compared(expected, found)}")
    return int(failed)


def series(run: Path) -> dict[int, dict[str, float]]:
    """Returns the numbers of each step as last told, without times."""
    steps = {}
    for line in (run / "metrics.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        values = row.get("values", row)
        steps[int(row["step"])] = {
            name: value
            for name, value in values.items()
            if isinstance(value, float) and not name.startswith(NOT_COMPARED)
        }
    return steps


def compared(expected: dict[int, dict[str, float]], found: dict[int, dict[str, float]]) -> str:
    """Returns where two runs differ most, and where first."""
    gaps = {
        (step, name): abs(found.get(step, {}).get(name, float("nan")) - value)
        for step, values in expected.items()
        for name, value in values.items()
    }
    apart = {at: gap for at, gap in gaps.items() if not gap <= 0}
    if not apart:
        return f"the same to the last bit over {len(expected)} steps"
    (step, name), gap = max(apart.items(), key=lambda item: (item[1] != item[1], item[1]))
    return (
        f"{len(apart)} of {len(gaps)} numbers differ, first in step {min(apart)[0]}, "
        f"most {name} of step {step}: {gap}"
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
