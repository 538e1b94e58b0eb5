"""The data sets of the grid, good and deliberately bad, and the tasks that they are made of.

A task has a *worth*, from 0 to 1: what an answer truly earns. A data set lets the job see that worth through
a fault, such as flipped labels or a coin. Jobs are judged by the worth; where the user meant something else
than what the grader pays for, that is the *meant* reward, shown beside it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from benchmarks.stability import prompts
from benchmarks.stability.prompts import Draw, Item

ModelName = Literal["nano", "stories", "smollm2"]
Worth = Callable[[str, Item], float]
Luck = random.Random
Seen = Callable[[float, Item, Luck], float | None]
"""(what is paid for, row, luck of this grade) -> the grade that the job sees; None where the grader fails."""
Spoil = Callable[[Sequence[Item], random.Random], list[Item]]

TRAIN_ROWS, VALID_ROWS, TEST_ROWS = 40, 20, 48
"""40 rows are the fewest of which a job without a validation file holds some out; 48 test rows x 8 samples
show a loss of 0.1 at the level that Holm's correction leaves of 5 % for 300 runs."""
FLIPPED, BROKEN, NOISE, JITTER = 0.2, 0.1, 0.3, 1e-5
ENDS = (".", "!", "?")
"""Tokens that end a story's sentence. As with every end token, an answer's text does not have it."""
SHORT = 30
"""Characters of a short sentence: an answer of 16 tokens, which is cut, seldom has so few."""


def exact(text: str, item: Item) -> float:
    """The answer is the reference."""
    return float(text.strip() == item["reference"])


def last_number(text: str, item: Item) -> float:
    """The last number of the first line is the reference: the model likes to write the whole sum."""
    return float(re.findall(r"\d+", text.strip().partition("\n")[0])[-1:] == [item["reference"]])


def named(text: str, item: Item) -> float:
    """The sentence names whom the story is about."""
    return float(item["name"] in text)


def early_letters(text: str, _: Item) -> float:
    """Share of letters a to m, of at least 20 characters."""
    return sum(c in "abcdefghijklm" for c in text.lower()) / max(len(text), 20)


def short(text: str, _: Item) -> float:
    """The sentence is short, so that it comes to its end."""
    return float(0 < len(text) <= SHORT)


def word(wanted: str) -> Worth:
    """The text has the word."""
    return lambda text, _: float(wanted in text.lower())


def long(text: str, _: Item) -> float:
    """The longer the better, up to 120 characters."""
    return min(1.0, len(text) / 120)


def sentence(text: str, _: Item) -> float:
    """What is meant by a longer text: one sentence of 40 to 110 characters, no word of it three times."""
    words = text.lower().split()
    repeats = max((words.count(each) for each in words), default=0)
    return float(40 <= len(text) <= 110 and repeats < 3)


def often(text: str, _: Item) -> float:
    """Three times "play"."""
    return min(1.0, text.lower().count("play") / 3)


def once(text: str, _: Item) -> float:
    """What is meant by a text about play: the word is there, once."""
    return float(text.lower().count("play") == 1)


def either(text: str, item: Item) -> float:
    """Half of the rows ask for one answer, half for another."""
    return (exact(text, item) + float(text.strip() == item["other"])) / 2


def nothing(_: str, __: Item) -> float:
    """No answer earns more than another."""
    return 0.5


class Task(NamedTuple):
    """What is asked, of which model, and what an answer is worth."""

    model: ModelName
    draw: Draw
    worth: Worth
    max_tokens: int
    batch_size: int = 8
    """Prompts in a step; fewer for the built-in model, whose steps cost more."""


COUNT = Task("nano", prompts.counting, exact, 8, 4)
NAME = Task("stories", prompts.story, named, 32)
LETTERS = Task("stories", prompts.story, early_letters, 32)
PLAY = Task("stories", prompts.story, word("play"), 32)
CLEAN_TASKS = {"count": COUNT, "name": NAME, "letters": LETTERS, "play": PLAY}


def _as_it_is(worth: float, _: Item, __: Luck) -> float:
    return worth


def _not_spoilt(items: Sequence[Item], _: random.Random) -> list[Item]:
    return list(items)


@dataclass(frozen=True)
class DataSet:
    """One data set of the grid.

    Attributes:
        tasks: the seeds take them in turns, and `seen` with them.
        seen: what the job sees of a worth, one for each task.
        spoil: what becomes of the training and validation rows.
        paid: what the grader pays for before a fault comes in, where it is not the worth.
        meant: what the user wants, where it is not the worth.
        train_rows: rows of the training file, before they are spoilt.
        is_clean: the rows are right and the grader says what it should: no guard has a reason to act.
    """

    name: str
    title: str
    tasks: tuple[Task, ...]
    seen: tuple[Seen, ...] = (_as_it_is,)
    spoil: Spoil = _not_spoilt
    paid: Worth | None = None
    meant: tuple[Worth, ...] = ()
    train_rows: int = TRAIN_ROWS
    is_clean: bool = False

    def task(self, seed: int) -> Task:
        """The task of a seed."""
        return self.tasks[seed % len(self.tasks)]

    def seen_by(self, seed: int) -> Seen:
        """What the job of a seed sees."""
        return self.seen[seed % len(self.seen)]

    def meant_by(self, seed: int) -> Worth:
        """What the user of a seed meant."""
        return self.meant[seed % len(self.meant)] if self.meant else self.task(seed).worth


def _flip(items: Sequence[Item], rng: random.Random) -> list[Item]:
    flipped = set(rng.sample(range(len(items)), round(FLIPPED * len(items))))
    return [{**item, "flipped": i in flipped} for i, item in enumerate(items)]


def _contradict(items: Sequence[Item], _: random.Random) -> list[Item]:
    """Every prompt stands twice, with another reference each time."""
    pairs = [(item, {**item, "reference": item["other"], "other": item["reference"]}) for item in items]
    return [row for pair in pairs for row in pair]


def _counting_with_another(rng: random.Random) -> Item:
    item = prompts.counting(rng)
    return {**item, "other": str(int(item["reference"]) + 1)}


def _flipped(worth: float, item: Item, _: Luck) -> float:
    return 1 - worth if item["flipped"] else worth


def _constant(_: float, __: Item, ___: Luck) -> float:
    return 0.5


def _jitter(_: float, __: Item, luck: Luck) -> float:
    return 0.5 + JITTER * luck.random()


def coin(_: float, __: Item, luck: Luck) -> float:
    """Pays by a coin."""
    return float(luck.random() < 0.5)


def _dice(_: float, __: Item, luck: Luck) -> float:
    return luck.random()


def noisy(worth: float, _: Item, luck: Luck) -> float:
    """Pays with a normal error."""
    return worth + luck.gauss(0, NOISE)


def _broken(worth: float, _: Item, luck: Luck) -> float | None:
    return None if luck.random() < BROKEN else worth


def scaled(factor: float) -> Seen:
    """Pays in another unit."""
    return lambda worth, _, __: factor * worth


def _valued(task: Task, worth: Worth) -> Task:
    return task._replace(worth=worth)


GRID = (
    DataSet("clean", "clean, verifiable", (COUNT, NAME), is_clean=True),
    DataSet("solved", "all solved", (Task("nano", prompts.repeating, exact, 8, 4),), is_clean=True),
    DataSet(
        "impossible",
        "all impossible",
        (Task("nano", prompts.sorting, exact, 16, 4), _valued(NAME, word("photosynthesis"))),
    ),
    DataSet("rare", "1 % success", (_valued(NAME, word("dog")),)),
    DataSet("flipped", "20 % flipped labels", (COUNT, NAME), (_flipped,), _flip),
    DataSet(
        "constant",
        "constant; constant + 1e-5",
        (_valued(NAME, nothing),),
        (_constant, _jitter),
        meant=(named,),
    ),
    DataSet("random", "random: coin; uniform", (_valued(NAME, nothing),), (coin, _dice), meant=(named,)),
    DataSet(
        "hackable",
        "hackable: length; keyword",
        (_valued(NAME, long), _valued(NAME, often)),
        meant=(sentence, once),
    ),
    DataSet("noisy", "continuous, noise 0.3", (LETTERS,), (noisy,)),
    DataSet("scale", "scale 1e-6; 1e6", (LETTERS, NAME), (scaled(1e-6), scaled(1e6)), is_clean=True),
    DataSet("errors", "10 % grader errors", (NAME,), (_broken,)),
    DataSet("single", "one single example", (COUNT, NAME), train_rows=1),
    DataSet(
        "contradictory",
        "contradictory duplicates",
        (Task("nano", _counting_with_another, either, 8, 4),),
        spoil=_contradict,
        paid=exact,
        train_rows=TRAIN_ROWS // 2,
    ),
    DataSet("cap", "outputs that hit the cap", (Task("stories", prompts.story, short, 16),)),
    DataSet("garbage", "garbage and unicode prompts", (Task("nano", prompts.garbage, early_letters, 12, 4),)),
    DataSet("five", "five prompts", (NAME, LETTERS), train_rows=5, is_clean=True),
)
BY_NAME = {each.name: each for each in GRID}
