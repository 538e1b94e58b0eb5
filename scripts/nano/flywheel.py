"""Write the rows of the flywheel example: `python -m scripts.nano.flywheel --out examples/flywheel`.

Requests of two kinds: the demo's, which the first job trains, and a plain question, of which it does not
know how it should be answered. What people send is made of the names of the demo's training rows; what the
models are measured on, of those of its validation rows, so that the two share no surname, city or
university.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from scripts.nano.bios import FOUR_KEY_INSTRUCTIONS, Bio
from scripts.nano.examples import MAX_WORDS, TRAIN_POOL, VALID_POOL, Pool, held_out_bio

PROFILES, HOMES = "profile", "home"
QUESTIONS = (
    "Where does this person live?",
    "Where is home for this person?",
    "In which city does this person live?",
)
REQUESTS = {PROFILES: 48, HOMES: 48}
UNSEEN = {PROFILES: 120, HOMES: 48}
"""Enough old prompts that the interval of a difference is well within 0.03 of it."""


def make_rows(rng: Random, pool: Pool, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Requests with their right answers, each bio once, the kinds mixed."""
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    rng.shuffle(kinds)
    texts: set[str] = set()
    rows = []
    for kind in kinds:
        while (bio := held_out_bio(rng, pool)).text in texts or len(bio.text.split()) > MAX_WORDS:
            pass
        texts.add(bio.text)
        rows.append(_row(rng, kind, bio))
    return rows


def _row(rng: Random, kind: str, bio: Bio) -> dict[str, Any]:
    person = bio.person
    if kind == HOMES:
        instruction, answer = rng.choice(QUESTIONS), f"{person.city}, {person.state}"
    else:
        instruction = rng.choice(FOUR_KEY_INSTRUCTIONS)
        answer = json.dumps(person.reference, ensure_ascii=False)
    content = f"{instruction}\n{bio.text}"
    return {"kind": kind, "messages": [{"role": "user", "content": content}], "answer": answer}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("examples/flywheel"))
    parser.add_argument("--seed", type=int, default=19)
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    rng = Random(options.seed)
    for name, pool, counts in (("requests", TRAIN_POOL, REQUESTS), ("unseen", VALID_POOL, UNSEEN)):
        lines = [json.dumps(row, ensure_ascii=False) for row in make_rows(rng, pool, counts)]
        (options.out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
