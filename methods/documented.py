"""The rows of the tables of hyperparameters in the docs, written from their declarations.

`python -m methods.documented` prints the table of docs/extensions.md, which a test holds to it.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, MaxLen
from pydantic_core import PydanticUndefined

from methods.algorithms import RECIPES
from methods.hyperparameters import Declared, Hyperparameter, first_sentence, settable
from methods.train_config import TrainConfig

HEAD = "| name | values and meaning | when left out |\n|---|---|---|"


def table() -> str:
    """Returns Cherry's own hyperparameters of a reinforcement job as a Markdown table."""
    ours = [one for one in settable(TrainConfig, "reinforcement") if not one.mark.is_openais]
    return "\n".join([HEAD, *map(_row, ours)])


def _row(one: Declared) -> str:
    meaning = first_sentence(one.info).removesuffix(".")
    of = f" (`{'`, `'.join(one.mark.algorithms)}` alone)" if one.mark.algorithms else ""
    return f"| `{one.name}` | {values(one)}: {meaning[:1].lower()}{meaning[1:]}{of} | {left_out(one)} |"


def values(one: Declared) -> str:
    """Returns what a request may give, in words: "2 to 256", "`lora`, `full`"."""
    kind = one.mark.wire or one.info.annotation
    bounds = [part for part in one.info.metadata if not isinstance(part, Hyperparameter)]
    if get_args(kind)[1:] == (Literal["auto"],):
        kind, bounds = _without_auto(kind)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if kind is bool:
        return "true or false"
    if get_origin(kind) is dict:
        return "an object"
    if get_origin(kind) is list and get_origin(get_args(kind)[0]) is Literal:
        return "a list of " + ", ".join(f"`{choice}`" for choice in get_args(get_args(kind)[0]))
    if get_origin(kind) is list:
        return f"up to {_most(bounds)} texts of at most {_most(_inner_bounds(kind))} characters"
    low = next(part for part in bounds if isinstance(part, Ge | Gt))
    high = next((part.le for part in bounds if isinstance(part, Le)), None)
    least = f"{low.ge:,}" if isinstance(low, Ge) else f"above {low.gt:,}"
    if high is None:
        return least if isinstance(low, Gt) else f"{least} or more"
    return f"{least}{',' if isinstance(low, Gt) else ''} to {high:,}"


def _without_auto(kind: Any) -> tuple[Any, list[Any]]:
    """Returns the first kind of two, of which the other is "auto", and its bounds."""
    first = get_args(kind)[0]
    fields = getattr(first, "__metadata__", ())
    return (first.__origin__ if fields else first), [part for field in fields for part in field.metadata]


def left_out(one: Declared) -> str:
    """Returns what happens where a request gives none; a star where an algorithm has a value of its own."""
    default = one.info.default
    star = " \\*" if any(one.field in recipe.defaults for recipe in RECIPES.values()) else ""
    if one.mark.left_out:
        return one.mark.left_out + star
    assert default is not PydanticUndefined, f"{one.name} has neither a default nor words for its rule"
    return _in_words(default) + star


def _in_words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


def _inner_bounds(kind: Any) -> list[Any]:
    (text,) = get_args(kind)
    (field,) = text.__metadata__
    return list(field.metadata)


def _most(bounds: list[Any]) -> int:
    return next(part.max_length for part in bounds if isinstance(part, MaxLen))


if __name__ == "__main__":
    print(table())
