"""Write the rows of examples/thinking and examples/tools: `python -m scripts.nano_think.examples`."""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from scripts.nano_think import arithmetic, functions, lookups

SPLITS = {"train": 64, "valid": 24, "unseen": 100}
"""`unseen` is what the models are measured on afterwards."""
PRICE_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_price",
        "description": functions.PRICE.description,
        "parameters": {
            "type": "object",
            "properties": {"item": {"type": "string"}},
            "required": ["item"],
        },
    },
}

Row = dict[str, Any]


def thinking_row(rng: Random) -> Row:
    """Two operations in one sum, or three lines of a table to read."""
    if rng.random() < 0.5:
        asked = arithmetic.random_sum(rng, operations=2)
        content, right = rng.choice(arithmetic.QUESTIONS).format(asked.text), str(asked.value)
    else:
        walk = lookups.random_walk(rng, ties=2, size=4)
        content, right = lookups.prompt(rng, walk), walk.steps(rng, slips=False)[-1][2]
    return {"messages": [{"role": "user", "content": content}], "reference": right}


def tool_row(rng: Random) -> Row:
    """The price of an item that nobody has heard of."""
    item = functions.PRICE.key(rng)
    content = rng.choice(functions.PRICE.questions).format(item)
    price = str(rng.randint(10, 999))
    return {
        "messages": [{"role": "user", "content": content}],
        "tools": [PRICE_TOOL],
        "item_name": item,
        "reference": price,
    }


def make_splits(
    rng: Random, make: Callable[[Random], Row], key: Callable[[Row], str]
) -> dict[str, list[Row]]:
    """Rows of every split; none has the key of another."""
    seen: set[str] = set()
    splits: dict[str, list[Row]] = {}
    for name, count in SPLITS.items():
        rows = splits[name] = []
        while len(rows) < count:
            row = make(rng)
            if key(row) not in seen:
                seen.add(key(row))
                rows.append(row)
    return splits


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("examples"))
    parser.add_argument("--seed", type=int, default=23)
    options = parser.parse_args(arguments)
    rng = Random(options.seed)
    thinking = make_splits(rng, thinking_row, lambda row: row["messages"][0]["content"])
    tools = make_splits(rng, tool_row, lambda row: row["item_name"])
    rows = [row for split in tools.values() for row in split]
    prices = {row.pop("item_name"): int(row["reference"]) for row in rows}
    for name, splits in (("thinking", thinking), ("tools", tools)):
        (options.out / name).mkdir(parents=True, exist_ok=True)
        for split, made in splits.items():
            text = "".join(json.dumps(row) + "\n" for row in made)
            (options.out / name / f"{split}.jsonl").write_text(text)
    (options.out / "tools" / "prices.json").write_text(json.dumps(prices, indent=1) + "\n")


if __name__ == "__main__":
    main()
