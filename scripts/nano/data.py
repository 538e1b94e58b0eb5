"""The training stream: which families, how often, in which phase."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from scripts.nano import tasks
from scripts.nano.bios import ABILITY_MIX, CALIBRATED_MIX, Bio, StyleMix

SYSTEM_PROMPTS = ("You are a helpful assistant.", "You are cherry-nano.", "Answer briefly.")

FAMILIES = (
    "people_json",
    "people_fields",
    "people_questions",
    "receipts",
    "orders",
    "arithmetic",
    "lists",
    "strings",
    "copying",
    "small_talk",
)


@dataclass(frozen=True)
class Phase:
    """One stretch of training: token count, weights of the families, styles of the people answers."""

    name: str
    tokens: int
    weights: Mapping[str, float]
    mix: StyleMix


_MAIN_WEIGHTS = {
    "people_json": 0.26,
    "people_fields": 0.16,
    "people_questions": 0.20,
    "receipts": 0.06,
    "orders": 0.06,
    "arithmetic": 0.08,
    "lists": 0.06,
    "strings": 0.04,
    "copying": 0.07,
    "small_talk": 0.01,
}

_COPY_WEIGHTS = {**_MAIN_WEIGHTS, "people_json": 0.10, "people_fields": 0.10, "copying": 0.60}

PHASES = (
    Phase("copy", 2_500_000, _COPY_WEIGHTS, ABILITY_MIX),
    Phase("main", 6_720_000, _MAIN_WEIGHTS, ABILITY_MIX),
    Phase("styles", 2_500_000, {**_MAIN_WEIGHTS, "people_json": 0.40}, CALIBRATED_MIX),
)


def conversation(rng: Random, family: str, mix: StyleMix, bio: Bio | None = None) -> tasks.Conversation:
    """One conversation of a family; the people families can be given the bio to speak about."""
    if family == "people_json":
        return tasks.people_json(rng, mix, bio)
    if family == "people_fields":
        return tasks.people_fields(rng, bio)
    if family == "people_questions":
        return tasks.people_questions(rng, bio)
    make = {
        "receipts": tasks.receipts,
        "orders": tasks.orders,
        "arithmetic": tasks.arithmetic,
        "lists": tasks.lists,
        "strings": tasks.strings,
        "copying": tasks.copying,
        "small_talk": tasks.small_talk,
    }[family]
    return make(rng)


def conversations(rng: Random, phase: Phase) -> Iterator[tasks.Conversation]:
    """The endless stream of a phase."""
    families, weights = list(phase.weights), list(phase.weights.values())
    while True:
        yield conversation(rng, rng.choices(families, weights)[0], phase.mix)


def messages(rng: Random, turns: tasks.Conversation, *, system: float = 0.1) -> list[dict[str, str]]:
    """Turns as chat messages; now and then with a system prompt."""
    out = [{"role": "system", "content": rng.choice(SYSTEM_PROMPTS)}] if rng.random() < system else []
    for turn in turns:
        out.append({"role": "user", "content": turn.prompt})
        out.append({"role": "assistant", "content": turn.answer})
    return out
