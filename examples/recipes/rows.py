"""Write the rows of the recipes in docs/recipes.md.

    python -m examples.recipes.rows sums FOLDER
    python -m examples.recipes.rows slots FOLDER --snips nlu-benchmark
    python -m examples.recipes.rows intents FOLDER --snips nlu-benchmark

The rows of `slots` and `intents` are made of the SNIPS benchmark (CC0 1.0; Coucke et al. 2018,
arXiv:1805.10190), of which `--snips` is a clone: `git clone https://github.com/sonos/nlu-benchmark`.
Training rows
come from its training files, validation rows from its validation files. Everything is drawn with seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

Row = dict[str, Any]
FOLDER_OF_INTENTS = "2017-06-custom-intent-engines"
COUNTS = {"train": 64, "valid": 40}
SLOTS = {
    "people": "party_size_number",
    "place": "restaurant_type",
    "city": "city",
    "time": "timeRange",
}
"""Our keys, and the names of the slots in the benchmark."""
INTENTS = {
    "AddToPlaylist": "playlist",
    "BookRestaurant": "restaurant",
    "GetWeather": "weather",
    "PlayMusic": "music",
    "RateBook": "book",
    "SearchCreativeWork": "search",
    "SearchScreeningEvent": "cinema",
}
"""Intents of the benchmark, and our word for each."""
ASK_SLOTS = """Which of people, place, city and time does the request name? Answer as JSON, in its words.
Request: Get me a table at a pub in Oslo for four
{"people": "four", "place": "pub", "city": "Oslo"}
Request: I want to eat at a diner at noon
{"place": "diner", "time": "noon"}
Request: """
ASK_INTENT = (
    f"Which one is the request about: {', '.join(INTENTS.values())}? Answer with one word.\nRequest: "
)


def main() -> int:
    args = parse_args()
    made: dict[str, Callable[[], dict[str, list[Row]]]] = {
        "sums": sums,
        "slots": lambda: slots(args.snips),
        "intents": lambda: intents(args.snips),
    }
    if args.recipe != "sums" and args.snips is None:
        raise SystemExit(f"The rows of {args.recipe} need --snips, a clone of the benchmark.")
    args.folder.mkdir(parents=True, exist_ok=True)
    for split, rows in made[args.recipe]().items():
        path = args.folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        print(f"{path}: {len(rows)} rows")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=("sums", "slots", "intents"))
    parser.add_argument("folder", type=Path, help="where train.jsonl and valid.jsonl are written")
    parser.add_argument("--snips", type=Path, help="a clone of github.com/sonos/nlu-benchmark")
    return parser.parse_args()


def sums() -> dict[str, list[Row]]:
    """Sums of two numbers of two digits, no pair twice in either order."""
    pairs = [(a, b) for a in range(10, 100) for b in range(a, 100)]
    drawn = Random(1).sample(pairs, sum(COUNTS.values()))
    rows = [
        asked(f"What is {a} + {b}? Answer with the number only.", {"answer": str(a + b)}) for a, b in drawn
    ]
    return {"train": rows[: COUNTS["train"]], "valid": rows[COUNTS["train"] :]}


def slots(benchmark: Path) -> dict[str, list[Row]]:
    """Requests for a table that name some of four slots; the reference has those, and no others."""
    return {
        split: [
            asked(
                ASK_SLOTS + text,
                {"reference": {ours: found[name] for ours, name in SLOTS.items() if name in found}},
            )
            for text, found in drawn("BookRestaurant", split, COUNTS[split], benchmark, names_one_of=SLOTS)
        ]
        for split in COUNTS
    }


def intents(benchmark: Path) -> dict[str, list[Row]]:
    """Requests of all seven kinds, as many of each as there is room for, in a drawn order."""
    made = {}
    for split, n in COUNTS.items():
        rows = [
            asked(ASK_INTENT + text, {"intent": word})
            for intent, word in INTENTS.items()
            for text, _ in drawn(intent, split, -(-n // len(INTENTS)), benchmark)
        ]
        made[split] = Random(3).sample(rows, n)
    return made


def asked(prompt: str, fields: Row) -> Row:
    return {"messages": [{"role": "user", "content": prompt}], **fields}


def drawn(
    intent: str, split: str, n: int, benchmark: Path, names_one_of: Mapping[str, str] | None = None
) -> list[tuple[str, dict[str, str]]]:
    """`n` sentences of one intent, each with its slots; a sentence that fills a slot twice is left out."""
    name = f"train_{intent}_full.json" if split == "train" else f"validate_{intent}.json"
    path = benchmark / FOLDER_OF_INTENTS / intent / name
    data = json.loads(path.read_text("utf-8", errors="replace"))[intent]
    wanted = set((names_one_of or {}).values())
    found = [each for each in readable(data) if not wanted or wanted & each[1].keys()]
    return Random(2).sample(found, n)


def readable(data: list[Any]) -> Iterator[tuple[str, dict[str, str]]]:
    seen = set()
    for entry in data:
        text = "".join(piece["text"] for piece in entry["data"]).strip()
        named = [(piece["entity"], piece["text"].strip()) for piece in entry["data"] if "entity" in piece]
        if text not in seen and len(dict(named)) == len(named) and "\ufffd" not in text:
            seen.add(text)
            yield text, dict(named)


if __name__ == "__main__":
    raise SystemExit(main())
