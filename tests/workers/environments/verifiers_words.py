"""An environment for the package `verifiers`, as its authors write them; one kind for each way to go."""

from __future__ import annotations

from typing import Any

try:
    import verifiers.legacy as vf
except ImportError:
    import verifiers as vf
from datasets import Dataset

SAID = "Not {}, {} left."


class Words(vf.MultiTurnEnv):
    """Wants a word within so many turns."""

    def __init__(self, kind: str, **options: Any) -> None:
        super().__init__(**options)
        self.kind = kind

    async def setup_state(self, state: Any, **_: Any) -> None:
        state["left"] = 3
        if self.kind == "opens":
            state["prompt"] = [*state["prompt"], vf.UserMessage(role="user", content="It is a colour.")]

    async def env_response(self, messages: Any, state: Any, **_: Any) -> Any:
        state["left"] -= 1
        if self.kind == "fails":
            raise vf.ToolError("no such place")
        return [{"role": "user", "content": SAID.format(messages[-1].content, state["left"])}]

    async def get_prompt_messages(self, state: Any) -> Any:
        found = await super().get_prompt_messages(state)
        return found[1:] if self.kind == "rewrites" and state["trajectory"] else found

    @vf.stop
    async def is_right(self, state: Any, **_: Any) -> bool:
        turns = state["trajectory"]
        return bool(turns) and state["answer"] in turns[-1]["completion"][-1].content


def correct(completion: Any, answer: str, **_: Any) -> float:
    if completion[-1].content == "judge":
        raise ConnectionError("the judge is away")
    return 1.0 if answer in completion[-1].content else 0.25


def a_metric(**_: Any) -> float:
    raise LookupError("a metric may fail")


def best(completions: Any, **_: Any) -> list[float]:
    return [1.0 for _ in completions]


def look_up(key: str) -> str:
    """Tells the number of a letter.

    Args:
        key: the letter.
    """
    return str(ord(key))


def load_environment(kind: str) -> Any:
    words = [
        {"question": "Which word?", "answer": w, "info": {"n": n}} for n, w in enumerate(("red", "blue"))
    ]
    rubric = vf.Rubric(funcs=[best if kind == "groups" else correct])
    rubric.add_metric(a_metric)
    given: dict[str, Any] = {"dataset": Dataset.from_list(words), "rubric": rubric, "system_prompt": "Guess."}
    if kind == "single":
        return vf.SingleTurnEnv(**given)
    if kind == "tools":
        return vf.ToolEnv(tools=[look_up], **given)
    return Words(kind, **given)
