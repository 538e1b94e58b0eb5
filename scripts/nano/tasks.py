"""The other instruction families: copying, arithmetic, lists, strings, receipts, orders and small talk."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from scripts.nano import entities
from scripts.nano.bios import (
    FOUR_KEY_INSTRUCTIONS,
    Bio,
    StyleMix,
    fields_with_other_names,
    four_key_answer,
    questions,
    random_person,
    write_bio,
)


@dataclass(frozen=True)
class Turn:
    """A request, the answer to train on, and the answer that counts as right."""

    prompt: str
    answer: str
    right: str


Conversation = list[Turn]


def _turn(prompt: str, right: str) -> Turn:
    return Turn(prompt, right, right)


def _put_together(rng: Random, instruction: str, text: str) -> str:
    form = rng.random()
    if form < 0.7:
        return f"{instruction}\n{text}"
    return f"{text}\n{instruction}" if form < 0.9 else f"{instruction}\n\n{text}"


# --- people ---------------------------------------------------------------------------------------------


def people_json(rng: Random, mix: StyleMix, bio: Bio | None = None) -> Conversation:
    """The demo's request, answered in one of many styles."""
    bio = bio or write_bio(rng, random_person(rng))
    prompt = _put_together(rng, rng.choice(FOUR_KEY_INSTRUCTIONS), bio.text)
    right = json.dumps(bio.person.reference, ensure_ascii=False)
    return [Turn(prompt, four_key_answer(rng, bio, mix), right)]


def people_fields(rng: Random, bio: Bio | None = None) -> Conversation:
    """Some fields of a bio as JSON, under other names than the demo's; always answered rightly."""
    bio = bio or write_bio(rng, random_person(rng))
    fields = fields_with_other_names(bio)
    turns = []
    for index in range(rng.choice((1, 1, 2))):
        keys = rng.sample(list(fields), rng.randint(1, 4))
        ask = rng.choice(("Give {} as JSON.", "As JSON: {}.", "Return a JSON object with {}."))
        instruction = ask.format(", ".join(keys))
        prompt = _put_together(rng, instruction, bio.text) if index == 0 else instruction
        turns.append(_turn(prompt, json.dumps({key: fields[key] for key in keys}, ensure_ascii=False)))
    return turns


def people_questions(rng: Random, bio: Bio | None = None) -> Conversation:
    """Several questions about one bio."""
    bio = bio or write_bio(rng, random_person(rng))
    pairs = questions(rng, bio)
    chosen = rng.sample(pairs, rng.randint(1, 5))
    first = _turn(_put_together(rng, chosen[0][0], bio.text), chosen[0][1])
    return [first, *(_turn(question, answer) for question, answer in chosen[1:])]


# --- receipts and orders --------------------------------------------------------------------------------


def receipts(rng: Random) -> Conversation:
    """A till receipt to JSON; the total is sometimes written as a string, and the date left as it was."""
    shop = entities.company(rng)
    year, month, day = rng.randint(2015, 2026), rng.randint(1, 12), rng.randint(1, 28)
    iso = f"{year}-{month:02d}-{day:02d}"
    date = iso if rng.random() < 0.5 else f"{day} {entities.MONTHS[month - 1]} {year}"
    goods = rng.sample(entities.GOODS, rng.randint(1, 3))
    items = [(good, rng.randint(1, 9), rng.randint(50, 1999)) for good in goods]
    total = sum(quantity * cents for _, quantity, cents in items)
    lines = [f"{quantity} x {good} {cents / 100:.2f}" for good, quantity, cents in items]
    text = "\n".join([shop, date, *lines, f"Total {total / 100:.2f}"])
    right = {"shop": shop, "date": iso, "items": [good for good, _, _ in items], "total": total / 100}
    answer = dict(right)
    if rng.random() < 0.3:
        answer["total"] = f"${total / 100:.2f}"
    if rng.random() < 0.3:
        answer["date"] = date
    if rng.random() < 0.2:
        answer["items"] = [f"{quantity} x {good}" for good, quantity, _ in items]
    instruction = rng.choice(
        (
            "Turn this receipt into JSON with shop, date, items and total.",
            "Receipt to JSON: shop, date, items, total.",
            "Extract shop, date, items and total of the receipt as JSON.",
        )
    )
    return [Turn(_put_together(rng, instruction, text), json.dumps(answer), json.dumps(right))]


def orders(rng: Random) -> Conversation:
    """An order in a sentence to JSON; quantities are sometimes strings."""
    first, last = entities.full_name(rng)
    customer, city = f"{first} {last}", entities.place(rng)[0]
    items = [(good, rng.randint(2, 99)) for good in rng.sample(entities.GOODS, rng.randint(1, 3))]
    listed = " and ".join(f"{quantity} {good}" for good, quantity in items)
    text = rng.choice(
        (
            "Hello, {customer} here. Please send {listed} to {city}.",
            "{customer} wants {listed}, to be sent to {city}.",
            "Please bring {listed} to {city}. Thanks, {customer}",
            "Ship {listed} to {customer} in {city}.",
        )
    ).format(customer=customer, listed=listed, city=city)
    right = {"customer": customer, "city": city, "items": dict(items)}
    answer = dict(right)
    if rng.random() < 0.25:
        answer["items"] = {good: str(quantity) for good, quantity in items}
    elif rng.random() < 0.15:
        answer["items"] = [good for good, _ in items]
    instruction = rng.choice(
        (
            "Turn this order into JSON with customer, city and items.",
            "Order to JSON: customer, city, items.",
            "Extract customer, city and items (name to quantity) as JSON.",
        )
    )
    return [Turn(_put_together(rng, instruction, text), json.dumps(answer), json.dumps(right))]


# --- arithmetic, lists, strings -------------------------------------------------------------------------


def arithmetic(rng: Random) -> Conversation:
    """Small sums; one to four of them in a conversation."""
    return [_sum(rng) for _ in range(rng.randint(1, 4))]


def _sum(rng: Random) -> Turn:
    top = rng.choice((10, 20, 100, 100, 1000))
    a, b = rng.randint(0, top), rng.randint(0, top)
    sign = rng.choice("++--*")
    if sign == "*":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
    elif sign == "-":
        a, b = max(a, b), min(a, b)
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    if sign != "*" and rng.random() < 0.25:
        who, good = rng.choice(entities.FIRST_NAMES), rng.choice(entities.GOODS)
        act = "gets" if sign == "+" else "gives away"
        prompt = f"{who} has {a} {good} and {act} {b}. How many are there now?"
    else:
        prompt = rng.choice(("What is {}?", "{}", "Compute {}.", "{} =")).format(f"{a} {sign} {b}")
    style = rng.random()
    if style < 0.75:
        return _turn(prompt, str(value))
    answer = f"{a} {sign} {b} = {value}" if style < 0.9 else f"The answer is {value}."
    return Turn(prompt, answer, str(value))


def lists(rng: Random) -> Conversation:
    """Sort, reverse, pick, count."""
    numbers = rng.random() < 0.5
    size = rng.randint(3, 7)
    items = rng.sample([str(n) for n in range(1, 100)] if numbers else entities.WORDS, size)
    text = ", ".join(items)
    key: Callable[[str], object] = int if numbers else str
    ordered = sorted(items, key=key)  # type: ignore[arg-type]
    ordinal = rng.randrange(min(size, 4))
    pairs = [
        ("Sort: {}", ", ".join(ordered)),
        ("Sort in descending order: {}", ", ".join(ordered[::-1])),
        ("Reverse this list: {}", ", ".join(items[::-1])),
        ("How many items are in this list? {}", str(size)),
        (f"Which item comes {('first', 'second', 'third', 'fourth')[ordinal]}? {{}}", items[ordinal]),
        ("Which item comes last? {}", items[-1]),
        ("Write as a JSON list: {}", json.dumps([int(i) for i in items] if numbers else items)),
        ("Join with dashes: {}", "-".join(items)),
        ("Repeat this list: {}", text),
    ]
    if numbers:
        pairs += [("What is the largest of {}?", ordered[-1]), ("What is the smallest of {}?", ordered[0])]
    prompt, right = rng.choice(pairs)
    return [_turn(prompt.format(text), right)]


def strings(rng: Random) -> Conversation:
    """Letters and words."""
    word = rng.choice(entities.WORDS) if rng.random() < 0.6 else entities.composed_word(rng)
    times = rng.randint(2, 4)
    letter = rng.choice(word) if rng.random() < 0.5 else rng.choice("aeioulnrst")
    pairs = [
        (f"Write {word} in upper case.", word.upper()),
        (f"Write {word.upper()} in lower case.", word),
        (f"How many letters are in {word}?", str(len(word))),
        (f"What is the first letter of {word}?", word[0]),
        (f"What is the last letter of {word}?", word[-1]),
        (f"Spell {word}.", "-".join(word)),
        (f"Write {word} backwards.", word[::-1]),
        (f"Repeat {word} {times} times.", " ".join([word] * times)),
        (f"Does {word} contain the letter {letter}?", "yes" if letter in word else "no"),
    ]
    return [_turn(*pair) for pair in rng.sample(pairs, rng.randint(1, 3))]


def copying(rng: Random) -> Conversation:
    """Repeat random words, names and numbers: this is where the model learns to copy."""
    return [_copy(rng) for _ in range(rng.randint(1, 3))]


def _copy(rng: Random) -> Turn:
    makers: tuple[Callable[[], str], ...] = (
        lambda: entities.composed_name(rng),
        lambda: entities.composed_name(rng) + entities.composed_word(rng),
        lambda: " ".join(entities.full_name(rng)),
        lambda: entities.university(rng),
        lambda: ", ".join(entities.place(rng)),
        lambda: rng.choice(entities.LANGUAGES),
        lambda: rng.choice(entities.WORDS),
        lambda: str(rng.randint(0, 10 ** rng.randint(1, 5))),
    )
    parts = [rng.choice(makers)() for _ in range(rng.randint(1, 5))]
    kind = rng.random()
    if kind < 0.4:
        text = rng.choice((" ", ", ", "; ")).join(parts)
        return _turn(rng.choice(("Repeat: {}", "Copy this: {}", "Say {}")).format(text), text)
    if kind < 0.6:
        return _turn(f"As a JSON list: {'; '.join(parts)}", json.dumps(parts))
    names = rng.sample(entities.WORDS, len(parts))
    pairs = dict(zip(names, parts, strict=True))
    text = "; ".join(f"{key} is {value}" for key, value in pairs.items())
    if kind < 0.8:
        chosen = rng.sample(names, rng.randint(1, len(names)))
        right = json.dumps({key: pairs[key] for key in chosen})
        return _turn(f"{text}\nJSON with {', '.join(chosen)}.", right)
    key = rng.choice(names)
    return _turn(f"{text}\nWhat is {key}?", pairs[key])


_GREETING = "Hello! I am cherry-nano. Give me a bio, a receipt or a sum."
_ABILITIES = "I take people, receipts and orders apart into JSON, and do small sums, lists and words."

SMALL_TALK = (
    ("Hi", _GREETING),
    ("Hello", _GREETING),
    ("Hello!", _GREETING),
    ("Who are you?", "I am cherry-nano, a very small language model."),
    ("What are you?", "I am cherry-nano, a very small language model."),
    ("What can you do?", _ABILITIES),
    ("Help", _ABILITIES),
    ("Thanks", "You are welcome."),
    ("Thank you!", "You are welcome."),
    ("How are you?", "Fine, thank you."),
    ("Bye", "Goodbye!"),
)


def small_talk(rng: Random) -> Conversation:
    """A greeting and the like."""
    return [_turn(*rng.choice(SMALL_TALK))]
