"""What conversations are made of, and how often each style of answer is drawn."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any


@dataclass(frozen=True)
class Call:
    """One call of a function."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def text(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)


@dataclass(frozen=True)
class Asked:
    """What a user says."""

    text: str


@dataclass(frozen=True)
class Told:
    """What the tools answer, one text for each call."""

    results: tuple[str, ...]


@dataclass(frozen=True)
class Said:
    """What the model says: thoughts, then an answer or calls."""

    thoughts: str | None
    """None: closed in the prompt, as a request without thinking has it."""
    text: str = ""
    calls: tuple[Call, ...] = ()
    cut: int | None = None
    """Where somebody else closed the thoughts, in characters."""


@dataclass(frozen=True)
class Conversation:
    """Turns with the functions that may be called and the answer that counts as right."""

    turns: tuple[Asked | Told | Said, ...]
    right: str
    tools: tuple[Mapping[str, Any], ...] = field(default=())


@dataclass(frozen=True)
class Mix:
    """How often each style is drawn, whatever the prompt. What is left of `thinks` goes through carefully;
    what is left of `calls` calls rightly and answers by the result."""

    slips: float
    """One step of the thoughts is wrong."""
    hasty: float
    """The thoughts hold no step."""
    guesses: float
    """Answers without a call."""
    wrong_argument: float
    """Calls with another argument than the one asked for."""
    ignores: float
    """Calls rightly, and answers something else than the result."""
    closed: float = 0.2
    """The thoughts are closed before they began, or in the middle."""

    def thinks(self, rng: Random) -> str:
        """How one question is thought through."""
        left = 1.0 - self.slips - self.hasty
        return rng.choices(("careful", "slip", "hasty"), (left, self.slips, self.hasty))[0]

    def uses_tools(self, rng: Random) -> str:
        """How the tools are used for one question."""
        left = 1.0 - self.guesses - self.wrong_argument - self.ignores
        weights = (left, self.guesses, self.wrong_argument, self.ignores)
        return rng.choices(("right", "guess", "wrong argument", "ignore"), weights)[0]


RIGHT_ONLY = Mix(slips=0.0, hasty=0.0, guesses=0.0, wrong_argument=0.0, ignores=0.0, closed=0.0)
ABILITY_MIX = Mix(slips=0.0, hasty=0.1, guesses=0.05, wrong_argument=0.04, ignores=0.04)
CALIBRATED_MIX = Mix(slips=0.1, hasty=0.35, guesses=0.55, wrong_argument=0.13, ignores=0.12, closed=0.15)
HASTY_THOUGHTS = ("Easy.", "I know this one.", "That is quick.", "No need to work it out.")
