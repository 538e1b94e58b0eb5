"""The Modelfile by which Ollama runs a GGUF file: chat template in Go's language, ends, plain sampling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from workers.exports.gguf.vocabulary import Vocabulary

NAME = "Modelfile"
ROLES = ("system", "user", "assistant")
MARKS = {role: f"xCherry{role.capitalize()}x" for role in ROLES}
AGAIN = "xCherryAgainx"
PLAIN = {"temperature": "1", "top_k": "0", "top_p": "1", "min_p": "0", "repeat_penalty": "1"}
"""Samples as training did; Ollama's own values cut and repeat less."""
GO_ACTION, QUOTES = "{{", '"""'
UNKNOWN = (
    "# The chat template could not be put into Ollama's language. Ollama takes one of its own if it\n"
    "# knows the template, else the prompt alone: compare before you trust it. llama.cpp reads the template\n"
    "# as it is.\n"
)


class Talk(NamedTuple):
    """Says what a chat template writes around messages.

    Attributes:
        before: what stands before the content of a message, by its role.
        behind: what stands behind it.
        begin: what stands before the first message.
        opening: what invites an answer.
        system: the system message of conversations that have none.
    """

    before: Mapping[str, str]
    behind: Mapping[str, str]
    begin: str
    opening: str
    system: str | None = None

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Returns a conversation as this writes it, with an invitation to answer."""
        if self.system is not None and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.system}, *messages]
        around = ((self.before[m["role"]], m["content"], self.behind[m["role"]]) for m in messages)
        return self.begin + "".join(map("".join, around)) + self.opening


def text_for(file: str, tokenizer: Any, vocabulary: Vocabulary, adapter_fault: str | None) -> str:
    """Returns the Modelfile of a model's file.

    `adapter_fault` is the reason where the file of a LoRA adapter could not be written.
    """
    lines = [f"# ollama create NAME -f {NAME}\n"]
    if adapter_fault is not None:
        lines.append(
            f"# There is no adapter.gguf: {adapter_fault} The model's file holds what it has learnt.\n"
        )
    lines.append(f"FROM ./{file}\n")
    lines.append(_template_lines(tokenizer, vocabulary))
    lines += [f"PARAMETER {name} {value}\n" for name, value in PLAIN.items()]
    lines += [f"PARAMETER stop {_quoted(vocabulary.tokens[token])}\n" for token in vocabulary.ends]
    return "".join(lines)


def _quoted(text: str) -> str:
    return f'"{text}"' if '"' not in text else f"{QUOTES}{text}{QUOTES}"


def _template_lines(tokenizer: Any, vocabulary: Vocabulary) -> str:
    talk = talk_of(tokenizer)
    if talk is None:
        return UNKNOWN
    begins_twice = vocabulary.adds_bos and talk.begin == tokenizer.bos_token
    text = in_go(talk if not begins_twice else talk._replace(begin=""))
    if any(GO_ACTION in each or QUOTES in each for each in _texts(talk)):
        return UNKNOWN
    system = "" if talk.system is None else f"SYSTEM {QUOTES}{talk.system}{QUOTES}\n"
    return f"TEMPLATE {QUOTES}{text}{QUOTES}\n{system}"


def in_go(talk: Talk) -> str:
    """Returns a template in Go's language, as Ollama reads it."""
    ways = "{{ else if ".join(
        f'eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{talk.behind[role]}'
        for role, before in talk.before.items()
    )
    return f"{talk.begin}{{{{ range .Messages }}}}{{{{ if {ways}{{{{ end }}}}{{{{ end }}}}{talk.opening}"


def _texts(talk: Talk) -> list[str]:
    return [*talk.before.values(), *talk.behind.values(), talk.begin, talk.opening, talk.system or ""]


def talk_of(tokenizer: Any) -> Talk | None:
    """Returns what a tokenizer's chat template writes around messages; None where it does more than that."""
    try:
        return _talk_of(tokenizer)
    except Exception:  # a template is a program and may refuse any conversation
        return None


def _talk_of(tokenizer: Any) -> Talk | None:
    def rendered(*roles: str, is_open: bool = False, last: str = "") -> str:
        messages = [{"role": role, "content": MARKS[role]} for role in roles]
        if last:
            messages.append({"role": last, "content": AGAIN})
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=is_open))

    system, user, assistant = ROLES
    behind = {
        user: rendered(system, user).split(MARKS[user])[1],
        assistant: rendered(system, user, assistant).split(MARKS[assistant])[1],
    }
    whole = rendered(*ROLES, last=user)
    head, rest = whole.split(MARKS[system])
    between, rest = rest.split(MARKS[user])
    to_answer, rest = rest.split(MARKS[assistant])
    to_user = rest.split(AGAIN)[0]
    before = {
        user: to_user.removeprefix(behind[assistant]),
        assistant: to_answer.removeprefix(behind[user]),
    }
    behind[system] = between.removesuffix(before[user])
    opening = rendered(system, user, is_open=True).removeprefix(rendered(system, user))
    begin = _begin(rendered(user), before[user], tokenizer.bos_token)
    before[system] = head.removeprefix(begin)
    ordered = {role: before[role] for role in ROLES}
    talk = Talk(ordered, behind, begin, opening)
    return _held_to(tokenizer, talk._replace(system=_own_system(rendered(user), talk)))


def _begin(first: str, before_user: str, bos: str | None) -> str:
    """Returns what stands before the first message: nothing, bos, or all but what stands before a user's."""
    head = first.split(MARKS["user"])[0]
    if bos and head.startswith(bos) and not before_user.startswith(bos):
        return bos
    return head.removesuffix(before_user) if head.endswith(before_user) and bos is None else ""


def _own_system(first: str, talk: Talk) -> str | None:
    """Returns the system message that the template writes where a conversation has none."""
    head = first.split(MARKS["user"])[0].removeprefix(talk.begin).removesuffix(talk.before["user"])
    if not head:
        return None
    return head.removeprefix(talk.before["system"]).removesuffix(talk.behind["system"])


def _held_to(tokenizer: Any, talk: Talk) -> Talk | None:
    """Returns the talk if it renders what the template does."""
    for roles in (
        ("user",),
        ("system", "user"),
        ("user", "assistant", "user"),
        (*ROLES, "user", "assistant", "user"),
    ):
        messages = [{"role": role, "content": f"{role} {i} says\nthis."} for i, role in enumerate(roles)]
        if talk.render(messages) != tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        ):
            return None
    return talk
