"""Functions that can be called: their names, what they are asked for, and what they know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from scripts.nano import entities
from scripts.nano_think import arithmetic
from scripts.nano_think.lookups import CITIES


@dataclass(frozen=True)
class Kind:
    """A kind of function: what it may be called, its argument, and questions for it."""

    names: tuple[str, ...]
    argument: tuple[str, ...]
    description: str
    questions: tuple[str, ...]
    result: str
    key: Callable[[Random], str]
    value: Callable[[Random], str]


def _thing(rng: Random) -> str:
    return entities.composed_word(rng) if rng.random() < 0.8 else rng.choice(entities.WORDS)


def _person(rng: Random) -> str:
    return rng.choice(entities.FIRST_NAMES) if rng.random() < 0.5 else entities.composed_name(rng)


def _number(low: int, high: int) -> Callable[[Random], str]:
    return lambda rng: str(rng.randint(low, high))


PRICE = Kind(
    ("get_price", "price_of", "find_price"),
    ("item", "name", "product"),
    "Gives the price of an item.",
    ("What does {} cost?", "What is the price of {}?", "How much is {}?", "Price of {}?"),
    "price",
    _thing,
    _number(2, 999),
)
STOCK = Kind(
    ("get_stock", "stock_of", "count_items"),
    ("item", "name", "product"),
    "Counts what is in stock.",
    ("How many {} are in stock?", "What is the stock of {}?", "Stock of {}?"),
    "stock",
    _thing,
    _number(0, 99),
)
CITY = Kind(
    ("get_city", "city_of", "find_city"),
    ("name", "person", "who"),
    "Gives the city of a person.",
    ("Where does {} live?", "In which city does {} live?", "What is the city of {}?"),
    "city",
    _person,
    lambda rng: rng.choice(CITIES),
)
PHONE = Kind(
    ("get_phone", "phone_of", "find_phone"),
    ("name", "person", "who"),
    "Gives the phone number of a person.",
    ("What is the phone number of {}?", "How can I call {}?", "Phone number of {}?"),
    "phone",
    _person,
    _number(1000, 9999),
)
LOOK_UP = Kind(
    ("look_up", "search", "find"),
    ("key", "query", "word"),
    "Looks up a word.",
    ("Look up {}.", "What does {} stand for?", "What is {}?"),
    "value",
    _thing,
    lambda rng: rng.choice(entities.WORDS),
)
KINDS = (PRICE, STOCK, CITY, PHONE, LOOK_UP)


def _expression(rng: Random) -> str:
    return f"{rng.randint(12, 999)} {rng.choice('+-*')} {rng.randint(12, 999)}"


CALCULATOR = Kind(
    ("calculator", "calculate", "compute"),
    ("expression", "sum", "query"),
    "Computes an expression.",
    arithmetic.QUESTIONS,
    "result",
    _expression,
    _number(2, 9999),
)


@dataclass(frozen=True)
class Function:
    """One function of a kind under the name that it has in a conversation."""

    kind: Kind
    name: str
    argument: str

    def value_of(self, rng: Random, key: str) -> str:
        """What it answers; a calculator computes."""
        if self.kind is not CALCULATOR:
            return self.kind.value(rng)
        first, sign, second = key.split()
        value = {"+": int(first) + int(second), "-": int(first) - int(second), "*": int(first) * int(second)}
        return str(value[sign])


def random_function(rng: Random, kind: Kind, *, may_be_new: bool) -> Function:
    """A function under one of its usual names, or under one that exists nowhere."""
    name = rng.choice(kind.names)
    if may_be_new and rng.random() < 0.3:
        name = entities.composed_word(rng) + rng.choice(("", "", f"_{entities.composed_word(rng)}"))
    return Function(kind, name, rng.choice(kind.argument))


def _shuffled(rng: Random, mapping: Mapping[str, Any]) -> dict[str, Any]:
    keys = rng.sample(list(mapping), len(mapping))
    return {key: mapping[key] for key in keys}


def declared(rng: Random, function: Function) -> dict[str, Any]:
    """The function as a request's `tools` name it; keys in the usual order or in another."""
    argument: dict[str, Any] = {"type": "string"}
    if rng.random() < 0.2:
        argument["description"] = f"The {function.argument}."
    parameters = {
        "type": "object",
        "properties": {function.argument: argument},
        "required": [function.argument],
        **({"additionalProperties": False} if rng.random() < 0.3 else {}),
    }
    body: dict[str, Any] = {"name": function.name}
    if rng.random() < 0.8:
        body["description"] = function.kind.description
    body["parameters"] = parameters
    if rng.random() < 0.2:
        body["strict"] = True
    if rng.random() < 0.3:
        body["parameters"], body = _shuffled(rng, parameters), _shuffled(rng, body)
    return {"type": "function", "function": body}
