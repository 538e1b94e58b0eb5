"""Write the demo rows: `python -m scripts.nano.examples --out examples/people`.

Surnames, universities and cities come from the held-out lists, and the training and the validation rows
share none of them.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from scripts.nano import entities
from scripts.nano.bios import FOUR_KEY_INSTRUCTIONS, Bio, make_person, write_bio

TRAIN_ROWS, VALID_ROWS = 48, 24
MAX_WORDS = 42

GRADER: dict[str, Any] = {
    "type": "fields",
    "name": "profile",
    "input": "{{sample.output_json}}",
    "reference": "{{item.reference}}",
    "fields": {
        "university": {"compare": "normalized"},
        "programming_languages": {"compare": "set", "items": "normalized"},
        "city": {"compare": "normalized"},
        "state": {"compare": "normalized"},
    },
    "extra_keys": "penalize",
}


@dataclass(frozen=True)
class Pool:
    """What the rows of one split are made of."""

    surnames: Sequence[str]
    cities: Sequence[tuple[str, ...]]
    universities: Sequence[str]


TRAIN_POOL = Pool(
    entities.HELD_OUT_SURNAMES[:20], entities.HELD_OUT_CITIES[:26], entities.HELD_OUT_UNIVERSITIES[0::3]
    + entities.HELD_OUT_UNIVERSITIES[1::3]
)  # fmt: skip
VALID_POOL = Pool(
    entities.HELD_OUT_SURNAMES[20:], entities.HELD_OUT_CITIES[26:], entities.HELD_OUT_UNIVERSITIES[2::3]
)


def held_out_bio(rng: Random, pool: Pool) -> Bio:
    """A bio whose surname, university and cities are unknown to the model."""
    here, there = rng.sample(list(pool.cities), 2)
    person = make_person(
        rng,
        rng.choice(entities.FIRST_NAMES),
        rng.choice(pool.surnames),
        rng.choice(pool.universities),
        (here[0], here[1]),
        (there[0], there[1]),
        former_languages=rng.choice((1, 2, 2)),
    )
    pronoun = "she" if person.first in entities.WOMENS_NAMES else "he"
    return write_bio(rng, replace(person, pronoun=pronoun), fillers=0.25)


def make_rows(rng: Random, pool: Pool, count: int) -> list[dict[str, Any]]:
    """Chat rows with references; each name occurs once."""
    rows: list[dict[str, Any]] = []
    names: set[str] = set()
    while len(rows) < count:
        bio = held_out_bio(rng, pool)
        if bio.person.name in names or len(bio.text.split()) > MAX_WORDS:
            continue
        names.add(bio.person.name)
        content = f"{rng.choice(FOUR_KEY_INSTRUCTIONS)}\n{bio.text}"
        rows.append({"messages": [{"role": "user", "content": content}], "reference": bio.person.reference})
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/people"))
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rng = Random(options.seed)
    for name, pool, count in (("train", TRAIN_POOL, TRAIN_ROWS), ("valid", VALID_POOL, VALID_ROWS)):
        lines = [json.dumps(row, ensure_ascii=False) for row in make_rows(rng, pool, count)]
        (options.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    (options.out / "grader.json").write_text(json.dumps(GRADER, indent=2) + "\n")


if __name__ == "__main__":
    main()
