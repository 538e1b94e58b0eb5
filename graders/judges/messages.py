"""Renders the messages to a judge: templates in the form they came in, into the chat form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from graders.judges.spec import AudioItem, ImageItem, JudgedSpec, MessageSpec, TextItem
from graders.template import Template
from graders.types import Sample

Medium = Literal["text", "image", "audio"]


@dataclass(frozen=True)
class ContentTemplate:
    """Holds one item of a message. `attributes` go with an image or a recording as they are."""

    medium: Medium
    template: Template
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, item: str | TextItem | ImageItem | AudioItem) -> ContentTemplate:
        """Parses the templates of an item. Raises `GraderInvalid`."""
        match item:
            case str():
                return cls("text", Template.parse(item), {})
            case TextItem():
                return cls("text", Template.parse(item.text), {})
            case ImageItem():
                attributes = {"detail": item.detail} if item.detail else {}
                return cls("image", Template.parse(item.image_url), attributes)
            case AudioItem():
                audio = item.input_audio
                return cls("audio", Template.parse(audio.data), {"format": audio.format})

    def render(self, sample: Sample, item: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the item as a content part of the chat form. Raises `GradeFailed` as templates do."""
        text = self.template.render(sample, item).encode("utf-8", "replace").decode()
        match self.medium:
            case "text":
                return {"type": "text", "text": text}
            case "image":
                return {"type": "image_url", "image_url": {"url": text, **self.attributes}}
            case "audio":
                return {"type": "input_audio", "input_audio": {"data": text, **self.attributes}}


@dataclass(frozen=True)
class MessageTemplate:
    """Holds one message of one or several items."""

    role: str
    content: tuple[ContentTemplate, ...]

    @classmethod
    def of(cls, spec: MessageSpec) -> MessageTemplate:
        """Parses the templates of a message. Raises `GraderInvalid`."""
        # `developer` is OpenAI's later name for `system`, which every server takes.
        role = "system" if spec.role == "developer" else spec.role
        return cls(role, tuple(ContentTemplate.of(item) for item in spec.items))

    def render(self, sample: Sample, item: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the message in the chat form. Raises `GradeFailed` as templates do."""
        content = [each.render(sample, item) for each in self.content]
        only_text = len(content) == 1 and content[0]["type"] == "text"
        return {"role": self.role, "content": content[0]["text"] if only_text else content}


@dataclass(frozen=True)
class ConversationTemplate:
    """Holds all that a judge is sent.

    `reply_format` says how the judge shall reply. It is sent as a system message before the others, or at the
    end of the first one if that is a system message of text: chat templates want a single one, first.
    """

    messages: tuple[MessageTemplate, ...]
    reply_format: str

    @classmethod
    def of(cls, spec: JudgedSpec, reply_format: str) -> ConversationTemplate:
        """Parses the templates of a grader's `input`. Raises `GraderInvalid`."""
        return cls(tuple(MessageTemplate.of(message) for message in spec.input), reply_format)

    @property
    def media(self) -> frozenset[Medium]:
        """Returns what is in the messages beside text."""
        return frozenset(each.medium for message in self.messages for each in message.content) - {"text"}

    def render(self, sample: Sample, item: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
        """Returns the messages in the chat form. Raises `GradeFailed` as templates do."""
        first, *rest = (message.render(sample, item) for message in self.messages)
        if first["role"] == "system" and isinstance(first["content"], str):
            return [{**first, "content": f"{first['content']}\n\n{self.reply_format}"}, *rest]
        return [{"role": "system", "content": self.reply_format}, first, *rest]
