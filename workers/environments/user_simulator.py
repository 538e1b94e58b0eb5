"""A user whom a judge model plays: the environment replies with the user's next message.

The model is shown the conversation from the other side: what the policy wrote is said to it, what the user
said is its own. It sees neither the policy's thoughts and calls, nor what tools answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from graders.judges.reply import without_thoughts
from graders.services import Judge, Question, Target
from graders.template import Template
from graders.types import FailureKind, GradeFailed, Sample, Usage
from methods.messages import text_of
from workers.environments.tool import readable, whole_text
from workers.environments.tools import ToolEnvironment, ToolEpisode
from workers.training.base.parts import Parts
from workers.training.episodes.environment import EpisodeLost, Reply

Role = Literal["user", "assistant"]
FROM_THE_OTHER_SIDE: Mapping[str, Role] = {"user": "assistant", "assistant": "user"}
"""Roles of messages as the one who plays the user sees them; others it does not see."""
OPENING = "Hello, how can I help you?"
"""What is said to the model where the user speaks first: many chat templates want such a beginning."""
NOTHING = "(The assistant wrote nothing.)"
"""What is said to the model in the place of an empty answer, which servers refuse."""


def rules(stop: str) -> str:
    """Returns what every model that plays a user is told behind the job's own instructions."""
    return (
        "You play the user in a conversation with an assistant. Reply with the user's next message and"
        " nothing else, in the user's own words. Once the user has nothing more to say, reply with"
        f" {stop} and nothing else."
    )


@dataclass(frozen=True)
class UserSimulator:
    """Begins episodes with a simulated user. Turns that call tools are answered by those.

    Attributes:
        instructions: what the model is told of the user, of each row.
        stop: the text in a reply by which the user ends the conversation.
        tools: answers calls; of a job without tools it has none.
    """

    target: Target
    instructions: Template
    sampling: Mapping[str, Any]
    stop: str
    judge: Judge
    tools: ToolEnvironment

    def start(self, item: Mapping[str, Any], trace_id: str) -> SimulatedEpisode:
        try:
            told = whole_text(self.instructions.render(Sample(""), item))
        except GradeFailed as failed:
            raise _lost(f"The user simulator cannot play: {failed.failure.message}") from None
        talk = Talk(f"{told}\n\n{rules(self.stop)}")
        for message in item["messages"]:
            if role := FROM_THE_OTHER_SIDE.get(message["role"]):
                talk.add(role, text_of(message.get("content")))
        return SimulatedEpisode(self, talk, self.tools.start(item, trace_id))

    def ask(self, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """Returns the user's next message, or that the conversation is over. Raises `EpisodeLost`."""
        try:
            reply = self.judge.ask(Question(self.target, messages, "user", None, self.sampling))
        except GradeFailed as failed:
            message = f"The user simulator failed. {failed.failure.message}"
            raise _lost(message, failed.usage, failed.failure.lost) from None
        usage = {self.target.model: reply.usage}
        text = readable(without_thoughts(reply.text))
        if not text or self.stop in text:
            return Reply(usage=usage)
        return Reply(messages=[{"role": "user", "content": text}], usage=usage)


class SimulatedEpisode:
    """Is one episode. The user speaks after each turn that calls nothing, and ends it."""

    def __init__(self, simulator: UserSimulator, talk: Talk, tools: ToolEpisode) -> None:
        self._simulator = simulator
        self._talk = talk
        self._tools = tools

    def reply(self, parts: Parts) -> Reply:
        """Makes the turn's calls, or else asks the user. Calls in a job without tools end the episode."""
        if parts.calls:
            self._talk.add("user", parts.answer)
            return self._tools.reply(parts) if self._simulator.tools.names else Reply()
        self._talk.add("user", parts.answer if parts.answer.strip() else NOTHING)
        reply = self._simulator.ask(self._talk.messages)
        for message in reply.messages:
            self._talk.add("assistant", message["content"])
        return reply


@dataclass
class Talk:
    """Holds a conversation as the model sees it that plays the user: roles take turns, it is spoken to last.

    Attributes:
        system: what it is told before.
        said: what was said, by role.
    """

    system: str
    said: list[tuple[Role, str]] = field(default_factory=list)

    def add(self, role: Role, text: str) -> None:
        """Adds what was said, to what the same one has said before; nothing where it is empty."""
        text = whole_text(text).strip()
        if not text:
            return
        if self.said and self.said[-1][0] == role:
            text = f"{self.said.pop()[1]}\n\n{text}"
        self.said.append((role, text))

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Returns the messages in the chat form."""
        opening: list[tuple[Role, str]] = [("user", OPENING)]
        said = self.said if self.said and self.said[0][0] == "user" else opening + self.said
        return [
            {"role": "system", "content": self.system},
            *({"role": role, "content": text} for role, text in said),
        ]


def _lost(message: str, usage: Usage | None = None, waited_for: str = "") -> EpisodeLost:
    return EpisodeLost(message, usage, FailureKind.USER_SIMULATOR, waited_for=waited_for)
