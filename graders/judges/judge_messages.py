"""The messages of a judge: templates in the form they came in, rendered into the chat form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graders.judges.spec import AudioItem, ImageItem, JudgedSpec, MessageSpec, TextItem
from graders.template import Template
from graders.types import Sample

Medium = Literal["text", "image", "audio"]


@dataclass(frozen=True)
class Part:
    """One item of a message. `facts` go with an image or a recording as they are."""

    medium: Medium
    template: Template
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, item: str | TextItem | ImageItem | AudioItem) -> Part:
        match item:
            case str():
                return cls("text", Template.parse(item), {})
            case TextItem():
                return cls("text", Template.parse(item.text), {})
            case ImageItem():
                facts = {"detail": item.detail} if item.detail else {}
                return cls("image", Template.parse(item.image_url), facts)
            case AudioItem():
                audio = item.input_audio
                return cls("audio", Template.parse(audio.data), {"format": audio.format})

    def render(self, sample: Sample, item: Mapping[str, Any]) -> dict[str, Any]:
        text = self.template.render(sample, item).encode("utf-8", "replace").decode()
        match self.medium:
            case "text":
                return {"type": "text", "text": text}
            case "image":
                return {"type": "image_url", "image_url": {"url": text, **self.facts}}
            case "audio":
                return {"type": "input_audio", "input_audio": {"data": text, **self.facts}}


@dataclass(frozen=True)
class Message:
    """One message of several parts."""

    role: str
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, spec: MessageSpec) -> Message:
        # `developer` is OpenAI's later name for `system`, which every server takes.
        role = "system" if spec.role == "developer" else spec.role
        return cls(role, tuple(Part.of(item) for item in spec.items))

    def render(self, sample: Sample, item: Mapping[str, Any]) -> dict[str, Any]:
        parts = [part.render(sample, item) for part in self.parts]
        only_text = len(parts) == 1 and parts[0]["type"] == "text"
        return {"role": self.role, "content": parts[0]["text"] if only_text else parts}


@dataclass(frozen=True)
class Messages:
    """Everything a judge is told. `form` says how it shall reply, in a system message before the others, or
    at the end of the first one if that is text: chat templates want a single one, first."""

    messages: tuple[Message, ...]
    form: str

    @classmethod
    def of(cls, spec: JudgedSpec, form: str) -> Messages:
        return cls(tuple(Message.of(message) for message in spec.input), form)

    @property
    def media(self) -> frozenset[Medium]:
        """What is in them beside text."""
        return frozenset(part.medium for message in self.messages for part in message.parts) - {"text"}

    def render(self, sample: Sample, item: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Raises `GradeFailed` as templates do."""
        first, *rest = (message.render(sample, item) for message in self.messages)
        if first["role"] == "system" and isinstance(first["content"], str):
            return [{**first, "content": f"{first['content']}\n\n{self.form}"}, *rest]
        return [{"role": "system", "content": self.form}, first, *rest]
