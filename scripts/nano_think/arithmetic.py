"""Sums, differences and small products, worked out digit by digit, units first."""

from dataclasses import dataclass
from random import Random

from scripts.nano import entities
from scripts.nano_think.turns import HASTY_THOUGHTS, Asked, Conversation, Mix, Said

LARGEST = 999
"""Three digits: what the training rows have room and repetition for."""
QUESTIONS = ("What is {}?", "{}", "Compute {}.", "{} =", "How much is {}?")


@dataclass(frozen=True)
class Sum:
    """A first number and what is done to it, one after the other."""

    first: int
    steps: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        return " ".join([str(self.first), *(f"{sign} {number}" for sign, number in self.steps)])

    @property
    def value(self) -> int:
        value = self.first
        for sign, number in self.steps:
            value = value + number if sign == "+" else value - number if sign == "-" else value * number
        return value


def random_sum(rng: Random, operations: int = 0) -> Sum:
    """One to three operations; no value on the way is below nothing or above the largest."""
    count = operations or rng.choices((1, 2, 3), (0.40, 0.50, 0.10))[0]
    if not operations and count == 1 and rng.random() < 0.2:
        return Sum(rng.randint(2, 99), (("*", rng.randint(2, 9)),))
    while True:
        top = rng.choice((99, 99, 99, 999 if count < 3 else 99))
        first = rng.randint(2, top)
        steps = tuple((rng.choice("++-"), rng.randint(2, 99)) for _ in range(count))
        values = [Sum(first, steps[:n]).value for n in range(count + 1)]
        if min(values) >= 0 and max(values) <= LARGEST:
            return Sum(first, steps)


def thoughts(rng: Random, asked: Sum, *, slips: bool) -> tuple[str, int]:
    """Every operation in columns, and what comes out; with a slip, one column is wrong."""
    wrong = rng.randrange(len(asked.steps)) if slips else -1
    value, blocks = asked.first, []
    for number, (sign, operand) in enumerate(asked.steps):
        lines, value = _WAYS[sign](value, operand, rng if number == wrong else None)
        blocks.append("\n".join([f"{lines[0]}", *lines[1:], str(value)]))
    return "\n".join(blocks), value


def _columns(a: int, b: int) -> list[tuple[int | None, int | None]]:
    first, second = str(a)[::-1], str(b)[::-1]
    width = max(len(first), len(second))
    return [
        (int(first[n]) if n < len(first) else None, int(second[n]) if n < len(second) else None)
        for n in range(width)
    ]


def _slip(rng: Random | None, columns: int) -> dict[int, int]:
    """By how much which column is off."""
    return {rng.randrange(columns): rng.choice((-1, 1))} if rng else {}


def _add(a: int, b: int, rng: Random | None) -> tuple[list[str], int]:
    columns, lines, carry, digits = _columns(a, b), [f"{a}+{b}"], 0, ""
    off = _slip(rng, len(columns))
    for place, column in enumerate(columns):
        terms = [digit for digit in column if digit is not None] + [1] * carry
        total = max(0, sum(terms) + off.get(place, 0))
        lines.append("+".join(map(str, terms)) + f"={total}" if len(terms) > 1 else str(total))
        digits, carry = str(total % 10) + digits, total // 10
    return lines, int(f"{carry or ''}{digits}")


def _subtract(a: int, b: int, rng: Random | None) -> tuple[list[str], int]:
    columns, lines, borrow, digits = _columns(a, b), [f"{a}-{b}"], 0, ""
    off = _slip(rng, len(columns))
    for place, (upper, lower) in enumerate(columns):
        top, taken = upper or 0, [digit for digit in (lower, 1 if borrow else None) if digit is not None]
        borrow = int(top < sum(taken))
        top += 10 * borrow
        total = (top - sum(taken) + off.get(place, 0)) % 10
        lines.append("-".join(map(str, [top, *taken])) + f"={total}" if taken else str(total))
        digits = str(total) + digits
    return lines, int(digits)


def _multiply(a: int, b: int, rng: Random | None) -> tuple[list[str], int]:
    lines, carry, digits = [f"{a}*{b}"], 0, ""
    off = _slip(rng, len(str(a)))
    for place, digit in enumerate(str(a)[::-1]):
        product = max(0, int(digit) * b + off.get(place, 0))
        lines.append(f"{digit}*{b}={product}")
        if carry:
            lines.append(f"{product}+{carry}={product + carry}")
        digits, carry = str((product + carry) % 10) + digits, (product + carry) // 10
    return lines, int(f"{carry or ''}{digits}")


_WAYS = {"+": _add, "-": _subtract, "*": _multiply}


def question(rng: Random, asked: Sum) -> str:
    """The sum as it is, or as a story."""
    good, who = rng.choice(entities.GOODS), rng.choice(entities.FIRST_NAMES)
    if any(sign == "*" for sign, _ in asked.steps):
        if rng.random() < 0.6:
            return rng.choice(QUESTIONS).format(asked.text)
        return f"There are {asked.first} {good} in a box. How many are in {asked.steps[0][1]} boxes?"
    if rng.random() < 0.75:
        return rng.choice(QUESTIONS).format(asked.text)
    acts = [f"{'gets' if sign == '+' else 'gives away'} {number}" for sign, number in asked.steps]
    return f"{who} has {asked.first} {good}, {' and '.join(acts)}. How many are there now?"


def answered(rng: Random, asked: Sum, mix: Mix) -> Said:
    """The answer in a style of the mix."""
    style = mix.thinks(rng)
    if style == "hasty":
        return Said(rng.choice(HASTY_THOUGHTS), str(asked.value))
    worked, value = thoughts(rng, asked, slips=style == "slip")
    return Said(worked, str(value))


def arithmetic(rng: Random, mix: Mix) -> Conversation:
    """One sum; now and then another one after it."""
    turns: list[Asked | Said] = []
    for _ in range(2 if rng.random() < 0.15 else 1):
        asked = random_sum(rng)
        turns += [Asked(question(rng, asked)), answered(rng, asked, mix)]
    return Conversation(tuple(turns), str(asked.value))
