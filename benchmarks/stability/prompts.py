"""Makes prompts: three families, of which any number of different ones can be drawn from a seed.

The built-in model counts and copies; stories260k goes on with a story, a sentence at a time; a model of
instructions adds two numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Item = dict[str, Any]
"""A row as graders see it: `messages`, and what the reward reads."""

Draw = Callable[[random.Random], Item]
"""Draws one prompt. Two draws may be equal; `different` keeps one of each."""

WORDS = (
    *("apple", "ladder", "orange", "summer", "garden", "river", "silver", "button", "candle", "forest"),
    *("window", "yellow", "pocket", "dragon", "basket", "island", "pepper", "harbor", "jacket", "planet"),
    *("cotton", "engine", "flower", "ginger", "hammer", "kitten", "lemon", "marble", "needle", "olive"),
)
NAMES = (
    *("Tom", "Lily", "Ben", "Sue", "Max", "Anna", "Tim", "Mia", "Sam", "Lucy"),
    *("Jack", "Amy", "Bob", "Jane"),
)
ANIMALS = ("dog", "cat", "bird", "girl", "boy", "bear", "rabbit", "mouse", "fish", "duck")
TRAITS = ("little", "big", "happy", "sad", "small", "kind", "funny", "old", "young", "brave")

GARBAGE = (
    *(
        "\u202eabc\u202c",
        "\ufffd\ufffd",
        "z\u0351\u0348a\u0319l\u030dg\u0321o",
        "\U0001f984" * 3,
        "\x00\x07\x1b",
    ),
    *("ｗｉｄｅ", "𝔣𝔯𝔞𝔨", "لا إله", "こんにちは", "Ω≈ç√", "<|im_end|>", "</s><s>", "{{ item }}", "'; DROP--"),
    *("\u200b\u200b", "%00%0a", "AAAAAAAA", "\t\t\r\n", "¯\\_(ツ)_/¯", "ﷺ", "\ue000\ue001", "1e999", "NaN"),
)


def counting(rng: random.Random) -> Item:
    """How many words a list has, two to seven. The built-in model is right in about four of ten."""
    words = rng.sample(WORDS, rng.randint(2, 7))
    listed = ", ".join(words)
    return _asked(f"How many items are in this list? {listed}", reference=str(len(words)))


def repeating(rng: random.Random) -> Item:
    """To say two names again, which the built-in model does in 99 of 100 answers."""
    text = f"{rng.choice(NAMES)} {rng.choice(NAMES)}"
    return _asked(f"Repeat: {text}", reference=text)


def sorting(rng: random.Random) -> Item:
    """To sort words backwards; the reference is in capitals, which nothing asks for and no answer has."""
    words = rng.sample(WORDS, rng.randint(3, 4))
    ordered = ", ".join(sorted(words, reverse=True))
    return _asked(f"Sort in descending order: {', '.join(words)}", reference=ordered.upper())


def story(rng: random.Random) -> Item:
    """A story's first two sentences; the third is the model's."""
    name, animal, trait = rng.choice(NAMES), rng.choice(ANIMALS), rng.choice(TRAITS)
    text = (
        f"Once upon a time there was a {rng.choice(TRAITS)} {animal} named {name}. {name} was very {trait}."
    )
    return _asked(text, name=name)


def garbage(rng: random.Random) -> Item:
    """What no model was made for: control characters, scripts, markup, emoji, in pieces and mixed."""
    return _asked(rng.choice(("", " ")).join(rng.choices(GARBAGE, k=rng.randint(1, 5))))


def adding(rng: random.Random) -> Item:
    """A sum of two numbers of two digits."""
    a, b = rng.randint(10, 99), rng.randint(10, 99)
    return _asked(f"What is {a} + {b}? Answer with the number only.", reference=str(a + b))


def different(draw: Draw, count: int, rng: random.Random) -> list[Item]:
    """Draws until there are `count` items with prompts of their own."""
    found: dict[str, Item] = {}
    while len(found) < count:
        item = draw(rng)
        found.setdefault(item["messages"][0]["content"], item)
    return list(found.values())


def _asked(text: str, **facts: str) -> Item:
    return {"messages": [{"role": "user", "content": text}], **facts}
