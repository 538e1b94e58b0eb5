"""Questions that only a call can answer, and the styles in which tools are used."""

import json
from dataclasses import dataclass
from random import Random
from typing import Any

from scripts.nano_think import arithmetic
from scripts.nano_think.arithmetic import Sum
from scripts.nano_think.functions import (
    CALCULATOR,
    KINDS,
    PRICE,
    Function,
    Kind,
    declared,
    random_function,
)
from scripts.nano_think.turns import Asked, Call, Conversation, Mix, Said, Told

GUESSING = "I will guess."
CHECKED = "The tool says {}."
IGNORED = "I know better."
NOT_FOUND = ("not found", '{"error": "not found"}', "error: nothing is known of it")
DO_NOT_KNOW = "I do not know."


@dataclass(frozen=True)
class Task:
    """A function, what it is asked for, what it would answer, and the other functions on offer."""

    function: Function
    key: str
    value: str
    others: tuple[Function, ...]

    def offered(self, rng: Random) -> tuple[dict[str, Any], ...]:
        functions = [self.function, *self.others]
        return tuple(declared(rng, function) for function in rng.sample(functions, len(functions)))

    def call(self, key: str) -> Call:
        return Call(self.function.name, {self.function.argument: key})

    def plan(self, *keys: str) -> str:
        return f"I need {self.function.name} for {' and '.join(keys)}."


def random_task(rng: Random, kind: Kind | None = None) -> Task:
    """One function is asked for; up to two others are on offer."""
    kind = kind or (CALCULATOR if rng.random() < 0.12 else rng.choice((PRICE, *KINDS)))
    others = rng.sample([other for other in KINDS if other is not kind], rng.choices((0, 1, 2), (6, 3, 1))[0])
    function = random_function(rng, kind, may_be_new=not others)
    key = kind.key(rng)
    rest = tuple(random_function(rng, other, may_be_new=False) for other in others)
    return Task(function, key, function.value_of(rng, key), rest)


def written(rng: Random, task: Task, value: str) -> str:
    """A result as a tool may write it."""
    form = rng.random()
    if form < 0.5:
        return value
    if form < 0.8:
        shown: Any = int(value) if value.lstrip("-").isdigit() and rng.random() < 0.8 else value
        return json.dumps({task.function.kind.result: shown})
    return f"The {task.function.kind.result} of {task.key} is {value}."


def used(rng: Random, task: Task, style: str) -> list[Told | Said]:
    """The turns after the question, in a style."""
    kind = task.function.kind
    if style == "guess":
        return [Said(GUESSING, kind.value(rng))]
    if style == "wrong argument":
        key = kind.key(rng)
        missed = Told((rng.choice(NOT_FOUND),))
        return [Said(task.plan(key), calls=(task.call(key),)), missed, _after_a_miss()]
    called = Said(task.plan(task.key), calls=(task.call(task.key),))
    told = Told((written(rng, task, task.value),))
    if style == "ignore":
        return [called, told, Said(IGNORED, kind.value(rng))]
    return [called, told, Said(CHECKED.format(task.value), task.value)]


def _after_a_miss() -> Said:
    return Said("The tool found nothing.", DO_NOT_KNOW)


def tools(rng: Random, mix: Mix) -> Conversation:
    """One question for one call, or one of the rarer forms."""
    form = rng.random()
    if form < 0.10:
        return two_calls(rng, mix)
    if form < 0.17:
        return several_of_one(rng, mix)
    if form < 0.22:
        return nothing_found(rng)
    if form < 0.27:
        return no_call_needed(rng, mix)
    task = random_task(rng)
    question = rng.choice(task.function.kind.questions).format(task.key)
    turns = [Asked(question), *used(rng, task, mix.uses_tools(rng))]
    return Conversation(tuple(turns), task.value, task.offered(rng))


def two_calls(rng: Random, mix: Mix) -> Conversation:
    """Two calls in one turn, and the sum of what they answer."""
    task = random_task(rng, PRICE)
    keys = (task.key, PRICE.key(rng))
    values = (rng.randint(2, 300), rng.randint(2, 300))
    asked = Asked(f"What do {keys[0]} and {keys[1]} cost together?")
    called = Said(task.plan(*keys), calls=tuple(task.call(key) for key in keys))
    told = Told(tuple(str(value) for value in values))
    added = Sum(values[0], (("+", values[1]),))
    ended = arithmetic.answered(rng, added, mix)
    return Conversation((asked, called, told, ended), str(added.value), task.offered(rng))


def several_of_one(rng: Random, mix: Mix) -> Conversation:
    """One call, and a product of what it answers."""
    task = random_task(rng, PRICE)
    count, price = rng.randint(2, 9), rng.randint(2, 99)
    asked = Asked(f"What do {count} {task.key} cost?")
    called = Said(task.plan(task.key), calls=(task.call(task.key),))
    product = Sum(price, (("*", count),))
    ended = arithmetic.answered(rng, product, mix)
    turns = (asked, called, Told((str(price),)), ended)
    return Conversation(turns, str(product.value), task.offered(rng))


def nothing_found(rng: Random) -> Conversation:
    """The right call, and a tool that knows nothing."""
    task = random_task(rng)
    asked = Asked(rng.choice(task.function.kind.questions).format(task.key))
    called = Said(task.plan(task.key), calls=(task.call(task.key),))
    turns = (asked, called, Told((rng.choice(NOT_FOUND),)), _after_a_miss())
    return Conversation(turns, DO_NOT_KNOW, task.offered(rng))


def no_call_needed(rng: Random, mix: Mix) -> Conversation:
    """A sum, with functions on offer that do not help."""
    task = random_task(rng, rng.choice(KINDS))
    plain = arithmetic.arithmetic(rng, mix)
    return Conversation(plain.turns, plain.right, task.offered(rng))
