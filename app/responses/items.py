"""Items of a response: what a request may hold, how they are kept, and the messages that they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from app.errors import BadRequest, Refusals
from app.ids import random_id
from methods.messages import RowInvalid, arguments_object

USERS = ("user", "system", "developer")
ROLES = (*USERS, "assistant")
KINDS = ("message", "function_call", "function_call_output", "reasoning")
"""Types of items that are understood."""
PREFIXES = {"message": "msg_", "function_call": "fc_", "function_call_output": "fco_", "reasoning": "rs_"}
INPUT_TEXT, OUTPUT_TEXT = "input_text", "output_text"
REASONING_TEXT, SUMMARY_TEXT = "reasoning_text", "summary_text"
TEXTS = {INPUT_TEXT: "text", OUTPUT_TEXT: "text", "text": "text", "refusal": "refusal"}
"""Types of content parts that are text, by the field that holds it."""
Item = dict[str, Any]


def kept_items(given: Any, refusals: Refusals, at: str = "input") -> list[Item]:
    """Returns the items of a request as they are kept, as far as they are right."""
    if isinstance(given, str):
        return [_user_message(given)]
    if not isinstance(given, list) or not given:
        kind = "missing_required_parameter" if given is None else "invalid_type"
        told = f"Missing required parameter: '{at}'." if given is None else ""
        told = told or f"Invalid type for '{at}': expected a string or an array of items that is not empty."
        refusals.all.append(BadRequest(told, param=at, code=kind))
        return []
    items = []
    for number, item in enumerate(given):
        with refusals:
            items.append(_kept(item, f"{at}[{number}]"))
    return items


def messages_of(items: Iterable[Mapping[str, Any]], instructions: str | None = None) -> list[dict[str, Any]]:
    """Returns the conversation that items are, in the form of chats."""
    talk = _Talk()
    if instructions:
        talk.messages.append({"role": "system", "content": instructions})
    for item in items:
        match item["type"]:
            case "message":
                talk.say(item["role"], _text(item["content"]))
            case "function_call":
                talk.call(item)
            case "function_call_output":
                told = {"role": "tool", "tool_call_id": item["call_id"], "content": _text(item["output"])}
                talk.messages.append(told)
            case "reasoning":
                talk.thoughts += _thoughts(item)
    return talk.messages


def check_calls(items: Iterable[Mapping[str, Any]]) -> None:
    """Raises `BadRequest` where a call has no output, or an output no call before it."""
    waiting: set[str] = set()
    called: set[str] = set()
    for item in items:
        if item["type"] == "function_call":
            if item["call_id"] in waiting:
                told = f"Two function calls have the call_id {item['call_id'][:80]}, and no output between."
                raise BadRequest(told, param="input", code="invalid_value")
            waiting.add(item["call_id"])
            called.add(item["call_id"])
        elif item["type"] == "function_call_output":
            if item["call_id"] not in called:
                told = f"No tool call found for function call output with call_id {item['call_id'][:80]}."
                raise BadRequest(told, param="input", code="invalid_value")
            waiting.discard(item["call_id"])
    if waiting:
        told = f"No tool output found for function call {', '.join(sorted(waiting))}."
        raise BadRequest(told, param="input", code="invalid_value")


class _Talk:
    """A conversation of chats that items are added to: what a model wrote in one turn is one message."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.thoughts = ""
        """Of the turn whose message or call comes next."""

    def say(self, role: str, text: str) -> None:
        """Adds a message."""
        self.messages.append({"role": role, "content": text})
        self._think()

    def call(self, item: Mapping[str, Any]) -> None:
        """Adds a call, to the message before it if that is the assistant's."""
        function = {"name": item["name"], "arguments": item["arguments"]}
        if not self.messages or self.messages[-1]["role"] != "assistant":
            self.messages.append({"role": "assistant", "content": None})
        made = self.messages[-1].setdefault("tool_calls", [])
        made.append({"id": item["call_id"], "type": "function", "function": function})
        self._think()

    def _think(self) -> None:
        if self.messages[-1]["role"] == "assistant" and self.thoughts:
            self.messages[-1]["reasoning_content"] = (
                self.messages[-1].get("reasoning_content", "") + self.thoughts
            )
        self.thoughts = ""


def output_message(item_id: str, status: str, content: Sequence[Mapping[str, Any]]) -> Item:
    """Returns a message of a model's."""
    return {
        "id": item_id,
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": list(content),
    }


def output_text(text: str, logprobs: Sequence[Mapping[str, Any]] = ()) -> Item:
    """Returns a part of a message that holds text."""
    return {"type": OUTPUT_TEXT, "text": text, "annotations": [], "logprobs": list(logprobs)}


def output_thoughts(item_id: str, status: str, text: str) -> Item:
    """Returns the thoughts of a model as they are told: as they are, and without a summary."""
    content = [{"type": REASONING_TEXT, "text": text}]
    return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


def output_call(item_id: str, status: str, call_id: str, name: str, arguments: str) -> Item:
    """Returns a model's call of a function."""
    call = {"call_id": call_id, "name": name, "arguments": arguments}
    return {"id": item_id, "type": "function_call", "status": status, **call}


def _user_message(text: str) -> Item:
    content = [{"type": INPUT_TEXT, "text": text}]
    return {
        "id": random_id("msg_"),
        "type": "message",
        "status": "completed",
        "role": "user",
        "content": content,
    }


def _kept(item: Any, at: str) -> Item:
    """Raises `BadRequest`."""
    if not isinstance(item, Mapping):
        raise BadRequest(f"Invalid type for '{at}': expected an object.", param=at, code="invalid_type")
    kind = item.get("type", "message" if "role" in item else None)
    if kind not in KINDS:
        known = ", ".join(f"'{one}'" for one in KINDS)
        message = f"Invalid value: {str(kind)[:80]!r} for '{at}.type'. Supported values are: {known}."
        raise BadRequest(message, param=f"{at}.type", code="invalid_value")
    item_id = item.get("id")
    base = {
        "id": item_id if isinstance(item_id, str) and item_id else random_id(PREFIXES[kind]),
        "type": kind,
        "status": "completed",
    }
    match kind:
        case "message":
            return {**base, **_message(item, at)}
        case "function_call":
            return {**base, **_call(item, at)}
        case "function_call_output":
            output = item.get("output")
            output = output if isinstance(output, str) else _parts(output, f"{at}.output", INPUT_TEXT)
            return {**base, "call_id": _string(item, "call_id", at), "output": output}
        case _:
            return {**base, **_reasoning(item, at)}


def _reasoning(item: Mapping[str, Any], at: str) -> Item:
    """Returns the texts of thoughts. What is encrypted, no model here has written."""
    kept: Item = {"summary": _thought_parts(item.get("summary"), f"{at}.summary", SUMMARY_TEXT)}
    if item.get("content"):
        kept["content"] = _thought_parts(item["content"], f"{at}.content", REASONING_TEXT)
    return kept


def _thought_parts(parts: Any, at: str, kind: str) -> list[Item]:
    if parts is not None and not isinstance(parts, list):
        raise BadRequest(f"Invalid type for '{at}': expected an array.", param=at, code="invalid_type")
    for number, part in enumerate(parts or ()):
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str):
            where = f"{at}[{number}]"
            message = f"Invalid value for '{where}': expected a part of type '{kind}' with a text."
            raise BadRequest(message, param=where, code="invalid_value")
    return [{"type": kind, "text": part["text"]} for part in parts or ()]


def _message(item: Mapping[str, Any], at: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in ROLES:
        known = ", ".join(f"'{one}'" for one in ROLES)
        message = f"Invalid value: {str(role)[:80]!r} for '{at}.role'. Supported values are: {known}."
        raise BadRequest(message, param=f"{at}.role", code="invalid_value")
    kind = INPUT_TEXT if role in USERS else OUTPUT_TEXT
    return {"role": role, "content": _parts(item.get("content"), f"{at}.content", kind)}


def _parts(content: Any, at: str, kind: str) -> list[Item]:
    """Returns content as parts of that kind."""
    if isinstance(content, str):
        content = [{"type": kind, "text": content}]
    if not isinstance(content, list) or not content:
        message = f"Invalid type for '{at}': expected a string or an array of parts that is not empty."
        raise BadRequest(message, param=at, code="invalid_type")
    return [_part(part, f"{at}[{number}]", kind) for number, part in enumerate(content)]


def _part(part: Any, at: str, kind: str) -> Item:
    known = part.get("type") if isinstance(part, Mapping) else None
    if known not in TEXTS:
        message = f"Invalid value for '{at}': models here read text only, so its type must be '{kind}'."
        raise BadRequest(message, param=at, code="invalid_value")
    text = _string(part, TEXTS[known], at)
    if kind == INPUT_TEXT:
        return {"type": INPUT_TEXT, "text": text}
    return {"type": "refusal", "refusal": text} if known == "refusal" else output_text(text)


def _string(item: Mapping[str, Any], name: str, at: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        is_missing = value is None
        told = f"Missing required parameter: '{at}.{name}'."
        told = told if is_missing else f"Invalid type for '{at}.{name}': expected a string."
        code = "missing_required_parameter" if is_missing else "invalid_type"
        raise BadRequest(told, param=f"{at}.{name}", code=code)
    return value


def _call(item: Mapping[str, Any], at: str) -> Item:
    call = {name: _string(item, name, at) for name in ("call_id", "name", "arguments")}
    try:
        arguments_object(call["arguments"] or "{}")
    except RowInvalid as problem:
        where = f"{at}.arguments"
        message = f"Invalid value for '{where}': it {problem}."
        raise BadRequest(message, param=where, code="invalid_value") from None
    return {**call, "arguments": call["arguments"] or "{}"}


def _thoughts(item: Mapping[str, Any]) -> str:
    parts = item.get("content") or item["summary"]
    return "".join(part["text"] for part in parts)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part[TEXTS[part["type"]]] for part in content)
