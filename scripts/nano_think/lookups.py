"""Questions that go from one line of a short table to the next."""

from dataclasses import dataclass
from random import Random

from scripts.nano import entities
from scripts.nano_think.turns import HASTY_THOUGHTS, Asked, Conversation, Mix, Said

PEOPLE = ("boss", "friend", "aunt", "teacher")
CITIES = [city for city, _ in entities.CITIES if " " not in city]
THINGS = {
    "city": CITIES,
    "fruit": ["apples", "bananas", "grapes", "lemons", "oranges", "pears", "tomatoes"],
    "word": entities.WORDS,
    "room": [str(number) for number in range(10, 100)],
}
QUESTIONS = ("What is the {} of {}?", "Give the {} of {}.", "{} of {}?")


@dataclass(frozen=True)
class Table:
    """Whom each of some people is tied to and what each has, a line for each."""

    tie: str
    thing: str
    tied: dict[str, str]
    had: dict[str, str]

    def text(self, rng: Random) -> str:
        """The lines, in any order."""
        parts = ((self.tie, self.tied), (self.thing, self.had))
        lines = [line(name, *row) for name, rows in parts for row in rows.items()]
        return "\n".join(rng.sample(lines, len(lines)))


def line(what: str, whom: str, value: str) -> str:
    """One line of a table, which is also one thought."""
    return f"{what} of {whom}: {value}"


def random_table(rng: Random, size: int = 0) -> Table:
    """Two to five people; nobody is tied to themselves."""
    names = rng.sample(entities.FIRST_NAMES, size or rng.randint(2, 5))
    shuffled = rng.sample(names, len(names))
    tied = {name: shuffled[(shuffled.index(name) + 1) % len(names)] for name in names}
    thing = rng.choice(list(THINGS))
    had = dict(zip(rng.sample(names, len(names)), rng.sample(THINGS[thing], len(names)), strict=True))
    return Table(rng.choice(PEOPLE), thing, tied, had)


@dataclass(frozen=True)
class Walk:
    """A question about a table: from whom, over how many ties, and whether to a person or a thing."""

    table: Table
    start: str
    ties: int
    to_thing: bool

    @property
    def question(self) -> tuple[str, str]:
        """What is asked for, of whom."""
        person = self.start
        for _ in range(self.ties - (0 if self.to_thing else 1)):
            person = f"the {self.table.tie} of {person}"
        return (self.table.thing if self.to_thing else self.table.tie), person

    def steps(self, rng: Random, *, slips: bool) -> list[tuple[str, str, str]]:
        """(what, of whom, the value); with a slip, one line is read wrongly."""
        hops = self.ties + (1 if self.to_thing else 0)
        wrong = rng.randrange(hops) if slips else -1
        at, out = self.start, []
        for hop in range(hops):
            is_last = self.to_thing and hop == hops - 1
            rows = self.table.had if is_last else self.table.tied
            value = rows[at]
            if hop == wrong:
                value = rng.choice([other for other in rows.values() if other != value])
            out.append((self.table.thing if is_last else self.table.tie, at, value))
            at = value
        return out


def random_walk(rng: Random, *, ties: int = 0, size: int = 0) -> Walk:
    """One to three lines to read."""
    table = random_table(rng, size)
    start, to_thing = rng.choice(list(table.tied)), rng.random() < 0.7
    return Walk(table, start, ties or rng.choices((1, 2), (0.7, 0.3))[0], to_thing)


def prompt(rng: Random, walk: Walk) -> str:
    """The table, then the question."""
    asked = rng.choice(QUESTIONS).format(*walk.question)
    return f"{walk.table.text(rng)}\n{asked}"


def answered(rng: Random, walk: Walk, mix: Mix) -> Said:
    """The answer in a style of the mix."""
    style = mix.thinks(rng)
    steps = walk.steps(rng, slips=style == "slip")
    if style == "hasty":
        return Said(rng.choice(HASTY_THOUGHTS), steps[-1][2])
    return Said("\n".join(line(*step) for step in steps), steps[-1][2])


def lookups(rng: Random, mix: Mix) -> Conversation:
    """One question about one table; now and then a second one."""
    walk = random_walk(rng)
    turns: list[Asked | Said] = [Asked(prompt(rng, walk)), answered(rng, walk, mix)]
    if rng.random() < 0.15:
        walk = Walk(walk.table, rng.choice(list(walk.table.tied)), 1, rng.random() < 0.7)
        turns += [Asked(rng.choice(QUESTIONS).format(*walk.question)), answered(rng, walk, mix)]
    right = walk.steps(rng, slips=False)[-1][2]
    return Conversation(tuple(turns), right)
