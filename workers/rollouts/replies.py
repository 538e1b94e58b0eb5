"""Reads what a vLLM server replied strictly: what is no completion of the weights asked for is not used."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from workers.rollouts.errors import ServerAway

LEAST_LOGPROB = -9000.0
"""vLLM writes -9999 for what is not finite."""
MOST_LOGPROB = 1e-3
"""How far rounding may lift a log-probability above 0."""


ORIGINAL = "default"
"""The version that vLLM gives to weights as it has started with them."""


class By(NamedTuple):
    """Names the weights that shall write a completion, in Cherry's words and in the server's.

    Attributes:
        name: names them for whoever reads a completion.
        model: the base model or adapter that is asked for.
        version: the version of the base's weights.
    """

    name: str
    model: str
    version: str = ORIGINAL


class Written(NamedTuple):
    """Holds the (T,) token ids of a completion, their logprobs in nats, and whether it was ended."""

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    is_ended: bool
    """It ended by itself, at an end token or a stop string; else it was cut."""


def read_reply(reply: Mapping[str, Any], by: By, vocabulary: int, most: int) -> Written:
    """Returns the completion of a reply.

    Args:
        reply: the JSON of `POST /inference/v1/generate`.
        by: the weights that were asked for.
        vocabulary: token ids are below this.
        most: tokens that were asked for.

    Raises `ServerAway` for everything that is not one whole completion by those weights.
    """
    if reply.get("model") not in (None, by.model):
        raise _unfit(f"it names the weights '{reply['model']}' where '{by.model}' were asked for")
    choices = reply.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise _unfit("it has not one choice")
    (choice,) = choices
    tokens = _tokens(choice.get("token_ids"), vocabulary, most)
    check_versions(choice.get("weight_versions"), by)
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        raise _unfit(f"it was broken off ({reason})")
    if reason == "length" and len(tokens) < most:
        raise _unfit(f"it was cut at {len(tokens)} tokens of {most}")
    return Written(tokens, _logprobs(choice.get("logprobs"), tokens), reason == "stop")


def check_versions(spans: Any, by: By) -> None:
    """Raises `ServerAway` unless all tokens are by the version that was asked for.

    A server that tells of no versions is believed where it has only its own weights.
    """
    versions = {str(span.get("version")) for span in spans or () if isinstance(span, dict)}
    if not versions and by.version == ORIGINAL:
        return
    if versions != {by.version}:
        found = " and ".join(sorted(versions)) or "no version"
        raise _unfit(f"its base's weights were {found} where {by.version} was asked for")


def _tokens(found: Any, vocabulary: int, most: int) -> tuple[int, ...]:
    if not isinstance(found, list) or not 1 <= len(found) <= most:
        length = len(found) if isinstance(found, list) else "no"
        raise _unfit(f"it has {length} token ids, and 1 to {most} were asked for")
    for token in found:
        if type(token) is not int or not 0 <= token < vocabulary:
            raise _unfit(f"it has the token id {token!r}, and the model's are below {vocabulary}")
    return tuple(found)


def _logprobs(found: Any, tokens: tuple[int, ...]) -> tuple[float, ...]:
    content = found.get("content") if isinstance(found, dict) else None
    if not isinstance(content, list) or len(content) != len(tokens):
        length = len(content) if isinstance(content, list) else "no"
        raise _unfit(f"it has {length} log-probabilities for {len(tokens)} tokens")
    values = []
    for token, one in zip(tokens, content, strict=True):
        value = one.get("logprob") if isinstance(one, dict) else None
        if not isinstance(value, int | float) or not LEAST_LOGPROB < value <= MOST_LOGPROB:
            raise _unfit(f"it has {value!r} for a log-probability")
        if one.get("token_id", token) != token:
            raise _unfit("its log-probabilities are of other tokens")
        values.append(min(float(value), 0.0))
    return tuple(values) if all(map(math.isfinite, values)) else ()


def _unfit(why: str) -> ServerAway:
    return ServerAway(f"a reply of it cannot be used: {why}")
