"""The training stream: which families, how often, in which phase, and with which thoughts closed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from scripts.nano import tasks
from scripts.nano_think.arithmetic import arithmetic
from scripts.nano_think.lookups import lookups
from scripts.nano_think.tools import tools
from scripts.nano_think.turns import ABILITY_MIX, CALIBRATED_MIX, Asked, Conversation, Mix, Said

_GREETING = "Hello! I am cherry-nano-think. Give me a sum, a table or a tool."
_NAME = "I am cherry-nano-think, a very small language model that thinks."
_ABILITIES = "I do sums, read short tables and call functions."
SMALL_TALK = (
    *((hello, _GREETING) for hello in ("Hi", "Hello", "Hello!")),
    *((who, _NAME) for who in ("Who are you?", "What are you?")),
    *((what, _ABILITIES) for what in ("What can you do?", "Help")),
    *((thanks, "You are welcome.") for thanks in ("Thanks", "Thank you!")),
    ("Bye", "Goodbye!"),
)


@dataclass(frozen=True)
class Phase:
    """One stretch of training: token count, weights of the families, styles of the answers."""

    name: str
    tokens: int
    weights: Mapping[str, float]
    mix: Mix


_COPY_WEIGHTS = {"arithmetic": 0.15, "lookups": 0.25, "tools": 0.15, "copying": 0.44, "small_talk": 0.01}
_MAIN_WEIGHTS = {"arithmetic": 0.50, "lookups": 0.28, "tools": 0.19, "copying": 0.02, "small_talk": 0.01}
_STYLES_WEIGHTS = {**_MAIN_WEIGHTS, "arithmetic": 0.40, "lookups": 0.38}

PHASES = (
    Phase("copy", 1_228_800, _COPY_WEIGHTS, ABILITY_MIX),
    Phase("main", 3_072_000, _MAIN_WEIGHTS, ABILITY_MIX),
    Phase("styles", 3_379_200, _STYLES_WEIGHTS, CALIBRATED_MIX),
)


def copying(rng: Random, mix: Mix) -> Conversation:  # noqa: ARG001
    """cherry-nano's copying tasks, without thoughts."""
    turns: list[Asked | Said] = []
    for turn in tasks.copying(rng):
        turns += [Asked(turn.prompt), Said("", turn.answer)]
    return Conversation(tuple(turns), turn.right)


def small_talk(rng: Random, mix: Mix) -> Conversation:  # noqa: ARG001
    """A greeting and the like."""
    asked, answer = rng.choice(SMALL_TALK)
    return Conversation((Asked(asked), Said("", answer)), answer)


FAMILIES: Mapping[str, Callable[[Random, Mix], Conversation]] = {
    "arithmetic": arithmetic,
    "lookups": lookups,
    "tools": tools,
    "copying": copying,
    "small_talk": small_talk,
}


def closed(rng: Random, made: Conversation) -> Conversation:
    """The same conversation with the model's thoughts closed by somebody else: before they began in every
    turn, or somewhere in the middle in the last."""
    if rng.random() < 0.7:
        turns = (replace(turn, thoughts=None) if isinstance(turn, Said) else turn for turn in made.turns)
        return replace(made, turns=tuple(turns))
    last = made.turns[-1]
    assert isinstance(last, Said)
    cut = rng.randint(0, len(last.thoughts or ""))
    return replace(made, turns=(*made.turns[:-1], replace(last, cut=cut)))


def conversations(rng: Random, phase: Phase) -> Iterator[Conversation]:
    """The endless stream of a phase."""
    families, weights = list(phase.weights), list(phase.weights.values())
    without = replace(phase.mix, slips=0.0, hasty=0.0)
    while True:
        make = FAMILIES[rng.choices(families, weights)[0]]
        if rng.random() < phase.mix.closed:
            yield closed(rng, make(rng, without))
        else:
            yield make(rng, phase.mix)
